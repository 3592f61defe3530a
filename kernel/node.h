/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This node: who it is, its life, the deadline of its lease, and the barrier over I/O under way.
 */
#ifndef SCRIBE_NODE_H
#define SCRIBE_NODE_H

#include <linux/types.h>

void scribe_node_init(void);

/* One load of the module; random, never 0, constant until it is unloaded. Any context. */
u64 scribe_node_life(void);

/* 0 until the daemon said it. Any context. */
u32 scribe_node_id(void);
const u8 *scribe_node_cluster(void);

/**
 * scribe_node_identify() - learn who this node is
 * @id: node id
 * @cluster_uuid: 16 bytes
 *
 * Return: 0; -EBUSY where it was said differently before.
 */
int scribe_node_identify(u32 id, const u8 *cluster_uuid);

/**
 * scribe_node_set_deadline() - up to when this node may do I/O
 * @boottime_ns: on CLOCK_BOOTTIME, which goes on while the machine is suspended or paused
 *
 * Only ever moves forward: a late renewal cannot shorten what a newer one gave.
 */
void scribe_node_set_deadline(u64 boottime_ns);

/* True past the deadline: hold VSD I/O, serve nobody. True before the first one. Any context. */
bool scribe_node_expired(void);

/* Remaining time in ms, 0 when expired. */
u64 scribe_node_remaining_ms(void);

/*
 * Each I/O enters before it looks at a map and leaves when its last bio has ended, so that the
 * barrier can tell that nobody still uses what an older map said. Any context.
 */
unsigned int scribe_barrier_enter(void);
void scribe_barrier_leave(unsigned int generation);

/**
 * scribe_barrier_wait() - wait for all I/O that entered before the call
 *
 * Context: sleeps; one caller at a time, others queue.
 * Return: 0, -EINTR where a signal kills the caller.
 */
int scribe_barrier_wait(void);

#endif
