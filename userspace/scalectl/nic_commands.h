// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "commands.h"

namespace scalectl {

namespace json = boost::json;

/// Of the table of commands, those about networks.
std::vector<Command> nic_commands();
/// Where a network interface is: lan, vlan:NUMBER, or a bridge; as the API has it.
json::object place_of(const std::string& word);
json::object joined(json::object out, const json::object& more);

}  // namespace scalectl
