// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/id.h"
#include "meta/database.h"

namespace policy {

/// Which slots of each disk are taken, in memory, so that allocation reads no rows. The leader's;
/// made from the database on first use, dropped whenever a transaction does not become an entry.
class Slots {
 public:
  /// Rebuilds from the rows of a disk and of quarantine where this disk is not loaded yet.
  core::Result<void> load(meta::Database& database, core::DiskId disk, uint64_t slots);

  uint64_t free(core::DiskId disk) const;
  /// A free slot, taken from now on. Pre: free(disk) > 0.
  uint32_t take(core::DiskId disk);
  void give_back(core::DiskId disk, uint32_t slot);
  void forget() { disks_.clear(); }

 private:
  struct Bits {
    std::vector<bool> taken;
    uint64_t free = 0;
    size_t next = 0;  // where the search goes on: neighbours in time are neighbours on the disk
  };
  std::unordered_map<core::DiskId, Bits> disks_;
};

}  // namespace policy
