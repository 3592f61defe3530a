// SPDX-License-Identifier: GPL-2.0
#include "disk.h"

#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/random.h>

#include "backplane.h"
#include "node.h"
#include "superblock.h"
#include "trace.h"

#define LEG_POOL 512

static unsigned int disk_hang_s = 45;
module_param(disk_hang_s, uint, 0644);
MODULE_PARM_DESC(disk_hang_s,
		 "seconds without an answer after which a disk counts as failed; 0: never");

static struct scribe_disk *disks[SCRIBE_DISK_MAX_ID + 1];
static DEFINE_MUTEX(disks_lock); /* creation, opening and closing */
static struct bio_set legs;
static DECLARE_WAIT_QUEUE_HEAD(idle_queue);

int scribe_disk_init(void)
{
	/*
	 * A read or write takes several legs of this pool before any of them is really submitted
	 * (we run under the block layer's submission): the rescuer lets those go on.
	 */
	return bioset_init(&legs, LEG_POOL, offsetof(struct scribe_leg, bio),
			   BIOSET_NEED_BVECS | BIOSET_NEED_RESCUER);
}

void scribe_disk_exit(void)
{
	u32 id;

	for (id = 0; id <= SCRIBE_DISK_MAX_ID; id++) {
		if (!disks[id])
			continue;
		while (scribe_disk_close(id) == -EAGAIN)
			pr_warn("disk %u: waiting for requests that its device does not end\n", id);
		kfree(disks[id]);
		disks[id] = NULL;
	}
	bioset_exit(&legs);
}

static struct scribe_leg *leg_init(struct bio *bio, u8 op, u32 pos)
{
	struct scribe_leg *leg = container_of(bio, struct scribe_leg, bio);

	memset(leg, 0, offsetof(struct scribe_leg, bio));
	INIT_LIST_HEAD(&leg->node);
	leg->op = op;
	leg->pos = pos;
	leg->length_bytes = bio->bi_iter.bi_size;
	leg->iter = bio->bi_iter;
	return leg;
}

struct scribe_leg *scribe_leg_alloc(u8 op)
{
	return leg_init(bio_alloc_bioset(NULL, 1, REQ_OP_READ, GFP_NOIO, &legs), op, 0);
}

struct scribe_leg *scribe_leg_clone(struct bio *source, u8 op, u32 pos, u32 sectors)
{
	struct bio *bio = bio_alloc_clone(NULL, source, GFP_NOIO, &legs);

	bio_trim(bio, pos, sectors);
	return leg_init(bio, op, pos);
}

void scribe_leg_free(struct scribe_leg *leg)
{
	bio_put(&leg->bio);
}

struct scribe_disk *scribe_disk_find(u32 id)
{
	return id <= SCRIBE_DISK_MAX_ID ? READ_ONCE(disks[id]) : NULL;
}

static struct scribe_disk *disk_get_or_make(u32 id)
{
	struct scribe_disk *disk = disks[id];

	lockdep_assert_held(&disks_lock);
	if (disk)
		return disk;
	disk = kzalloc(sizeof(*disk), GFP_KERNEL);
	if (!disk)
		return NULL;
	disk->id = id;
	spin_lock_init(&disk->lock);
	/* The object is complete before the pointer to it is seen. */
	smp_store_release(&disks[id], disk);
	return disk;
}

struct scribe_disk_view scribe_disk_view(u32 id)
{
	struct scribe_disk_view view = { .state = SCRIBE_DISK_ABSENT };
	struct scribe_disk *disk = scribe_disk_find(id);
	unsigned long flags;

	if (!disk)
		return view;
	spin_lock_irqsave(&disk->lock, flags);
	view = (struct scribe_disk_view){ disk->state, disk->life, disk->tier };
	spin_unlock_irqrestore(&disk->lock, flags);
	return view;
}

bool scribe_disk_reachable(const struct scribe_disk_view *view, u32 id)
{
	struct scribe_disk *disk = scribe_disk_find(id);

	if (view->state == SCRIBE_DISK_LOCAL)
		return true;
	return disk && view->state == SCRIBE_DISK_REMOTE &&
	       scribe_peer_connected(READ_ONCE(disk->node));
}

void scribe_disk_fail(struct scribe_disk *disk, u64 life)
{
	unsigned long flags;
	bool changed = false;

	spin_lock_irqsave(&disk->lock, flags);
	if (disk->life == life &&
	    (disk->state == SCRIBE_DISK_LOCAL || disk->state == SCRIBE_DISK_REMOTE)) {
		disk->was_local = disk->state == SCRIBE_DISK_LOCAL;
		disk->state = SCRIBE_DISK_FAILED;
		changed = true;
	}
	spin_unlock_irqrestore(&disk->lock, flags);
	atomic64_inc(&disk->errors);
	if (changed) {
		pr_err("disk %u failed, its life %016llx is over\n", disk->id, life);
		scribe_event();
	}
}

/*
 * Whether bios wait and none has ended for too long. One that is lost while others end is not seen:
 * for that every bio would have to be on a list.
 */
static bool hangs(struct scribe_disk *disk)
{
	unsigned long ended = READ_ONCE(disk->ended_jiffies);
	u32 limit = READ_ONCE(disk_hang_s);

	if (!atomic_read(&disk->inflight) || ended != disk->seen_jiffies)
		disk->stuck_ticks = 0;
	else
		disk->stuck_ticks++;
	disk->seen_jiffies = ended;
	return limit && disk->stuck_ticks > limit;
}

void scribe_disk_tick(void)
{
	u32 id;

	for (id = 1; id <= SCRIBE_DISK_MAX_ID; id++) {
		struct scribe_disk *disk = scribe_disk_find(id);

		if (!disk)
			continue;
		if (READ_ONCE(disk->state) == SCRIBE_DISK_LOCAL && hangs(disk)) {
			pr_err("disk %u: no answer for %u s\n", id, disk->stuck_ticks);
			scribe_disk_fail(disk, READ_ONCE(disk->life));
		}
		/*
		 * What peers asked for has pages of its own: they need not wait for a device whose
		 * life is over. What this node's users asked for has theirs, and does.
		 */
		if (READ_ONCE(disk->was_local) && atomic_read(&disk->inflight))
			scribe_backplane_abandon(disk);
	}
}

u32 scribe_disk_collect_failed(struct scribe_work_rec *recs, u32 max)
{
	u32 id, nr = 0;

	for (id = 1; id <= SCRIBE_DISK_MAX_ID && nr < max; id++) {
		struct scribe_disk_view view = scribe_disk_view(id);

		if (view.state == SCRIBE_DISK_FAILED)
			recs[nr++] = (struct scribe_work_rec){
				.type = SCRIBE_WORK_DISK_FAILED,
				.id = id,
				.arg = view.life,
			};
	}
	return nr;
}

static int read_superblock(struct block_device *bdev, u64 sector, struct page *page)
{
	struct bio_vec vec;
	struct bio bio;
	int err;

	bio_init(&bio, bdev, &vec, 1, REQ_OP_READ);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, page, SCRIBE_SB_BYTES, 0);
	err = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return err;
}

static int check_superblock(struct block_device *bdev, u32 id, const u8 *uuid, u64 *slots,
			    const char **why)
{
	u64 sectors = bdev_nr_sectors(bdev);
	const struct scribe_superblock *sb;
	struct page *first, *second;
	bool has_first, has_second;
	int err = -EINVAL;

	static_assert(sizeof(struct scribe_superblock) == SCRIBE_SB_BYTES);
	*why = "smaller than 64 MiB";
	if (sectors < SCRIBE_DISK_MIN_SECTORS)
		return -EINVAL;

	first = alloc_page(GFP_KERNEL);
	second = alloc_page(GFP_KERNEL);
	if (!first || !second) {
		err = -ENOMEM;
		goto out;
	}
	has_first = !read_superblock(bdev, SCRIBE_SB_FIRST_SECTOR, first);
	has_second = !read_superblock(bdev, scribe_sb_second_sector(sectors), second);
	sb = scribe_sb_choose(has_first ? page_address(first) : NULL,
			      has_second ? page_address(second) : NULL, sectors, why);
	if (!sb)
		goto out;
	*why = "belongs to another cluster";
	if (memcmp(sb->cluster_uuid, scribe_node_cluster(), 16))
		goto out;
	*why = "is another disk";
	if (memcmp(sb->disk_uuid, uuid, 16) || le32_to_cpu(sb->disk_id) != id)
		goto out;
	*slots = le64_to_cpu(sb->nr_slots);
	err = 0;
out:
	if (first)
		__free_page(first);
	if (second)
		__free_page(second);
	return err;
}

int scribe_disk_open(u32 id, const u8 *uuid, const char *path, u8 tier, u64 *life, u64 *slots,
		     const char **why)
{
	struct scribe_bdev handle;
	struct scribe_disk *disk;
	unsigned long flags;
	int err;

	mutex_lock(&disks_lock);
	disk = disk_get_or_make(id);
	err = disk ? 0 : -ENOMEM;
	if (!err && disk->state == SCRIBE_DISK_LOCAL && !memcmp(disk->uuid, uuid, 16)) {
		/* A daemon that was started anew asks for what it does not know any more. */
		*life = disk->life;
		*slots = disk->slots;
		goto out;
	}
	if (!err && (disk->state == SCRIBE_DISK_LOCAL || disk->was_local)) {
		*why = "is open already, as another disk or failed; close it first";
		err = -EBUSY;
	}
	if (!err)
		err = scribe_bdev_open(&handle, path, disk);
	if (err)
		goto out;
	err = check_superblock(scribe_bdev_get(&handle), id, uuid, slots, why);
	if (err) {
		scribe_bdev_close(&handle);
		goto out;
	}
	do {
		*life = get_random_u64();
	} while (!*life);
	spin_lock_irqsave(&disk->lock, flags);
	disk->handle = handle;
	memcpy(disk->uuid, uuid, sizeof(disk->uuid));
	disk->slots = *slots;
	disk->life = *life;
	disk->node = scribe_node_id();
	disk->tier = tier;
	disk->state = SCRIBE_DISK_LOCAL;
	spin_unlock_irqrestore(&disk->lock, flags);
	pr_info("disk %u: %s, %llu slots, life %016llx\n", id, path, *slots, *life);
out:
	mutex_unlock(&disks_lock);
	return err;
}

int scribe_disk_close(u32 id)
{
	struct scribe_disk *disk;
	unsigned long flags;
	int err = -ENOENT;

	mutex_lock(&disks_lock);
	disk = disks[id];
	if (disk) {
		spin_lock_irqsave(&disk->lock, flags);
		if (disk->state == SCRIBE_DISK_LOCAL || disk->was_local) {
			/* Ours until the handle is closed, whatever comes between. */
			disk->was_local = true;
			disk->state = SCRIBE_DISK_ABSENT;
			err = 0;
		}
		spin_unlock_irqrestore(&disk->lock, flags);
	}
	if (!err) {
		smp_mb(); /* state before count; pairs with local_begin() */
		if (!wait_event_timeout(idle_queue, !atomic_read(&disk->inflight), HZ))
			err = -EAGAIN;
	}
	if (!err) {
		scribe_bdev_close(&disk->handle);
		disk->was_local = false;
	}
	mutex_unlock(&disks_lock);
	return err;
}

int scribe_disk_set_route(u32 id, u32 node, u64 life, u8 tier)
{
	struct scribe_disk *disk;
	unsigned long flags;
	int err = 0;

	mutex_lock(&disks_lock);
	disk = disk_get_or_make(id);
	if (!disk) {
		mutex_unlock(&disks_lock);
		return -ENOMEM;
	}
	spin_lock_irqsave(&disk->lock, flags);
	if (disk->state == SCRIBE_DISK_LOCAL || disk->was_local) {
		err = -EBUSY;
	} else if (disk->state != SCRIBE_DISK_FAILED || disk->life != life) {
		disk->node = node;
		disk->life = life;
		disk->tier = tier;
		disk->state = SCRIBE_DISK_REMOTE;
	}
	spin_unlock_irqrestore(&disk->lock, flags);
	mutex_unlock(&disks_lock);
	return err;
}

int scribe_disk_del_route(u32 id)
{
	struct scribe_disk *disk = scribe_disk_find(id);
	unsigned long flags;
	int err = -ENOENT;

	if (!disk)
		return err;
	spin_lock_irqsave(&disk->lock, flags);
	if (!disk->was_local &&
	    (disk->state == SCRIBE_DISK_REMOTE || disk->state == SCRIBE_DISK_FAILED)) {
		disk->state = SCRIBE_DISK_ABSENT;
		err = 0;
	}
	spin_unlock_irqrestore(&disk->lock, flags);
	return err;
}

/* Counts a bio on the local device, or says that this life is over. */
static bool local_begin(struct scribe_disk *disk, u64 life)
{
	atomic_inc(&disk->inflight);
	smp_mb__after_atomic(); /* count before state; pairs with scribe_disk_close() */
	if (READ_ONCE(disk->state) == SCRIBE_DISK_LOCAL && READ_ONCE(disk->life) == life)
		return true;
	scribe_disk_end(disk);
	return false;
}

void scribe_leg_end(struct scribe_leg *leg)
{
	trace_scribe_leg_end(leg->disk->id, leg->op, leg->sector, leg->length_bytes,
			     blk_status_to_errno(leg->status));
	leg->done(leg);
}

void scribe_disk_end(struct scribe_disk *disk)
{
	WRITE_ONCE(disk->ended_jiffies, jiffies);
	if (atomic_dec_and_test(&disk->inflight))
		wake_up(&idle_queue);
}

int scribe_disk_begin(u32 id, u64 life, u64 sector, u32 length_bytes, struct scribe_disk **out)
{
	struct scribe_disk *disk = scribe_disk_find(id);

	if (!disk || READ_ONCE(disk->state) != SCRIBE_DISK_LOCAL)
		return -ENODEV;
	if (!local_begin(disk, life))
		return -ESTALE;
	if (sector > disk->slots * SCRIBE_SLOT_SECTORS ||
	    length_bytes >> SECTOR_SHIFT > disk->slots * SCRIBE_SLOT_SECTORS - sector) {
		scribe_disk_end(disk);
		return -ERANGE;
	}
	*out = disk;
	return 0;
}

static void local_end_io(struct bio *bio)
{
	struct scribe_leg *leg = container_of(bio, struct scribe_leg, bio);
	struct scribe_disk *disk = leg->disk;

	leg->status = bio->bi_status;
	/*
	 * A write or flush that failed may have lost what was acknowledged: never retried into
	 * success.
	 */
	if (leg->status && leg->op != SCRIBE_WIRE_READ)
		scribe_disk_fail(disk, leg->life);
	else if (leg->status)
		atomic64_inc(&disk->errors);
	scribe_disk_end(disk);
	scribe_leg_end(leg);
}

static void submit_local(struct scribe_leg *leg)
{
	static const blk_opf_t opf[] = {
		[SCRIBE_WIRE_READ] = REQ_OP_READ,
		[SCRIBE_WIRE_WRITE] = REQ_OP_WRITE,
		[SCRIBE_WIRE_FLUSH] = REQ_OP_WRITE | REQ_PREFLUSH,
	};
	struct bio *bio = &leg->bio;

	if (!local_begin(leg->disk, leg->life)) {
		leg->status = BLK_STS_OFFLINE;
		scribe_leg_end(leg);
		return;
	}
	bio_set_dev(bio, scribe_bdev_get(&leg->disk->handle));
	bio->bi_opf = opf[leg->op] | (bio->bi_opf & (REQ_SYNC | REQ_META | REQ_PRIO | REQ_IDLE));
	bio->bi_iter.bi_sector =
		leg->op == SCRIBE_WIRE_FLUSH ? 0 : SCRIBE_DATA_START_SECTOR + leg->sector;
	bio->bi_end_io = local_end_io;
	submit_bio_noacct(bio);
}

void scribe_disk_submit(struct scribe_leg *leg)
{
	struct scribe_disk *disk = leg->disk;

	trace_scribe_leg_submit(disk->id, leg->op, leg->sector, leg->length_bytes, 0);
	switch (leg->op) {
	case SCRIBE_WIRE_READ:
		atomic64_inc(&disk->reads);
		break;
	case SCRIBE_WIRE_WRITE:
		atomic64_inc(&disk->writes);
		break;
	default:
		atomic64_inc(&disk->flushes);
	}
	if (READ_ONCE(disk->state) == SCRIBE_DISK_REMOTE)
		scribe_backplane_submit(READ_ONCE(disk->node), leg);
	else
		submit_local(leg);
}
