/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtual disk on this node: its lease, its cached map and the changes to commit.
 *
 * Lease:
 *
 *   none -> owned               LEASE_GRANT, a new epoch
 *   owned -> releasing -> none  LEASE_RELEASE: in-flight I/O ends, all is flushed and committed
 *   releasing -> owned          the caller was killed while it waited
 *   any -> failed -> owned      LEASE_FAIL: what was not committed is lost, as in a power cut
 *   failed -> none              the same, where the lease is to be taken anew: I/O waits for it
 *
 * Map: leaves of SCRIBE_LEAF_CHUNKS chunks in an xarray, loaded on first touch, evicted by the
 * shrinker while no uncommitted change pins them.
 *
 * Commit (R4): changes of the map, extents written and disks written gather in the open batch. A
 * flush closes it, flushes those disks, hands changes and stale copies to the daemon, and completes
 * when that is committed. One batch at a time is closed; FLUSHes that come meanwhile wait for the
 * next one.
 *
 * Everything below ->lock is protected by it; it is taken with interrupts off, because an in-place
 * write completes in interrupt context. Nothing is allocated under it.
 */
#ifndef SCRIBE_VSD_H
#define SCRIBE_VSD_H

#include <linux/kref.h>
#include <linux/xarray.h>

#include "disk.h"
#include "extent.h"
#include "segs.h"

#define SCRIBE_RANGE_BUCKETS 64U

enum scribe_lease {
	SCRIBE_LEASE_NONE,
	SCRIBE_LEASE_OWNED,
	SCRIBE_LEASE_RELEASING,
	SCRIBE_LEASE_FAILED,
	SCRIBE_LEASE_NR_STATES
};

struct scribe_leaf {
	u64 index;
	struct list_head lru; /* vsd->lru, oldest first */
	u32 pins; /* uncommitted changes and plans under way */
	bool referenced;
	bool intent; /* R5: may be written in place; on vsd->intents */
	struct list_head intent_node;
	unsigned long intent_jiffies; /* of its last write */
	u64 written_gen; /* vsd->gen when its last write ended */
	struct scribe_segs *segs[SCRIBE_LEAF_CHUNKS];
};

/* One uncommitted change of the map. */
struct scribe_op {
	struct list_head node;
	struct scribe_leaf *leaf; /* pinned */
	struct scribe_extent *extent; /* NULL: unmapped */
	u64 chunk;
	u16 start, len, off;
};

/* An extent that was written since the last flush. */
struct scribe_dirty {
	struct list_head node;
	struct scribe_extent *extent;
};

struct scribe_written_disk {
	u64 life;
	bool failed; /* not flushed, or its life changed between two writes */
};

struct scribe_batch {
	struct list_head ops;
	u32 nr_ops;
	struct list_head dirty;
	u32 nr_dirty;
	DECLARE_BITMAP(disks, SCRIBE_DISK_MAX_ID + 1);
	struct scribe_written_disk *written; /* by disk id, valid where its bit is set */
};

struct scribe_flush_waiter {
	struct list_head node;
	bool user; /* to be told of what was lost before */
	void (*done)(struct scribe_flush_waiter *waiter, blk_status_t status);
};

struct scribe_vsd_stats {
	u64 reads, writes, discards, flushes;
	u64 in_place, allocated, redirected, degraded, rewrites, batches, ops, stales, read_retries;
};

struct scribe_vsd {
	struct list_head node; /* of all VSDs */
	struct kref ref;
	u32 nr_tables; /* under the lock of the list */
	u64 id;
	u32 key; /* of its extents: there is an object for each VSD */
	spinlock_t lock;

	enum scribe_lease lease;
	u64 epoch;
	bool dying; /* its dm device is gone */
	bool relet; /* failed, and to be taken anew */
	bool dropped; /* the last epoch ended that way: not all was flushed */
	bool lost; /* acknowledged writes were, since a user's last flush */
	struct xarray leaves;
	unsigned long nr_leaves;
	struct list_head lru;
	struct scribe_extent *young; /* small writes are appended here */
	u64 last_end; /* sector behind the last write: is it sequential? */

	struct list_head ranges[SCRIBE_RANGE_BUCKETS]; /* I/O in flight and queued, oldest first */
	struct list_head parked; /* I/O that waits for the daemon */
	u32 nr_active; /* I/O between admission and end */
	u32 nr_adding; /* of these, writes that will add an op */
	wait_queue_head_t idle;
	struct work_struct kick; /* tries parked I/O again */
	atomic_t nr_unmaps; /* from map to end; not under ->lock */
	wait_queue_head_t unmaps_queue;

	struct list_head intents; /* leaves with intent, oldest write first */
	u32 nr_intents;
	u64 gen; /* of the open batch; grows when it is closed */
	u64 flushed_gen; /* what was written before it is flushed, committed */

	struct list_head frozen; /* struct scribe_frozen */
	u32 nr_frozen;

	struct scribe_batch *open, *closed;
	bool closed_ready; /* the daemon may fetch it */
	u64 batch_seq; /* of the closed batch */
	u64 batch_acked;
	u64 batch_refused;
	bool refused; /* the closed one was, once */
	bool stuck; /* its data has no good copy */
	wait_queue_head_t committed;
	struct list_head flush_waiters; /* for the next closing */
	struct delayed_work flush;
	u32 copies; /* that new data has */
	u32 read_copy; /* 0; n: for people, only the n-th copy is read */
	struct scribe_vsd_stats stats;
};

int scribe_vsd_init(void);
void scribe_vsd_exit(void);

/**
 * scribe_vsd_open() - the VSD for a table of the dm target, made where there is none yet
 * @id: VSD id
 *
 * The live and the inactive table of one device share it.
 *
 * Context: process. Return: the VSD or an ERR_PTR.
 */
struct scribe_vsd *scribe_vsd_open(u64 id);
/*
 * A table of the device is gone. With the last one: gives up what is not committed, frees.
 * Context: process.
 */
void scribe_vsd_close(struct scribe_vsd *vsd);

/* With a reference, or NULL. Context: process. */
struct scribe_vsd *scribe_vsd_find(u64 id);
void scribe_vsd_put(struct scribe_vsd *vsd);

/* Calls @fn for each VSD, which may sleep. */
void scribe_vsd_for_each(void (*fn)(struct scribe_vsd *vsd, void *arg), void *arg);
void scribe_vsd_kick_all(void);

/* Said again in the same epoch, it changes how many copies new data has. */
int scribe_vsd_grant(struct scribe_vsd *vsd, u64 epoch, u32 copies);
int scribe_vsd_release(struct scribe_vsd *vsd, u64 epoch);
/*
 * The lease is lost; with an epoch only where it is held in that one, else -ESTALE. @relet: I/O
 * waits for the next one, and the next flush of a user's says what was lost.
 */
int scribe_vsd_fail(struct scribe_vsd *vsd, u64 epoch, bool relet);

/**
 * scribe_vsd_put_leaf() - install a leaf of the map as the daemon read it
 * @vsd: virtual disk
 * @epoch: lease under which it was asked for
 * @index: leaf
 * @segs: @nr_segs segments ordered by chunk and start
 * @extents: @nr_extents extents that they name
 * @why: set to a text for -EINVAL
 *
 * Return: 0, also where the leaf is there already (what is cached is newer); -ESTALE for another
 * epoch; -EINVAL for records that do not fit together; -ENOMEM.
 */
int scribe_vsd_put_leaf(struct scribe_vsd *vsd, u64 epoch, u64 index,
			const struct scribe_seg_rec *segs, u32 nr_segs,
			const struct scribe_extent_rec *extents, u32 nr_extents, const char **why);

/* Drops leaves that nothing pins, least recently used first; returns how many. */
unsigned long scribe_vsd_evict(struct scribe_vsd *vsd, unsigned long max);

/* Under vsd->lock: the leaf of a chunk or NULL; marks it used. */
struct scribe_leaf *scribe_vsd_leaf(struct scribe_vsd *vsd, u64 chunk);

/* Room for so many, or NULL. Context: process. */
struct scribe_segs *scribe_vsd_alloc_segs(u32 capacity);
/* Under vsd->lock: what a chunk maps to from now on, NULL for nothing; returns what it did. */
struct scribe_segs *scribe_vsd_swap_segs(struct scribe_leaf *leaf, u64 chunk,
					 struct scribe_segs *fresh);
/* With its references; NULL is fine. Any context, without the lock. */
void scribe_vsd_drop_segs(struct scribe_segs *segs);

/* Under vsd->lock: may this copy be read and written: not stale, reachable, no lost writes. */
bool scribe_vsd_copy_ok(struct scribe_vsd *vsd, const struct scribe_extent *extent, u32 copy,
			struct scribe_disk_view *view);

/* Under vsd->lock: is this the epoch in which the node has the VSD? */
bool scribe_vsd_in_epoch(struct scribe_vsd *vsd, u64 epoch);

/* intent.c */

/* Under vsd->lock: a write to the leaf has ended. */
void scribe_intent_touch(struct scribe_vsd *vsd, struct scribe_leaf *leaf);
/* Under vsd->lock: the leaf is forgotten. */
void scribe_intent_forget(struct scribe_vsd *vsd, struct scribe_leaf *leaf);

/**
 * scribe_intent_add() - the metadata has the intent: these leaves may be written in place
 * @vsd: virtual disk
 * @epoch: lease under which that was said
 * @leaves: their indexes; those that are not loaded are asked for again when they are
 * @nr: how many
 *
 * Context: process. Return: 0, -ESTALE for another epoch.
 */
int scribe_intent_add(struct scribe_vsd *vsd, u64 epoch, const u64 *leaves, u32 nr);
/**
 * scribe_intent_drop() - no writes in place from now on
 * @vsd: virtual disk
 * @epoch: lease
 * @leaves: their indexes; those whose copies are not durably equal are taken out
 * @nr: how many; set to how many are left
 *
 * Context: process. Return: 0, -ESTALE for another epoch.
 */
int scribe_intent_drop(struct scribe_vsd *vsd, u64 epoch, u64 *leaves, u32 *nr);
/* Leaves whose intent may be dropped, for WORK_GET; returns how many were filled in. */
u32 scribe_intent_collect(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max);

/* freeze.c */

/**
 * scribe_freeze_set() - what copies some extents have, for the daemon's mover
 * @vsd: virtual disk that writes them
 * @epoch: lease under which the daemon knows that
 * @recs: extents
 * @nr: how many
 * @why: set to a text on error where there is one
 *
 * Context: process, sleeps.
 * Return: 0; -ESTALE for another epoch; -EINVAL; -ENOMEM; -EBUSY, -EAGAIN as EXTENTS_SET says.
 */
int scribe_freeze_set(struct scribe_vsd *vsd, u64 epoch, const struct scribe_extent_rec *recs,
		      u32 nr, const char **why);
/**
 * scribe_freeze_moved() - where the copies of some extents are, for all VSDs that only read them
 * @recs: extents
 * @nr: how many
 * @why: set to a text on error where there is one
 *
 * Context: process. Return: 0; -EINVAL, and nothing was changed.
 */
int scribe_freeze_moved(const struct scribe_extent_rec *recs, u32 nr, const char **why);
/* The lease is over: forgets what is frozen. */
void scribe_freeze_drop(struct scribe_vsd *vsd);
/* Frozen extents, for WORK_GET; returns how many were filled in. */
u32 scribe_freeze_collect(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max);

/* pieces.c */

/**
 * scribe_pieces_moved() - the map leads to other places with the same data
 * @vsd: virtual disk
 * @epoch: lease in which the metadata says so
 * @recs: ranges, what they were mapped to and where in the new extent they are
 * @nr: how many
 * @to: the new extent
 * @why: set to a text for -EINVAL
 *
 * What is not loaded, or was written elsewhere meanwhile, stays as it is.
 *
 * Context: process.
 * Return: 0; -ESTALE for another epoch; -EINVAL, and nothing was changed; -ENOMEM, and the rest is
 * as it was: say it again.
 */
int scribe_pieces_moved(struct scribe_vsd *vsd, u64 epoch, const struct scribe_piece_rec *recs,
			u32 nr, const struct scribe_extent_rec *to, const char **why);

/* flush.c */
int scribe_flush_init(void);
void scribe_flush_exit(void);
void scribe_flush_work(struct work_struct *work);

struct scribe_batch *scribe_batch_alloc(void);
/* Forgets everything in it. */
void scribe_batch_drop(struct scribe_vsd *vsd, struct scribe_batch *batch);
void scribe_batch_free(struct scribe_batch *batch);

/* Mempool-backed; free with the other. Context: may sleep unless atomic, which may give NULL. */
struct scribe_op *scribe_op_alloc(void);
void scribe_op_free(struct scribe_op *op);
struct scribe_dirty *scribe_dirty_alloc(gfp_t gfp);
void scribe_dirty_free(struct scribe_dirty *dirty);

/* Under vsd->lock: a disk was written in this life. */
void scribe_batch_note_disk(struct scribe_vsd *vsd, u32 disk, u64 life);
/* Under vsd->lock: uses up *dirty where the extent was not yet on the list. */
void scribe_batch_note_extent(struct scribe_vsd *vsd, struct scribe_extent *extent,
			      struct scribe_dirty **dirty);
/*
 * Under vsd->lock: appends a change; frees @op where it continues the last one. Takes a
 * reference.
 */
void scribe_batch_add_op(struct scribe_vsd *vsd, struct scribe_op *op, struct scribe_leaf *leaf,
			 u64 chunk, u32 start, u32 len, struct scribe_extent *extent, u32 off);

/* Completes the waiter when everything written before the call is flushed and committed. */
void scribe_flush_join(struct scribe_vsd *vsd, struct scribe_flush_waiter *waiter);
/* The same, sleeping; 0, -EIO, -EINTR killed, -ETIMEDOUT after the limit (0: none). */
int scribe_flush_sync(struct scribe_vsd *vsd, unsigned int limit_ms);
/* Under vsd->lock: unflushed data exists, see that it is flushed soon, or at once. */
void scribe_flush_schedule(struct scribe_vsd *vsd, bool now);

struct sk_buff;
int scribe_batch_fill(struct scribe_vsd *vsd, struct sk_buff *skb);
u32 scribe_batch_bytes(struct scribe_vsd *vsd);
/* @refused: its stale copies would leave an extent without a good one; it is flushed again. */
int scribe_batch_done(struct scribe_vsd *vsd, u64 epoch, u64 seq, bool refused);
/* Under vsd->lock: what a flush that waits for a good copy waits for, for WORK_GET. */
u32 scribe_batch_collect_stuck(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max);

#endif
