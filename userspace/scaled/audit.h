// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "config.h"
#include "meta/cluster.h"
#include "meta/database.h"
#include "peers.h"
#include "replica/replica.h"

namespace scaled {

/// Compares the databases of all nodes, as they were at one entry of the log: every hour, or when
/// somebody asks for it (proposal "audit"). A node that finds a majority of another mind gets its
/// metadata from that.
class Audit {
 public:
  struct Digest {
    uint64_t index = 0;             ///< the entry; 0: none since this daemon started
    std::optional<uint64_t> value;  ///< nothing while it is being computed
    std::string hex() const;        ///< "" for nothing
  };
  /// What a node answers, nothing where it cannot be reached.
  using Digests = std::map<core::NodeId, std::optional<Digest>>;

  /// `note` takes what the administrator should know, "" when all is well. `wrong` is called when
  /// this node's metadata must be replaced, with the nodes that have good ones.
  Audit(const Paths& paths, const Config& config, Peers& peers,
        std::function<void(const std::string& text)> note,
        std::function<void(const Error& why, const std::vector<core::NodeId>& from)> wrong);
  ~Audit();

  /// From the replica's thread, right after it applied an entry that asks for an audit.
  void begin(const meta::Position& at);
  /// Starts the work in the background; audits begun before wait for it.
  void run(replica::Replica& replica);

  Digest last() const;
  /// As another node reads it, from a call.
  boost::json::object status() const;
  /// Asks the nodes that are up until each has a digest of this entry or a later one, and at the
  /// deadline gives what there is.
  Digests collect(uint64_t index, const std::vector<meta::Node>& nodes,
                  std::chrono::steady_clock::time_point deadline, const std::stop_token& stop);

 private:
  void work(const std::stop_token& stop, replica::Replica& replica);
  void look(const std::stop_token& stop, std::unique_ptr<meta::Database> view, uint64_t index);
  void judge(uint64_t index, const Digests& digests);

  const Paths& paths_;
  const Config& config_;
  Peers& peers_;
  const std::function<void(const std::string&)> note_;
  const std::function<void(const Error&, const std::vector<core::NodeId>&)> wrong_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  std::unique_ptr<meta::Database> view_;  // of the entry last_.index, not yet looked at
  meta::Database* busy_ = nullptr;        // the one that is being looked at
  Digest last_;
  std::jthread thread_;
};

}  // namespace scaled
