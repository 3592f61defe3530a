// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "commands.h"

namespace scalectl {

/// A snapshot of a VM, the first argument, into a folder, the second; again, where it was cut off,
/// it goes on.
boost::json::object export_machine(const Words& words, const Ask& ask);

/// A VM, the second argument, from such a folder.
boost::json::object import_machine(const Words& words, const Ask& ask);

}  // namespace scalectl
