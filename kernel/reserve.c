// SPDX-License-Identifier: GPL-2.0
#include "reserve.h"

#include "disk.h"

static struct scribe_extent *stock[SCRIBE_RESERVE_MAX];
static u32 nr_stock;
static bool no_space;
static DEFINE_SPINLOCK(stock_lock);

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
	unsigned long flags;
	int err = -ENOSPC;

	spin_lock_irqsave(&stock_lock, flags);
	if (nr_stock < SCRIBE_RESERVE_MAX) {
		stock[nr_stock++] = extent;
		no_space = false;
		err = 0;
	}
	spin_unlock_irqrestore(&stock_lock, flags);
	return err;
}

void scribe_reserve_set_nospace(bool nospace)
{
	WRITE_ONCE(no_space, nospace);
}

bool scribe_reserve_nospace(void)
{
	return READ_ONCE(no_space);
}

struct scribe_extent *scribe_reserve_take(void)
{
	struct scribe_extent *extent = NULL;
	unsigned long flags;
	bool low;
	u32 i;

	spin_lock_irqsave(&stock_lock, flags);
	/* From the end: O(1) as long as the newest are good, and they are placed on live disks. */
	for (i = nr_stock; i-- > 0;) {
		if (!writable(stock[i]))
			continue;
		extent = stock[i];
		stock[i] = stock[--nr_stock];
		break;
	}
	low = nr_stock == SCRIBE_RESERVE_LOW - 1 || !extent;
	spin_unlock_irqrestore(&stock_lock, flags);
	if (low)
		scribe_event();
	return extent;
}

u32 scribe_reserve_collect_low(struct scribe_work_rec *recs, u32 max)
{
	unsigned long flags;
	u32 i, good = 0;

	spin_lock_irqsave(&stock_lock, flags);
	for (i = 0; i < nr_stock; i++)
		good += writable(stock[i]);
	spin_unlock_irqrestore(&stock_lock, flags);
	if (good >= SCRIBE_RESERVE_LOW || !max)
		return 0;
	recs[0] = (struct scribe_work_rec){
		.type = SCRIBE_WORK_RESERVE_LOW,
		.id = good,
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

u32 scribe_reserve_take_back(u32 disk, u64 *ids, u32 max)
{
	unsigned long flags;
	u32 i, nr = 0;

	spin_lock_irqsave(&stock_lock, flags);
	for (i = 0; i < nr_stock && nr < max;) {
		if (!lies_on(stock[i], disk)) {
			i++;
			continue;
		}
		ids[nr++] = stock[i]->id;
		scribe_extent_put(stock[i]);
		stock[i] = stock[--nr_stock];
	}
	spin_unlock_irqrestore(&stock_lock, flags);
	return nr;
}

void scribe_reserve_drop(void)
{
	struct scribe_extent *extent;
	unsigned long flags;

	do {
		spin_lock_irqsave(&stock_lock, flags);
		extent = nr_stock ? stock[--nr_stock] : NULL;
		spin_unlock_irqrestore(&stock_lock, flags);
		if (extent)
			scribe_extent_put(extent);
	} while (extent);
}
