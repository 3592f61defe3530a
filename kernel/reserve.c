// SPDX-License-Identifier: GPL-2.0
#include "reserve.h"

#include "disk.h"

/* What has as many copies as a VSD wants; VSDs of two and of three copies have one each. */
struct stock {
	struct scribe_extent *extents[SCRIBE_RESERVE_MAX];
	u32 nr;
	bool no_space;
};

static struct stock stocks[SCRIBE_VSD_MAX_COPIES - SCRIBE_VSD_MIN_COPIES + 1];
static DEFINE_SPINLOCK(stock_lock);

static struct stock *stock_of(u32 copies)
{
	return &stocks[clamp(copies, SCRIBE_VSD_MIN_COPIES, SCRIBE_VSD_MAX_COPIES) -
		       SCRIBE_VSD_MIN_COPIES];
}

static bool writable(const struct scribe_extent *extent)
{
	u32 i;

	for (i = 0; i < extent->nr_copies; i++) {
		struct scribe_disk_view view = scribe_disk_view(extent->copy[i].disk);

		if (!scribe_disk_reachable(&view, extent->copy[i].disk))
			return false;
	}
	return true;
}

int scribe_reserve_add(struct scribe_extent *extent)
{
	struct stock *stock = stock_of(extent->nr_copies);
	unsigned long flags;
	int err = -ENOSPC;

	spin_lock_irqsave(&stock_lock, flags);
	if (stock->nr < SCRIBE_RESERVE_MAX) {
		stock->extents[stock->nr++] = extent;
		stock->no_space = false;
		err = 0;
	}
	spin_unlock_irqrestore(&stock_lock, flags);
	return err;
}

void scribe_reserve_set_nospace(u32 copies, bool nospace)
{
	WRITE_ONCE(stock_of(copies)->no_space, nospace);
}

bool scribe_reserve_nospace(u32 copies)
{
	/* Who finds no place for three copies gets two. */
	for (; copies >= SCRIBE_VSD_MIN_COPIES; copies--) {
		if (!READ_ONCE(stock_of(copies)->no_space))
			return false;
	}
	return true;
}

/* Under stock_lock. */
static struct scribe_extent *take_from(struct stock *stock)
{
	struct scribe_extent *extent;
	u32 i;

	/* From the end: O(1) as long as the newest are good, and they are placed on live disks. */
	for (i = stock->nr; i-- > 0;) {
		if (!writable(stock->extents[i]))
			continue;
		extent = stock->extents[i];
		stock->extents[i] = stock->extents[--stock->nr];
		return extent;
	}
	return NULL;
}

struct scribe_extent *scribe_reserve_take(u32 copies)
{
	struct stock *stock = stock_of(copies);
	struct scribe_extent *extent;
	unsigned long flags;
	bool low;

	spin_lock_irqsave(&stock_lock, flags);
	extent = take_from(stock);
	low = stock->nr == SCRIBE_RESERVE_LOW - 1 || !extent;
	if (!extent && stock->no_space && copies > SCRIBE_VSD_MIN_COPIES) {
		stock = stock_of(SCRIBE_VSD_MIN_COPIES);
		extent = take_from(stock);
		low |= stock->nr == SCRIBE_RESERVE_LOW - 1;
	}
	spin_unlock_irqrestore(&stock_lock, flags);
	if (low)
		scribe_event();
	return extent;
}

u32 scribe_reserve_collect_low(u32 copies, struct scribe_work_rec *recs, u32 max)
{
	struct stock *stock = stock_of(copies);
	unsigned long flags;
	u32 i, good = 0;

	spin_lock_irqsave(&stock_lock, flags);
	for (i = 0; i < stock->nr; i++)
		good += writable(stock->extents[i]);
	spin_unlock_irqrestore(&stock_lock, flags);
	if (good >= SCRIBE_RESERVE_LOW || !max)
		return 0;
	recs[0] = (struct scribe_work_rec){
		.type = SCRIBE_WORK_RESERVE_LOW,
		.id = good,
		.vsd = copies,
		.arg = SCRIBE_RESERVE_TARGET - good,
	};
	return 1;
}

static bool lies_on(const struct scribe_extent *extent, u32 disk)
{
	u32 i;

	for (i = 0; i < extent->nr_copies; i++) {
		if (extent->copy[i].disk == disk)
			return true;
	}
	return false;
}

/* Under stock_lock. */
static u32 take_back_from(struct stock *stock, u32 disk, u64 *ids, u32 max)
{
	u32 i, nr = 0;

	for (i = 0; i < stock->nr && nr < max;) {
		if (!lies_on(stock->extents[i], disk)) {
			i++;
			continue;
		}
		ids[nr++] = stock->extents[i]->id;
		scribe_extent_put(stock->extents[i]);
		stock->extents[i] = stock->extents[--stock->nr];
	}
	return nr;
}

u32 scribe_reserve_take_back(u32 disk, u64 *ids, u32 max)
{
	unsigned long flags;
	u32 copies, nr = 0;

	spin_lock_irqsave(&stock_lock, flags);
	for (copies = SCRIBE_VSD_MIN_COPIES; copies <= SCRIBE_VSD_MAX_COPIES; copies++)
		nr += take_back_from(stock_of(copies), disk, ids + nr, max - nr);
	spin_unlock_irqrestore(&stock_lock, flags);
	return nr;
}

static struct scribe_extent *take_any(void)
{
	struct scribe_extent *extent = NULL;
	unsigned long flags;
	u32 copies;

	spin_lock_irqsave(&stock_lock, flags);
	for (copies = SCRIBE_VSD_MIN_COPIES; copies <= SCRIBE_VSD_MAX_COPIES && !extent; copies++) {
		struct stock *stock = stock_of(copies);

		if (stock->nr)
			extent = stock->extents[--stock->nr];
	}
	spin_unlock_irqrestore(&stock_lock, flags);
	return extent;
}

void scribe_reserve_drop(void)
{
	struct scribe_extent *extent;

	while ((extent = take_any()))
		scribe_extent_put(extent);
}
