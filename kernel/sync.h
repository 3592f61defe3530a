/* SPDX-License-Identifier: GPL-2.0 */
/* Legs of background work, that one sleeper waits for. */
#ifndef SCRIBE_SYNC_H
#define SCRIBE_SYNC_H

#include <linux/completion.h>

#include "disk.h"

struct scribe_sync {
	atomic_t pending;	/* legs, and one for the sleeper until it waits */
	atomic_t failed;	/* mask by leg->copy */
	bool unanswered;	/* a leg ended without reaching its disk */
	struct completion done;
};

void scribe_sync_init(struct scribe_sync *sync);

/**
 * scribe_sync_send() - send a request that scribe_sync_wait() waits for
 * @sync: where it is counted
 * @leg: from scribe_leg_alloc(), with disk, life, sector and copy
 * @data: its data at @offset_bytes, physically contiguous; NULL for a flush
 * @offset_bytes: in @data
 * @length_bytes: of the request
 *
 * Context: process, may sleep.
 */
void scribe_sync_send(struct scribe_sync *sync, struct scribe_leg *leg, struct page *data,
		      u32 offset_bytes, u32 length_bytes);

/* Returns when all legs have ended. Not interruptible: they use the sleeper's memory. */
void scribe_sync_wait(struct scribe_sync *sync);

#endif
