/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * On-disk format of a data disk.
 *
 *   byte 0          4 KiB, untouched: a boot sector or a label of something else shows here
 *   byte 4096       superblock, first copy
 *   byte 1 MiB      reserved, zeros: room for a bit of each SCRIBE_INTENT_REGION_SECTORS
 *   byte 8 MiB      slot 0, slot 1, ... of 1 MiB each
 *   last 4 KiB      superblock, second copy (at the last multiple of 4096 that fits)
 *
 * All integers are little endian. A superblock is valid when magic, version and checksum are
 * right; of two valid ones the greater generation counts. A writer writes and flushes the first
 * copy, then the second, so a torn write leaves one of them.
 */
#ifndef SCRIBE_UAPI_DISK_H
#define SCRIBE_UAPI_DISK_H

#include <linux/types.h>

#define SCRIBE_DISK_MAGIC		0x6b73694465624353ULL	/* "SCbeDisk" */
#define SCRIBE_DISK_VERSION		1

#define SCRIBE_SECTOR_BYTES		512U
#define SCRIBE_SLOT_SECTORS		2048U
#define SCRIBE_SB_BYTES			4096U
#define SCRIBE_SB_SECTORS		8U
#define SCRIBE_SB_FIRST_SECTOR		8U
#define SCRIBE_INTENT_START_SECTOR	2048U
#define SCRIBE_INTENT_SECTORS		8192U
#define SCRIBE_INTENT_REGION_SECTORS	131072U		/* 64 MiB */
#define SCRIBE_DATA_START_SECTOR	16384U
#define SCRIBE_DISK_MIN_SECTORS		131072U		/* 64 MiB */
#define SCRIBE_DISK_MAX_ID		1023U

/**
 * struct scribe_superblock - what identifies a data disk, SCRIBE_SB_BYTES long
 * @magic: SCRIBE_DISK_MAGIC
 * @version: SCRIBE_DISK_VERSION
 * @checksum: CRC32C (seed ~0, inverted) of all 4096 bytes with this field zero
 * @cluster_uuid: the cluster that owns the disk
 * @disk_uuid: this formatting of this disk; a disk formatted anew gets a new one
 * @disk_id: the cluster's number for the disk, 1 to SCRIBE_DISK_MAX_ID
 * @flags: none yet, zero
 * @generation: grows with each write of the superblock
 * @disk_sectors: size of the device when it was formatted
 * @data_start_sector: where slot 0 begins
 * @nr_slots: number of slots
 * @intent_start_sector: where the intent bitmap begins
 * @intent_sectors: size of the intent bitmap
 * @intent_region_sectors: sectors that one bit stands for
 * @reserved: zero
 */
struct scribe_superblock {
	__le64 magic;
	__le32 version;
	__le32 checksum;
	__u8 cluster_uuid[16];
	__u8 disk_uuid[16];
	__le32 disk_id;
	__le32 flags;
	__le64 generation;
	__le64 disk_sectors;
	__le64 data_start_sector;
	__le64 nr_slots;
	__le64 intent_start_sector;
	__le64 intent_sectors;
	__le64 intent_region_sectors;
	__u8 reserved[3984];
} __attribute__((packed));

#endif
