// SPDX-License-Identifier: GPL-2.0
#include "vsd.h"

#include <linux/mutex.h>
#include <linux/rwsem.h>

#include "io.h"
#include "node.h"

static LIST_HEAD(vsds);
static DECLARE_RWSEM(vsds_lock);
static struct kmem_cache *leaf_cache;
static struct shrinker *shrinker;
static atomic_long_t total_leaves;
static atomic_t last_key;

static const u32 lease_moves[] = {
	[SCRIBE_LEASE_NONE] = BIT(SCRIBE_LEASE_OWNED) | BIT(SCRIBE_LEASE_FAILED),
	[SCRIBE_LEASE_OWNED] = BIT(SCRIBE_LEASE_RELEASING) | BIT(SCRIBE_LEASE_FAILED),
	[SCRIBE_LEASE_RELEASING] = BIT(SCRIBE_LEASE_NONE) | BIT(SCRIBE_LEASE_OWNED) |
				   BIT(SCRIBE_LEASE_FAILED),
	[SCRIBE_LEASE_FAILED] = BIT(SCRIBE_LEASE_OWNED) | BIT(SCRIBE_LEASE_FAILED) |
				BIT(SCRIBE_LEASE_NONE),
};
static_assert(ARRAY_SIZE(lease_moves) == SCRIBE_LEASE_NR_STATES);

/* The only writer of ->lease. */
static int move_lease(struct scribe_vsd *vsd, enum scribe_lease next)
{
	lockdep_assert_held(&vsd->lock);
	if (!(lease_moves[vsd->lease] & BIT(next)))
		return -EBUSY;
	WRITE_ONCE(vsd->lease, next);
	return 0;
}

/* Map */

struct scribe_segs *scribe_vsd_alloc_segs(u32 capacity)
{
	struct scribe_segs *segs = kzalloc(struct_size(segs, seg, capacity), GFP_NOIO);

	if (segs)
		segs->capacity = capacity;
	return segs;
}

void scribe_vsd_drop_segs(struct scribe_segs *segs)
{
	u32 i;

	for (i = 0; segs && i < segs->nr; i++)
		scribe_extent_put(segs->seg[i].extent);
	kfree(segs);
}

struct scribe_segs *scribe_vsd_swap_segs(struct scribe_leaf *leaf, u64 chunk,
					 struct scribe_segs *fresh)
{
	struct scribe_segs *old = leaf->segs[chunk % SCRIBE_LEAF_CHUNKS];
	u32 i;

	for (i = 0; fresh && i < fresh->nr; i++) {
		scribe_extent_get(fresh->seg[i].extent);
		atomic_inc(&fresh->seg[i].extent->segs);
	}
	/*
	 * Segments of leaves that are not loaded do not count, so one that lives on may be taken
	 * for dead: that costs its free space. Changes of the map are committed in this order, so
	 * one that is not dead is mapped or reserved at the end of each batch.
	 */
	for (i = 0; old && i < old->nr; i++) {
		if (atomic_dec_and_test(&old->seg[i].extent->segs))
			old->seg[i].extent->flags |= SCRIBE_EXT_DEAD;
	}
	leaf->segs[chunk % SCRIBE_LEAF_CHUNKS] = fresh;
	return old;
}

static void free_leaf(struct scribe_leaf *leaf)
{
	u32 i;

	for (i = 0; i < SCRIBE_LEAF_CHUNKS; i++)
		scribe_vsd_drop_segs(leaf->segs[i]);
	kmem_cache_free(leaf_cache, leaf);
}

/* A leaf that is loaded counts for its extents, at most 1024 segments. */
static void count_leaf(struct scribe_vsd *vsd, struct scribe_leaf *leaf, int more)
{
	u32 i, k;

	lockdep_assert_held(&vsd->lock);
	for (i = 0; i < SCRIBE_LEAF_CHUNKS; i++) {
		struct scribe_segs *segs = leaf->segs[i];

		for (k = 0; segs && k < segs->nr; k++)
			atomic_add(more, &segs->seg[k].extent->segs);
	}
}

static void unlink_leaf(struct scribe_vsd *vsd, struct scribe_leaf *leaf)
{
	lockdep_assert_held(&vsd->lock);
	scribe_intent_forget(vsd, leaf);
	count_leaf(vsd, leaf, -1);
	xa_erase(&vsd->leaves, leaf->index);
	list_del(&leaf->lru);
	vsd->nr_leaves--;
	atomic_long_dec(&total_leaves);
}

/* All of it, pinned or not: the lease is gone and no I/O is in flight. */
static void drop_map(struct scribe_vsd *vsd)
{
	struct scribe_leaf *leaf, *next;
	struct scribe_extent *young;
	LIST_HEAD(gone);

	scribe_freeze_drop(vsd);
	spin_lock_irq(&vsd->lock);
	list_for_each_entry_safe(leaf, next, &vsd->lru, lru) {
		unlink_leaf(vsd, leaf);
		list_add(&leaf->lru, &gone);
	}
	young = vsd->young;
	vsd->young = NULL;
	spin_unlock_irq(&vsd->lock);
	list_for_each_entry_safe(leaf, next, &gone, lru)
		free_leaf(leaf);
	if (young)
		scribe_extent_put(young);
}

struct scribe_leaf *scribe_vsd_leaf(struct scribe_vsd *vsd, u64 chunk)
{
	struct scribe_leaf *leaf;

	lockdep_assert_held(&vsd->lock);
	leaf = xa_load(&vsd->leaves, chunk / SCRIBE_LEAF_CHUNKS);
	if (leaf)
		leaf->referenced = true;
	return leaf;
}

unsigned long scribe_vsd_evict(struct scribe_vsd *vsd, unsigned long max)
{
	struct scribe_leaf *leaf, *next;
	unsigned long nr = 0, seen = 0;
	LIST_HEAD(gone);

	spin_lock_irq(&vsd->lock);
	/* A used leaf gets a second turn: once around the list and once more. */
	while (nr < max && !list_empty(&vsd->lru) && seen++ < 2 * vsd->nr_leaves + nr) {
		leaf = list_first_entry(&vsd->lru, struct scribe_leaf, lru);
		/* One with intent stays: the metadata's row would stay, and nobody drop it. */
		if (leaf->pins || leaf->intent || leaf->referenced) {
			leaf->referenced = false;
			list_move_tail(&leaf->lru, &vsd->lru);
			continue;
		}
		unlink_leaf(vsd, leaf);
		list_add(&leaf->lru, &gone);
		nr++;
	}
	spin_unlock_irq(&vsd->lock);
	list_for_each_entry_safe(leaf, next, &gone, lru)
		free_leaf(leaf);
	return nr;
}

static int load_segs(struct scribe_leaf *leaf, const struct scribe_seg_rec *recs, u32 nr,
		     struct scribe_extent **extents, u32 nr_extents, const char **why)
{
	u32 i, j;

	for (i = 0; i < nr; i = j) {
		struct scribe_segs *segs;
		u32 k, e;

		*why = "chunk outside the leaf or out of order";
		if (recs[i].chunk >= SCRIBE_LEAF_CHUNKS || leaf->segs[recs[i].chunk])
			return -EINVAL;
		for (j = i; j < nr && recs[j].chunk == recs[i].chunk; j++)
			;
		segs = kzalloc(struct_size(segs, seg, j - i), GFP_KERNEL);
		if (!segs)
			return -ENOMEM;
		segs->capacity = j - i;
		leaf->segs[recs[i].chunk] = segs;
		for (k = i; k < j; k++) {
			for (e = 0; e < nr_extents && extents[e]->id != recs[k].extent; e++)
				;
			*why = "segment of an extent that was not given";
			if (e == nr_extents)
				return -EINVAL;
			scribe_extent_get(extents[e]);
			segs->seg[segs->nr++] = (struct scribe_seg){
				.extent = extents[e],
				.start = recs[k].start,
				.len = recs[k].len,
				.off = recs[k].off,
			};
		}
		*why = "segments overlap or leave chunk or extent";
		if (!scribe_segs_valid(segs))
			return -EINVAL;
	}
	return 0;
}

bool scribe_vsd_in_epoch(struct scribe_vsd *vsd, u64 epoch)
{
	lockdep_assert_held(&vsd->lock);
	return vsd->epoch == epoch && vsd->lease != SCRIBE_LEASE_NONE &&
	       vsd->lease != SCRIBE_LEASE_FAILED;
}

static int install_leaf(struct scribe_vsd *vsd, u64 epoch, struct scribe_leaf *leaf)
{
	int err;

	spin_lock_irq(&vsd->lock);
	err = scribe_vsd_in_epoch(vsd, epoch) ? 0 : -ESTALE;
	spin_unlock_irq(&vsd->lock);
	if (err)
		return err;
	/* Room in the xarray first: nothing is allocated under the lock. */
	err = xa_insert_irq(&vsd->leaves, leaf->index, NULL, GFP_KERNEL);
	if (err)
		return err == -EBUSY ? -EEXIST : err;
	spin_lock_irq(&vsd->lock);
	/* The lease may have ended while we were allocating. */
	if (!scribe_vsd_in_epoch(vsd, epoch)) {
		xa_erase(&vsd->leaves, leaf->index);
		err = -ESTALE;
	} else {
		xa_store(&vsd->leaves, leaf->index, leaf, GFP_NOWAIT);
		count_leaf(vsd, leaf, 1);
		list_add_tail(&leaf->lru, &vsd->lru);
		leaf->referenced = true;
		vsd->nr_leaves++;
		atomic_long_inc(&total_leaves);
	}
	spin_unlock_irq(&vsd->lock);
	return err;
}

int scribe_vsd_put_leaf(struct scribe_vsd *vsd, u64 epoch, u64 index,
			const struct scribe_seg_rec *segs, u32 nr_segs,
			const struct scribe_extent_rec *extents, u32 nr_extents, const char **why)
{
	struct scribe_extent **interned;
	struct scribe_leaf *leaf;
	int err = -ENOMEM;
	u32 nr = 0;

	leaf = kmem_cache_zalloc(leaf_cache, GFP_KERNEL);
	interned = kvcalloc(nr_extents + 1, sizeof(*interned), GFP_KERNEL);
	if (!leaf || !interned)
		goto out;
	leaf->index = index;
	for (nr = 0; nr < nr_extents; nr++) {
		err = -EINVAL;
		*why = scribe_extent_rec_check(&extents[nr]);
		if (*why)
			goto out;
		err = -ENOMEM;
		interned[nr] = scribe_extent_intern(&extents[nr], vsd->key, false);
		if (!interned[nr])
			goto out;
	}
	err = load_segs(leaf, segs, nr_segs, interned, nr, why);
	if (!err)
		err = install_leaf(vsd, epoch, leaf);
	if (!err) {
		leaf = NULL;
		queue_work(scribe_wq, &vsd->kick);
	}
out:
	while (nr--)
		scribe_extent_put(interned[nr]);
	kvfree(interned);
	if (leaf)
		free_leaf(leaf);
	return err == -EEXIST ? 0 : err;
}

/* What was written in an older life of the disk and not flushed may be gone. */
static bool lost_writes(const struct scribe_batch *batch, const struct scribe_missed *missed,
			u32 copy, u32 disk, u64 life)
{
	if ((missed->failed | missed->skipped) & BIT(copy))
		return true;
	return missed->written & BIT(copy) &&
	       (batch->written[disk].failed || batch->written[disk].life != life);
}

bool scribe_vsd_copy_ok(struct scribe_vsd *vsd, const struct scribe_extent *extent, u32 copy,
			struct scribe_disk_view *view)
{
	u32 disk = extent->copy[copy].disk;

	if (extent->copy[copy].flags & SCRIBE_COPY_STALE)
		return false;
	*view = scribe_disk_view(disk);
	if (!scribe_disk_reachable(view, disk))
		return false;
	if (extent->flags & SCRIBE_EXT_OPEN_DIRTY &&
	    lost_writes(vsd->open, &extent->open, copy, disk, view->life))
		return false;
	return !(extent->flags & SCRIBE_EXT_CLOSED_DIRTY) ||
	       !lost_writes(vsd->closed, &extent->closed, copy, disk, view->life);
}

/* Lease */

int scribe_vsd_grant(struct scribe_vsd *vsd, u64 epoch, u32 copies)
{
	int err = 0;

	spin_lock_irq(&vsd->lock);
	if (vsd->lease == SCRIBE_LEASE_OWNED && vsd->epoch == epoch) {
		WRITE_ONCE(vsd->copies, copies);
		goto out;
	}
	if (epoch <= vsd->epoch) {
		err = -ESTALE;
		goto out;
	}
	err = move_lease(vsd, SCRIBE_LEASE_OWNED);
	if (!err) {
		vsd->epoch = epoch;
		vsd->dropped = false;
		WRITE_ONCE(vsd->copies, copies);
		vsd->batch_seq = 0;
		vsd->batch_acked = 0;
		vsd->batch_refused = 0;
	}
out:
	spin_unlock_irq(&vsd->lock);
	if (!err)
		queue_work(scribe_wq, &vsd->kick);
	return err;
}

int scribe_vsd_release(struct scribe_vsd *vsd, u64 epoch)
{
	int err;

	spin_lock_irq(&vsd->lock);
	if (vsd->lease == SCRIBE_LEASE_NONE) {
		err = vsd->dropped ? -EIO : 0;
		spin_unlock_irq(&vsd->lock);
		return err;
	}
	err = vsd->epoch != epoch ? -ESTALE : move_lease(vsd, SCRIBE_LEASE_RELEASING);
	spin_unlock_irq(&vsd->lock);
	if (err)
		return err;

	err = wait_event_killable(vsd->idle, !READ_ONCE(vsd->nr_active));
	if (!err)
		err = scribe_flush_sync(vsd, 0);

	spin_lock_irq(&vsd->lock);
	if (vsd->lease == SCRIBE_LEASE_RELEASING)
		move_lease(vsd, err ? SCRIBE_LEASE_OWNED : SCRIBE_LEASE_NONE);
	else
		err = -EIO;
	spin_unlock_irq(&vsd->lock);
	if (!err)
		drop_map(vsd);
	queue_work(scribe_wq, &vsd->kick);
	return err;
}

int scribe_vsd_fail(struct scribe_vsd *vsd, u64 epoch, bool relet)
{
	spin_lock_irq(&vsd->lock);
	if (epoch && !scribe_vsd_in_epoch(vsd, epoch)) {
		spin_unlock_irq(&vsd->lock);
		return -ESTALE;
	}
	move_lease(vsd, SCRIBE_LEASE_FAILED);
	vsd->relet = relet;
	spin_unlock_irq(&vsd->lock);
	wake_up_all(&vsd->committed);
	queue_work(scribe_wq, &vsd->kick);
	/* Legs end by themselves; then nobody uses the map or the batches. */
	wait_event(vsd->idle, !READ_ONCE(vsd->nr_active));
	cancel_delayed_work_sync(&vsd->flush);
	scribe_batch_drop(vsd, vsd->closed);
	scribe_batch_drop(vsd, vsd->open);
	drop_map(vsd);
	/* Flushes that waited get their error from the worker. */
	scribe_flush_sync(vsd, 0);
	if (!relet)
		return 0;
	spin_lock_irq(&vsd->lock);
	/* Also where a flush said so just now: a write that it did not wait for may be lost. */
	if (vsd->relet && vsd->lease == SCRIBE_LEASE_FAILED) {
		vsd->dropped = true;
		vsd->lost = true;
		move_lease(vsd, SCRIBE_LEASE_NONE);
	}
	vsd->relet = false;
	spin_unlock_irq(&vsd->lock);
	queue_work(scribe_wq, &vsd->kick);
	return 0;
}

/* Objects */

struct scribe_vsd *scribe_vsd_find(u64 id)
{
	struct scribe_vsd *vsd, *found = NULL;

	down_read(&vsds_lock);
	list_for_each_entry(vsd, &vsds, node) {
		if (vsd->id == id) {
			kref_get(&vsd->ref);
			found = vsd;
			break;
		}
	}
	up_read(&vsds_lock);
	return found;
}

static void free_vsd(struct kref *ref)
{
	struct scribe_vsd *vsd = container_of(ref, struct scribe_vsd, ref);

	scribe_batch_free(vsd->open);
	scribe_batch_free(vsd->closed);
	xa_destroy(&vsd->leaves);
	kfree(vsd);
}

void scribe_vsd_put(struct scribe_vsd *vsd)
{
	kref_put(&vsd->ref, free_vsd);
}

static void kick_parked(struct work_struct *work)
{
	scribe_io_retry_parked(container_of(work, struct scribe_vsd, kick));
}

static struct scribe_vsd *alloc_vsd(u64 id)
{
	struct scribe_vsd *vsd = kzalloc(sizeof(*vsd), GFP_KERNEL);
	u32 i;

	if (!vsd)
		return NULL;
	vsd->copies = SCRIBE_VSD_MIN_COPIES;
	vsd->open = scribe_batch_alloc();
	vsd->closed = scribe_batch_alloc();
	if (!vsd->open || !vsd->closed) {
		scribe_batch_free(vsd->open);
		scribe_batch_free(vsd->closed);
		kfree(vsd);
		return NULL;
	}
	kref_init(&vsd->ref);
	vsd->id = id;
	/* Not twice among those that live: so many are never made in one run of the module. */
	vsd->key = atomic_inc_return(&last_key);
	spin_lock_init(&vsd->lock);
	xa_init_flags(&vsd->leaves, XA_FLAGS_LOCK_IRQ);
	INIT_LIST_HEAD(&vsd->lru);
	INIT_LIST_HEAD(&vsd->parked);
	INIT_LIST_HEAD(&vsd->frozen);
	INIT_LIST_HEAD(&vsd->intents);
	vsd->gen = 1;
	INIT_LIST_HEAD(&vsd->flush_waiters);
	for (i = 0; i < SCRIBE_RANGE_BUCKETS; i++)
		INIT_LIST_HEAD(&vsd->ranges[i]);
	init_waitqueue_head(&vsd->idle);
	init_waitqueue_head(&vsd->committed);
	init_waitqueue_head(&vsd->unmaps_queue);
	INIT_WORK(&vsd->kick, kick_parked);
	INIT_DELAYED_WORK(&vsd->flush, scribe_flush_work);
	return vsd;
}

struct scribe_vsd *scribe_vsd_open(u64 id)
{
	struct scribe_vsd *fresh = alloc_vsd(id);
	struct scribe_vsd *vsd;

	if (!fresh)
		return ERR_PTR(-ENOMEM);
	down_write(&vsds_lock);
	list_for_each_entry(vsd, &vsds, node) {
		if (vsd->id == id)
			goto found;
	}
	vsd = fresh;
	fresh = NULL;
	list_add_tail(&vsd->node, &vsds);
found:
	vsd->nr_tables++;
	up_write(&vsds_lock);
	if (fresh)
		scribe_vsd_put(fresh);
	return vsd;
}

void scribe_vsd_close(struct scribe_vsd *vsd)
{
	bool last;

	/* 1. Nobody finds it any more. dm has no I/O of it either. */
	down_write(&vsds_lock);
	last = !--vsd->nr_tables;
	if (last)
		list_del(&vsd->node);
	up_write(&vsds_lock);
	if (!last)
		return;
	/* 2. A flush that still waits for the daemon gives up. */
	spin_lock_irq(&vsd->lock);
	vsd->dying = true;
	spin_unlock_irq(&vsd->lock);
	wake_up_all(&vsd->committed);
	wait_event(vsd->idle, !READ_ONCE(vsd->nr_active));
	cancel_delayed_work_sync(&vsd->flush);
	cancel_work_sync(&vsd->kick);
	/* 3. What was not committed was never promised. */
	if (vsd->open->nr_ops || vsd->closed->nr_ops)
		pr_warn("vsd %llu: removed with %u changes that no flush had asked for\n", vsd->id,
			vsd->open->nr_ops + vsd->closed->nr_ops);
	scribe_batch_drop(vsd, vsd->closed);
	scribe_batch_drop(vsd, vsd->open);
	drop_map(vsd);
	scribe_vsd_put(vsd);
}

void scribe_vsd_for_each(void (*fn)(struct scribe_vsd *vsd, void *arg), void *arg)
{
	struct scribe_vsd *vsd;

	down_read(&vsds_lock);
	list_for_each_entry(vsd, &vsds, node)
		fn(vsd, arg);
	up_read(&vsds_lock);
}

static void kick_one(struct scribe_vsd *vsd, void *arg)
{
	queue_work(scribe_wq, &vsd->kick);
}

void scribe_vsd_kick_all(void)
{
	scribe_vsd_for_each(kick_one, NULL);
}

/* Shrinker */

static unsigned long count_leaves(struct shrinker *shrink, struct shrink_control *sc)
{
	return atomic_long_read(&total_leaves);
}

static unsigned long scan_leaves(struct shrinker *shrink, struct shrink_control *sc)
{
	struct scribe_vsd *vsd;
	unsigned long freed = 0;

	/* Reclaim may run under a create or destroy that holds the lock. */
	if (!down_read_trylock(&vsds_lock))
		return SHRINK_STOP;
	list_for_each_entry(vsd, &vsds, node) {
		if (freed < sc->nr_to_scan)
			freed += scribe_vsd_evict(vsd, sc->nr_to_scan - freed);
	}
	up_read(&vsds_lock);
	return freed ?: SHRINK_STOP;
}

int scribe_vsd_init(void)
{
	leaf_cache = KMEM_CACHE(scribe_leaf, 0);
	if (!leaf_cache)
		return -ENOMEM;
	shrinker = scribe_shrinker_new(count_leaves, scan_leaves);
	if (!shrinker) {
		kmem_cache_destroy(leaf_cache);
		return -ENOMEM;
	}
	return 0;
}

void scribe_vsd_exit(void)
{
	scribe_shrinker_free(shrinker);
	kmem_cache_destroy(leaf_cache);
}
