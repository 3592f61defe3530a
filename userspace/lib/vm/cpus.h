// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

namespace vm {

/// A model of CPU that QEMU can give to guests on any machine that has KVM.
inline constexpr const char* kOldestCpu = "qemu64";

/// The models that a host can give to its guests whole, by libvirt's description of what its
/// domains can have (virConnectGetDomainCapabilities); empty where that says nothing.
[[nodiscard]] std::vector<std::string> usable_models(const std::string& capabilities);

/// What guests get that are to run on each of these hosts: the newest model that all can give, of
/// those that this project knows; kOldestCpu where they have none of these in common.
[[nodiscard]] std::string baseline_of(const std::vector<std::vector<std::string>>& hosts);

}  // namespace vm
