// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "meta/cluster.h"

namespace vm {

/// The bridge that a network interface is at on a node whose LAN has that bridge; empty: there is
/// none.
[[nodiscard]] std::string bridge_of(const meta::VmNic& nic, const std::string& lan_bridge);

/// As a domain has it: <interface>.
[[nodiscard]] std::string nic_xml(const meta::VmNic& nic, const std::string& lan_bridge);

/// What makes the network interfaces of a domain that runs those of its VM.
struct NicChange {
  enum class What : uint8_t { attach, detach, update };
  What what;
  std::string xml;  ///< of the device
};
/// A function of the domain's XML and the row. Interfaces are told apart by their MACs; one that is
/// of another model goes first, and comes the next time.
[[nodiscard]] core::Result<std::vector<NicChange>> nic_changes(
    const std::string& domain, const std::vector<meta::VmNic>& wanted,
    const std::string& lan_bridge);

/// Of a domain's network interfaces what the host calls them, and their MACs.
[[nodiscard]] core::Result<std::map<std::string, std::string>> macs_by_target(
    const std::string& domain);

/// A domain as it is to be where its LAN has another bridge.
[[nodiscard]] core::Result<std::string> with_bridges(const std::string& domain,
                                                     const std::vector<meta::VmNic>& nics,
                                                     const std::string& lan_bridge);

}  // namespace vm
