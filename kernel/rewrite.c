// SPDX-License-Identifier: GPL-2.0
/*
 * Rewriting a chunk that has too many segments into one aligned extent. The caller holds the
 * whole chunk's range, so what is read here cannot change before it is mapped anew. Rare: one
 * buffer and one rewrite at a time for the node.
 */
#include <linux/completion.h>
#include <linux/mutex.h>

#include "io.h"
#include "plan.h"

#define BUFFER_ORDER get_order(SCRIBE_WIRE_MAX_BYTES)
#define ATTEMPTS 8

static struct page *buffer;
static DEFINE_MUTEX(buffer_lock);

struct sync_legs {
	atomic_t pending;
	atomic_t failed; /* mask of copies */
	bool unanswered; /* one of them ended without reaching its disk */
	struct completion done;
};

static void sync_leg_done(struct scribe_leg *leg)
{
	struct sync_legs *sync = leg->owner;

	if (leg->status)
		atomic_or(BIT(leg->copy), &sync->failed);
	if (scribe_io_unanswered(leg->status))
		WRITE_ONCE(sync->unanswered, true);
	scribe_leg_free(leg);
	if (atomic_dec_and_test(&sync->pending))
		complete(&sync->done);
}

static void sync_init(struct sync_legs *sync, u32 nr)
{
	atomic_set(&sync->pending, nr);
	atomic_set(&sync->failed, 0);
	sync->unanswered = false;
	init_completion(&sync->done);
}

static void send_leg(struct sync_legs *sync, u8 op, const struct scribe_extent *extent, u32 copy,
		     u64 life, u32 pos, u32 len, u32 off)
{
	struct scribe_leg *leg = scribe_leg_alloc(op);

	__bio_add_page(&leg->bio, buffer, SCRIBE_BYTES(len), SCRIBE_BYTES(pos));
	leg->iter = leg->bio.bi_iter;
	leg->length_bytes = SCRIBE_BYTES(len);
	leg->done = sync_leg_done;
	leg->owner = sync;
	leg->copy = copy;
	leg->disk = scribe_disk_find(extent->copy[copy].disk);
	leg->life = life;
	leg->sector = (u64)extent->copy[copy].slot * SCRIBE_SLOT_SECTORS + off;
	scribe_disk_submit(leg);
}

static int read_segment(struct scribe_vsd *vsd, const struct scribe_seg *seg)
{
	struct sync_legs sync;
	bool unanswered = false;
	u32 tried = 0, copy;
	u64 life;

	for (;;) {
		struct scribe_disk *disk;

		spin_lock_irq(&vsd->lock);
		disk = scribe_plan_source(vsd, seg->extent, tried, &copy, &life);
		spin_unlock_irq(&vsd->lock);
		if (!disk)
			return unanswered || scribe_plan_may_return(seg->extent, tried) ? -EAGAIN
											: -EIO;
		sync_init(&sync, 1);
		send_leg(&sync, SCRIBE_WIRE_READ, seg->extent, copy, life, seg->start, seg->len,
			 seg->off);
		wait_for_completion(&sync.done);
		if (!atomic_read(&sync.failed))
			return 0;
		unanswered |= sync.unanswered;
		tried |= BIT(copy);
	}
}

/* 0, -EAGAIN no space, -EREMOTEIO a copy failed: try other space. */
static int write_extent(struct scribe_vsd *vsd, u64 chunk, u32 start, u32 len)
{
	u64 lives[SCRIBE_MAX_COPIES];
	struct scribe_extent *extent;
	struct sync_legs sync;
	int err = 0;
	u32 i;

	spin_lock_irq(&vsd->lock);
	extent = scribe_plan_take(vsd, start, len, lives);
	spin_unlock_irq(&vsd->lock);
	if (!extent)
		return -EAGAIN;
	sync_init(&sync, extent->nr_copies);
	for (i = 0; i < extent->nr_copies; i++)
		send_leg(&sync, SCRIBE_WIRE_WRITE, extent, i, lives[i], start, len, start);
	wait_for_completion(&sync.done);
	scribe_io_note_written(vsd, extent, lives, atomic_read(&sync.failed), 0);
	if (atomic_read(&sync.failed))
		err = -EREMOTEIO;
	else
		err = scribe_io_remap(vsd, chunk, start, len, extent, start);
	scribe_extent_put(extent);
	return err;
}

/* The chunk's segments with references, in a copy of their own; NULL for none or no memory. */
static struct scribe_segs *copy_segs(struct scribe_vsd *vsd, u64 chunk, int *err)
{
	const u32 max = 2 * SCRIBE_MAX_SEGS;
	struct scribe_segs *copy = kmalloc(struct_size(copy, seg, max), GFP_NOIO);
	struct scribe_leaf *leaf;
	struct scribe_segs *segs;
	u32 i;

	*err = -ENOMEM;
	if (!copy)
		return NULL;
	spin_lock_irq(&vsd->lock);
	leaf = scribe_vsd_leaf(vsd, chunk);
	segs = leaf ? leaf->segs[chunk % SCRIBE_LEAF_CHUNKS] : NULL;
	*err = leaf ? 0 : -EAGAIN;
	copy->nr = segs && !WARN_ON_ONCE(segs->nr > max) ? segs->nr : 0;
	for (i = 0; i < copy->nr; i++) {
		copy->seg[i] = segs->seg[i];
		scribe_extent_get(copy->seg[i].extent);
	}
	if (copy->nr)
		leaf->pins++;
	spin_unlock_irq(&vsd->lock);
	return copy;
}

int scribe_rewrite_chunk(struct scribe_vsd *vsd, u64 chunk)
{
	struct scribe_segs *segs;
	u32 i, start, end, attempt;
	int err;

	segs = copy_segs(vsd, chunk, &err);
	if (err || !segs->nr) {
		kfree(segs);
		return err;
	}
	start = segs->seg[0].start;
	end = scribe_seg_end(&segs->seg[segs->nr - 1]);

	mutex_lock(&buffer_lock);
	memset(page_address(buffer), 0, SCRIBE_WIRE_MAX_BYTES);
	for (i = 0; i < segs->nr && !err; i++)
		err = read_segment(vsd, &segs->seg[i]);
	for (attempt = 0; !err && attempt < ATTEMPTS; attempt++) {
		err = write_extent(vsd, chunk, start, end - start);
		if (err != -EREMOTEIO)
			break;
		err = 0;
	}
	mutex_unlock(&buffer_lock);

	for (i = 0; i < segs->nr; i++)
		scribe_extent_put(segs->seg[i].extent);
	kfree(segs);
	spin_lock_irq(&vsd->lock);
	vsd->stats.rewrites++;
	scribe_vsd_leaf(vsd, chunk)->pins--;
	spin_unlock_irq(&vsd->lock);
	return attempt == ATTEMPTS ? -EAGAIN : err;
}

int scribe_rewrite_init(void)
{
	buffer = alloc_pages(GFP_KERNEL, BUFFER_ORDER);
	return buffer ? 0 : -ENOMEM;
}

void scribe_rewrite_exit(void)
{
	__free_pages(buffer, BUFFER_ORDER);
}
