// SPDX-License-Identifier: GPL-2.0
#include "io.h"

#include <linux/device-mapper.h>

#include "node.h"
#include "plan.h"
#include "range.h"
#include "reserve.h"
#include "trace.h"

#define WRITE_ATTEMPTS 16 /* redirects of one write before it waits */

static void start_io(struct scribe_io *io);
static void run_io(struct scribe_io *io);

static void io_worker(struct work_struct *work)
{
	struct scribe_io *io = container_of(work, struct scribe_io, work);

	io->step(io);
}

void scribe_io_defer(struct scribe_io *io, void (*step)(struct scribe_io *io))
{
	io->step = step;
	queue_work(scribe_wq, &io->work);
}

void scribe_io_go(struct scribe_io *io)
{
	scribe_io_defer(io, run_io);
}

/* Under vsd->lock: the I/O is over or will start anew. */
static void leave(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;

	lockdep_assert_held(&vsd->lock);
	list_del_init(&io->node);
	scribe_range_wake(vsd, io->chunk);
	if (io->adding) {
		struct scribe_leaf *leaf = scribe_vsd_leaf(vsd, io->chunk);

		vsd->nr_adding--;
		leaf->pins--;
		scribe_intent_touch(vsd, leaf);
	}
	io->adding = false;
	if (!--vsd->nr_active)
		wake_up_all(&vsd->idle);
	scribe_barrier_leave(io->generation);
}

static void end_io(struct scribe_io *io, blk_status_t status)
{
	trace_scribe_io_end(io->vsd->id, io->chunk * SCRIBE_CHUNK_SECTORS + io->start, io->len,
			    io->kind, blk_status_to_errno(status));
	if (io->kind == SCRIBE_IO_UNMAP) {
		atomic_dec(&io->vsd->nr_unmaps);
		wake_up(&io->vsd->unmaps_queue);
	}
	io->bio->bi_status = status;
	bio_endio(io->bio);
}

static void flush_done(struct scribe_flush_waiter *waiter, blk_status_t status)
{
	end_io(container_of(waiter, struct scribe_io, flush), status);
}

/* The range is left and the map tells the new truth: report it, for FUA after a flush. */
static void complete_io(struct scribe_io *io, blk_status_t status)
{
	if (!status && io->bio->bi_opf & REQ_FUA) {
		io->flush.user = true;
		io->flush.done = flush_done;
		scribe_flush_join(io->vsd, &io->flush);
		return;
	}
	end_io(io, status);
}

void scribe_io_finish(struct scribe_io *io, blk_status_t status)
{
	unsigned long flags;

	if (io->target)
		scribe_extent_put(io->target);
	io->target = NULL;
	spin_lock_irqsave(&io->vsd->lock, flags);
	leave(io);
	spin_unlock_irqrestore(&io->vsd->lock, flags);
	complete_io(io, status);
}

/* Parking */

static void park_locked(struct scribe_io *io, enum scribe_park why)
{
	lockdep_assert_held(&io->vsd->lock);
	io->park = why;
	trace_scribe_io_park(io->vsd->id, io->chunk * SCRIBE_CHUNK_SECTORS + io->start, io->len,
			     io->kind, why);
	list_add_tail(&io->node, &io->vsd->parked);
	scribe_event();
}

void scribe_io_leave_and_park(struct scribe_io *io, enum scribe_park why)
{
	struct scribe_vsd *vsd = io->vsd;
	unsigned long flags;

	spin_lock_irqsave(&vsd->lock, flags);
	leave(io);
	park_locked(io, why);
	spin_unlock_irqrestore(&vsd->lock, flags);
}

/* Its leaf, or its intent, is still to come: the daemon knows, and there may be many like it. */
static bool still_parked(struct scribe_io *io)
{
	struct scribe_leaf *leaf;

	lockdep_assert_held(&io->vsd->lock);
	if (io->vsd->lease != SCRIBE_LEASE_OWNED)
		return false;
	leaf = scribe_vsd_leaf(io->vsd, io->chunk);
	return (io->park == SCRIBE_PARK_LEAF && !leaf) ||
	       (io->park == SCRIBE_PARK_INTENT && leaf && !leaf->intent);
}

static bool space_timeout(struct scribe_io *io)
{
	if (!scribe_reserve_nospace(io->vsd->copies)) {
		io->parked_jiffies = 0;
		return false;
	}
	if (!io->parked_jiffies)
		io->parked_jiffies = jiffies | 1;
	return time_after(jiffies, io->parked_jiffies + msecs_to_jiffies(SCRIBE_NOSPACE_MS));
}

void scribe_io_retry_parked(struct scribe_vsd *vsd)
{
	struct scribe_io *io, *next;
	LIST_HEAD(again);

	spin_lock_irq(&vsd->lock);
	list_for_each_entry_safe(io, next, &vsd->parked, node) {
		if (!still_parked(io))
			list_move_tail(&io->node, &again);
	}
	spin_unlock_irq(&vsd->lock);
	list_for_each_entry_safe(io, next, &again, node) {
		list_del_init(&io->node);
		if (io->park == SCRIBE_PARK_SPACE && space_timeout(io))
			end_io(io, BLK_STS_NOSPC);
		else
			start_io(io);
	}
}

u32 scribe_io_collect_wants(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max)
{
	struct scribe_io *io;
	bool lease = false;
	u32 nr = 0, i;

	spin_lock_irq(&vsd->lock);
	list_for_each_entry(io, &vsd->parked, node) {
		struct scribe_work_rec rec = { .vsd = vsd->id };

		if (nr >= min(max, SCRIBE_LEAF_WANTED_MAX))
			break;
		if (io->park == SCRIBE_PARK_LEASE && !lease && vsd->lease == SCRIBE_LEASE_NONE) {
			lease = true;
			rec.type = SCRIBE_WORK_LEASE_WANTED;
			recs[nr++] = rec;
		} else if ((io->park == SCRIBE_PARK_LEAF || io->park == SCRIBE_PARK_INTENT) &&
			   vsd->lease != SCRIBE_LEASE_NONE) {
			rec.type = io->park == SCRIBE_PARK_LEAF ? SCRIBE_WORK_LEAF_WANTED
								: SCRIBE_WORK_INTENT_WANTED;
			rec.arg = io->chunk / SCRIBE_LEAF_CHUNKS;
			/* From the end: neighbours in the list want the same leaf as a rule. */
			for (i = nr; i > 0; i--) {
				if (recs[i - 1].type == rec.type && recs[i - 1].arg == rec.arg)
					break;
			}
			if (!i)
				recs[nr++] = rec;
		}
	}
	if (vsd->closed_ready && nr < max)
		recs[nr++] = (struct scribe_work_rec){
			.type = SCRIBE_WORK_BATCH_READY,
			.vsd = vsd->id,
			.arg = vsd->batch_seq,
		};
	if (vsd->stuck)
		nr += scribe_batch_collect_stuck(vsd, recs + nr, max - nr);
	spin_unlock_irq(&vsd->lock);
	return nr;
}

/* Writes */

static void write_end(struct scribe_io *io);
static void submit_write(struct scribe_io *io);

/* The common end, in place and without an error, in whatever context the last leg ended in. */
static bool write_end_fast(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;
	struct scribe_extent *extent = io->target;
	struct scribe_dirty *dirty = NULL;
	unsigned long flags;
	u32 i;

	if (!io->in_place || io->skipped || atomic_read(&io->failed))
		return false;
	if (!(READ_ONCE(extent->flags) & SCRIBE_EXT_OPEN_DIRTY)) {
		dirty = scribe_dirty_alloc(GFP_NOWAIT);
		if (!dirty)
			return false;
	}
	spin_lock_irqsave(&vsd->lock, flags);
	if (!dirty && !(extent->flags & SCRIBE_EXT_OPEN_DIRTY)) {
		/* A flush closed the batch meanwhile. */
		spin_unlock_irqrestore(&vsd->lock, flags);
		return false;
	}
	for (i = 0; i < extent->nr_copies; i++) {
		if (!io->lives[i])
			continue;
		scribe_batch_note_disk(vsd, extent->copy[i].disk, io->lives[i]);
		extent->open.written |= BIT(i);
	}
	scribe_batch_note_extent(vsd, extent, &dirty);
	scribe_flush_schedule(vsd, false);
	leave(io);
	spin_unlock_irqrestore(&vsd->lock, flags);
	scribe_dirty_free(dirty);
	io->target = NULL;
	scribe_extent_put(extent);
	complete_io(io, BLK_STS_OK);
	return true;
}

static void put_write(struct scribe_io *io)
{
	if (atomic_dec_and_test(&io->pending) && !write_end_fast(io))
		scribe_io_defer(io, write_end);
}

static void write_leg_done(struct scribe_leg *leg)
{
	struct scribe_io *io = leg->owner;

	if (leg->status)
		atomic_or(BIT(leg->copy), &io->failed);
	scribe_leg_free(leg);
	put_write(io);
}

static void submit_write(struct scribe_io *io)
{
	struct scribe_leg *near[SCRIBE_MAX_COPIES];
	struct scribe_extent *extent = io->target;
	u32 nr_copies = extent->nr_copies;
	u32 i, nr_near = 0;

	atomic_set(&io->failed, 0);
	/* One for us: the legs must not end the I/O while we still send. */
	atomic_set(&io->pending, nr_copies + 1);
	for (i = 0; i < nr_copies; i++) {
		struct scribe_leg *leg;

		if (!io->lives[i]) {
			atomic_dec(&io->pending); /* not the last: ours is left */
			continue;
		}
		leg = scribe_leg_clone(io->bio, SCRIBE_WIRE_WRITE, 0, io->len);

		leg->done = write_leg_done;
		leg->owner = io;
		leg->copy = i;
		leg->disk = scribe_disk_find(extent->copy[i].disk);
		leg->life = io->lives[i];
		leg->sector = (u64)extent->copy[i].slot * SCRIBE_SLOT_SECTORS + io->target_off;
		leg->may_push = true;
		/* Other nodes first: theirs is the longer way. */
		if (READ_ONCE(leg->disk->state) == SCRIBE_DISK_REMOTE)
			scribe_disk_submit(leg);
		else
			near[nr_near++] = leg;
	}
	for (i = 0; i < nr_near; i++)
		scribe_disk_submit(near[i]);
	put_write(io);
}

void scribe_io_note_written(struct scribe_vsd *vsd, struct scribe_extent *extent, const u64 *lives,
			    u32 failed, u32 skipped)
{
	struct scribe_dirty *dirty = scribe_dirty_alloc(GFP_NOIO);
	u32 i;

	spin_lock_irq(&vsd->lock);
	for (i = 0; i < extent->nr_copies; i++) {
		if (!lives[i] || failed & BIT(i))
			continue;
		scribe_batch_note_disk(vsd, extent->copy[i].disk, lives[i]);
		extent->open.written |= BIT(i);
	}
	scribe_batch_note_extent(vsd, extent, &dirty);
	extent->open.failed |= failed;
	extent->open.skipped |= skipped;
	scribe_flush_schedule(vsd, false);
	spin_unlock_irq(&vsd->lock);
	scribe_dirty_free(dirty);
}

int scribe_io_remap(struct scribe_vsd *vsd, u64 chunk, u32 start, u32 len,
		    struct scribe_extent *extent, u32 off)
{
	struct scribe_op *op = scribe_op_alloc();
	struct scribe_segs *fresh = NULL, *old;
	struct scribe_leaf *leaf;
	int err = -ENOMEM;
	bool empty;
	u32 need;

	/*
	 * Only changes of the map come here, not writes in place. The new array is sized for what
	 * is there, outside of the lock; at most 66 segments, so the allocation cannot fail for
	 * long.
	 */
	for (need = SCRIBE_SEGS_GROWTH;;) {
		struct scribe_segs **slot;

		kfree(fresh);
		fresh = scribe_vsd_alloc_segs(need);
		if (!fresh)
			goto err_op;
		spin_lock_irq(&vsd->lock);
		if (extent && extent->flags & SCRIBE_EXT_DEAD) {
			spin_unlock_irq(&vsd->lock);
			err = -ESTALE;
			goto err_op;
		}
		leaf = scribe_vsd_leaf(vsd, chunk);
		slot = &leaf->segs[chunk % SCRIBE_LEAF_CHUNKS];
		old = *slot;
		if (!scribe_segs_splice(old, start, len, extent, off, fresh))
			break;
		need = old->nr + SCRIBE_SEGS_GROWTH;
		spin_unlock_irq(&vsd->lock);
	}
	/* Once the lock is dropped, the next change of this chunk may free the array. */
	empty = !fresh->nr;
	old = scribe_vsd_swap_segs(leaf, chunk, empty ? NULL : fresh);
	scribe_batch_add_op(vsd, op, leaf, chunk, start, len, extent, off);
	vsd->stats.ops++;
	scribe_flush_schedule(vsd, false);
	spin_unlock_irq(&vsd->lock);
	scribe_vsd_drop_segs(old);
	if (empty)
		kfree(fresh);
	return 0;

err_op:
	kfree(fresh);
	scribe_op_free(op);
	return err;
}

/*
 * The data has no place for now, and the map still leads to where a write in place failed. Each
 * copy there may have it or not, so just one of them counts until the others are made equal to it;
 * for who waits here may go without another try, and the lease to another node.
 */
static void give_up(struct scribe_io *io)
{
	struct scribe_extent *extent = io->left;
	struct scribe_disk_view view;
	struct scribe_dirty *dirty;
	u32 reached = 0, i;

	if (!extent)
		return;
	io->left = NULL;
	dirty = scribe_dirty_alloc(GFP_NOIO);
	spin_lock_irq(&io->vsd->lock);
	for (i = 0; i < extent->nr_copies; i++) {
		view = scribe_disk_view(extent->copy[i].disk);
		if (scribe_disk_reachable(&view, extent->copy[i].disk))
			reached |= BIT(i);
	}
	scribe_batch_note_extent(io->vsd, extent, &dirty);
	extent->open.unsettled |= reached ?: BIT(0);
	scribe_flush_schedule(io->vsd, false);
	spin_unlock_irq(&io->vsd->lock);
	scribe_dirty_free(dirty);
	scribe_extent_put(extent);
}

/* Some copy did not get it: the same data goes to other space, the range still held (R1, R2). */
static void redirect(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;
	bool planned = false;

	if (io->in_place)
		io->left = io->target;
	else
		scribe_extent_put(io->target);
	io->target = NULL;
	if (++io->attempts > WRITE_ATTEMPTS) {
		/* Disks come and go: let the daemon have its say before the next try. */
		give_up(io);
		scribe_io_leave_and_park(io, SCRIBE_PARK_SPACE);
		return;
	}
	spin_lock_irq(&vsd->lock);
	vsd->stats.redirected++;
	trace_scribe_io_redirect(io->vsd->id, io->chunk * SCRIBE_CHUNK_SECTORS + io->start, io->len,
				 io->kind, atomic_read(&io->failed));
	if (vsd->lease != SCRIBE_LEASE_FAILED) {
		struct scribe_leaf *leaf = scribe_vsd_leaf(vsd, io->chunk);

		planned = scribe_plan_fresh(io, leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS]);
	}
	if (planned) {
		io->in_place = false;
		io->skipped = 0;
	}
	spin_unlock_irq(&vsd->lock);
	if (planned) {
		submit_write(io);
	} else {
		give_up(io);
		scribe_io_leave_and_park(io, SCRIBE_PARK_SPACE);
	}
}

void scribe_io_unpin(struct scribe_io *io)
{
	spin_lock_irq(&io->vsd->lock);
	scribe_vsd_leaf(io->vsd, io->chunk)->pins--;
	spin_unlock_irq(&io->vsd->lock);
}

static void write_end(struct scribe_io *io)
{
	u32 failed = atomic_read(&io->failed);
	int err = 0;

	scribe_io_note_written(io->vsd, io->target, io->lives, failed, io->skipped);
	if (!failed && !io->in_place)
		err = scribe_io_remap(io->vsd, io->chunk, io->start, io->len, io->target,
				      io->target_off);
	if (failed || err == -ESTALE) {
		redirect(io);
		return;
	}
	if (err)
		give_up(io);
	if (io->left)
		scribe_extent_put(io->left);
	io->left = NULL;
	scribe_io_finish(io, err ? BLK_STS_RESOURCE : BLK_STS_OK);
}

static void unmap_range(struct scribe_io *io)
{
	int err = scribe_io_remap(io->vsd, io->chunk, io->start, io->len, NULL, 0);

	scribe_io_finish(io, err ? BLK_STS_RESOURCE : BLK_STS_OK);
}

static void rewrite_first(struct scribe_io *io)
{
	int err = scribe_rewrite_chunk(io->vsd, io->chunk);

	if (err == -EAGAIN) {
		scribe_io_leave_and_park(io, SCRIBE_PARK_SPACE);
	} else if (err) {
		scribe_io_finish(io, BLK_STS_IOERR);
	} else {
		spin_lock_irq(&io->vsd->lock);
		io->rewrite = false;
		io->alone = false;
		leave(io);
		spin_unlock_irq(&io->vsd->lock);
		start_io(io);
	}
}

/* The way of an I/O */

static void add_change(struct scribe_io *io, struct scribe_leaf *leaf)
{
	lockdep_assert_held(&io->vsd->lock);
	io->adding = true;
	io->vsd->nr_adding++;
	leaf->pins++;
}

/* The range is held: look at the map. Context: process. */
static void run_io(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;
	enum scribe_plan plan = SCRIBE_PLAN_NOTHING;
	struct scribe_segs *segs;
	struct scribe_leaf *leaf;

	spin_lock_irq(&vsd->lock);
	leaf = scribe_vsd_leaf(vsd, io->chunk);
	if (!leaf || vsd->lease == SCRIBE_LEASE_FAILED) {
		leave(io);
		park_locked(io, leaf ? SCRIBE_PARK_LEASE : SCRIBE_PARK_LEAF);
		if (leaf)
			queue_work(scribe_wq, &vsd->kick);
		spin_unlock_irq(&vsd->lock);
		return;
	}
	segs = leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS];
	switch (io->kind) {
	case SCRIBE_IO_READ:
		vsd->stats.reads++;
		leaf->pins++;
		break;
	case SCRIBE_IO_WRITE:
		vsd->stats.writes++;
		plan = io->rewrite ? SCRIBE_PLAN_REWRITE : scribe_plan_write(io, leaf);
		break;
	default:
		vsd->stats.discards++;
		plan = io->rewrite ? SCRIBE_PLAN_REWRITE : scribe_plan_unmap(io, segs);
		break;
	}
	/*
	 * A leaf with a write under way stays: a write that fails in place becomes a change of
	 * the map, and a change needs its leaf until it is in the batch.
	 */
	if (io->kind != SCRIBE_IO_READ && plan == SCRIBE_PLAN_GO)
		add_change(io, leaf);
	if (plan == SCRIBE_PLAN_ALONE || (plan == SCRIBE_PLAN_REWRITE && !io->rewrite)) {
		/* Again from the end of the queue, for the whole chunk. */
		leave(io);
		io->alone = true;
		io->rewrite = plan == SCRIBE_PLAN_REWRITE;
		spin_unlock_irq(&vsd->lock);
		start_io(io);
		return;
	}
	spin_unlock_irq(&vsd->lock);

	if (io->kind == SCRIBE_IO_READ)
		scribe_read_run(io, leaf);
	else if (plan == SCRIBE_PLAN_REWRITE)
		scribe_io_defer(io, rewrite_first);
	else if (plan == SCRIBE_PLAN_NO_SPACE)
		scribe_io_leave_and_park(io, SCRIBE_PARK_SPACE);
	else if (plan == SCRIBE_PLAN_INTENT)
		scribe_io_leave_and_park(io, SCRIBE_PARK_INTENT);
	else if (plan == SCRIBE_PLAN_NOTHING)
		scribe_io_finish(io, BLK_STS_OK);
	else if (io->kind == SCRIBE_IO_UNMAP)
		scribe_io_defer(io, unmap_range);
	else
		submit_write(io);
}

/* Admission: fail, park, queue behind a range, or run. Context: process. */
static void start_io(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;
	bool run = false, fail = false;

	spin_lock_irq(&vsd->lock);
	io->in_place = false;
	io->skipped = 0;
	io->lost_leg = false;
	io->attempts = 0;
	io->lock_start = io->alone ? 0 : io->start;
	io->lock_len = io->alone ? SCRIBE_CHUNK_SECTORS : io->len;
	if (vsd->lease == SCRIBE_LEASE_FAILED && !vsd->relet) {
		fail = true;
	} else if (vsd->lease != SCRIBE_LEASE_OWNED || scribe_node_expired()) {
		park_locked(io, SCRIBE_PARK_LEASE);
	} else if (io->kind != SCRIBE_IO_READ &&
		   vsd->open->nr_ops + vsd->nr_adding >= SCRIBE_BATCH_MAX_OPS) {
		/* Writers slow down to the commit rate. */
		park_locked(io, SCRIBE_PARK_BATCH);
		scribe_flush_schedule(vsd, true);
	} else {
		io->generation = scribe_barrier_enter();
		vsd->nr_active++;
		scribe_range_enter(io);
		run = !io->waiting;
		trace_scribe_io_start(io->vsd->id, io->chunk * SCRIBE_CHUNK_SECTORS + io->start,
				      io->len, io->kind, io->waiting);
	}
	spin_unlock_irq(&vsd->lock);
	if (fail)
		end_io(io, BLK_STS_IOERR);
	else if (run)
		run_io(io);
}

int scribe_io_map(struct scribe_vsd *vsd, struct bio *bio)
{
	struct scribe_io *io = dm_per_bio_data(bio, sizeof(*io));
	sector_t sector = bio->bi_iter.bi_sector;
	u32 start = sector % SCRIBE_CHUNK_SECTORS;
	u32 room = SCRIBE_CHUNK_SECTORS - start;

	memset(io, 0, sizeof(*io));
	io->vsd = vsd;
	io->bio = bio;
	INIT_LIST_HEAD(&io->node);
	INIT_LIST_HEAD(&io->retry);
	spin_lock_init(&io->retry_lock);
	INIT_WORK(&io->work, io_worker);

	if (bio->bi_opf & REQ_PREFLUSH) {
		io->flush.user = true;
		io->flush.done = flush_done;
		scribe_flush_join(vsd, &io->flush);
		return DM_MAPIO_SUBMITTED;
	}
	if (bio_sectors(bio) > room)
		dm_accept_partial_bio(bio, room);
	io->chunk = sector;
	sector_div(io->chunk, SCRIBE_CHUNK_SECTORS);
	io->start = start;
	io->len = bio_sectors(bio);
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		io->kind = SCRIBE_IO_READ;
		break;
	case REQ_OP_WRITE:
		io->kind = SCRIBE_IO_WRITE;
		break;
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		io->kind = SCRIBE_IO_UNMAP;
		/*
		 * One discard may span the disk, and dm makes a bio of each chunk of it: whoever
		 * sends it waits here, or they would fill the memory. No leg of ours is behind
		 * us in the submitter's list, it holds the rest of the discard.
		 */
		wait_event(vsd->unmaps_queue,
			   atomic_add_unless(&vsd->nr_unmaps, 1, SCRIBE_UNMAPS_MAX));
		break;
	default:
		return DM_MAPIO_KILL;
	}
	start_io(io);
	return DM_MAPIO_SUBMITTED;
}
