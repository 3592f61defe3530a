// SPDX-License-Identifier: GPL-2.0
#include "copy.h"

#include <linux/mutex.h>
#include <linux/xxhash.h>

#include "node.h"
#include "sync.h"

#define SLOT_BYTES (SCRIBE_SLOT_SECTORS << SECTOR_SHIFT)
#define HALF_SECTORS (SCRIBE_SLOT_SECTORS / 2)
/* Of one request: what users wait for while it is on the wire or under a disk's head. */
#define PART_BYTES (64U << 10)

static struct page *buffer; /* a slot's: half of it is read while the other is written */
static DEFINE_MUTEX(buffer_lock);
static atomic64_t nr_copied;

static void send_parts(struct scribe_sync *sync, u8 op, u32 disk, u64 life, u64 sector,
		       u32 offset_bytes, u32 bytes)
{
	while (bytes) {
		struct scribe_leg *leg = scribe_leg_alloc(op);
		u32 part = min(bytes, PART_BYTES);

		leg->disk = scribe_disk_find(disk);
		leg->life = life;
		leg->sector = sector;
		leg->background = true;
		scribe_sync_send(sync, leg, buffer, offset_bytes, part);
		sector += part >> SECTOR_SHIFT;
		offset_bytes += part;
		bytes -= part;
	}
}

static void send_flush(struct scribe_sync *sync, u32 disk, u64 life)
{
	struct scribe_leg *leg = scribe_leg_alloc(SCRIBE_WIRE_FLUSH);

	leg->disk = scribe_disk_find(disk);
	leg->life = life;
	scribe_sync_send(sync, leg, NULL, 0, 0);
}

/* A request behind the end of a local disk would fail it. The host of a remote one checks. */
static bool slot_ok(u32 disk_id, u32 slot)
{
	struct scribe_disk *disk = scribe_disk_find(disk_id);

	return disk && (READ_ONCE(disk->state) != SCRIBE_DISK_LOCAL || slot < disk->slots);
}

/* Half a slot under way: read, then written, while another half is read. */
struct half {
	struct scribe_sync reads, writes;
	const struct scribe_slot_rec *rec;
	u32 start; /* sector in the slot */
	bool good;
};

static void begin_reads(struct half *half, const struct scribe_slot_rec *recs, u32 i)
{
	const struct scribe_slot_rec *rec = &recs[i / 2];

	half->rec = rec;
	half->start = i % 2 * HALF_SECTORS;
	scribe_sync_init(&half->reads);
	half->good = slot_ok(rec->from_disk, rec->from_slot) && slot_ok(rec->to_disk, rec->to_slot);
	if (half->good)
		send_parts(&half->reads, SCRIBE_WIRE_READ, rec->from_disk, rec->from_life,
			   (u64)rec->from_slot * SCRIBE_SLOT_SECTORS + half->start,
			   SCRIBE_BYTES(half->start), SCRIBE_BYTES(HALF_SECTORS));
}

static void end_reads(struct half *half)
{
	scribe_sync_wait(&half->reads);
	half->good &= !atomic_read(&half->reads.failed);
}

static void begin_writes(struct half *half)
{
	const struct scribe_slot_rec *rec = half->rec;

	scribe_sync_init(&half->writes);
	if (half->good)
		send_parts(&half->writes, SCRIBE_WIRE_WRITE, rec->to_disk, rec->to_life,
			   (u64)rec->to_slot * SCRIBE_SLOT_SECTORS + half->start,
			   SCRIBE_BYTES(half->start), SCRIBE_BYTES(HALF_SECTORS));
}

static void end_writes(struct half *half)
{
	scribe_sync_wait(&half->writes);
	half->good &= !atomic_read(&half->writes.failed);
}

/* Up to SCRIBE_COPY_SLOTS_MAX slots: mask of those that were written. */
static u64 copy_all(const struct scribe_slot_rec *recs, u32 nr, int *err)
{
	struct half halves[2];
	u64 written = 0, bad = 0;
	u32 i;

	*err = scribe_node_expired() ? -ESTALE : 0;
	if (!*err && nr)
		begin_reads(&halves[0], recs, 0);
	for (i = 0; i < 2 * nr && !*err; i++) {
		struct half *half = &halves[i % 2];

		end_reads(half);
		if (scribe_node_expired()) {
			*err = -ESTALE;
			break;
		}
		begin_writes(half);
		if (i + 1 < 2 * nr)
			begin_reads(&halves[(i + 1) % 2], recs, i + 1);
		end_writes(half);
		if (!half->good)
			bad |= BIT_ULL(i / 2);
		else if (i % 2)
			written |= BIT_ULL(i / 2);
	}
	return written & ~bad;
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
		send_flush(&sync, disk_at(&recs[i], from), life_at(&recs[i], from));
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
	mutex_lock(&buffer_lock);
	generation = scribe_barrier_enter();
	written = copy_all(recs, nr, &err);
	*done = flush_ends(recs, nr, flush_ends(recs, nr, written, true), false);
	scribe_barrier_leave(generation);
	mutex_unlock(&buffer_lock);
	atomic64_add(hweight64(*done), &nr_copied);
	return err;
}

/* 1, 0 where it cannot be read, -EAGAIN where its disk is out of reach. */
static int digest_one(const struct scribe_range_rec *rec, u64 *digest)
{
	struct scribe_sync reads;

	if (!slot_ok(rec->disk, rec->slot))
		return -EAGAIN;
	scribe_sync_init(&reads);
	send_parts(&reads, SCRIBE_WIRE_READ, rec->disk, rec->life,
		   (u64)rec->slot * SCRIBE_SLOT_SECTORS + rec->start, 0, SCRIBE_BYTES(rec->len));
	scribe_sync_wait(&reads);
	if (reads.unanswered)
		return -EAGAIN;
	if (atomic_read(&reads.failed))
		return 0;
	*digest = xxh64(page_address(buffer), SCRIBE_BYTES(rec->len), 0);
	return 1;
}

static bool ranges_ok(const struct scribe_range_rec *recs, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		if (!recs[i].disk || recs[i].disk > SCRIBE_DISK_MAX_ID || !recs[i].len ||
		    recs[i].start + recs[i].len > SCRIBE_SLOT_SECTORS ||
		    recs[i].to + recs[i].len > SCRIBE_SLOT_SECTORS)
			return false;
	}
	return true;
}

int scribe_copy_digest(const struct scribe_range_rec *recs, u32 nr, u64 *digests, u64 *done)
{
	unsigned int generation;
	int err = 0;
	u32 i;

	*done = 0;
	if (!ranges_ok(recs, nr))
		return -EINVAL;
	mutex_lock(&buffer_lock);
	generation = scribe_barrier_enter();
	for (i = 0; i < nr && err >= 0; i++) {
		err = scribe_node_expired() ? -ESTALE : digest_one(&recs[i], &digests[i]);
		if (err > 0)
			*done |= BIT_ULL(i);
	}
	scribe_barrier_leave(generation);
	mutex_unlock(&buffer_lock);
	return min(err, 0);
}

static int outcome(const struct scribe_sync *sync)
{
	if (READ_ONCE(sync->unanswered))
		return -EAGAIN;
	return atomic_read(&sync->failed) ? -EIO : 0;
}

/* All at once. In the buffer everything is where it is in the target. */
static int transfer(u8 op, const struct scribe_range_rec *recs, u32 nr)
{
	struct scribe_sync sync;
	bool known = true;
	u32 i;

	scribe_sync_init(&sync);
	for (i = 0; i < nr && known; i++) {
		u32 at = op == SCRIBE_WIRE_READ ? recs[i].to : recs[i].start;

		known = slot_ok(recs[i].disk, recs[i].slot);
		if (known)
			send_parts(&sync, op, recs[i].disk, recs[i].life,
				   (u64)recs[i].slot * SCRIBE_SLOT_SECTORS + recs[i].start,
				   SCRIBE_BYTES(at), SCRIBE_BYTES(recs[i].len));
	}
	scribe_sync_wait(&sync);
	return known ? outcome(&sync) : -EAGAIN;
}

static bool flushed_before(const struct scribe_range_rec *recs, u32 i)
{
	u32 j;

	for (j = 0; j < i; j++) {
		if (recs[j].disk == recs[i].disk && recs[j].life == recs[i].life)
			return true;
	}
	return false;
}

static int flush_ranges(const struct scribe_range_rec *recs, u32 nr)
{
	struct scribe_sync sync;
	u32 i;

	scribe_sync_init(&sync);
	for (i = 0; i < nr; i++) {
		if (!flushed_before(recs, i))
			send_flush(&sync, recs[i].disk, recs[i].life);
	}
	scribe_sync_wait(&sync);
	return outcome(&sync);
}

int scribe_copy_gather(const struct scribe_range_rec *from, u32 nr_from,
		       const struct scribe_range_rec *to, u32 nr_to)
{
	unsigned int generation;
	int err;

	if (!nr_from || !nr_to || !ranges_ok(from, nr_from) || !ranges_ok(to, nr_to))
		return -EINVAL;
	mutex_lock(&buffer_lock);
	generation = scribe_barrier_enter();
	memset(page_address(buffer), 0, SLOT_BYTES);
	err = scribe_node_expired() ? -ESTALE : transfer(SCRIBE_WIRE_READ, from, nr_from);
	if (!err)
		err = scribe_node_expired() ? -ESTALE : transfer(SCRIBE_WIRE_WRITE, to, nr_to);
	/* The sources, too: what was read may be in their caches alone. */
	err = err ?: flush_ranges(from, nr_from) ?: flush_ranges(to, nr_to);
	scribe_barrier_leave(generation);
	mutex_unlock(&buffer_lock);
	return err;
}

void scribe_copy_flush_disks(void)
{
	struct scribe_sync sync;
	u32 id;

	scribe_sync_init(&sync);
	for (id = 1; id <= SCRIBE_DISK_MAX_ID; id++) {
		struct scribe_disk_view view = scribe_disk_view(id);

		if (scribe_disk_reachable(&view, id))
			send_flush(&sync, id, view.life);
	}
	scribe_sync_wait(&sync);
}

u64 scribe_copy_count(void)
{
	return atomic64_read(&nr_copied);
}

int scribe_copy_init(void)
{
	buffer = alloc_pages(GFP_KERNEL, get_order(SLOT_BYTES));
	return buffer ? 0 : -ENOMEM;
}

void scribe_copy_exit(void)
{
	__free_pages(buffer, get_order(SLOT_BYTES));
}
