/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The node's stock of reserved extents: allocated by the daemon, not mapped by anything yet, so
 * that a write finds fresh space without asking anybody (R3).
 */
#ifndef SCRIBE_RESERVE_H
#define SCRIBE_RESERVE_H

#include "extent.h"

/* Adds a fresh extent; takes over the caller's reference. -ENOSPC beyond SCRIBE_RESERVE_MAX. */
int scribe_reserve_add(struct scribe_extent *extent);

/* Whether the pool has no more to give for so many copies. */
void scribe_reserve_set_nospace(u32 copies, bool nospace);
/* Whether it has nothing for a VSD of so many copies, not even fewer of them; then writes wait. */
bool scribe_reserve_nospace(u32 copies);

/**
 * scribe_reserve_take() - an extent all of whose copies can be written now
 * @copies: how many it is to have; it has fewer where the pool has no space for so many
 *
 * Extents of the stock with an unreachable copy stay for when it is back, behind the others.
 *
 * Context: any. Return: an extent with the stock's reference, or NULL.
 */
struct scribe_extent *scribe_reserve_take(u32 copies);

/* For WORK_GET: 1 where the stock of extents with so many copies is low. */
u32 scribe_reserve_collect_low(u32 copies, struct scribe_work_rec *recs, u32 max);

/**
 * scribe_reserve_take_back() - take what lies on a disk out of the stock
 * @disk: that is to take nothing new
 * @ids: set to the extents
 * @max: how many at most
 *
 * Context: any. Return: how many; fewer than @max where there are no more.
 */
u32 scribe_reserve_take_back(u32 disk, u64 *ids, u32 max);

/* Forgets the stock. */
void scribe_reserve_drop(void);

#endif
