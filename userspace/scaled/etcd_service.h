// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "config.h"
#include "journal/etcd.h"
#include "meta/cluster.h"
#include "peers.h"

namespace scaled {

inline constexpr uint16_t kEtcdClientPort = 2379;
inline constexpr uint16_t kEtcdPeerPort = 2380;

[[nodiscard]] std::string etcd_peer_url(const std::string& address);

/// Writes what etcd on this node needs to know, and has systemd start it. `initial_cluster` is
/// etcd's own form, NAME=URL,...; empty keeps what was written before, else etcd begins with no
/// data of its own.
[[nodiscard]] Result<void> start_etcd(const Paths& paths, const Config& config,
                                      const std::string& initial_cluster, bool existing);

/// Makes room among etcd's members for a node at that backplane address, as a learner, and gives
/// what its start_etcd() needs; "" where there are enough: three, or five from five nodes on.
[[nodiscard]] Result<std::string> add_etcd_member(journal::Etcd& etcd, core::NodeId node,
                                                  const std::string& address,
                                                  const std::vector<meta::Node>& nodes,
                                                  const std::vector<meta::Task>& tasks);

/// Where etcd may answer: on this node first, then on all others.
[[nodiscard]] journal::Etcd::Endpoints etcd_endpoints(const Config& config, const Peers& peers);

/// Ends it, and sees that nothing of it is left running.
Result<void> stop_etcd();

}  // namespace scaled
