// SPDX-License-Identifier: GPL-2.0
#include "io.h"

#include <linux/device-mapper.h>
#include <linux/hash.h>
#include <linux/mempool.h>

#include "node.h"
#include "reserve.h"

#define WRITE_ATTEMPTS 16 /* redirects of one write before it waits */

static void start_io(struct scribe_io *io);
static void run_io(struct scribe_io *io);

static void io_worker(struct work_struct *work)
{
	struct scribe_io *io = container_of(work, struct scribe_io, work);

	io->step(io);
}

static void defer(struct scribe_io *io, void (*step)(struct scribe_io *io))
{
	io->step = step;
	queue_work(scribe_wq, &io->work);
}

/* Ranges */

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

static void enter_range(struct scribe_io *io)
{
	lockdep_assert_held(&io->vsd->lock);
	list_add_tail(&io->node, bucket_of(io->vsd, io->chunk));
	io->waiting = blocked(io);
}

static void wake_range(struct scribe_vsd *vsd, u64 chunk)
{
	struct scribe_io *io;

	list_for_each_entry(io, bucket_of(vsd, chunk), node) {
		if (io->waiting && !blocked(io)) {
			io->waiting = false;
			defer(io, run_io);
		}
	}
}

/* Under vsd->lock: the I/O is over or will start anew. */
static void leave(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;

	lockdep_assert_held(&vsd->lock);
	list_del_init(&io->node);
	wake_range(vsd, io->chunk);
	if (io->adding) {
		vsd->nr_adding--;
		scribe_vsd_leaf(vsd, io->chunk)->pins--;
	}
	io->adding = false;
	if (!--vsd->nr_active)
		wake_up_all(&vsd->idle);
	scribe_barrier_leave(io->generation);
}

static void end_io(struct scribe_io *io, blk_status_t status)
{
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
		io->flush.done = flush_done;
		scribe_flush_join(io->vsd, &io->flush);
		return;
	}
	end_io(io, status);
}

static void finish(struct scribe_io *io, blk_status_t status)
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
	list_add_tail(&io->node, &io->vsd->parked);
	scribe_event();
}

static void leave_and_park(struct scribe_io *io, enum scribe_park why)
{
	struct scribe_vsd *vsd = io->vsd;
	unsigned long flags;

	spin_lock_irqsave(&vsd->lock, flags);
	leave(io);
	park_locked(io, why);
	spin_unlock_irqrestore(&vsd->lock, flags);
}

static bool space_timeout(struct scribe_io *io)
{
	if (!scribe_reserve_nospace()) {
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
	list_splice_init(&vsd->parked, &again);
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
		} else if (io->park == SCRIBE_PARK_LEAF && vsd->lease != SCRIBE_LEASE_NONE) {
			rec.type = SCRIBE_WORK_LEAF_WANTED;
			rec.arg = io->chunk / SCRIBE_LEAF_CHUNKS;
			for (i = 0; i < nr && (recs[i].type != rec.type || recs[i].arg != rec.arg);
			     i++)
				;
			if (i == nr)
				recs[nr++] = rec;
		}
	}
	if (vsd->closed_ready && nr < max)
		recs[nr++] = (struct scribe_work_rec){
			.type = SCRIBE_WORK_BATCH_READY,
			.vsd = vsd->id,
			.arg = vsd->batch_seq,
		};
	spin_unlock_irq(&vsd->lock);
	return nr;
}

/* Plan */

struct scribe_disk *scribe_io_choose(struct scribe_vsd *vsd, const struct scribe_extent *extent,
				     u32 tried, u32 *copy, u64 *life)
{
	struct scribe_disk *best = NULL;
	int best_score = -1;
	u32 i;

	lockdep_assert_held(&vsd->lock);
	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view;
		int score;

		if (tried & BIT(i) || !scribe_vsd_copy_ok(vsd, extent, i, &view))
			continue;
		/*
		 * A local copy first, else the SSD; extents are many, so ids spread what is
		 * equal.
		 */
		score = (view.state == SCRIBE_DISK_LOCAL) * 4 + (view.tier == SCRIBE_TIER_SSD) * 2 +
			((extent->id + i) & 1);
		if (score > best_score) {
			best_score = score;
			best = scribe_disk_find(extent->copy[i].disk);
			*copy = i;
			*life = view.life;
		}
	}
	return best;
}

bool scribe_io_may_return(const struct scribe_extent *extent, u32 tried)
{
	u32 i;

	for (i = 0; i < extent->nr_copies; i++) {
		if (!(tried & BIT(i)) && !(READ_ONCE(extent->copy[i].flags) & SCRIBE_COPY_STALE))
			return true;
	}
	return false;
}

/* R1: exclusive, and all copies reachable and current. Gives the disks' lives. */
static bool in_place_ok(struct scribe_vsd *vsd, const struct scribe_extent *extent, u64 *lives)
{
	u32 i;

	if (!(extent->flags & SCRIBE_EXT_EXCLUSIVE))
		return false;
	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view;

		if (!scribe_vsd_copy_ok(vsd, extent, i, &view))
			return false;
		lives[i] = view.life;
	}
	return true;
}

struct scribe_extent *scribe_io_fresh(struct scribe_vsd *vsd, u32 start, u32 len, u64 *lives)
{
	struct scribe_extent *extent;

	lockdep_assert_held(&vsd->lock);
	while ((extent = scribe_reserve_take())) {
		if (in_place_ok(vsd, extent, lives)) {
			extent->flags |= SCRIBE_EXT_OWN;
			extent->fill = start + len;
			return extent;
		}
		/* Between stock and here a disk went away: the daemon reclaims what nobody maps. */
		scribe_extent_put(extent);
	}
	return NULL;
}

/* An extent of this chunk's own that is filled up to somewhere before the range. */
static struct scribe_extent *continued(struct scribe_vsd *vsd, const struct scribe_segs *segs,
				       u32 start, u32 len, u64 *lives)
{
	u32 i = scribe_segs_find(segs, start);
	struct scribe_extent *extent;

	if (!segs || !i)
		return NULL;
	extent = segs->seg[i - 1].extent;
	if (!(extent->flags & SCRIBE_EXT_OWN) || segs->seg[i - 1].off != segs->seg[i - 1].start ||
	    extent->fill > start || !in_place_ok(vsd, extent, lives))
		return NULL;
	extent->fill = start + len;
	return extent;
}

static struct scribe_extent *append_young(struct scribe_vsd *vsd, u32 len, u16 *off, u64 *lives)
{
	/* Whole 4 KiB stay aligned to them, for disks whose sectors are that large. */
	u32 align = len % 8 ? 1 : 8;
	struct scribe_extent *young = vsd->young;
	u32 at;

	if (young) {
		at = round_up(young->fill, align);
		if (at + len <= SCRIBE_CHUNK_SECTORS && in_place_ok(vsd, young, lives)) {
			*off = at;
			young->fill = at + len;
			return young;
		}
		vsd->young = NULL;
		scribe_extent_put(young);
	}
	young = scribe_io_fresh(vsd, 0, len, lives);
	if (!young)
		return NULL;
	young->flags &= ~SCRIBE_EXT_OWN;
	vsd->young = young;
	*off = 0;
	return young;
}

/* R3: where does a write that is not in place go? Takes a reference for io->target. */
static bool plan_fresh(struct scribe_io *io, const struct scribe_segs *segs)
{
	struct scribe_vsd *vsd = io->vsd;
	u64 sector = io->chunk * SCRIBE_CHUNK_SECTORS + io->start;
	bool sequential = vsd->last_end == sector;
	struct scribe_extent *extent;

	vsd->last_end = sector + io->len;
	io->target_off = io->start;
	extent = continued(vsd, segs, io->start, io->len, io->lives);
	if (!extent && (io->len >= SCRIBE_LARGE_SECTORS || sequential)) {
		extent = scribe_io_fresh(vsd, io->start, io->len, io->lives);
		io->target = extent; /* the stock's reference becomes ours */
		return extent;
	}
	if (!extent)
		extent = append_young(vsd, io->len, &io->target_off, io->lives);
	if (!extent)
		return false;
	scribe_extent_get(extent);
	io->target = extent;
	return true;
}

/* Would this change, with those under way, make the chunk exceed its segments? */
static bool too_many_segs(struct scribe_io *io, const struct scribe_segs *segs)
{
	u32 nr = segs ? segs->nr : 0;
	struct scribe_io *other;

	list_for_each_entry(other, bucket_of(io->vsd, io->chunk), node) {
		if (other->chunk == io->chunk &&
		    (other == io || (other->adding && !other->in_place)))
			nr += SCRIBE_SEGS_GROWTH;
	}
	return nr > SCRIBE_MAX_SEGS;
}

enum plan { PLAN_GO, PLAN_NO_SPACE, PLAN_REWRITE, PLAN_NOTHING };

static enum plan plan_write(struct scribe_io *io, const struct scribe_segs *segs)
{
	const struct scribe_seg *seg = scribe_segs_cover(segs, io->start, io->len);
	struct scribe_vsd *vsd = io->vsd;

	if (seg && in_place_ok(vsd, seg->extent, io->lives)) {
		io->in_place = true;
		io->target = seg->extent;
		io->target_off = seg->off + (io->start - seg->start);
		scribe_extent_get(io->target);
		vsd->stats.in_place++;
		return PLAN_GO;
	}
	if (!seg && too_many_segs(io, segs))
		return PLAN_REWRITE;
	if (!plan_fresh(io, segs))
		return PLAN_NO_SPACE;
	io->in_place = false;
	vsd->stats.allocated++;
	return PLAN_GO;
}

static enum plan plan_unmap(struct scribe_io *io, const struct scribe_segs *segs)
{
	u32 i = scribe_segs_find(segs, io->start);

	if (!segs || i == segs->nr || segs->seg[i].start >= io->start + io->len)
		return PLAN_NOTHING;
	return too_many_segs(io, segs) ? PLAN_REWRITE : PLAN_GO;
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

	if (!io->in_place || atomic_read(&io->failed))
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
	for (i = 0; i < extent->nr_copies; i++)
		scribe_batch_note_disk(vsd, extent->copy[i].disk, io->lives[i], false);
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
		defer(io, write_end);
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
	struct scribe_extent *extent = io->target;
	u32 nr_copies = extent->nr_copies;
	u32 i;

	atomic_set(&io->failed, 0);
	/* One for us: the legs must not end the I/O while we still send. */
	atomic_set(&io->pending, nr_copies + 1);
	for (i = 0; i < nr_copies; i++) {
		struct scribe_leg *leg = scribe_leg_clone(io->bio, SCRIBE_WIRE_WRITE, 0, io->len);

		leg->done = write_leg_done;
		leg->owner = io;
		leg->copy = i;
		leg->disk = scribe_disk_find(extent->copy[i].disk);
		leg->life = io->lives[i];
		leg->sector = (u64)extent->copy[i].slot * SCRIBE_SLOT_SECTORS + io->target_off;
		scribe_disk_submit(leg);
	}
	put_write(io);
}

void scribe_io_note_written(struct scribe_vsd *vsd, struct scribe_extent *extent, const u64 *lives,
			    u32 failed)
{
	struct scribe_dirty *dirty = scribe_dirty_alloc(GFP_NOIO);
	u32 i;

	spin_lock_irq(&vsd->lock);
	for (i = 0; i < extent->nr_copies; i++)
		scribe_batch_note_disk(vsd, extent->copy[i].disk, lives[i], failed & BIT(i));
	scribe_batch_note_extent(vsd, extent, &dirty);
	scribe_flush_schedule(vsd, false);
	spin_unlock_irq(&vsd->lock);
	scribe_dirty_free(dirty);
}

static struct scribe_segs *alloc_segs(u32 capacity)
{
	struct scribe_segs *segs = kzalloc(struct_size(segs, seg, capacity), GFP_NOIO);

	if (segs)
		segs->capacity = capacity;
	return segs;
}

int scribe_io_remap(struct scribe_vsd *vsd, u64 chunk, u32 start, u32 len,
		    struct scribe_extent *extent, u32 off)
{
	struct scribe_op *op = scribe_op_alloc();
	struct scribe_segs *fresh = NULL, *old;
	struct scribe_leaf *leaf;
	u32 i, need;
	bool empty;

	/*
	 * Only changes of the map come here, not writes in place. The new array is sized for what
	 * is there, outside of the lock; at most 66 segments, so the allocation cannot fail for
	 * long.
	 */
	for (need = SCRIBE_SEGS_GROWTH;;) {
		struct scribe_segs **slot;

		kfree(fresh);
		fresh = alloc_segs(need);
		if (!fresh) {
			scribe_op_free(op);
			return -ENOMEM;
		}
		spin_lock_irq(&vsd->lock);
		leaf = scribe_vsd_leaf(vsd, chunk);
		slot = &leaf->segs[chunk % SCRIBE_LEAF_CHUNKS];
		old = *slot;
		if (!scribe_segs_splice(old, start, len, extent, off, fresh))
			break;
		need = old->nr + SCRIBE_SEGS_GROWTH;
		spin_unlock_irq(&vsd->lock);
	}
	for (i = 0; i < fresh->nr; i++)
		scribe_extent_get(fresh->seg[i].extent);
	/* Once the lock is dropped, the next change of this chunk may free the array. */
	empty = !fresh->nr;
	leaf->segs[chunk % SCRIBE_LEAF_CHUNKS] = empty ? NULL : fresh;
	scribe_batch_add_op(vsd, op, leaf, chunk, start, len, extent, off);
	vsd->stats.ops++;
	scribe_flush_schedule(vsd, false);
	spin_unlock_irq(&vsd->lock);
	for (i = 0; old && i < old->nr; i++)
		scribe_extent_put(old->seg[i].extent);
	kfree(old);
	if (empty)
		kfree(fresh);
	return 0;
}

/* Some copy did not get it: the same data goes to other space, the range still held (R1, R2). */
static void redirect(struct scribe_io *io)
{
	struct scribe_vsd *vsd = io->vsd;
	bool planned = false;

	scribe_extent_put(io->target);
	io->target = NULL;
	if (++io->attempts > WRITE_ATTEMPTS) {
		/* Disks come and go: let the daemon have its say before the next try. */
		leave_and_park(io, SCRIBE_PARK_SPACE);
		return;
	}
	spin_lock_irq(&vsd->lock);
	vsd->stats.redirected++;
	if (vsd->lease != SCRIBE_LEASE_FAILED) {
		struct scribe_leaf *leaf = scribe_vsd_leaf(vsd, io->chunk);

		planned = plan_fresh(io, leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS]);
	}
	if (planned)
		io->in_place = false;
	spin_unlock_irq(&vsd->lock);
	if (planned)
		submit_write(io);
	else
		leave_and_park(io, SCRIBE_PARK_SPACE);
}

static void unpin_leaf(struct scribe_io *io)
{
	spin_lock_irq(&io->vsd->lock);
	scribe_vsd_leaf(io->vsd, io->chunk)->pins--;
	spin_unlock_irq(&io->vsd->lock);
}

static void write_end(struct scribe_io *io)
{
	u32 failed = atomic_read(&io->failed);

	scribe_io_note_written(io->vsd, io->target, io->lives, failed);
	if (failed) {
		redirect(io);
		return;
	}
	if (!io->in_place &&
	    scribe_io_remap(io->vsd, io->chunk, io->start, io->len, io->target, io->target_off)) {
		finish(io, BLK_STS_RESOURCE);
		return;
	}
	finish(io, BLK_STS_OK);
}

static void unmap_range(struct scribe_io *io)
{
	int err = scribe_io_remap(io->vsd, io->chunk, io->start, io->len, NULL, 0);

	finish(io, err ? BLK_STS_RESOURCE : BLK_STS_OK);
}

static void rewrite_first(struct scribe_io *io)
{
	int err = scribe_rewrite_chunk(io->vsd, io->chunk);

	if (err == -EAGAIN) {
		leave_and_park(io, SCRIBE_PARK_SPACE);
	} else if (err) {
		finish(io, BLK_STS_IOERR);
	} else {
		spin_lock_irq(&io->vsd->lock);
		io->rewrite = false;
		leave(io);
		spin_unlock_irq(&io->vsd->lock);
		start_io(io);
	}
}

/* Reads */

static void read_end(struct scribe_io *io);

static void put_read(struct scribe_io *io)
{
	if (!atomic_dec_and_test(&io->pending))
		return;
	if (!list_empty(&io->retry))
		defer(io, read_end);
	else if (io->status == BLK_STS_AGAIN)
		leave_and_park(io, SCRIBE_PARK_COPY);
	else
		finish(io, io->status);
}

static void read_leg_done(struct scribe_leg *leg)
{
	struct scribe_io *io = leg->owner;
	unsigned long flags;

	if (leg->status) {
		if (scribe_io_unanswered(leg->status))
			WRITE_ONCE(io->lost_leg, true);
		leg->tried |= BIT(leg->copy);
		spin_lock_irqsave(&io->retry_lock, flags);
		list_add_tail(&leg->node, &io->retry);
		spin_unlock_irqrestore(&io->retry_lock, flags);
	} else {
		scribe_extent_put(leg->extent);
		scribe_leg_free(leg);
	}
	put_read(io);
}

struct piece {
	struct scribe_extent *extent;
	struct scribe_disk *disk;
	u64 life;
	u32 copy, pos, len, off; /* pos in the chunk */
};

static void submit_piece(struct scribe_io *io, const struct piece *piece, u8 tried)
{
	struct scribe_leg *leg =
		scribe_leg_clone(io->bio, SCRIBE_WIRE_READ, piece->pos - io->start, piece->len);

	leg->done = read_leg_done;
	leg->owner = io;
	leg->extent = piece->extent;
	leg->disk = piece->disk;
	leg->life = piece->life;
	leg->copy = piece->copy;
	leg->tried = tried;
	leg->sector = (u64)piece->extent->copy[piece->copy].slot * SCRIBE_SLOT_SECTORS + piece->off;
	atomic_inc(&io->pending);
	scribe_disk_submit(leg);
}

/*
 * No copy is left to read from. An error only where every current copy's disk has answered with
 * one; as long as one is merely out of reach the read waits for it.
 */
static void fail_piece(struct scribe_io *io, const struct piece *piece, u8 tried)
{
	if (READ_ONCE(io->lost_leg) || scribe_io_may_return(piece->extent, tried)) {
		if (io->status != BLK_STS_IOERR)
			io->status = BLK_STS_AGAIN;
		return;
	}
	io->status = BLK_STS_IOERR;
	pr_err_ratelimited("vsd %llu: chunk %llu sector %u: no copy of extent %llu can be read\n",
			   io->vsd->id, io->chunk, piece->pos, piece->extent->id);
}

/* Tries what failed on another copy. */
static void read_end(struct scribe_io *io)
{
	struct scribe_leg *leg, *next;
	LIST_HEAD(failed);

	list_splice_init(&io->retry, &failed);
	atomic_set(&io->pending, 1);
	list_for_each_entry_safe(leg, next, &failed, node) {
		struct piece piece = {
			.extent = leg->extent,
			.pos = io->start + leg->pos,
			.len = leg->length_bytes >> SECTOR_SHIFT,
			.off = leg->sector % SCRIBE_SLOT_SECTORS,
		};
		u8 tried = leg->tried;

		scribe_leg_free(leg);
		spin_lock_irq(&io->vsd->lock);
		io->vsd->stats.read_retries++;
		piece.disk =
			scribe_io_choose(io->vsd, piece.extent, tried, &piece.copy, &piece.life);
		spin_unlock_irq(&io->vsd->lock);
		if (piece.disk) {
			submit_piece(io, &piece, tried);
			continue;
		}
		fail_piece(io, &piece, tried);
		scribe_extent_put(piece.extent);
	}
	put_read(io);
}

static void zero_piece(struct scribe_io *io, u32 pos, u32 len)
{
	struct scribe_leg *leg = scribe_leg_clone(io->bio, SCRIBE_WIRE_READ, pos - io->start, len);

	zero_fill_bio(&leg->bio);
	scribe_leg_free(leg);
}

/* Under vsd->lock: what lies at this position, up to the end of a segment or of a hole. */
static int next_piece(struct scribe_io *io, struct scribe_leaf *leaf, u32 pos, struct piece *piece)
{
	struct scribe_segs *segs = leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS];
	u32 i = scribe_segs_find(segs, pos);
	u32 end = io->start + io->len;

	*piece = (struct piece){ .pos = pos, .len = end - pos };
	if (!segs || i == segs->nr)
		return 0;
	if (segs->seg[i].start > pos) {
		piece->len = min(end, (u32)segs->seg[i].start) - pos;
		return 0;
	}
	piece->extent = segs->seg[i].extent;
	piece->len = min(end, scribe_seg_end(&segs->seg[i])) - pos;
	piece->off = segs->seg[i].off + (pos - segs->seg[i].start);
	piece->disk = scribe_io_choose(io->vsd, piece->extent, 0, &piece->copy, &piece->life);
	if (!piece->disk)
		return -EIO;
	scribe_extent_get(piece->extent);
	return 0;
}

/* The range is ours and the leaf pinned: sends the pieces. */
static void run_read(struct scribe_io *io, struct scribe_leaf *leaf)
{
	u32 pos, end = io->start + io->len;
	struct piece piece;

	io->status = BLK_STS_OK;
	atomic_set(&io->pending, 1);
	for (pos = io->start; pos < end; pos += piece.len) {
		int err;

		spin_lock_irq(&io->vsd->lock);
		err = next_piece(io, leaf, pos, &piece);
		spin_unlock_irq(&io->vsd->lock);
		if (err)
			fail_piece(io, &piece, 0);
		else if (piece.extent)
			submit_piece(io, &piece, 0);
		else
			zero_piece(io, piece.pos, piece.len);
	}
	unpin_leaf(io);
	put_read(io);
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
	enum plan plan = PLAN_NOTHING;
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
		plan = io->rewrite ? PLAN_REWRITE : plan_write(io, segs);
		break;
	default:
		vsd->stats.discards++;
		plan = io->rewrite ? PLAN_REWRITE : plan_unmap(io, segs);
		break;
	}
	/*
	 * A leaf with a write under way stays: a write that fails in place becomes a change of
	 * the map, and a change needs its leaf until it is in the batch.
	 */
	if (io->kind != SCRIBE_IO_READ && plan == PLAN_GO)
		add_change(io, leaf);
	if (plan == PLAN_REWRITE && !io->rewrite) {
		/* Again from the end of the queue, for the whole chunk. */
		leave(io);
		io->rewrite = true;
		spin_unlock_irq(&vsd->lock);
		start_io(io);
		return;
	}
	spin_unlock_irq(&vsd->lock);

	if (io->kind == SCRIBE_IO_READ)
		run_read(io, leaf);
	else if (plan == PLAN_REWRITE)
		defer(io, rewrite_first);
	else if (plan == PLAN_NO_SPACE)
		leave_and_park(io, SCRIBE_PARK_SPACE);
	else if (plan == PLAN_NOTHING)
		finish(io, BLK_STS_OK);
	else if (io->kind == SCRIBE_IO_UNMAP)
		defer(io, unmap_range);
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
	io->lost_leg = false;
	io->attempts = 0;
	io->lock_start = io->rewrite ? 0 : io->start;
	io->lock_len = io->rewrite ? SCRIBE_CHUNK_SECTORS : io->len;
	if (vsd->lease == SCRIBE_LEASE_FAILED) {
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
		enter_range(io);
		run = !io->waiting;
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
		break;
	default:
		return DM_MAPIO_KILL;
	}
	start_io(io);
	return DM_MAPIO_SUBMITTED;
}
