// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

#include "core/result.h"

namespace media {

/// Gives a device the variables of a UEFI as they are at first, from a file that is as long as the
/// device, where it has none yet; a device that got half of them begins anew. Code::storage with
/// what is wrong, where the file is of another length too.
[[nodiscard]] core::Result<void> prepare_flash(const std::string& device,
                                               const std::string& variables);

/// What cloud-init reads ("NoCloud").
struct Seed {
  std::string instance;  ///< another one is a first start to the guest
  std::string hostname;
  std::string user_data;
  std::string network_config;  ///< empty: none
};
/// Writes that to a device, as a file system that it finds by its label.
[[nodiscard]] core::Result<void> prepare_seed(const std::string& device, const Seed& seed);

}  // namespace media
