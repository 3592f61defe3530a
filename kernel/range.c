// SPDX-License-Identifier: GPL-2.0
#include "range.h"

#include <linux/hash.h>

static struct list_head *bucket_of(struct scribe_vsd *vsd, u64 chunk)
{
	return &vsd->ranges[hash_64(chunk, ilog2(SCRIBE_RANGE_BUCKETS))];
}

static bool overlap(const struct scribe_io *a, const struct scribe_io *b)
{
	return a->chunk == b->chunk && a->lock_start < b->lock_start + b->lock_len &&
	       b->lock_start < a->lock_start + a->lock_len;
}

/* Is there an earlier range that this one must wait for? Reads wait for writes only. */
static bool blocked(struct scribe_io *io)
{
	struct scribe_io *other;

	list_for_each_entry(other, bucket_of(io->vsd, io->chunk), node) {
		if (other == io)
			return false;
		if (overlap(io, other) &&
		    (io->kind != SCRIBE_IO_READ || other->kind != SCRIBE_IO_READ))
			return true;
	}
	return false;
}

void scribe_range_enter(struct scribe_io *io)
{
	lockdep_assert_held(&io->vsd->lock);
	list_add_tail(&io->node, bucket_of(io->vsd, io->chunk));
	io->waiting = blocked(io);
}

void scribe_range_wake(struct scribe_vsd *vsd, u64 chunk)
{
	struct scribe_io *io;

	list_for_each_entry(io, bucket_of(vsd, chunk), node) {
		if (io->waiting && !blocked(io)) {
			io->waiting = false;
			scribe_io_go(io);
		}
	}
}

u32 scribe_range_changes(struct scribe_io *io)
{
	struct scribe_io *other;
	u32 nr = 0;

	lockdep_assert_held(&io->vsd->lock);
	list_for_each_entry(other, bucket_of(io->vsd, io->chunk), node) {
		if (other->chunk == io->chunk &&
		    (other == io || (other->adding && !other->in_place)))
			nr++;
	}
	return nr;
}
