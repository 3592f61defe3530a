// SPDX-License-Identifier: GPL-2.0
/*
 * Rewriting a chunk that has too many segments into one aligned extent. The caller holds the
 * whole chunk's range, so what is read here cannot change before it is mapped anew. Rare: one
 * buffer and one rewrite at a time for the node.
 */
#include <linux/mutex.h>

#include "io.h"
#include "plan.h"
#include "sync.h"

#define BUFFER_ORDER get_order(SCRIBE_WIRE_MAX_BYTES)
#define ATTEMPTS 8

static struct page *buffer;
static DEFINE_MUTEX(buffer_lock);

static void send_leg(struct scribe_sync *sync, u8 op, const struct scribe_source *to, u32 pos,
		     u32 len, u32 off)
{
	struct scribe_leg *leg = scribe_leg_alloc(op);

	leg->copy = to->copy;
	leg->disk = to->disk;
	leg->life = to->life;
	leg->sector = (u64)to->slot * SCRIBE_SLOT_SECTORS + off;
	scribe_sync_send(sync, leg, buffer, SCRIBE_BYTES(pos), SCRIBE_BYTES(len));
}

static int read_segment(struct scribe_vsd *vsd, const struct scribe_seg *seg)
{
	struct scribe_source from;
	struct scribe_sync sync;
	bool unanswered = false;
	u32 tried = 0;
	u8 moves = 0;
	bool found;

	for (;;) {
		spin_lock_irq(&vsd->lock);
		if (moves != seg->extent->moves)
			tried = 0;
		moves = seg->extent->moves;
		found = scribe_plan_source(vsd, seg->extent, tried, &from);
		spin_unlock_irq(&vsd->lock);
		if (!found)
			return unanswered || scribe_plan_may_return(seg->extent, tried) ? -EAGAIN
											: -EIO;
		scribe_sync_init(&sync);
		send_leg(&sync, SCRIBE_WIRE_READ, &from, seg->start, seg->len, seg->off);
		scribe_sync_wait(&sync);
		if (!atomic_read(&sync.failed))
			return 0;
		unanswered |= sync.unanswered;
		tried |= BIT(from.copy);
	}
}

/* 0, -EAGAIN no space, -EREMOTEIO a copy failed: try other space. */
static int write_extent(struct scribe_vsd *vsd, u64 chunk, u32 start, u32 len)
{
	u64 lives[SCRIBE_MAX_COPIES];
	struct scribe_extent *extent;
	struct scribe_sync sync;
	int err = 0;
	u32 i;

	spin_lock_irq(&vsd->lock);
	extent = scribe_plan_take(vsd, start, len, lives);
	spin_unlock_irq(&vsd->lock);
	if (!extent)
		return -EAGAIN;
	/* Nothing maps to it yet, so its copies stay what they are. */
	scribe_sync_init(&sync);
	for (i = 0; i < extent->nr_copies; i++) {
		const struct scribe_source to = {
			.disk = scribe_disk_find(extent->copy[i].disk),
			.life = lives[i],
			.slot = extent->copy[i].slot,
			.copy = i,
		};

		send_leg(&sync, SCRIBE_WIRE_WRITE, &to, start, len, start);
	}
	scribe_sync_wait(&sync);
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
