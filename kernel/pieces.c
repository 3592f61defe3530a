// SPDX-License-Identifier: GPL-2.0
/*
 * Pieces of chunks that the daemon put together in another extent, so that what was written here
 * and there lies in one place, or an extent of which little is used need not be kept. The data is
 * the same, so nothing waits and nothing is committed: the map changes under the I/O.
 *
 *   1. EXTENTS_SET frozen       where this VSD may write in place; the rest never changes
 *   2. BARRIER, VSD_FLUSH       as for a move (freeze.c)
 *   3. SLOTS_GATHER
 *   4. EXTENTS_SET frozen, partial   nor is it written in a full pool from now on
 *   5. the metadata changes     the slots from before are not used again before every node has
 *                               said that it has seen that
 *   6. PIECES_MOVED             to each VSD that leads there, before anything is thawed: what is
 *                               written in place then must not go to where it was
 *   7. EXTENTS_SET              what else leads to them goes on as before
 */
#include "vsd.h"

/* The first segment, in part perhaps, that leads to where the piece was. */
static bool find_part(const struct scribe_segs *segs, const struct scribe_piece_rec *rec,
		      u32 *start, u32 *len)
{
	u32 end = rec->start + rec->len;
	u32 i;

	for (i = scribe_segs_find(segs, rec->start); segs && i < segs->nr; i++) {
		const struct scribe_seg *seg = &segs->seg[i];

		if (seg->start >= end)
			return false;
		if (seg->extent->id != rec->from || seg->off - seg->start != rec->off - rec->start)
			continue;
		*start = max_t(u32, seg->start, rec->start);
		*len = min(scribe_seg_end(seg), end) - *start;
		return true;
	}
	return false;
}

/*
 * One part of a piece; 0 where there is no more of it, 1 where there may be. Each takes the place
 * of a segment or of its end, as the daemon moves whole segments, so a chunk does not get more.
 */
static int move_part(struct scribe_vsd *vsd, u64 epoch, const struct scribe_piece_rec *rec,
		     struct scribe_extent *extent, struct scribe_segs **fresh)
{
	struct scribe_segs *old = NULL;
	u32 need, start, len;
	int err = 0;

	spin_lock_irq(&vsd->lock);
	if (!scribe_vsd_in_epoch(vsd, epoch)) {
		err = -ESTALE;
	} else {
		struct scribe_leaf *leaf = xa_load(&vsd->leaves, rec->chunk / SCRIBE_LEAF_CHUNKS);
		struct scribe_segs *segs = leaf ? leaf->segs[rec->chunk % SCRIBE_LEAF_CHUNKS]
						: NULL;

		if (find_part(segs, rec, &start, &len)) {
			err = 1;
			need = segs->nr + SCRIBE_SEGS_GROWTH;
			if (*fresh && (*fresh)->capacity >= need) {
				scribe_segs_splice(segs, start, len, extent,
						   rec->to + (start - rec->start), *fresh);
				old = scribe_vsd_swap_segs(leaf, rec->chunk, *fresh);
				*fresh = NULL;
			}
		}
	}
	spin_unlock_irq(&vsd->lock);
	scribe_vsd_drop_segs(old);
	if (err != 1 || old)
		return err;
	kfree(*fresh);
	*fresh = scribe_vsd_alloc_segs(need);
	return *fresh ? 1 : -ENOMEM;
}

static const char *check(const struct scribe_piece_rec *recs, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		if (!recs[i].len || recs[i].start + recs[i].len > SCRIBE_CHUNK_SECTORS ||
		    recs[i].off + recs[i].len > SCRIBE_CHUNK_SECTORS ||
		    recs[i].to + recs[i].len > SCRIBE_CHUNK_SECTORS)
			return "a piece leaves chunk or extent";
	}
	return NULL;
}

int scribe_pieces_moved(struct scribe_vsd *vsd, u64 epoch, const struct scribe_piece_rec *recs,
			u32 nr, const struct scribe_extent_rec *to, const char **why)
{
	struct scribe_extent_rec rec = *to;
	struct scribe_segs *fresh = NULL;
	struct scribe_extent *extent;
	int err = 0;
	u32 i;

	*why = scribe_extent_rec_check(to) ?: check(recs, nr);
	if (*why)
		return -EINVAL;
	/*
	 * That it may be written in place is true in this epoch: an object that is made before that
	 * is known to hold would tell the next one.
	 */
	rec.flags &= ~SCRIBE_EXTENT_EXCLUSIVE;
	extent = scribe_extent_intern(&rec, vsd->key, false);
	if (!extent)
		return -ENOMEM;
	spin_lock_irq(&vsd->lock);
	if (!scribe_vsd_in_epoch(vsd, epoch))
		err = -ESTALE;
	else if (to->flags & SCRIBE_EXTENT_EXCLUSIVE)
		extent->flags |= SCRIBE_EXT_EXCLUSIVE;
	spin_unlock_irq(&vsd->lock);
	for (i = 0; i < nr && !err; i++) {
		do {
			err = move_part(vsd, epoch, &recs[i], extent, &fresh);
		} while (err == 1);
	}
	kfree(fresh);
	scribe_extent_put(extent);
	/* Reads may have waited for a copy of where it was. */
	queue_work(scribe_wq, &vsd->kick);
	return err;
}
