// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <functional>
#include <thread>

#include "config.h"
#include "journal/etcd.h"
#include "meta/cluster.h"
#include "peers.h"
#include "replica/replica.h"

namespace scaled {

/// Keeps this node's place among etcd's members: a learner becomes a voter, and a node without etcd
/// gets one when the cluster has grown to five nodes. Looks from time to time until both are so. On
/// the leader it lets nodes go that are to be removed.
class Membership {
 public:
  /// `changed` is called when this node became a member, which is written down then.
  Membership(const Paths& paths, const Config& config, const Peers& peers,
             replica::Replica& replica, std::function<void()> changed);

 private:
  void run(const std::stop_token& stop);
  /// Whether nothing is left to do, ever.
  Result<bool> look(const std::stop_token& stop);
  Result<bool> become_member(const std::stop_token& stop);
  Result<void> let_go();
  Result<void> drop_member(const meta::Node& node);
  Result<void> promote(const std::stop_token& stop, std::chrono::seconds patience);

  const Paths& paths_;
  const Config& config_;
  replica::Replica& replica_;
  const std::function<void()> changed_;
  journal::Etcd etcd_;
  std::jthread thread_;
};

}  // namespace scaled
