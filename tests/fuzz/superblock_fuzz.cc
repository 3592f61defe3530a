// SPDX-License-Identifier: GPL-2.0
// Superblocks: one that is accepted never names a slot outside of its device.
#include "fuzz.h"

extern "C" {
#include "superblock.h"
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto flags = input.take<uint8_t>();
  const auto sectors = input.take<uint64_t>() >> (flags >> 2);
  auto first = input.take<scribe_superblock>();
  auto second = input.take<scribe_superblock>();
  if ((flags & 1) != 0) first.checksum = cpu_to_le32(scribe_sb_checksum(&first));
  if ((flags & 2) != 0) second.checksum = cpu_to_le32(scribe_sb_checksum(&second));
  const char* why = nullptr;
  const scribe_superblock* chosen = scribe_sb_choose(&first, &second, sectors, &why);
  if (chosen == nullptr) {
    EXPECT(why != nullptr);
    return 0;
  }
  EXPECT(chosen == &first || chosen == &second);
  EXPECT(scribe_sb_check(chosen, sectors) == nullptr);
  EXPECT(le64_to_cpu(chosen->nr_slots) <= scribe_sb_slots_for(sectors));
  return 0;
}
