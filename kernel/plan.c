// SPDX-License-Identifier: GPL-2.0
#include "plan.h"

#include "range.h"
#include "reserve.h"

/* The copy that people asked to see, counted among those that can be read; as a mask. */
static u32 only_copy(struct scribe_vsd *vsd, const struct scribe_extent *extent)
{
	struct scribe_disk_view view;
	u8 copies[SCRIBE_MAX_COPIES];
	u32 i, nr = 0;

	for (i = 0; i < extent->nr_copies; i++) {
		if (scribe_vsd_copy_ok(vsd, extent, i, &view))
			copies[nr++] = i;
	}
	return nr ? BIT(copies[(vsd->read_copy - 1) % nr]) : 0;
}

bool scribe_plan_source(struct scribe_vsd *vsd, const struct scribe_extent *extent, u32 tried,
			struct scribe_source *from)
{
	int best_score = -1;
	u32 i, allowed;

	lockdep_assert_held(&vsd->lock);
	allowed = vsd->read_copy ? only_copy(vsd, extent) : U32_MAX;
	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view;
		int score;

		if (tried & BIT(i) || !(allowed & BIT(i)) ||
		    !scribe_vsd_copy_ok(vsd, extent, i, &view))
			continue;
		/*
		 * A local copy first, else the SSD; extents are many, so ids spread what is
		 * equal.
		 */
		score = (view.state == SCRIBE_DISK_LOCAL) * 4 + (view.tier == SCRIBE_TIER_SSD) * 2 +
			((extent->id + i) & 1);
		if (score > best_score) {
			best_score = score;
			*from = (struct scribe_source){
				.disk = scribe_disk_find(extent->copy[i].disk),
				.life = view.life,
				.slot = extent->copy[i].slot,
				.copy = i,
			};
		}
	}
	return best_score >= 0;
}

bool scribe_plan_may_return(const struct scribe_extent *extent, u32 tried)
{
	u32 i;

	/* There is a copy that the array leaves out for the moment. */
	if (READ_ONCE(extent->flags) & SCRIBE_EXT_PARTIAL)
		return true;
	for (i = 0; i < extent->nr_copies; i++) {
		if (!(tried & BIT(i)) && !(READ_ONCE(extent->copy[i].flags) & SCRIBE_COPY_STALE))
			return true;
	}
	return false;
}

/* R1: exclusive, not being moved, all copies reachable and current. Gives the disks' lives. */
static bool in_place_ok(struct scribe_vsd *vsd, const struct scribe_extent *extent, u64 *lives)
{
	u32 i;

	memset(lives, 0, SCRIBE_MAX_COPIES * sizeof(*lives));
	if (!(extent->flags & SCRIBE_EXT_EXCLUSIVE) || extent->flags & SCRIBE_EXT_FROZEN)
		return false;
	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view;

		if (!scribe_vsd_copy_ok(vsd, extent, i, &view))
			return false;
		lives[i] = view.life;
	}
	return true;
}

/*
 * R6: the pool has no space for two copies elsewhere. The copies that are current and reachable are
 * written in place; what the others miss is told to the metadata before the next flush ends, so all
 * of them must be known here. A copy in the making misses it too: it is not made current then.
 */
static bool degraded_ok(struct scribe_io *io, struct scribe_extent *extent)
{
	u32 good = 0, i;

	if (!(extent->flags & SCRIBE_EXT_EXCLUSIVE) || extent->flags & SCRIBE_EXT_PARTIAL ||
	    !scribe_reserve_nospace(io->vsd->copies))
		return false;
	io->skipped = 0;
	memset(io->lives, 0, sizeof(io->lives));
	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view;

		if (scribe_vsd_copy_ok(io->vsd, extent, i, &view)) {
			io->lives[i] = view.life;
			good++;
		} else {
			io->skipped |= BIT(i);
		}
	}
	if (good && extent->flags & SCRIBE_EXT_FROZEN)
		extent->flags |= SCRIBE_EXT_WRITTEN;
	return good;
}

struct scribe_extent *scribe_plan_take(struct scribe_vsd *vsd, u32 start, u32 len, u64 *lives)
{
	struct scribe_extent *extent;

	lockdep_assert_held(&vsd->lock);
	while ((extent = scribe_reserve_take(vsd->copies))) {
		if (in_place_ok(vsd, extent, lives)) {
			scribe_extent_adopt(extent, vsd->key);
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
	if ((extent->flags & (SCRIBE_EXT_OWN | SCRIBE_EXT_DEAD)) != SCRIBE_EXT_OWN ||
	    segs->seg[i - 1].off != segs->seg[i - 1].start || extent->fill > start ||
	    !in_place_ok(vsd, extent, lives))
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
		if (at + len <= SCRIBE_CHUNK_SECTORS && !(young->flags & SCRIBE_EXT_DEAD) &&
		    in_place_ok(vsd, young, lives)) {
			*off = at;
			young->fill = at + len;
			return young;
		}
		vsd->young = NULL;
		scribe_extent_put(young);
	}
	young = scribe_plan_take(vsd, 0, len, lives);
	if (!young)
		return NULL;
	young->flags &= ~SCRIBE_EXT_OWN;
	vsd->young = young;
	*off = 0;
	return young;
}

bool scribe_plan_fresh(struct scribe_io *io, const struct scribe_segs *segs)
{
	struct scribe_vsd *vsd = io->vsd;
	u64 sector = io->chunk * SCRIBE_CHUNK_SECTORS + io->start;
	bool sequential = vsd->last_end == sector;
	struct scribe_extent *extent;

	vsd->last_end = sector + io->len;
	io->target_off = io->start;
	extent = continued(vsd, segs, io->start, io->len, io->lives);
	if (!extent && (io->len >= SCRIBE_LARGE_SECTORS || sequential)) {
		extent = scribe_plan_take(vsd, io->start, io->len, io->lives);
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

/*
 * May this change add segments to its chunk? Each may add SCRIBE_SEGS_GROWTH, those under way too,
 * though neighbours become one as a rule: so rather than rewriting the chunk for what might be, a
 * change waits for the others, and then the count is exact.
 */
static enum scribe_plan plan_growth(struct scribe_io *io, const struct scribe_segs *segs)
{
	u32 nr = segs ? segs->nr : 0;

	if (nr + SCRIBE_SEGS_GROWTH > SCRIBE_MAX_SEGS)
		return SCRIBE_PLAN_REWRITE;
	if (nr + scribe_range_changes(io) * SCRIBE_SEGS_GROWTH > SCRIBE_MAX_SEGS)
		return SCRIBE_PLAN_ALONE;
	return SCRIBE_PLAN_GO;
}

static void plan_in_place(struct scribe_io *io, const struct scribe_seg *seg)
{
	io->in_place = true;
	io->target = seg->extent;
	io->target_off = seg->off + (io->start - seg->start);
	scribe_extent_get(io->target);
}

enum scribe_plan scribe_plan_write(struct scribe_io *io, const struct scribe_leaf *leaf)
{
	const struct scribe_segs *segs = leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS];
	const struct scribe_seg *seg = scribe_segs_cover(segs, io->start, io->len);
	struct scribe_vsd *vsd = io->vsd;
	enum scribe_plan growth;

	io->in_place = false;
	io->skipped = 0;
	if (seg && in_place_ok(vsd, seg->extent, io->lives)) {
		if (!leaf->intent)
			return SCRIBE_PLAN_INTENT;
		plan_in_place(io, seg);
		vsd->stats.in_place++;
		return SCRIBE_PLAN_GO;
	}
	growth = plan_growth(io, segs);
	if (growth == SCRIBE_PLAN_GO && scribe_plan_fresh(io, segs)) {
		vsd->stats.allocated++;
		return SCRIBE_PLAN_GO;
	}
	if (seg && degraded_ok(io, seg->extent)) {
		if (!leaf->intent)
			return SCRIBE_PLAN_INTENT;
		plan_in_place(io, seg);
		vsd->stats.degraded++;
		return SCRIBE_PLAN_GO;
	}
	return growth == SCRIBE_PLAN_GO ? SCRIBE_PLAN_NO_SPACE : growth;
}

enum scribe_plan scribe_plan_unmap(struct scribe_io *io, const struct scribe_segs *segs)
{
	u32 i = scribe_segs_find(segs, io->start);

	if (!segs || i == segs->nr || segs->seg[i].start >= io->start + io->len)
		return SCRIBE_PLAN_NOTHING;
	return plan_growth(io, segs);
}
