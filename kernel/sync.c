// SPDX-License-Identifier: GPL-2.0
#include "sync.h"

static void leg_done(struct scribe_leg *leg)
{
	struct scribe_sync *sync = leg->owner;

	if (leg->status)
		atomic_or(BIT(leg->copy), &sync->failed);
	if (scribe_leg_unanswered(leg->status))
		WRITE_ONCE(sync->unanswered, true);
	scribe_leg_free(leg);
	if (atomic_dec_and_test(&sync->pending))
		complete(&sync->done);
}

void scribe_sync_init(struct scribe_sync *sync)
{
	atomic_set(&sync->pending, 1);
	atomic_set(&sync->failed, 0);
	sync->unanswered = false;
	init_completion(&sync->done);
}

void scribe_sync_send(struct scribe_sync *sync, struct scribe_leg *leg, struct page *data,
		      u32 offset_bytes, u32 length_bytes)
{
	if (data)
		__bio_add_page(&leg->bio, data, length_bytes, offset_bytes);
	leg->iter = leg->bio.bi_iter;
	leg->length_bytes = length_bytes;
	leg->done = leg_done;
	leg->owner = sync;
	atomic_inc(&sync->pending);
	scribe_disk_submit(leg);
}

void scribe_sync_wait(struct scribe_sync *sync)
{
	if (!atomic_dec_and_test(&sync->pending))
		wait_for_completion(&sync->done);
}
