/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the pure files (segs, wire, superblock) need of the kernel, for building them into
 * userspace tests as well, where ASan and libFuzzer see them.
 */
#ifndef SCRIBE_SHIM_H
#define SCRIBE_SHIM_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <linux/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define cpu_to_le16(x) htole16(x)
#define cpu_to_le32(x) htole32(x)
#define cpu_to_le64(x) htole64(x)
#define le16_to_cpu(x) le16toh(x)
#define le32_to_cpu(x) le32toh(x)
#define le64_to_cpu(x) le64toh(x)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))

u32 crc32c(u32 seed, const void *data, unsigned int length);
#endif

#endif
