/* SPDX-License-Identifier: GPL-2.0 */
/* Copying slots between disks and reading them to compare, for the daemon's mover. */
#ifndef SCRIBE_COPY_H
#define SCRIBE_COPY_H

#include "scribe.h"

int scribe_copy_init(void);
void scribe_copy_exit(void);

/**
 * scribe_copy_slots() - copy whole slots and flush where they were written
 * @recs: what to copy where
 * @nr: how many, at most SCRIBE_COPY_SLOTS_MAX
 * @done: set to a mask of those that are on their disk for good
 *
 * That nothing is written to source or target meanwhile is the caller's to see to. The barrier
 * waits for it, and so does a fence of this node.
 *
 * Context: process, sleeps until the last request has ended.
 * Return: 0; -EINVAL for a disk out of range; -ESTALE where the node's lease ran out, with what was
 * done before in @done.
 */
int scribe_copy_slots(const struct scribe_slot_rec *recs, u32 nr, u64 *done);

/**
 * scribe_copy_digest() - read parts of slots and tell what is there
 * @recs: what to read
 * @nr: how many, at most SCRIBE_COPY_SLOTS_MAX
 * @digests: set to the XXH64 of each, 0 where it could not be read
 * @done: set to a mask of those that were read
 *
 * Context: process, sleeps until the last request has ended.
 * Return: 0; -EINVAL for a range out of bounds; -EAGAIN where a disk is out of reach, or has
 * another life; -ESTALE where the node's lease ran out.
 */
int scribe_copy_digest(const struct scribe_range_rec *recs, u32 nr, u64 *digests, u64 *done);

/**
 * scribe_copy_gather() - put parts of slots together in others
 * @from: what to read, and where it goes
 * @nr_from: how many, at most SCRIBE_COPY_SLOTS_MAX
 * @to: where to write, each the same sectors
 * @nr_to: how many, at most SCRIBE_MAX_COPIES
 *
 * What was written and what was read is flushed. That nothing is written there meanwhile is the
 * caller's to see to. The barrier waits for it, and so does a fence of this node.
 *
 * Context: process, sleeps until the last request has ended.
 * Return: 0; -EINVAL for a range out of bounds; -EIO where a disk failed to read, write or flush;
 * -EAGAIN where one is out of reach; -ESTALE where the node's lease ran out.
 */
int scribe_copy_gather(const struct scribe_range_rec *from, u32 nr_from,
		       const struct scribe_range_rec *to, u32 nr_to);

/*
 * Flushes all disks that can be reached. One that cannot be flushed has a new life next, and lost
 * before anybody read it what it had not written. Context: process, sleeps.
 */
void scribe_copy_flush_disks(void);

/* Slots copied since the module was loaded. */
u64 scribe_copy_count(void);

#endif
