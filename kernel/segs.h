/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The segments of one chunk: sorted, disjoint ranges, each mapped to a range of an extent.
 * Pure: arrays in, arrays out; no locks, no allocation, does not look into extents.
 */
#ifndef SCRIBE_SEGS_H
#define SCRIBE_SEGS_H

#include "shim.h"
#include "uapi/scribe_netlink.h"

struct scribe_extent;

/* All in sectors; start is within the chunk, off within the extent. */
struct scribe_seg {
	struct scribe_extent *extent;
	u16 start;
	u16 len;
	u16 off;
	u16 reserved;
};

struct scribe_segs {
	u32 nr;
	u32 capacity;
	struct scribe_seg seg[];
};

/* Splicing one range in adds two segments at most: the new one and the split-off rest. */
#define SCRIBE_SEGS_GROWTH 2U

static inline u32 scribe_seg_end(const struct scribe_seg *seg)
{
	return (u32)seg->start + seg->len;
}

/**
 * scribe_segs_find() - first segment that ends behind a position
 * @segs: segments of a chunk, may be NULL (none)
 * @pos: sector in the chunk
 *
 * Return: index of the segment that holds @pos or else is the next one; segs->nr if none.
 */
u32 scribe_segs_find(const struct scribe_segs *segs, u32 pos);

/**
 * scribe_segs_cover() - the one segment that holds a whole range
 * @segs: segments of a chunk, may be NULL
 * @start: first sector
 * @len: sectors, not 0
 *
 * Return: the segment, or NULL where the range is not within a single one.
 */
const struct scribe_seg *scribe_segs_cover(const struct scribe_segs *segs, u32 start, u32 len);

/**
 * scribe_segs_splice() - replace a range of a chunk
 * @old: segments before, may be NULL
 * @start: first sector
 * @len: sectors, not 0
 * @extent: what the range maps to from now on, NULL to unmap it
 * @off: sector in @extent
 * @out: segments after; its capacity must be at least old->nr + SCRIBE_SEGS_GROWTH
 *
 * Neighbours that continue each other in the same extent become one segment.
 *
 * Return: 0, -EINVAL for a range outside the chunk, -ENOSPC where @out is too small (unchanged).
 */
int scribe_segs_splice(const struct scribe_segs *old, u32 start, u32 len,
		       struct scribe_extent *extent, u32 off, struct scribe_segs *out);

/**
 * scribe_segs_valid() - check what came from outside
 * @segs: segments to check
 *
 * Return: whether they are ordered, disjoint, not empty and within chunk and extent.
 */
bool scribe_segs_valid(const struct scribe_segs *segs);

#endif
