// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <vector>

#include "commands.h"

namespace scalectl {

/// Of the table of commands, those about media and what they are in.
std::vector<Command> media_commands();

}  // namespace scalectl
