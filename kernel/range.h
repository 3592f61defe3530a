/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ranges of a virtual disk that I/O holds, in the order in which it came. All under vsd->lock.
 */
#ifndef SCRIBE_RANGE_H
#define SCRIBE_RANGE_H

#include "io.h"

/* Queues the I/O's range; io->waiting where an earlier one is in its way. */
void scribe_range_enter(struct scribe_io *io);

/* A range of this chunk has left io->node: lets those go on that waited for it alone. */
void scribe_range_wake(struct scribe_vsd *vsd, u64 chunk);

/* Changes of this chunk's map that are under way, this I/O's own included. */
u32 scribe_range_changes(struct scribe_io *io);

#endif
