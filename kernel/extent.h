/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Extents that this node knows: one object for each VSD that leads to an extent, shared by all of
 * its chunks that do. With clones several VSDs lead to one; none of them writes to it then.
 *
 * An object lives as long as somebody holds a reference: segments in a map, I/O, pending map
 * changes, the list of extents to flush, the stock of reservations. ->fill, ->flags, ->open,
 * ->closed and ->copy[] belong to the VSD that uses the extent and are written under its
 * lock.
 */
#ifndef SCRIBE_EXTENT_H
#define SCRIBE_EXTENT_H

#include "scribe.h"

#define SCRIBE_EXT_EXCLUSIVE	BIT(0)	/* may be written in place (R1) */
#define SCRIBE_EXT_OWN		BIT(1)	/* filled at the offsets of one chunk, not appended to */
#define SCRIBE_EXT_OPEN_DIRTY	BIT(2)	/* on the open list of extents to flush */
#define SCRIBE_EXT_CLOSED_DIRTY	BIT(3)	/* on that of the batch that is being flushed */
#define SCRIBE_EXT_FROZEN	BIT(4)	/* on vsd->frozen; see freeze.c */
#define SCRIBE_EXT_PARTIAL	BIT(5)	/* one copy more is known to the metadata */
#define SCRIBE_EXT_WRITTEN	BIT(6)	/* frozen, and written all the same (R6) */
/*
 * Its last segment was replaced: the batch that says so frees it, and its slots come to be
 * another's. What is under way to it is redirected, and nothing more is written there.
 */
#define SCRIBE_EXT_DEAD		BIT(7)

struct scribe_copy {
	u32 slot;
	u16 disk;
	u16 flags;		/* SCRIBE_COPY_STALE */
};

/* What became of a batch's writes: masks of copies. */
struct scribe_missed {
	u8 written : SCRIBE_MAX_COPIES;
	u8 failed : SCRIBE_MAX_COPIES;	/* their request failed; the range went elsewhere */
	u8 skipped : SCRIBE_MAX_COPIES;	/* R6: left out, and the range stays here */
	/*
	 * A range may differ in any copy, and did not go elsewhere: those of which one should stay
	 * current; 0: it is not so.
	 */
	u8 unsettled : SCRIBE_MAX_COPIES;
};

/* There is one per mapped MiB. */
struct scribe_extent {
	u64 id;
	struct hlist_node hash;
	u32 owner;		/* ->key of the VSD whose object it is; 0: in the stock */
	refcount_t refs;
	atomic_t segs;		/* that lead here, in leaves that are loaded */
	u16 flags;
	u16 fill;		/* sectors; below it something was written. CHUNK_SECTORS: closed */
	struct scribe_copy copy[SCRIBE_MAX_COPIES];
	u8 nr_copies;
	u8 moves;		/* counts: who knows a copy by its place sees that it moved */
	struct scribe_missed open, closed;	/* while in the open, the closed batch */
};
static_assert(sizeof(struct scribe_extent) <= 80);

int scribe_extent_init(void);
void scribe_extent_exit(void);

/**
 * scribe_extent_intern() - a VSD's object for an extent, made where there is none yet
 * @rec: the extent as the daemon describes it, checked by scribe_extent_rec_check()
 * @owner: the VSD's key, 0 for the stock
 * @fresh: a reservation: nothing was ever written to it
 *
 * An object that exists is returned as it is: what this node knows of its own extents (fill,
 * unflushed writes) is newer than what the daemon says.
 *
 * Context: process, may sleep.
 * Return: the object with a reference for the caller, or NULL for no memory.
 */
struct scribe_extent *scribe_extent_intern(const struct scribe_extent_rec *rec, u32 owner,
					   bool fresh);

/* A VSD's object for an extent, with a reference, or NULL. Any context. */
struct scribe_extent *scribe_extent_find(u64 id, u32 owner);

/* Out of the stock: it is this VSD's from now on. */
static inline void scribe_extent_adopt(struct scribe_extent *extent, u32 owner)
{
	WRITE_ONCE(extent->owner, owner);
}

/* NULL, or what is wrong with a record. */
const char *scribe_extent_rec_check(const struct scribe_extent_rec *rec);

static inline void scribe_extent_get(struct scribe_extent *extent)
{
	refcount_inc(&extent->refs);
}

/* Any context. */
void scribe_extent_put(struct scribe_extent *extent);

/* Objects now, for statistics. */
unsigned long scribe_extent_count(void);

#endif
