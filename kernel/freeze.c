// SPDX-License-Identifier: GPL-2.0
/*
 * Extents that get other copies. The daemon copies slots; what is needed of the kernel is that an
 * extent does not change meanwhile, and that its array of copies is never ahead of the metadata:
 *
 *   1. EXTENTS_SET frozen       writes go elsewhere, as to any extent that cannot be written in
 *                               place (R1); a copy in the making joins the array, stale
 *   2. BARRIER, VSD_FLUSH       no write is under way, all that was written is flushed
 *   3. SLOTS_COPY
 *   4. EXTENTS_SET frozen       a copy that is to go leaves the array: nothing uses it any more
 *   5. the metadata changes
 *   6. EXTENTS_SET              as the metadata says
 *
 * A daemon that dies on the way leaves an extent that is only written elsewhere. In a full pool
 * (R6) a frozen extent may have to be written all the same: that is noted, its copy in the making
 * is named stale anew in the same batch, and steps 4 and 6 leave the array as it is.
 *
 * Who else leads to the extent, a clone on this node or another, never writes to it, and reads from
 * where its copies were until EXTENTS_MOVED says where they are. Their slots are not used again
 * before every node has said that it has seen the change.
 */
#include "vsd.h"

#define BUSY (SCRIBE_EXT_OPEN_DIRTY | SCRIBE_EXT_CLOSED_DIRTY)

struct scribe_frozen {
	struct list_head node; /* vsd->frozen */
	struct scribe_extent *extent;
};

static int find_copy(const struct scribe_extent *extent, u32 disk)
{
	int i;

	for (i = 0; i < extent->nr_copies; i++) {
		if (extent->copy[i].disk == disk)
			return i;
	}
	return -1;
}

static bool named(const struct scribe_extent_rec *rec, u32 disk)
{
	u32 i;

	for (i = 0; i < rec->nr_copies; i++) {
		if (rec->copy[i].disk == disk)
			return true;
	}
	return false;
}

/* Would it take a copy away? I/O under way and unflushed data name copies by their index. */
static bool takes_away(const struct scribe_extent *extent, const struct scribe_extent_rec *rec)
{
	u32 i;

	for (i = 0; i < extent->nr_copies; i++) {
		if (!named(rec, extent->copy[i].disk))
			return true;
	}
	return false;
}

/*
 * What stays keeps its place. A stale mark goes only where the daemon says so: one that it has not
 * seen yet may be newer than what it knows.
 */
static void set_copies(struct scribe_extent *extent, const struct scribe_extent_rec *rec)
{
	u32 nr = extent->nr_copies;
	u32 i;

	for (i = 0; i < nr;) {
		if (named(rec, extent->copy[i].disk))
			i++;
		else
			extent->copy[i] = extent->copy[--nr];
	}
	WRITE_ONCE(extent->nr_copies, nr);
	extent->moves++;
	for (i = 0; i < rec->nr_copies; i++) {
		u16 stale = rec->copy[i].flags & SCRIBE_COPY_STALE;
		int at = find_copy(extent, rec->copy[i].disk);

		if (at < 0) {
			extent->copy[nr] = (struct scribe_copy){
				.slot = rec->copy[i].slot,
				.disk = rec->copy[i].disk,
				.flags = stale,
			};
			WRITE_ONCE(extent->nr_copies, ++nr);
		} else if (rec->copy[i].flags & SCRIBE_COPY_REFRESHED) {
			extent->copy[at].flags = 0;
		} else {
			extent->copy[at].flags |= stale;
		}
	}
}

/* Of an extent that nobody here writes to, whose state is all in the metadata. */
static void replace_copies(struct scribe_extent *extent, const struct scribe_extent_rec *rec)
{
	u32 i;

	for (i = 0; i < rec->nr_copies; i++) {
		extent->copy[i] = (struct scribe_copy){
			.slot = rec->copy[i].slot,
			.disk = rec->copy[i].disk,
			.flags = rec->copy[i].flags & SCRIBE_COPY_STALE,
		};
	}
	WRITE_ONCE(extent->nr_copies, rec->nr_copies);
	extent->moves++;
}

/* A copy that has moved to another slot of its disk is another copy: the daemon never does that. */
static bool same_slots(const struct scribe_extent *extent, const struct scribe_extent_rec *rec)
{
	u32 i;

	for (i = 0; i < rec->nr_copies; i++) {
		int at = find_copy(extent, rec->copy[i].disk);

		if (at >= 0 && extent->copy[at].slot != rec->copy[i].slot)
			return false;
	}
	return true;
}

static struct scribe_frozen *find_frozen(struct scribe_vsd *vsd, u64 id)
{
	struct scribe_frozen *frozen;

	lockdep_assert_held(&vsd->lock);
	list_for_each_entry(frozen, &vsd->frozen, node) {
		if (frozen->extent->id == id)
			return frozen;
	}
	return NULL;
}

/* Under vsd->lock. Uses up *fresh and the extent's reference in it where it was not frozen. */
static int freeze(struct scribe_vsd *vsd, const struct scribe_extent_rec *rec,
		  struct scribe_frozen **fresh)
{
	struct scribe_extent *extent = (*fresh)->extent;

	lockdep_assert_held(&vsd->lock);
	if (!(extent->flags & SCRIBE_EXT_FROZEN)) {
		if (takes_away(extent, rec))
			return -EAGAIN;
		if (vsd->nr_frozen >= SCRIBE_FROZEN_MAX)
			return -EBUSY;
		list_add_tail(&(*fresh)->node, &vsd->frozen);
		vsd->nr_frozen++;
		*fresh = NULL;
		extent->flags |= SCRIBE_EXT_FROZEN;
		extent->flags &= ~SCRIBE_EXT_WRITTEN;
	} else if ((takes_away(extent, rec) || rec->flags & SCRIBE_EXTENT_PARTIAL) &&
		   extent->flags & (BUSY | SCRIBE_EXT_WRITTEN)) {
		return -EAGAIN;
	}
	set_copies(extent, rec);
	if (rec->flags & SCRIBE_EXTENT_PARTIAL)
		extent->flags |= SCRIBE_EXT_PARTIAL;
	return 0;
}

/* Under vsd->lock: the one that was frozen, for the caller to free. */
static struct scribe_frozen *thaw(struct scribe_vsd *vsd, const struct scribe_extent_rec *rec)
{
	struct scribe_frozen *frozen = find_frozen(vsd, rec->id);
	struct scribe_extent *extent;

	if (!frozen)
		return NULL;
	extent = frozen->extent;
	/* What it has too much then is stale, and is not looked at. */
	if (!(extent->flags & SCRIBE_EXT_EXCLUSIVE))
		replace_copies(extent, rec);
	else if (!(extent->flags & SCRIBE_EXT_WRITTEN) &&
		 !(takes_away(extent, rec) && extent->flags & BUSY))
		set_copies(extent, rec);
	extent->flags &= ~(SCRIBE_EXT_FROZEN | SCRIBE_EXT_PARTIAL | SCRIBE_EXT_WRITTEN);
	list_del(&frozen->node);
	vsd->nr_frozen--;
	return frozen;
}

static void free_frozen(struct scribe_frozen *frozen)
{
	if (!frozen)
		return;
	if (frozen->extent)
		scribe_extent_put(frozen->extent);
	kfree(frozen);
}

static int set_one(struct scribe_vsd *vsd, u64 epoch, const struct scribe_extent_rec *rec)
{
	struct scribe_frozen *fresh = NULL, *gone = NULL;
	int err = 0;

	if (rec->flags & SCRIBE_EXTENT_FROZEN) {
		fresh = kzalloc(sizeof(*fresh), GFP_KERNEL);
		if (fresh)
			fresh->extent = scribe_extent_intern(rec, vsd->key, false);
		if (!fresh || !fresh->extent) {
			kfree(fresh);
			return -ENOMEM;
		}
	}
	spin_lock_irq(&vsd->lock);
	if (!scribe_vsd_in_epoch(vsd, epoch))
		err = -ESTALE;
	else if (fresh)
		err = same_slots(fresh->extent, rec) ? freeze(vsd, rec, &fresh) : -EINVAL;
	else
		gone = thaw(vsd, rec);
	spin_unlock_irq(&vsd->lock);
	free_frozen(fresh);
	free_frozen(gone);
	return err;
}

int scribe_freeze_set(struct scribe_vsd *vsd, u64 epoch, const struct scribe_extent_rec *recs,
		      u32 nr, const char **why)
{
	int err = 0;
	u32 i;

	for (i = 0; i < nr; i++) {
		*why = scribe_extent_rec_check(&recs[i]);
		if (*why)
			return -EINVAL;
	}
	spin_lock_irq(&vsd->lock);
	err = scribe_vsd_in_epoch(vsd, epoch) ? 0 : -ESTALE;
	spin_unlock_irq(&vsd->lock);
	for (i = 0; i < nr && !err; i++)
		err = set_one(vsd, epoch, &recs[i]);
	if (err == -EINVAL)
		*why = "a copy of the extent lies in another slot";
	else if (err == -EAGAIN)
		*why = "the extent was written: flush, then set it again";
	else if (err == -EBUSY)
		*why = "too many extents are frozen";
	/* Reads may have waited for a copy, writes for one they may use again. */
	queue_work(scribe_wq, &vsd->kick);
	return err;
}

struct moved {
	const struct scribe_extent_rec *recs;
	u32 nr;
};

static void replace_one(struct scribe_vsd *vsd, const struct scribe_extent_rec *rec)
{
	struct scribe_extent *extent = scribe_extent_find(rec->id, vsd->key);

	if (!extent)
		return;
	spin_lock_irq(&vsd->lock);
	/*
	 * Who may write to it knows better. Frozen or not: a daemon that froze it may have died,
	 * and the next one says that it has seen the change before it thaws.
	 */
	if (!(extent->flags & SCRIBE_EXT_EXCLUSIVE))
		replace_copies(extent, rec);
	spin_unlock_irq(&vsd->lock);
	scribe_extent_put(extent);
}

static void replace_in(struct scribe_vsd *vsd, void *arg)
{
	const struct moved *moved = arg;
	u32 i;

	for (i = 0; i < moved->nr; i++)
		replace_one(vsd, &moved->recs[i]);
	/* Reads may have waited for a copy. */
	queue_work(scribe_wq, &vsd->kick);
}

int scribe_freeze_moved(const struct scribe_extent_rec *recs, u32 nr, const char **why)
{
	struct moved moved = { .recs = recs, .nr = nr };
	u32 i;

	for (i = 0; i < nr; i++) {
		*why = scribe_extent_rec_check(&recs[i]);
		if (*why)
			return -EINVAL;
	}
	scribe_vsd_for_each(replace_in, &moved);
	return 0;
}

void scribe_freeze_drop(struct scribe_vsd *vsd)
{
	struct scribe_frozen *frozen, *next;
	LIST_HEAD(gone);

	spin_lock_irq(&vsd->lock);
	list_splice_init(&vsd->frozen, &gone);
	vsd->nr_frozen = 0;
	spin_unlock_irq(&vsd->lock);
	list_for_each_entry_safe(frozen, next, &gone, node)
		free_frozen(frozen);
}

u32 scribe_freeze_collect(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max)
{
	struct scribe_frozen *frozen;
	u32 nr = 0;

	spin_lock_irq(&vsd->lock);
	list_for_each_entry(frozen, &vsd->frozen, node) {
		if (nr == max)
			break;
		recs[nr++] = (struct scribe_work_rec){
			.type = SCRIBE_WORK_FROZEN,
			.vsd = vsd->id,
			.arg = frozen->extent->id,
		};
	}
	spin_unlock_irq(&vsd->lock);
	return nr;
}
