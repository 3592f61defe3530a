// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/id.h"
#include "core/result.h"

namespace host {

using core::Result;

/// /dev/mapper/scribe-<name> of a VSD: libdevmapper behind four calls. Each device carries the
/// VSD's id in its UUID, so it is found whatever its name.
struct VsdDevice {
  uint64_t sectors = 0;
  bool in_use = false;
};

/// I/O of all such devices since they were made: how many ended, and how long they took together.
struct DeviceLoad {
  uint64_t count = 0;
  uint64_t waited_ms = 0;
};
DeviceLoad device_load();

[[nodiscard]] std::string device_name(const std::string& vsd_name);

/// Nothing where this machine has no such device.
Result<std::optional<VsdDevice>> find_device(core::VsdId vsd);
Result<void> create_device(core::VsdId vsd, const std::string& name, uint64_t sectors,
                           bool read_only);
/// Code::conflict where something uses it. Blocks until what was written is flushed and committed.
Result<void> remove_device(core::VsdId vsd);
/// Loads a longer table; I/O waits for the moment of the switch.
Result<void> resize_device(core::VsdId vsd, uint64_t sectors);

}  // namespace host
