/* SPDX-License-Identifier: GPL-2.0 */
/*
 * I/O to a VSD (rules R1 to R3 and R6).
 *
 * Each bio is one scribe_io, within one chunk. Its way:
 *
 *   admission  lease owned, deadline not passed, room in the batch    else parked
 *   range      waits behind earlier, overlapping writes of the chunk
 *   map        leaf loaded                                            else parked
 *   plan       read: pieces, each from the best copy. write: in place, or to fresh space
 *   legs       one request per copy
 *   end        read: other copy on error. write: other space on error; map and batch updated
 *
 * Parked I/O holds nothing and starts anew when something changed. Reads take the range only to
 * wait behind writes: a read beside a later write may return either, but a read that starts behind
 * an unfinished one could see its new data on one copy and the old on another.
 */
#ifndef SCRIBE_IO_H
#define SCRIBE_IO_H

#include "vsd.h"

enum scribe_io_kind { SCRIBE_IO_READ, SCRIBE_IO_WRITE, SCRIBE_IO_UNMAP };
enum scribe_park {
	SCRIBE_PARK_LEASE,
	SCRIBE_PARK_LEAF,
	SCRIBE_PARK_SPACE,
	SCRIBE_PARK_BATCH,
	SCRIBE_PARK_COPY,		/* every current copy is unreachable: one may come back */
	SCRIBE_PARK_INTENT,		/* its leaf has no intent */
};

struct scribe_io {
	struct scribe_vsd *vsd;
	struct bio *bio;
	struct list_head node;		/* vsd->ranges[] while active, vsd->parked while parked */
	struct work_struct work;
	void (*step)(struct scribe_io *io);	/* what the work does */
	u64 chunk;
	u16 start, len;			/* sectors in the chunk */
	u16 lock_start, lock_len;	/* range held */
	u8 kind;			/* enum scribe_io_kind */
	u8 park;			/* enum scribe_park */
	bool waiting;			/* queued behind another range */
	bool alone;			/* holds the whole chunk */
	bool rewrite;			/* rewrite the chunk first: it has too many segments */
	bool adding;			/* counted in vsd->nr_adding */
	bool in_place;
	u8 skipped;			/* R6: mask of the target's copies that miss it */
	bool lost_leg;			/* a leg of the read ended without reaching its disk */
	u8 attempts;
	unsigned int generation;	/* of the barrier */
	unsigned long parked_jiffies;	/* waiting for space since; 0: not */
	atomic_t pending;		/* legs, and one for the planner */
	atomic_t failed;		/* mask of copies whose leg failed */
	blk_status_t status;
	struct scribe_extent *target;
	struct scribe_extent *left;	/* was written in place, in vain, before the redirect */
	u16 target_off;
	u64 lives[SCRIBE_MAX_COPIES];	/* of the target's disks, when planned; 0: not written */
	spinlock_t retry_lock;
	struct list_head retry;		/* legs of a read to try on another copy */
	struct scribe_flush_waiter flush;
};

/* Takes over a bio of the dm target. Returns DM_MAPIO_SUBMITTED. */
int scribe_io_map(struct scribe_vsd *vsd, struct bio *bio);

/* Starts parked I/O anew. Context: process. */
void scribe_io_retry_parked(struct scribe_vsd *vsd);

/* What parked I/O waits for, for WORK_GET. */
u32 scribe_io_collect_wants(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max);

/* Between the files that an I/O passes through: io.c, range.c, plan.c, read.c, rewrite.c. */

/* Goes on with a step in a worker. Any context. */
void scribe_io_defer(struct scribe_io *io, void (*step)(struct scribe_io *io));
/* The range is free now: goes on in a worker. Any context. */
void scribe_io_go(struct scribe_io *io);
/* Leaves the range; ends the bio, or parks the I/O. */
void scribe_io_finish(struct scribe_io *io, blk_status_t status);
void scribe_io_leave_and_park(struct scribe_io *io, enum scribe_park why);
void scribe_io_unpin(struct scribe_io *io);
/* The range is held and the leaf pinned: reads what lies there. Context: process. */
void scribe_read_run(struct scribe_io *io, struct scribe_leaf *leaf);

/*
 * After a write: what must be flushed, and which copies lost it or were left out (masks). Context:
 * process.
 */
void scribe_io_note_written(struct scribe_vsd *vsd, struct scribe_extent *extent, const u64 *lives,
			    u32 failed, u32 skipped);
/*
 * Maps a range; 0, -ENOMEM, or -ESTALE where the extent is dead: its data must go elsewhere.
 * Context: process.
 */
int scribe_io_remap(struct scribe_vsd *vsd, u64 chunk, u32 start, u32 len,
		    struct scribe_extent *extent, u32 off);

int scribe_rewrite_init(void);
void scribe_rewrite_exit(void);

/**
 * scribe_rewrite_chunk() - make one aligned extent of a chunk
 * @vsd: virtual disk
 * @chunk: chunk whose whole range the caller holds
 *
 * Context: worker, sleeps.
 * Return: 0; -EAGAIN no space or leaf now; -EIO what is mapped cannot be read.
 */
int scribe_rewrite_chunk(struct scribe_vsd *vsd, u64 chunk);

#endif
