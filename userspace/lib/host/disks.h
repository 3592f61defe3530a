// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/id.h"
#include "core/result.h"

namespace host {

using core::Result;
using Uuid = std::array<uint8_t, 16>;

/// A whole disk of this machine that could hold data.
struct BlockDevice {
  std::string path;    ///< /dev/...; may differ after the next boot
  std::string serial;  ///< what names it for good: its serial number or WWN, else ""
  std::string model;
  uint64_t sectors = 0;
  bool rotational = false;
  std::string used_for;  ///< what is on it, "" for nothing that libblkid, mounts or holders show
};

/// What a superblock of ours says.
struct Label {
  core::DiskId disk;
  Uuid cluster{};
  Uuid uuid{};
};

[[nodiscard]] std::vector<BlockDevice> list_disks();
[[nodiscard]] Result<BlockDevice> inspect_disk(const std::string& path);

/// The label of a disk of ours, from either superblock; nothing where there is none that is valid.
[[nodiscard]] Result<std::optional<Label>> read_label(const std::string& path);

/// Number of slots that a device of this size has; 0 where it is too small.
[[nodiscard]] uint64_t slots_for(uint64_t sectors);

/// Code::conflict where somebody has the device open for himself.
[[nodiscard]] Result<void> check_free(const std::string& path);

/// Writes both superblocks and an empty intent bitmap, durably. `wipe` removes signatures of others
/// first.
[[nodiscard]] Result<void> format_disk(const std::string& path, const Label& label, bool wipe);

[[nodiscard]] Result<Uuid> parse_uuid(const std::string& text);
[[nodiscard]] std::string to_string(const Uuid& uuid);
[[nodiscard]] Uuid make_uuid();

}  // namespace host
