// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/id.h"
#include "core/result.h"
#include "meta/cluster.h"

namespace policy {

/// A node as VMs see it.
struct Host {
  core::NodeId node;
  std::string name;
  std::string problem;      ///< why it takes no VM now; empty: it does
  uint64_t memory_mib = 0;  ///< for VMs
  uint64_t cpus = 0;
  uint64_t used_memory_mib = 0;
  uint64_t used_vcpus = 0;
  bool has_lan = false;             ///< there is a bridge for guests on the LAN
  bool has_vlans = false;           ///< there is something for VLANs of guests to be on
  std::string lan_problem;          ///< why one of that is not there
  std::vector<std::string> models;  ///< of CPUs that it can give to guests
  // Groups of VMs that run there, or move there:
  std::set<std::string> apart;
  std::set<std::string> together;
};

/// What a VM needs of the node that runs it.
struct Guest {
  uint64_t id = 0;
  std::string name;
  uint64_t memory_mib = 0;
  uint64_t vcpus = 0;
  uint64_t priority = 0;
  core::NodeId node;     ///< where it runs; 0: nowhere
  bool on_lan = false;   ///< it has a network interface there
  bool in_vlan = false;  ///< or in a VLAN
  std::string model;     ///< of the CPU that it has as long as it runs; empty: any
  core::NodeId preferred;
  std::string apart;
  std::string together;
};

[[nodiscard]] Guest guest_of(const meta::Vm& vm);

/// All nodes of the cluster, with what runs on them; but for one VM, 0: none.
[[nodiscard]] std::vector<Host> hosts_of(const std::vector<meta::Node>& nodes,
                                         const std::vector<meta::Capacity>& capacities,
                                         const std::vector<meta::Vm>& vms, uint64_t without_vm);

/// Of the nodes that have room for a guest the best one: without another VM of a group that is to
/// be apart; with one of a group that is to be together; the preferred one; with most free memory;
/// with the fewest vCPUs for each CPU; in that order. Memory is never given twice; no guest has
/// more vCPUs than its node CPUs. `failures`: the best that often did not do; each time it is the
/// turn of the next. Code::no_space, with the reason of each node, where there is none.
[[nodiscard]] core::Result<core::NodeId> choose_host(const std::vector<Host>& hosts,
                                                     const Guest& guest, uint64_t failures = 0);

/// What would not fit on the others, were a node lost: each node for which that is so, in words.
/// The guests of each are placed as they would be restarted, by their priority.
[[nodiscard]] std::vector<std::string> without_headroom(const std::vector<Host>& hosts,
                                                        const std::vector<Guest>& guests);

/// VMs that are on one node though they are to be apart: each such group and node, in words.
[[nodiscard]] std::vector<std::string> not_apart(const std::vector<meta::Node>& nodes,
                                                 const std::vector<meta::Vm>& vms);

}  // namespace policy
