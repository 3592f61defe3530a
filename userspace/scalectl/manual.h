// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

namespace scalectl {

/// scalectl(8) from the command table, as roff.
[[nodiscard]] std::string manual();

}  // namespace scalectl
