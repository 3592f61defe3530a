// SPDX-License-Identifier: GPL-2.0
#include "scribe.h"

#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/timekeeping.h>

#include "node.h"

static u64 life;
static u32 node_id;
static u8 cluster[16];
static atomic64_t deadline_ns;
static DEFINE_MUTEX(identity_lock);

/* Two generations of I/O: new ones enter the current, the barrier waits for the other. */
static atomic_t inflight[2];
static unsigned int current_generation;
static DEFINE_MUTEX(barrier_lock);
static DECLARE_WAIT_QUEUE_HEAD(barrier_queue);

void scribe_node_init(void)
{
	do {
		life = get_random_u64();
	} while (!life);
	node_id = 0;
	atomic64_set(&deadline_ns, 0);
}

u64 scribe_node_life(void)
{
	return life;
}

u32 scribe_node_id(void)
{
	return READ_ONCE(node_id);
}

const u8 *scribe_node_cluster(void)
{
	return cluster;
}

int scribe_node_identify(u32 id, const u8 *cluster_uuid)
{
	int err = 0;

	mutex_lock(&identity_lock);
	if (!node_id) {
		memcpy(cluster, cluster_uuid, sizeof(cluster));
		WRITE_ONCE(node_id, id);
	} else if (node_id != id || memcmp(cluster, cluster_uuid, sizeof(cluster))) {
		err = -EBUSY;
	}
	mutex_unlock(&identity_lock);
	return err;
}

void scribe_node_set_deadline(u64 boottime_ns)
{
	s64 old = atomic64_read(&deadline_ns);

	while (old < (s64)boottime_ns) {
		if (atomic64_try_cmpxchg(&deadline_ns, &old, boottime_ns))
			break;
	}
}

bool scribe_node_expired(void)
{
	return ktime_get_boottime_ns() >= (u64)atomic64_read(&deadline_ns);
}

u64 scribe_node_remaining_ms(void)
{
	u64 now = ktime_get_boottime_ns();
	u64 deadline = atomic64_read(&deadline_ns);

	return now >= deadline ? 0 : div_u64(deadline - now, NSEC_PER_MSEC);
}

unsigned int scribe_barrier_enter(void)
{
	unsigned int generation;

	for (;;) {
		generation = READ_ONCE(current_generation);
		atomic_inc(&inflight[generation]);
		/*
		 * Pairs with the barrier in scribe_barrier_wait(): either it sees us, or we see
		 * it.
		 */
		smp_mb__after_atomic();
		if (likely(generation == READ_ONCE(current_generation)))
			return generation;
		scribe_barrier_leave(generation);
	}
}

void scribe_barrier_leave(unsigned int generation)
{
	if (atomic_dec_and_test(&inflight[generation]))
		wake_up(&barrier_queue);
}

int scribe_barrier_wait(void)
{
	unsigned int old;
	int err;

	err = mutex_lock_killable(&barrier_lock);
	if (err)
		return err;
	/*
	 * A wait that was killed may have left I/O in the other generation: that is older still, so
	 * wait for it first, or it would count as new after the flip.
	 */
	old = current_generation;
	err = wait_event_killable(barrier_queue, !atomic_read(&inflight[!old]));
	if (!err) {
		WRITE_ONCE(current_generation, !old);
		/* The flip is seen before the count is read; see scribe_barrier_enter(). */
		smp_mb();
		err = wait_event_killable(barrier_queue, !atomic_read(&inflight[old]));
	}
	mutex_unlock(&barrier_lock);
	return err ? -EINTR : 0;
}
