// SPDX-License-Identifier: GPL-2.0
#include "policy/slots.h"

namespace policy {

core::Result<void> Slots::load(meta::Database& database, core::DiskId disk, uint64_t slots) {
  if (disks_.contains(disk)) return {};
  return meta::guarded([&]() -> core::Result<void> {
    Bits bits{std::vector<bool>(slots), slots, 0};
    meta::Query rows(database,
                     "SELECT slot FROM copy WHERE disk = ?1 "
                     "UNION ALL SELECT slot FROM quarantine WHERE disk = ?1");
    rows.bind(1, static_cast<int64_t>(disk.value));
    while (rows.executeStep()) {
      const auto slot = static_cast<size_t>(rows.getColumn(0).getInt64());
      if (slot >= slots)
        return core::Error{core::Code::corrupt, "slot " + std::to_string(slot) + " of disk " +
                                                    std::to_string(disk.value) +
                                                    " lies behind its end"};
      bits.taken[slot] = true;
      bits.free--;
    }
    disks_[disk] = std::move(bits);
    return {};
  });
}

uint64_t Slots::free(core::DiskId disk) const {
  const auto at = disks_.find(disk);
  return at == disks_.end() ? 0 : at->second.free;
}

uint32_t Slots::take(core::DiskId disk) {
  Bits& bits = disks_.at(disk);
  while (bits.taken[bits.next]) bits.next = (bits.next + 1) % bits.taken.size();
  bits.taken[bits.next] = true;
  bits.free--;
  return static_cast<uint32_t>(bits.next);
}

void Slots::give_back(core::DiskId disk, uint32_t slot) {
  const auto at = disks_.find(disk);
  if (at == disks_.end() || !at->second.taken[slot]) return;
  at->second.taken[slot] = false;
  at->second.free++;
}

}  // namespace policy
