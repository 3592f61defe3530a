// SPDX-License-Identifier: GPL-2.0
/* The commit path of a VSD: batches, flushes, stale copies. The protocol is at the top of vsd.h. */
#include <linux/completion.h>
#include <linux/mempool.h>
#include <net/netlink.h>

#include "node.h"
#include "trace.h"
#include "vsd.h"

static struct kmem_cache *op_cache, *dirty_cache;
static mempool_t op_pool, dirty_pool;

/*
 * Flush workers wait for the daemon: not on the queue whose work makes the daemon's answers
 * count.
 */
static struct workqueue_struct *flush_wq;

struct scribe_op *scribe_op_alloc(void)
{
	return mempool_alloc(&op_pool, GFP_NOIO);
}

void scribe_op_free(struct scribe_op *op)
{
	mempool_free(op, &op_pool);
}

struct scribe_dirty *scribe_dirty_alloc(gfp_t gfp)
{
	return mempool_alloc(&dirty_pool, gfp);
}

void scribe_dirty_free(struct scribe_dirty *dirty)
{
	if (dirty)
		mempool_free(dirty, &dirty_pool);
}

struct scribe_batch *scribe_batch_alloc(void)
{
	struct scribe_batch *batch = kzalloc(sizeof(*batch), GFP_KERNEL);

	if (!batch)
		return NULL;
	batch->written = kvcalloc(SCRIBE_DISK_MAX_ID + 1, sizeof(*batch->written), GFP_KERNEL);
	if (!batch->written) {
		kfree(batch);
		return NULL;
	}
	INIT_LIST_HEAD(&batch->ops);
	INIT_LIST_HEAD(&batch->dirty);
	return batch;
}

void scribe_batch_free(struct scribe_batch *batch)
{
	if (!batch)
		return;
	kvfree(batch->written);
	kfree(batch);
}

void scribe_batch_drop(struct scribe_vsd *vsd, struct scribe_batch *batch)
{
	struct scribe_dirty *dirty, *next_dirty;
	struct scribe_op *op, *next_op;
	LIST_HEAD(dirties);
	LIST_HEAD(ops);

	spin_lock_irq(&vsd->lock);
	list_splice_init(&batch->ops, &ops);
	list_splice_init(&batch->dirty, &dirties);
	list_for_each_entry(op, &ops, node)
		op->leaf->pins--;
	list_for_each_entry(dirty, &dirties, node) {
		struct scribe_extent *extent = dirty->extent;

		if (batch == vsd->open) {
			extent->flags &= ~SCRIBE_EXT_OPEN_DIRTY;
			extent->open = (struct scribe_missed){};
		} else {
			extent->flags &= ~SCRIBE_EXT_CLOSED_DIRTY;
			extent->closed = (struct scribe_missed){};
		}
	}
	batch->nr_ops = 0;
	batch->nr_dirty = 0;
	bitmap_zero(batch->disks, SCRIBE_DISK_MAX_ID + 1);
	spin_unlock_irq(&vsd->lock);

	list_for_each_entry_safe(op, next_op, &ops, node) {
		if (op->extent)
			scribe_extent_put(op->extent);
		scribe_op_free(op);
	}
	list_for_each_entry_safe(dirty, next_dirty, &dirties, node) {
		scribe_extent_put(dirty->extent);
		scribe_dirty_free(dirty);
	}
}

void scribe_batch_note_disk(struct scribe_vsd *vsd, u32 disk, u64 life)
{
	struct scribe_written_disk *written = &vsd->open->written[disk];

	lockdep_assert_held(&vsd->lock);
	if (!__test_and_set_bit(disk, vsd->open->disks)) {
		written->life = life;
		written->failed = false;
		return;
	}
	if (written->life != life)
		written->failed = true;
}

void scribe_batch_note_extent(struct scribe_vsd *vsd, struct scribe_extent *extent,
			      struct scribe_dirty **dirty)
{
	lockdep_assert_held(&vsd->lock);
	if (extent->flags & SCRIBE_EXT_OPEN_DIRTY)
		return;
	extent->flags |= SCRIBE_EXT_OPEN_DIRTY;
	scribe_extent_get(extent);
	(*dirty)->extent = extent;
	list_add_tail(&(*dirty)->node, &vsd->open->dirty);
	vsd->open->nr_dirty++;
	*dirty = NULL;
}

void scribe_batch_add_op(struct scribe_vsd *vsd, struct scribe_op *op, struct scribe_leaf *leaf,
			 u64 chunk, u32 start, u32 len, struct scribe_extent *extent, u32 off)
{
	struct list_head *ops = &vsd->open->ops;
	struct scribe_op *last = list_empty(ops) ? NULL
						 : list_last_entry(ops, struct scribe_op, node);

	lockdep_assert_held(&vsd->lock);
	if (last && last->chunk == chunk && last->extent == extent &&
	    (u32)last->start + last->len == start &&
	    (!extent || (u32)last->off + last->len == off)) {
		last->len += len;
		scribe_op_free(op);
		return;
	}
	*op = (struct scribe_op){
		.leaf = leaf,
		.extent = extent,
		.chunk = chunk,
		.start = start,
		.len = len,
		.off = off,
	};
	if (extent)
		scribe_extent_get(extent);
	leaf->pins++;
	list_add_tail(&op->node, ops);
	vsd->open->nr_ops++;
}

void scribe_flush_schedule(struct scribe_vsd *vsd, bool now)
{
	lockdep_assert_held(&vsd->lock);
	if (now || vsd->open->nr_dirty >= SCRIBE_DIRTY_MAX ||
	    vsd->open->nr_ops >= SCRIBE_BATCH_MAX_OPS / 2)
		mod_delayed_work(flush_wq, &vsd->flush, 0);
	else
		queue_delayed_work(flush_wq, &vsd->flush, msecs_to_jiffies(SCRIBE_FLUSH_MS));
}

/* Step 1: close the batch. What is written from now on belongs to the next one. */
static bool close_batch(struct scribe_vsd *vsd, struct list_head *waiters)
{
	struct scribe_dirty *dirty;
	bool something = false;

	spin_lock_irq(&vsd->lock);
	list_splice_init(&vsd->flush_waiters, waiters);
	swap(vsd->open, vsd->closed);
	vsd->refused = false;
	vsd->gen++;
	list_for_each_entry(dirty, &vsd->closed->dirty, node) {
		dirty->extent->flags &= ~SCRIBE_EXT_OPEN_DIRTY;
		dirty->extent->flags |= SCRIBE_EXT_CLOSED_DIRTY;
		dirty->extent->closed = dirty->extent->open;
		dirty->extent->open = (struct scribe_missed){};
		something |= dirty->extent->closed.unsettled != 0;
	}
	something |= vsd->closed->nr_ops ||
		     !bitmap_empty(vsd->closed->disks, SCRIBE_DISK_MAX_ID + 1);
	spin_unlock_irq(&vsd->lock);
	return something;
}

struct flush_run {
	struct scribe_vsd *vsd;
	atomic_t pending;
	struct completion done;
};

static void flush_leg_done(struct scribe_leg *leg)
{
	struct flush_run *run = leg->owner;
	unsigned long flags;

	if (leg->status) {
		spin_lock_irqsave(&run->vsd->lock, flags);
		run->vsd->closed->written[leg->disk->id].failed = true;
		spin_unlock_irqrestore(&run->vsd->lock, flags);
	}
	scribe_leg_free(leg);
	if (atomic_dec_and_test(&run->pending))
		complete(&run->done);
}

/*
 * What was flushed to a disk that has failed since is as good as not flushed: another copy that
 * was merely out of reach must have it first.
 */
static void note_failed_disks(struct scribe_vsd *vsd)
{
	u32 id;

	spin_lock_irq(&vsd->lock);
	for_each_set_bit(id, vsd->closed->disks, SCRIBE_DISK_MAX_ID + 1) {
		if (scribe_disk_view(id).state == SCRIBE_DISK_FAILED)
			vsd->closed->written[id].failed = true;
	}
	spin_unlock_irq(&vsd->lock);
}

/*
 * Step 2: flush every disk that was written, each in the life in which it was written. Again: those
 * where that failed, in case they were only out of reach.
 */
static void flush_disks(struct scribe_vsd *vsd, bool again)
{
	struct flush_run run = { .vsd = vsd, .pending = ATOMIC_INIT(1) };
	u32 id;

	init_completion(&run.done);
	for_each_set_bit(id, vsd->closed->disks, SCRIBE_DISK_MAX_ID + 1) {
		struct scribe_written_disk *written = &vsd->closed->written[id];
		struct scribe_leg *leg;

		if (READ_ONCE(written->failed) != again)
			continue;
		leg = scribe_leg_alloc(SCRIBE_WIRE_FLUSH);
		spin_lock_irq(&vsd->lock);
		written->failed = false;
		spin_unlock_irq(&vsd->lock);
		leg->done = flush_leg_done;
		leg->owner = &run;
		leg->disk = scribe_disk_find(id);
		leg->life = written->life;
		leg->may_push = true;
		atomic_inc(&run.pending);
		scribe_disk_submit(leg);
	}
	if (!atomic_dec_and_test(&run.pending))
		wait_for_completion(&run.done);
	note_failed_disks(vsd);
}

/*
 * A write goes to all copies. Where none of this batch reached one of them, all went elsewhere in
 * the end: nothing that was written is to stay in this extent.
 */
static bool nothing_stays(const struct scribe_missed *missed)
{
	return missed->failed & ~missed->written && !missed->skipped && !missed->unsettled;
}

/*
 * Step 3: which copies of an extent miss data that must not get lost? Where no other is whole, one
 * that merely missed a request is: what it missed lies elsewhere by now. Where that is so of all
 * data, one that was not flushed is whole as well: it may be the only one whose disk comes back.
 * *good: whether there is a whole one. A stale one that was left out is named anew: the mover may
 * just have copied to it, and what it copied is not all any more.
 *
 * *suspects: those that have all that was flushed, and may differ from the one that stays current.
 */
static u32 stale_copies(const struct scribe_batch *batch, const struct scribe_extent *extent,
			bool *good, u32 *suspects)
{
	u32 lost = 0, missed = 0, whole = 0, rest, keep, i;

	for (i = 0; i < extent->nr_copies; i++) {
		u32 disk = extent->copy[i].disk;

		if (extent->closed.skipped & BIT(i))
			lost |= BIT(i);
		else if (extent->copy[i].flags & SCRIBE_COPY_STALE)
			continue;
		else if (extent->closed.written & BIT(i) && batch->written[disk].failed)
			lost |= BIT(i);
		else if (extent->closed.failed & BIT(i))
			missed |= BIT(i);
		else
			whole |= BIT(i);
	}
	if (!whole && nothing_stays(&extent->closed)) {
		*good = lost || missed;
		*suspects = 0;
		return 0;
	}
	*good = whole || missed;
	rest = whole ?: missed;
	keep = (rest & extent->closed.unsettled) ?: rest;
	*suspects = extent->closed.unsettled ? rest & ~(keep & -keep) : 0;
	return whole ? lost | missed : lost;
}

/*
 * Whether an extent of the closed batch needs a good copy. One that is about to be left out of the
 * map does not, unless it was refused: then it is a later batch that leaves it out.
 */
static bool needs_copy(const struct scribe_vsd *vsd, const struct scribe_extent *extent)
{
	return vsd->refused || refcount_read(&extent->refs) > 1;
}

/* How many in the batch; false where an extent would be left without a good copy. */
static bool count_stales(struct scribe_vsd *vsd, u32 *nr)
{
	struct scribe_dirty *dirty;
	bool enough = true, good;
	u32 stale, suspects;

	*nr = 0;
	spin_lock_irq(&vsd->lock);
	list_for_each_entry(dirty, &vsd->closed->dirty, node) {
		stale = stale_copies(vsd->closed, dirty->extent, &good, &suspects);
		*nr += hweight32(stale | suspects);
		if (!good && needs_copy(vsd, dirty->extent))
			enough = false;
	}
	spin_unlock_irq(&vsd->lock);
	return enough;
}

static bool given_up(struct scribe_vsd *vsd)
{
	return READ_ONCE(vsd->lease) == SCRIBE_LEASE_FAILED || READ_ONCE(vsd->dying);
}

static bool answered(struct scribe_vsd *vsd)
{
	return READ_ONCE(vsd->batch_acked) == vsd->batch_seq ||
	       READ_ONCE(vsd->batch_refused) == vsd->batch_seq;
}

/*
 * Step 4: the daemon commits changes and stale copies as one log entry. -EAGAIN: a disk that was
 * flushed has failed since, and with what is stale no good copy would be left.
 */
static int commit_batch(struct scribe_vsd *vsd)
{
	int err;

	spin_lock_irq(&vsd->lock);
	vsd->batch_seq++;
	vsd->closed_ready = true;
	vsd->stats.batches++;
	spin_unlock_irq(&vsd->lock);
	trace_scribe_commit(vsd->id, vsd->batch_seq, vsd->closed->nr_ops, -EINPROGRESS);
	scribe_event();
	wait_event(vsd->committed, answered(vsd) || given_up(vsd));
	spin_lock_irq(&vsd->lock);
	vsd->closed_ready = false;
	spin_unlock_irq(&vsd->lock);
	if (READ_ONCE(vsd->batch_acked) == vsd->batch_seq)
		err = 0;
	else
		err = READ_ONCE(vsd->batch_refused) == vsd->batch_seq ? -EAGAIN : -EIO;
	trace_scribe_commit(vsd->id, vsd->batch_seq, vsd->closed->nr_ops, err);
	return err;
}

static void mark_stales(struct scribe_vsd *vsd)
{
	struct scribe_dirty *dirty;
	u32 suspects, i;
	bool good;

	spin_lock_irq(&vsd->lock);
	list_for_each_entry(dirty, &vsd->closed->dirty, node) {
		u32 stale = stale_copies(vsd->closed, dirty->extent, &good, &suspects);

		stale |= suspects;
		for (i = 0; i < dirty->extent->nr_copies; i++) {
			if (!(stale & BIT(i)))
				continue;
			dirty->extent->copy[i].flags |= SCRIBE_COPY_STALE;
			vsd->stats.stales++;
		}
	}
	spin_unlock_irq(&vsd->lock);
}

static void set_stuck(struct scribe_vsd *vsd, bool stuck)
{
	spin_lock_irq(&vsd->lock);
	vsd->stuck = stuck;
	spin_unlock_irq(&vsd->lock);
	if (stuck)
		scribe_event();
}

/* A disk may come back; where none of them can, the daemon knows, and fails the lease. */
static int await_good_copy(struct scribe_vsd *vsd, u32 *nr_stales)
{
	int err = 0;

	if (count_stales(vsd, nr_stales))
		return 0;
	pr_err("vsd %llu: unflushed data has no good copy left, flush waits\n", vsd->id);
	do {
		set_stuck(vsd, true);
		if (wait_event_timeout(vsd->committed, given_up(vsd), HZ))
			err = -EIO;
		else
			flush_disks(vsd, true);
	} while (!err && !count_stales(vsd, nr_stales));
	set_stuck(vsd, false);
	return err;
}

static int flush_closed(struct scribe_vsd *vsd)
{
	u32 nr_stales;
	int err;

	flush_disks(vsd, false);
	for (;;) {
		err = await_good_copy(vsd, &nr_stales);
		if (err)
			return err;
		if (!vsd->closed->nr_ops && !nr_stales)
			return 0; /* in place only, all disks flushed: nothing to commit */
		err = commit_batch(vsd);
		if (err != -EAGAIN)
			break;
		if (wait_event_timeout(vsd->committed, given_up(vsd), HZ))
			return -EIO;
		/* All of them: the one that failed may not know it yet. */
		flush_disks(vsd, false);
		flush_disks(vsd, true);
	}
	if (!err)
		mark_stales(vsd);
	return err;
}

void scribe_flush_work(struct work_struct *work)
{
	struct scribe_vsd *vsd = container_of(to_delayed_work(work), struct scribe_vsd, flush);
	struct scribe_flush_waiter *waiter, *next;
	LIST_HEAD(waiters);
	bool something, lost = false;
	int err = 0;
	u64 gen;

	something = close_batch(vsd, &waiters);
	gen = READ_ONCE(vsd->gen);
	if (something)
		err = given_up(vsd) ? -EIO : flush_closed(vsd);
	else if (READ_ONCE(vsd->lease) == SCRIBE_LEASE_FAILED)
		err = -EIO;
	scribe_batch_drop(vsd, vsd->closed);
	spin_lock_irq(&vsd->lock);
	/* Batches are closed here alone, so this is the generation that began at the closing. */
	if (!err)
		vsd->flushed_gen = gen;
	list_for_each_entry(waiter, &waiters, node)
		lost |= waiter->user && vsd->lost;
	if (lost)
		vsd->lost = false;
	spin_unlock_irq(&vsd->lock);
	list_for_each_entry_safe(waiter, next, &waiters, node) {
		list_del_init(&waiter->node);
		waiter->done(waiter, err || (waiter->user && lost) ? BLK_STS_IOERR : BLK_STS_OK);
	}
	spin_lock_irq(&vsd->lock);
	if (!list_empty(&vsd->flush_waiters))
		scribe_flush_schedule(vsd, true);
	else if (vsd->open->nr_ops || !bitmap_empty(vsd->open->disks, SCRIBE_DISK_MAX_ID + 1))
		scribe_flush_schedule(vsd, false);
	if (!list_empty(&vsd->parked))
		queue_work(scribe_wq, &vsd->kick);
	spin_unlock_irq(&vsd->lock);
}

void scribe_flush_join(struct scribe_vsd *vsd, struct scribe_flush_waiter *waiter)
{
	unsigned long flags;

	spin_lock_irqsave(&vsd->lock, flags);
	vsd->stats.flushes++;
	list_add_tail(&waiter->node, &vsd->flush_waiters);
	scribe_flush_schedule(vsd, true);
	spin_unlock_irqrestore(&vsd->lock, flags);
}

/* Owned by the sleeper and by the worker: a sleeper that is killed leaves it to the worker. */
struct sync_waiter {
	struct scribe_flush_waiter waiter;
	struct kref ref;
	struct completion done;
	blk_status_t status;
};

static void free_sync(struct kref *ref)
{
	kfree(container_of(ref, struct sync_waiter, ref));
}

static void sync_done(struct scribe_flush_waiter *waiter, blk_status_t status)
{
	struct sync_waiter *sync = container_of(waiter, struct sync_waiter, waiter);

	sync->status = status;
	complete(&sync->done);
	kref_put(&sync->ref, free_sync);
}

int scribe_flush_sync(struct scribe_vsd *vsd, unsigned int limit_ms)
{
	long limit = limit_ms ? msecs_to_jiffies(limit_ms) : MAX_SCHEDULE_TIMEOUT;
	struct sync_waiter *sync = kzalloc(sizeof(*sync), GFP_KERNEL);
	long left;
	int err;

	if (!sync)
		return -ENOMEM;
	sync->waiter.done = sync_done;
	kref_init(&sync->ref);
	kref_get(&sync->ref);
	init_completion(&sync->done);
	scribe_flush_join(vsd, &sync->waiter);
	left = wait_for_completion_killable_timeout(&sync->done, limit);
	if (left > 0)
		err = sync->status ? -EIO : 0;
	else
		err = left ? -EINTR : -ETIMEDOUT;
	kref_put(&sync->ref, free_sync);
	return err;
}

/* For the daemon */

u32 scribe_batch_bytes(struct scribe_vsd *vsd)
{
	u32 nr_stales;

	count_stales(vsd, &nr_stales);
	return vsd->closed->nr_ops * sizeof(struct scribe_op_rec) +
	       nr_stales * sizeof(struct scribe_stale_rec) + SZ_4K;
}

static int fill_ops(struct scribe_vsd *vsd, struct sk_buff *skb)
{
	u32 nr = vsd->closed->nr_ops;
	struct scribe_op_rec *rec;
	struct scribe_op *op;
	struct nlattr *attr;
	u32 i = 0;

	if (!nr)
		return 0;
	attr = nla_reserve(skb, SCRIBE_A_OPS, nr * sizeof(*rec));
	if (!attr)
		return -EMSGSIZE;
	rec = nla_data(attr);
	list_for_each_entry(op, &vsd->closed->ops, node)
		rec[i++] = (struct scribe_op_rec){
			.chunk = op->chunk,
			.extent = op->extent ? op->extent->id : 0,
			.start = op->start,
			.len = op->len,
			.off = op->off,
		};
	return 0;
}

static int fill_stales(struct scribe_vsd *vsd, struct sk_buff *skb)
{
	struct scribe_dirty *dirty;
	u32 suspects, i;
	bool good;

	/* One attribute each: rare, and an attribute's length would bound an array. */
	list_for_each_entry(dirty, &vsd->closed->dirty, node) {
		u32 stale = stale_copies(vsd->closed, dirty->extent, &good, &suspects);

		for (i = 0; i < dirty->extent->nr_copies; i++) {
			struct scribe_stale_rec rec = {
				.extent = dirty->extent->id,
				.disk = dirty->extent->copy[i].disk,
				.suspect = !!(suspects & BIT(i)),
			};

			if ((stale | suspects) & BIT(i) &&
			    nla_put(skb, SCRIBE_A_STALES, sizeof(rec), &rec))
				return -EMSGSIZE;
		}
	}
	return 0;
}

int scribe_batch_fill(struct scribe_vsd *vsd, struct sk_buff *skb)
{
	int err = -ENOENT;

	/* nla_put() into reserved room does not sleep. */
	spin_lock_irq(&vsd->lock);
	if (vsd->closed_ready) {
		err = -EMSGSIZE;
		if (!nla_put_u64_64bit(skb, SCRIBE_A_VSD, vsd->id, SCRIBE_A_UNSPEC) &&
		    !nla_put_u64_64bit(skb, SCRIBE_A_EPOCH, vsd->epoch, SCRIBE_A_UNSPEC) &&
		    !nla_put_u64_64bit(skb, SCRIBE_A_BATCH, vsd->batch_seq, SCRIBE_A_UNSPEC))
			err = fill_ops(vsd, skb) ?: fill_stales(vsd, skb);
	}
	spin_unlock_irq(&vsd->lock);
	return err;
}

u32 scribe_batch_collect_stuck(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max)
{
	struct scribe_work_rec rec = { .type = SCRIBE_WORK_FLUSH_STUCK, .vsd = vsd->id };
	struct scribe_dirty *dirty;
	u32 suspects, nr = 0, i;
	bool good = true;

	lockdep_assert_held(&vsd->lock);
	if (max < SCRIBE_MAX_COPIES)
		return 0; /* all or none of them */
	list_for_each_entry(dirty, &vsd->closed->dirty, node) {
		stale_copies(vsd->closed, dirty->extent, &good, &suspects);
		if (!good && needs_copy(vsd, dirty->extent))
			break;
		good = true;
	}
	if (good)
		return 0; /* just now */
	for (i = 0; i < dirty->extent->nr_copies; i++) {
		rec.id = dirty->extent->copy[i].disk;
		rec.arg = vsd->closed->written[rec.id].life;
		if (dirty->extent->closed.written & ~dirty->extent->closed.skipped & BIT(i) &&
		    !(dirty->extent->copy[i].flags & SCRIBE_COPY_STALE))
			recs[nr++] = rec;
	}
	if (!nr)
		recs[nr++] = (struct scribe_work_rec){ .type = rec.type, .vsd = vsd->id };
	return nr;
}

int scribe_batch_done(struct scribe_vsd *vsd, u64 epoch, u64 seq, bool refused)
{
	int err = 0;

	spin_lock_irq(&vsd->lock);
	if (vsd->epoch != epoch)
		err = -ESTALE;
	else if (vsd->batch_acked == seq)
		goto out; /* said twice */
	else if (!vsd->closed_ready || vsd->batch_seq != seq)
		err = -ENOENT;
	else if (refused)
		WRITE_ONCE(vsd->batch_refused, seq);
	else
		WRITE_ONCE(vsd->batch_acked, seq);
	/*
	 * Not when the worker wakes up: until then the daemon would find the batch ready again, and
	 * commit it again, perhaps when the lease is another node's already.
	 */
	if (!err) {
		vsd->closed_ready = false;
		vsd->refused |= refused;
	}
out:
	spin_unlock_irq(&vsd->lock);
	if (!err)
		wake_up_all(&vsd->committed);
	return err;
}

int scribe_flush_init(void)
{
	int err = -ENOMEM;

	op_cache = KMEM_CACHE(scribe_op, 0);
	dirty_cache = KMEM_CACHE(scribe_dirty, 0);
	flush_wq = alloc_workqueue("scribe_flush", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!op_cache || !dirty_cache || !flush_wq)
		goto err_caches;
	err = mempool_init_slab_pool(&op_pool, SCRIBE_OP_POOL, op_cache);
	if (err)
		goto err_caches;
	err = mempool_init_slab_pool(&dirty_pool, SCRIBE_OP_POOL, dirty_cache);
	if (err)
		goto err_op_pool;
	return 0;

err_op_pool:
	mempool_exit(&op_pool);
err_caches:
	if (flush_wq)
		destroy_workqueue(flush_wq);
	kmem_cache_destroy(dirty_cache);
	kmem_cache_destroy(op_cache);
	return err;
}

void scribe_flush_exit(void)
{
	mempool_exit(&dirty_pool);
	mempool_exit(&op_pool);
	destroy_workqueue(flush_wq);
	kmem_cache_destroy(dirty_cache);
	kmem_cache_destroy(op_cache);
}
