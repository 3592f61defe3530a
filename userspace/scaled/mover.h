// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "config.h"
#include "control/kernel.h"
#include "meta/cluster.h"
#include "policy/healing.h"
#include "replica/replica.h"

namespace scaled {

class Agent;

/// Gives every extent the copies that it should have: what is stale is copied anew, what lies on a
/// disk that is lost, failed or to become empty is copied elsewhere. policy::next_step() says what,
/// this does it.
///
/// The holder of a VSD's lease moves its extents. Where nobody has one, a node takes the lease for
/// that ("minded": its kernel knows nothing of it) and gives it back when the work is done, or when
/// another node asks for it. kernel/freeze.c says in which steps an extent is moved under a guest's
/// writes. Rate-limited: it works half of the time at most.
class Mover {
 public:
  Mover(const Paths& paths, const Config& config, replica::Replica& replica, Agent& agent);

  /// The thread's function.
  void run(const std::stop_token& stop);

  /// Nothing is copied while the result lives, and the mover does not mind this VSD any more: for
  /// whoever gives up its lease.
  struct Paused {
    std::unique_lock<std::mutex> lock;
    uint64_t minded = 0;  ///< the epoch in which it minded the VSD; 0: it did not
  };
  [[nodiscard]] Paused pause(core::VsdId vsd);

  struct Progress {
    meta::Redundancy left;
    double copies_per_second = 0;  ///< by which that became less lately, all nodes together
  };
  Progress progress() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Item {
    meta::MappedExtent extent;
    std::vector<meta::CopyRow> rows;
    policy::Step step;
  };
  struct Lease {
    uint64_t epoch = 0;
    bool minded = false;
  };
  /// Frozen, and it is not known whether what was proposed will come to pass.
  struct Unsettled {
    core::VsdId vsd;
    uint64_t epoch = 0;
    std::vector<Item> items;
  };
  struct Round {
    uint64_t moved = 0;
    uint64_t waiting = 0;
  };

  bool recover(control::Kernel& kernel, meta::Database& database);
  Round round(control::Kernel& kernel, meta::Database& database, const std::stop_token& stop);
  void give_up_disks(meta::Cluster& cluster);
  void settle(control::Kernel& kernel, meta::Database& database);
  void give_back_leases();
  void report(meta::Cluster& cluster, const Round& round);
  void guard_capacity(meta::Cluster& cluster);

  std::optional<Lease> hold(control::Kernel& kernel, meta::Cluster& cluster, core::VsdId vsd);
  std::optional<Lease> mind(control::Kernel& kernel, core::VsdId vsd);
  core::Result<std::vector<Item>> plan(meta::Database& database, core::VsdId vsd,
                                       const std::vector<core::ExtentId>& extents);
  Round move_some(control::Kernel& kernel, meta::Database& database, core::VsdId vsd,
                  const std::vector<core::ExtentId>& extents);
  core::Result<void> freeze(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch,
                            const std::vector<Item>& items);
  std::vector<Item> copy(control::Kernel& kernel, meta::Cluster& cluster, std::vector<Item> items);
  std::vector<Item> let_go(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch,
                           std::vector<Item> items);
  void thaw(control::Kernel& kernel, meta::Database& database, core::VsdId vsd, uint64_t epoch,
            const std::vector<Item>& items);
  core::Result<boost::json::object> propose(boost::json::object body);
  boost::json::object about(const char* op, core::VsdId vsd, uint64_t epoch) const;

  const Paths& paths_;
  const Config& config_;
  replica::Replica& replica_;
  Agent& agent_;

  std::mutex moving_;
  std::map<core::VsdId, uint64_t> minded_;  // -> epoch; under moving_
  std::vector<Unsettled> unsettled_;

  mutable std::mutex progress_mutex_;
  Progress progress_;
  Clock::time_point counted_;
  Clock::time_point guarded_;
};

}  // namespace scaled
