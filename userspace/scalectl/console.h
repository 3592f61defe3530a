// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "commands.h"

namespace scalectl {

/// The serial console of a VM, the first argument: virsh takes this process's place.
boost::json::object serial_console(const Words& words, const Ask& ask);

/// Where the screen of a VM is for a minute.
std::string show_screen(const boost::json::object& answer);

}  // namespace scalectl
