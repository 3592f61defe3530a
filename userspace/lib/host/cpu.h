// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

namespace host {

/// What this machine's CPUs are, in a word that is the same on machines whose CPUs can do the same
/// things; from the text of /proc/cpuinfo.
[[nodiscard]] std::string cpu_kind(const std::string& cpuinfo);
/// Of this machine; empty where it does not say.
[[nodiscard]] std::string cpu_kind();

}  // namespace host
