// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>

#include "agent.h"
#include "audit.h"
#include "config.h"
#include "hints.h"
#include "host/watchdog.h"
#include "http/http.h"
#include "journal/etcd_log.h"
#include "liveness.h"
#include "media.h"
#include "membership.h"
#include "networks.h"
#include "peers.h"
#include "replica/replica.h"
#include "schedules.h"
#include "vms.h"

namespace scaled {

/// What this node does as a member of a cluster. Made when it is one, for the daemon's whole run.
class Member {
 public:
  Member(const Paths& paths, Config config, host::Watchdog& watchdog);
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  /// Makes it all run. `handler` serves the API to other nodes.
  Result<void> start(http::Handler handler);

  const Paths& paths() const { return paths_; }
  const Config& config() const { return config_; }
  replica::Replica& replica() { return *replica_; }
  Agent& agent() { return *agent_; }
  /// Whether this node's time is over, so that others may go on without it.
  bool expired() const { return liveness_->expired(); }
  Peers& peers() { return peers_; }
  Networks& networks() { return *networks_; }
  /// Nothing before it runs: other nodes' calls are served earlier.
  Vms* vms();
  Media* media();
  Audit& audit() { return *audit_; }
  /// This node leads no more. Waits until that is so, for a while.
  void resign();
  const host::Watchdog& watchdog() const { return watchdog_; }
  /// Why the metadata stopped, where it did: the daemon must end and start anew.
  std::optional<Error> failure() const;

 private:
  Result<std::unique_ptr<journal::Log>> open_log();
  void give_up(const Error& why, const std::vector<core::NodeId>& from);
  uint64_t most_advanced();
  void listen();

  const Paths paths_;
  const Config config_;
  host::Watchdog& watchdog_;
  Peers peers_;
  Hints hints_;
  std::unique_ptr<replica::Replica> replica_;
  std::unique_ptr<Networks> networks_;
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<Audit> audit_;
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
  std::mutex giving_up_;
  std::unique_ptr<Liveness> liveness_;
  std::unique_ptr<Membership> membership_;
  std::unique_ptr<Schedules> schedules_;
  std::unique_ptr<Vms> vms_;
  std::mutex poking_;
  Vms* poked_ = nullptr;  // from when there is one, under poking_
  std::unique_ptr<Media> media_;
  Media* asked_ = nullptr;                // the same
  journal::EtcdLog* etcd_log_ = nullptr;  // the replica's, where there is one
  std::unique_ptr<http::Server> server_;
  std::jthread metadata_;
};

/// Where this node was removed from its cluster: it is a node of none from here on. Whether that
/// was so; the daemon must be started anew then.
bool put_aside_where_removed(const Paths& paths);

/// The daemon: no member at first, perhaps; then one.
class Daemon {
 public:
  Daemon(Paths paths, host::Watchdog& watchdog) : paths_(std::move(paths)), watchdog_(watchdog) {}

  /// Goes on as a member where this node is one, and serves requests.
  Result<void> start();
  /// Before this run ends on purpose: another node leads from now on. With `for_long`, for a
  /// machine that is being shut down, what this node's users wrote is flushed before that and its
  /// leases are given back, so that others go on at once and nothing has to be copied for it.
  /// Blocks as long as file systems and disks do; what it is about may end at any moment all the
  /// same.
  void leave(bool for_long);
  /// Ends where the metadata cannot go on, else never.
  std::optional<Error> failure() const;

  /// Founds a cluster with this node as its first.
  Result<void> create(const boost::json::object& request);
  /// Makes this node one of a cluster, with a token of it.
  Result<void> join(const boost::json::object& request);

  /// Nothing before this node is in a cluster.
  Member* member();
  const Paths& paths() const { return paths_; }

 private:
  Result<void> become(Config config);
  static void retire(Agent& agent);

  const Paths paths_;
  host::Watchdog& watchdog_;
  mutable std::shared_mutex mutex_;
  std::mutex changing_;  // one create or join at a time
  std::unique_ptr<Member> member_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace scaled
