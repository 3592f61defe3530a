/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Disks of the cluster as this node sees them, and requests ("legs") to them.
 *
 *   absent -> local | remote        DISK_OPEN, ROUTE_SET
 *   local  -> failed | absent       a failed write or flush, or no answer for long; DISK_CLOSE
 *   remote -> failed | absent       its host says that the disk failed; ROUTE_DEL
 *   failed -> local | remote | absent   only with a new life
 *
 * A disk object, once made, lives until the module is unloaded; its fields change.
 */
#ifndef SCRIBE_DISK_H
#define SCRIBE_DISK_H

#include "scribe.h"
#include "compat.h"

enum scribe_disk_state {
	SCRIBE_DISK_ABSENT,
	SCRIBE_DISK_LOCAL,
	SCRIBE_DISK_REMOTE,
	SCRIBE_DISK_FAILED,
	SCRIBE_DISK_NR_STATES
};

struct scribe_disk {
	u32 id;
	spinlock_t lock;		/* state, life, node, tier */
	enum scribe_disk_state state;
	u64 life;
	u32 node;			/* host of a remote disk */
	u8 tier;
	bool was_local;			/* failed while open here: handle must still be closed */
	struct scribe_bdev handle;
	u8 uuid[16];			/* of the open one */
	u64 slots;
	atomic_t inflight;		/* bios on the local device */
	unsigned long ended_jiffies;	/* when one last ended */
	unsigned long seen_jiffies;	/* the tick's: that value, a second ago */
	u32 stuck_ticks;		/* seconds in which bios waited and none ended */
	atomic64_t reads, writes, flushes, errors;
};

/*
 * One request to one disk. The data is the bio's; a flush has none. Whoever submits a leg gets it
 * back through ->done() exactly once, in any context, and only when nobody uses its bio any more.
 */
struct scribe_leg {
	void (*done)(struct scribe_leg *leg);
	void *owner;
	struct scribe_disk *disk;
	u64 life;			/* that the disk must have */
	u64 sector;			/* from slot 0 of the disk */
	u32 length_bytes;
	u32 pos;			/* owner's: sectors into its own bio */
	struct scribe_extent *extent;	/* owner's */
	struct list_head node;		/* owner's, or the backplane's while submitted */
	u16 tag;			/* backplane's */
	u8 op;				/* enum scribe_wire_op: READ, WRITE, FLUSH */
	u8 copy;			/* owner's: index in the extent */
	u8 tried;			/* owner's: mask of copies */
	u8 moves;			/* owner's: of the extent, then */
	u8 sends;			/* backplane's: times sent because of a wrong checksum */
	bool background;		/* users' legs may pass it */
	bool may_push;			/* whoever submits it may sleep, and send it */
	blk_status_t status;
	struct bvec_iter iter;		/* of the bio, before somebody advanced it */
	struct bio bio;			/* last: the bio set's front padding */
};

int scribe_disk_init(void);
void scribe_disk_exit(void);

/* A leg without a bio's data; NULL never, it waits for the pool. Context: may sleep. */
struct scribe_leg *scribe_leg_alloc(u8 op);

/* A leg whose bio is the given part of @source. Context: may sleep. */
struct scribe_leg *scribe_leg_clone(struct bio *source, u8 op, u32 pos, u32 sectors);
void scribe_leg_free(struct scribe_leg *leg);

/* Gives the leg back to whoever submitted it; leg->status says how it went. Any context. */
void scribe_leg_end(struct scribe_leg *leg);

/* Routes a leg to the local device or to the peer that has the disk. Context: may sleep. */
void scribe_disk_submit(struct scribe_leg *leg);

/* Did a leg fail without an answer of its disk, so that trying again may help? */
static inline bool scribe_leg_unanswered(blk_status_t status)
{
	return status == BLK_STS_TRANSPORT || status == BLK_STS_OFFLINE;
}

/* The disk with this id, NULL where it was never named. Any context. */
struct scribe_disk *scribe_disk_find(u32 id);

struct scribe_disk_view {
	enum scribe_disk_state state;
	u64 life;
	u8 tier;
};

/* Consistent copy of the changing fields, ABSENT where the id is unknown. Any context. */
struct scribe_disk_view scribe_disk_view(u32 id);

/* Can a request reach it now? Any context. */
bool scribe_disk_reachable(const struct scribe_disk_view *view, u32 id);

/**
 * scribe_disk_open() - claim a local device as one of the cluster's disks
 * @id: disk id that the superblock must have
 * @uuid: disk UUID that it must have
 * @path: block device
 * @tier: enum scribe_tier
 * @life: set to the new life
 * @slots: set to the number of slots
 * @why: set to a text on error where there is one
 *
 * Context: process, sleeps.
 * Return: 0; -EBUSY open already or claimed by another; -EINVAL not this disk.
 */
int scribe_disk_open(u32 id, const u8 *uuid, const char *path, u8 tier, u64 *life, u64 *slots,
		     const char **why);

/*
 * Ends the local life; returns when its last bio has ended. -ENOENT where it is not open here;
 * -EAGAIN where bios are still with the device after a second: the life is over, ask again.
 */
int scribe_disk_close(u32 id);

/* Every second: a local disk from which nothing comes back counts as failed. */
void scribe_disk_tick(void);

/* A disk of a peer and its life. -EBUSY where the disk is open here. */
int scribe_disk_set_route(u32 id, u32 node, u64 life, u8 tier);
int scribe_disk_del_route(u32 id);

/* The disk lost a write or a flush: this life is over. Any context. */
void scribe_disk_fail(struct scribe_disk *disk, u64 life);

/* Failed disks, for WORK_GET; returns how many were filled in. */
u32 scribe_disk_collect_failed(struct scribe_work_rec *recs, u32 max);

/*
 * The backplane target's side: a bio on the local device, under the disk's in-flight count.
 * begin: 0, or -ENODEV absent, -ESTALE another life, -ERANGE beyond the last slot.
 */
int scribe_disk_begin(u32 id, u64 life, u64 sector, u32 length_bytes, struct scribe_disk **disk);
void scribe_disk_end(struct scribe_disk *disk);

#endif
