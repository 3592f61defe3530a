// SPDX-License-Identifier: GPL-2.0
#include "superblock.h"

u32 scribe_sb_checksum(const struct scribe_superblock *sb)
{
	const size_t at = offsetof(struct scribe_superblock, checksum);
	const __le32 zero = 0;
	u32 crc;

	crc = crc32c(~0U, sb, at);
	crc = crc32c(crc, &zero, sizeof(zero));
	crc = crc32c(crc, (const u8 *)sb + at + sizeof(zero), sizeof(*sb) - at - sizeof(zero));
	return ~crc;
}

u64 scribe_sb_second_sector(u64 device_sectors)
{
	return (device_sectors / SCRIBE_SB_SECTORS - 1) * SCRIBE_SB_SECTORS;
}

u64 scribe_sb_slots_for(u64 device_sectors)
{
	u64 slots;

	if (device_sectors < SCRIBE_DISK_MIN_SECTORS)
		return 0;
	slots = (scribe_sb_second_sector(device_sectors) - SCRIBE_DATA_START_SECTOR) /
		SCRIBE_SLOT_SECTORS;
	return min(slots, (u64)UINT_MAX);
}

const char *scribe_sb_check(const struct scribe_superblock *sb, u64 device_sectors)
{
	u64 slots = le64_to_cpu(sb->nr_slots);

	if (le64_to_cpu(sb->magic) != SCRIBE_DISK_MAGIC)
		return "no scribe superblock";
	if (le32_to_cpu(sb->checksum) != scribe_sb_checksum(sb))
		return "bad superblock checksum";
	if (le32_to_cpu(sb->version) != SCRIBE_DISK_VERSION)
		return "unknown superblock version";
	if (!le32_to_cpu(sb->disk_id) || le32_to_cpu(sb->disk_id) > SCRIBE_DISK_MAX_ID)
		return "disk id out of range";
	if (le64_to_cpu(sb->data_start_sector) != SCRIBE_DATA_START_SECTOR ||
	    le64_to_cpu(sb->intent_start_sector) != SCRIBE_INTENT_START_SECTOR ||
	    le64_to_cpu(sb->intent_sectors) != SCRIBE_INTENT_SECTORS ||
	    le64_to_cpu(sb->intent_region_sectors) != SCRIBE_INTENT_REGION_SECTORS)
		return "unknown superblock layout";
	if (!slots || slots > scribe_sb_slots_for(device_sectors))
		return "more slots than the device holds";
	return NULL;
}

const struct scribe_superblock *scribe_sb_choose(const struct scribe_superblock *first,
						 const struct scribe_superblock *second,
						 u64 device_sectors, const char **why)
{
	const char *first_why = first ? scribe_sb_check(first, device_sectors) : "unreadable";
	const char *second_why = second ? scribe_sb_check(second, device_sectors) : "unreadable";

	if (first_why && second_why) {
		*why = first_why;
		return NULL;
	}
	if (first_why)
		return second;
	if (second_why)
		return first;
	return le64_to_cpu(second->generation) > le64_to_cpu(first->generation) ? second : first;
}
