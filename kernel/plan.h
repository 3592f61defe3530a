/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a read comes from and where a write goes (rules R1 and R3). All under vsd->lock.
 */
#ifndef SCRIBE_PLAN_H
#define SCRIBE_PLAN_H

#include "io.h"

enum scribe_plan {
	SCRIBE_PLAN_GO,
	SCRIBE_PLAN_NO_SPACE,
	SCRIBE_PLAN_REWRITE,	/* the chunk first: it has too many segments */
	SCRIBE_PLAN_ALONE,	/* without others: together they could make too many */
	SCRIBE_PLAN_NOTHING,	/* nothing is mapped there */
	SCRIBE_PLAN_INTENT,	/* in place, and the leaf has no intent (R5) */
};

/* Plans a write: GO sets io->target, its offset, its disks' lives and io->in_place. */
enum scribe_plan scribe_plan_write(struct scribe_io *io, const struct scribe_leaf *leaf);
enum scribe_plan scribe_plan_unmap(struct scribe_io *io, const struct scribe_segs *segs);

/* R3: where does a write that is not in place go? Takes a reference for io->target. */
bool scribe_plan_fresh(struct scribe_io *io, const struct scribe_segs *segs);

/* Fresh space of its own for a range at chunk offsets, or NULL. */
struct scribe_extent *scribe_plan_take(struct scribe_vsd *vsd, u32 start, u32 len, u64 *lives);

/* Where to read a copy: said at once, because an extent's copies may change (freeze.c). */
struct scribe_source {
	struct scribe_disk *disk;
	u64 life;
	u32 slot;
	u32 copy;
};

/* A copy to read from; false where none is left that is not in @tried. */
bool scribe_plan_source(struct scribe_vsd *vsd, const struct scribe_extent *extent, u32 tried,
			struct scribe_source *from);

/* Is there a current copy that was not tried, just not reachable now? Needs no lock. */
bool scribe_plan_may_return(const struct scribe_extent *extent, u32 tried);

#endif
