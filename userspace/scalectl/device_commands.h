// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "commands.h"

namespace scalectl {

namespace json = boost::json;

/// Of the table of commands, those about disks and network interfaces of VMs, and ports of nodes.
std::vector<Command> device_commands();
/// A disk: a size, for a new one, or vsd:NAME; as the API has it.
json::object disk_of(const std::string& word);
/// Where a network interface is: lan, vlan:NUMBER, or a bridge; as the API has it.
json::object place_of(const std::string& word);
json::object joined(json::object out, const json::object& more);

}  // namespace scalectl
