// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>

extern "C" {
#include "superblock.h"
}

namespace {

constexpr u64 kDevice = 4194304;  // 2 GiB in sectors

scribe_superblock good(u64 generation = 1) {
  scribe_superblock sb{};
  sb.magic = cpu_to_le64(SCRIBE_DISK_MAGIC);
  sb.version = cpu_to_le32(SCRIBE_DISK_VERSION);
  sb.disk_id = cpu_to_le32(5);
  sb.generation = cpu_to_le64(generation);
  sb.disk_sectors = cpu_to_le64(kDevice);
  sb.data_start_sector = cpu_to_le64(SCRIBE_DATA_START_SECTOR);
  sb.nr_slots = cpu_to_le64(scribe_sb_slots_for(kDevice));
  sb.intent_start_sector = cpu_to_le64(SCRIBE_INTENT_START_SECTOR);
  sb.intent_sectors = cpu_to_le64(SCRIBE_INTENT_SECTORS);
  sb.intent_region_sectors = cpu_to_le64(SCRIBE_INTENT_REGION_SECTORS);
  sb.checksum = cpu_to_le32(scribe_sb_checksum(&sb));
  return sb;
}

void reseal(scribe_superblock& sb) { sb.checksum = cpu_to_le32(scribe_sb_checksum(&sb)); }

TEST(Superblock, LayoutIsWhatTheHeaderSays) {
  static_assert(sizeof(scribe_superblock) == SCRIBE_SB_BYTES);
  static_assert(offsetof(scribe_superblock, disk_id) == 48);
  static_assert(offsetof(scribe_superblock, reserved) == 112);
  // The intent bitmap has a bit for each region of the largest disk that slots can address.
  static_assert(u64{SCRIBE_INTENT_SECTORS} * 4096 * SCRIBE_INTENT_REGION_SECTORS >=
                u64{SCRIBE_SLOT_SECTORS} << 31);
}

TEST(Superblock, TheSecondCopyLiesBehindTheLastSlotOnAnySize) {
  for (u64 size :
       {u64{SCRIBE_DISK_MIN_SECTORS}, u64{SCRIBE_DISK_MIN_SECTORS} + 7, kDevice, kDevice + 2047}) {
    const u64 end = SCRIBE_DATA_START_SECTOR + scribe_sb_slots_for(size) * SCRIBE_SLOT_SECTORS;
    EXPECT_LE(end, scribe_sb_second_sector(size));
    EXPECT_LE(scribe_sb_second_sector(size) + SCRIBE_SB_SECTORS, size);
  }
  EXPECT_EQ(scribe_sb_slots_for(SCRIBE_DISK_MIN_SECTORS - 1), 0U);
}

TEST(Superblock, EachWrongFieldIsNamed) {
  auto why = [](auto change) {
    scribe_superblock sb = good();
    change(sb);
    reseal(sb);
    return scribe_sb_check(&sb, kDevice);
  };
  EXPECT_EQ(why([](auto&) {}), nullptr);
  EXPECT_STREQ(why([](auto& s) { s.magic = 0; }), "no scribe superblock");
  EXPECT_STREQ(why([](auto& s) { s.version = cpu_to_le32(2); }), "unknown superblock version");
  EXPECT_STREQ(why([](auto& s) { s.disk_id = 0; }), "disk id out of range");
  EXPECT_STREQ(why([](auto& s) { s.disk_id = cpu_to_le32(SCRIBE_DISK_MAX_ID + 1); }),
               "disk id out of range");
  EXPECT_STREQ(why([](auto& s) { s.data_start_sector = 0; }), "unknown superblock layout");
  EXPECT_STREQ(why([](auto& s) { s.nr_slots = 0; }), "more slots than the device holds");
  EXPECT_STREQ(why([](auto& s) { s.nr_slots = cpu_to_le64(1ULL << 40); }),
               "more slots than the device holds");
}

TEST(Superblock, ADeviceThatShrankIsRefused) {
  const scribe_superblock sb = good();
  EXPECT_STREQ(scribe_sb_check(&sb, kDevice / 2), "more slots than the device holds");
}

RC_GTEST_PROP(Superblock, AnyFlippedBitIsFound, ()) {
  scribe_superblock sb = good();
  const int bit = *rc::gen::inRange(0, 4096 * 8);
  reinterpret_cast<unsigned char*>(&sb)[bit / 8] ^= 1U << bit % 8;
  RC_ASSERT(scribe_sb_check(&sb, kDevice) != nullptr);
}

TEST(Superblock, OfTwoValidCopiesTheNewerCountsAndATornOneNever) {
  const scribe_superblock older = good(1);
  const scribe_superblock newer = good(2);
  scribe_superblock torn = good(3);
  std::memset(reinterpret_cast<char*>(&torn) + 2048, 0xa5, 2048);
  const char* why = nullptr;
  EXPECT_EQ(scribe_sb_choose(&older, &newer, kDevice, &why), &newer);
  EXPECT_EQ(scribe_sb_choose(&newer, &older, kDevice, &why), &newer);
  EXPECT_EQ(scribe_sb_choose(&torn, &older, kDevice, &why), &older);
  EXPECT_EQ(scribe_sb_choose(&older, &torn, kDevice, &why), &older);
  EXPECT_EQ(scribe_sb_choose(nullptr, &older, kDevice, &why), &older);
  EXPECT_EQ(scribe_sb_choose(&torn, nullptr, kDevice, &why), nullptr);
  EXPECT_STREQ(why, "bad superblock checksum");
}

}  // namespace
