// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/result.h"

namespace host {

/// Runs a command to its end; what it wrote to its output, of very much the beginning. `goes_on` is
/// asked with that at least each second; false ends it: Code::conflict. Code::invalid with the last
/// line that it wrote to its errors where it says that it failed; Code::storage where it cannot be
/// run, or was ended by somebody else.
[[nodiscard]] core::Result<std::string> run_command(
    const std::vector<std::string>& command,
    const std::function<bool(const std::string& output)>& goes_on = {});

}  // namespace host
