/* SPDX-License-Identifier: GPL-2.0 */
/* Checking and choosing superblocks. Pure; reading them is in disk.c. */
#ifndef SCRIBE_SUPERBLOCK_H
#define SCRIBE_SUPERBLOCK_H

#include "shim.h"
#include "uapi/scribe_disk.h"

u32 scribe_sb_checksum(const struct scribe_superblock *sb);

/* Sector of the second copy on a device of this size. */
u64 scribe_sb_second_sector(u64 device_sectors);

/* Slots that fit on a device of this size; 0 where it is too small. */
u64 scribe_sb_slots_for(u64 device_sectors);

/**
 * scribe_sb_check() - is this a superblock that can be used on this device?
 * @sb: SCRIBE_SB_BYTES as read
 * @device_sectors: size of the device now
 *
 * Return: NULL, or why not.
 */
const char *scribe_sb_check(const struct scribe_superblock *sb, u64 device_sectors);

/**
 * scribe_sb_choose() - of two copies, the one that counts
 * @first: first copy as read, NULL where it could not be read
 * @second: second copy, likewise
 * @device_sectors: size of the device now
 * @why: set to the reason of the first copy where neither is valid
 *
 * Return: the valid copy of the greater generation, or NULL.
 */
const struct scribe_superblock *scribe_sb_choose(const struct scribe_superblock *first,
						 const struct scribe_superblock *second,
						 u64 device_sectors, const char **why);

#endif
