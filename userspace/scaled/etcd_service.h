// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

#include "config.h"
#include "journal/etcd.h"
#include "peers.h"

namespace scaled {

inline constexpr uint16_t kEtcdClientPort = 2379;
inline constexpr uint16_t kEtcdPeerPort = 2380;

[[nodiscard]] std::string etcd_peer_url(const std::string& address);

/// Writes what etcd on this node needs to know, and has systemd start it. `initial_cluster` is
/// etcd's own form, NAME=URL,...; empty keeps what was written before.
[[nodiscard]] Result<void> start_etcd(const Paths& paths, const Config& config,
                                      const std::string& initial_cluster, bool existing);

/// Where etcd may answer: on this node first, then on all others.
[[nodiscard]] journal::Etcd::Endpoints etcd_endpoints(const Config& config, const Peers& peers);

}  // namespace scaled
