// SPDX-License-Identifier: GPL-2.0
#include "copy.h"

#include <linux/mutex.h>
#include <linux/xxhash.h>

#include "node.h"
#include "sync.h"

#define GROUP 4U /* slots that are read at once, while as many others are written */
#define BUFFERS (2 * GROUP)
#define SLOT_BYTES (SCRIBE_SLOT_SECTORS << SECTOR_SHIFT)

static struct page *buffers[BUFFERS];
static DEFINE_MUTEX(buffers_lock);
static atomic64_t nr_copied;

static void send_part(struct scribe_sync *sync, u8 op, u32 i, u32 disk, u64 life, u64 sector,
		      u32 length_bytes)
{
	struct scribe_leg *leg = scribe_leg_alloc(op);

	leg->copy = i;
	leg->disk = scribe_disk_find(disk);
	leg->life = life;
	leg->sector = sector;
	scribe_sync_send(sync, leg, length_bytes ? buffers[i] : NULL, 0, length_bytes);
}

static void send(struct scribe_sync *sync, u8 op, u32 i, u32 disk, u64 life, u32 slot)
{
	send_part(sync, op, i, disk, life, (u64)slot * SCRIBE_SLOT_SECTORS,
		  op == SCRIBE_WIRE_FLUSH ? 0 : SLOT_BYTES);
}

/* A request behind the end of a local disk would fail it. The host of a remote one checks. */
static bool slot_ok(u32 disk_id, u32 slot)
{
	struct scribe_disk *disk = scribe_disk_find(disk_id);

	return disk && (READ_ONCE(disk->state) != SCRIBE_DISK_LOCAL || slot < disk->slots);
}

/* Some slots under way: read, then written, while others are read. */
struct group {
	struct scribe_sync reads, writes;
	const struct scribe_slot_rec *recs;
	u32 buffer; /* the first of its own */
	u32 sent; /* mask of recs */
};

static void begin_reads(struct group *group, const struct scribe_slot_rec *recs, u32 nr, u32 buffer)
{
	u32 i;

	group->recs = recs;
	group->buffer = buffer;
	group->sent = 0;
	scribe_sync_init(&group->reads);
	for (i = 0; i < nr; i++) {
		if (!slot_ok(recs[i].from_disk, recs[i].from_slot) ||
		    !slot_ok(recs[i].to_disk, recs[i].to_slot))
			continue;
		send(&group->reads, SCRIBE_WIRE_READ, buffer + i, recs[i].from_disk,
		     recs[i].from_life, recs[i].from_slot);
		group->sent |= BIT(i);
	}
}

static void end_reads(struct group *group)
{
	scribe_sync_wait(&group->reads);
	group->sent &= ~(atomic_read(&group->reads.failed) >> group->buffer);
}

static void begin_writes(struct group *group)
{
	u32 i;

	scribe_sync_init(&group->writes);
	for (i = 0; i < GROUP; i++) {
		const struct scribe_slot_rec *rec = &group->recs[i];

		if (group->sent & BIT(i))
			send(&group->writes, SCRIBE_WIRE_WRITE, group->buffer + i, rec->to_disk,
			     rec->to_life, rec->to_slot);
	}
}

/* Mask of those that were written. */
static u32 end_writes(struct group *group)
{
	scribe_sync_wait(&group->writes);
	return group->sent & ~(atomic_read(&group->writes.failed) >> group->buffer);
}

/* Up to SCRIBE_COPY_SLOTS_MAX slots: mask of those that were written. */
static u64 copy_all(const struct scribe_slot_rec *recs, u32 nr, int *err)
{
	struct group groups[2];
	u64 written = 0;
	u32 g = 0, i;

	*err = scribe_node_expired() ? -ESTALE : 0;
	if (!*err && nr)
		begin_reads(&groups[0], recs, min(GROUP, nr), 0);
	for (i = 0; i < nr && !*err; i += GROUP, g ^= 1) {
		end_reads(&groups[g]);
		if (scribe_node_expired()) {
			*err = -ESTALE;
			break;
		}
		begin_writes(&groups[g]);
		if (i + GROUP < nr)
			begin_reads(&groups[g ^ 1], recs + i + GROUP, min(GROUP, nr - i - GROUP),
				    (g ^ 1) * GROUP);
		written |= (u64)end_writes(&groups[g]) << i;
	}
	return written;
}

static u32 disk_at(const struct scribe_slot_rec *rec, bool from)
{
	return from ? rec->from_disk : rec->to_disk;
}

static u64 life_at(const struct scribe_slot_rec *rec, bool from)
{
	return from ? rec->from_life : rec->to_life;
}

/*
 * Flushes the disks at one end of the copies, in the life in which they were used; mask of what
 * is safe. The sources as well: what was read may be in their caches alone, left by an owner that
 * died.
 */
static u64 flush_ends(const struct scribe_slot_rec *recs, u32 nr, u64 written, bool from)
{
	u64 safe = 0;
	u32 i, j;

	for (i = 0; i < nr; i++) {
		struct scribe_sync sync;
		u64 same = 0;

		for (j = i; j < nr; j++) {
			if (written & BIT_ULL(j) &&
			    disk_at(&recs[j], from) == disk_at(&recs[i], from) &&
			    life_at(&recs[j], from) == life_at(&recs[i], from))
				same |= BIT_ULL(j);
		}
		if (!(same & BIT_ULL(i)))
			continue;
		scribe_sync_init(&sync);
		send(&sync, SCRIBE_WIRE_FLUSH, 0, disk_at(&recs[i], from), life_at(&recs[i], from),
		     0);
		scribe_sync_wait(&sync);
		written &= ~same;
		if (!atomic_read(&sync.failed))
			safe |= same;
	}
	return safe;
}

int scribe_copy_slots(const struct scribe_slot_rec *recs, u32 nr, u64 *done)
{
	unsigned int generation;
	u64 written;
	u32 i;
	int err;

	*done = 0;
	for (i = 0; i < nr; i++) {
		if (!recs[i].from_disk || recs[i].from_disk > SCRIBE_DISK_MAX_ID ||
		    !recs[i].to_disk || recs[i].to_disk > SCRIBE_DISK_MAX_ID)
			return -EINVAL;
	}
	mutex_lock(&buffers_lock);
	generation = scribe_barrier_enter();
	written = copy_all(recs, nr, &err);
	*done = flush_ends(recs, nr, flush_ends(recs, nr, written, true), false);
	scribe_barrier_leave(generation);
	mutex_unlock(&buffers_lock);
	atomic64_add(hweight64(*done), &nr_copied);
	return err;
}

/* Up to BUFFERS ranges: mask of those that were read; -EAGAIN where a disk is out of reach. */
static int digest_some(const struct scribe_range_rec *recs, u32 nr, u64 *digests)
{
	struct scribe_sync reads;
	bool reached = true;
	u32 sent = 0, i;

	scribe_sync_init(&reads);
	for (i = 0; i < nr && reached; i++) {
		reached = slot_ok(recs[i].disk, recs[i].slot);
		if (!reached)
			break;
		send_part(&reads, SCRIBE_WIRE_READ, i, recs[i].disk, recs[i].life,
			  (u64)recs[i].slot * SCRIBE_SLOT_SECTORS + recs[i].start,
			  SCRIBE_BYTES(recs[i].len));
		sent |= BIT(i);
	}
	scribe_sync_wait(&reads);
	if (!reached || reads.unanswered)
		return -EAGAIN;
	sent &= ~atomic_read(&reads.failed);
	for (i = 0; i < nr; i++) {
		if (sent & BIT(i))
			digests[i] = xxh64(page_address(buffers[i]), SCRIBE_BYTES(recs[i].len), 0);
	}
	return sent;
}

int scribe_copy_digest(const struct scribe_range_rec *recs, u32 nr, u64 *digests, u64 *done)
{
	unsigned int generation;
	int err = 0;
	u32 i;

	*done = 0;
	for (i = 0; i < nr; i++) {
		if (!recs[i].disk || recs[i].disk > SCRIBE_DISK_MAX_ID || !recs[i].len ||
		    recs[i].start + recs[i].len > SCRIBE_SLOT_SECTORS)
			return -EINVAL;
	}
	mutex_lock(&buffers_lock);
	generation = scribe_barrier_enter();
	for (i = 0; i < nr && err >= 0; i += BUFFERS) {
		err = scribe_node_expired()
			      ? -ESTALE
			      : digest_some(recs + i, min(BUFFERS, nr - i), digests + i);
		if (err > 0)
			*done |= (u64)err << i;
	}
	scribe_barrier_leave(generation);
	mutex_unlock(&buffers_lock);
	return min(err, 0);
}

void scribe_copy_flush_disks(void)
{
	struct scribe_sync sync;
	u32 id;

	scribe_sync_init(&sync);
	for (id = 1; id <= SCRIBE_DISK_MAX_ID; id++) {
		struct scribe_disk_view view = scribe_disk_view(id);

		if (scribe_disk_reachable(&view, id))
			send(&sync, SCRIBE_WIRE_FLUSH, 0, id, view.life, 0);
	}
	scribe_sync_wait(&sync);
}

u64 scribe_copy_count(void)
{
	return atomic64_read(&nr_copied);
}

int scribe_copy_init(void)
{
	u32 i;

	for (i = 0; i < BUFFERS; i++) {
		buffers[i] = alloc_pages(GFP_KERNEL, get_order(SLOT_BYTES));
		if (!buffers[i])
			goto err;
	}
	return 0;
err:
	while (i--)
		__free_pages(buffers[i], get_order(SLOT_BYTES));
	return -ENOMEM;
}

void scribe_copy_exit(void)
{
	u32 i;

	for (i = 0; i < BUFFERS; i++)
		__free_pages(buffers[i], get_order(SLOT_BYTES));
}
