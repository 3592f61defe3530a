// SPDX-License-Identifier: GPL-2.0
/* The device-mapper target: callbacks and their texts; no policy. Documentation/dmsetup.md. */
#define DM_MSG_PREFIX "scribe"

#include "target.h"

#include <linux/device-mapper.h>
#include <linux/module.h>

#include "io.h"
#include "node.h"
#include "vsd.h"

static const char *const lease_names[] = {
	[SCRIBE_LEASE_NONE] = "none",
	[SCRIBE_LEASE_OWNED] = "owned",
	[SCRIBE_LEASE_RELEASING] = "releasing",
	[SCRIBE_LEASE_FAILED] = "failed",
};
static_assert(ARRAY_SIZE(lease_names) == SCRIBE_LEASE_NR_STATES);

static int scribe_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct scribe_vsd *vsd;
	u64 id;
	int err;

	if (argc < 1 || argc > 2) {
		ti->error = "expected: <vsd-id> [<number of options>]";
		return -EINVAL;
	}
	if (kstrtou64(argv[0], 10, &id) || !id) {
		ti->error = "VSD id is not a positive number";
		return -EINVAL;
	}
	if (argc == 2 && strcmp(argv[1], "0")) {
		ti->error = "this version knows no options";
		return -EINVAL;
	}
	/* It may end before its VSD: some readers take a device's length for the data's. */
	if (ti->begin) {
		ti->error = "a VSD starts at sector 0";
		return -EINVAL;
	}
	err = dm_set_target_max_io_len(ti, SCRIBE_CHUNK_SECTORS);
	if (err) {
		ti->error = "cannot set the chunk size";
		return err;
	}
	/*
	 * A table that is loaded while another is live, as for a resize, shares the live one's
	 * VSD.
	 */
	vsd = scribe_vsd_open(id);
	if (IS_ERR(vsd)) {
		ti->error = "cannot create the VSD";
		return PTR_ERR(vsd);
	}
	ti->private = vsd;
	ti->per_io_data_size = sizeof(struct scribe_io);
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->discards_supported = true;
	ti->flush_supported = true;
	return 0;
}

static void scribe_dtr(struct dm_target *ti)
{
	scribe_vsd_close(ti->private);
}

static int scribe_map(struct dm_target *ti, struct bio *bio)
{
	return scribe_io_map(ti->private, bio);
}

/*
 * Behind the last I/O before a table is replaced or removed: what was written and never flushed is
 * not promised, but losing it without need would be rude. Gives up where the daemon does not
 * answer.
 */
static void scribe_postsuspend(struct dm_target *ti)
{
	struct scribe_vsd *vsd = ti->private;

	if (scribe_flush_sync(vsd, SCRIBE_RELEASE_MS))
		pr_warn("vsd %llu: suspended with changes that could not be committed\n", vsd->id);
}

static void scribe_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			  char *result, unsigned int maxlen)
{
	struct scribe_vsd *vsd = ti->private;
	struct scribe_vsd_stats stats;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		spin_lock_irq(&vsd->lock);
		stats = vsd->stats;
		spin_unlock_irq(&vsd->lock);
		DMEMIT("%s %llu %lu %u %u %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu",
		       lease_names[READ_ONCE(vsd->lease)], vsd->epoch, vsd->nr_leaves,
		       vsd->open->nr_ops + vsd->closed->nr_ops,
		       vsd->open->nr_dirty + vsd->closed->nr_dirty, stats.reads, stats.writes,
		       stats.in_place, stats.allocated, stats.redirected, stats.rewrites,
		       stats.batches, stats.ops, stats.stales, stats.degraded);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%llu", vsd->id);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",vsd=%llu;", vsd->id);
		break;
	}
}

static int scribe_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			  unsigned int maxlen)
{
	struct scribe_vsd *vsd = ti->private;
	unsigned int sz = 0;
	u32 copy;

	if (argc == 1 && !strcmp(argv[0], "flush"))
		return scribe_flush_sync(vsd, 0);
	if (argc == 1 && !strcmp(argv[0], "evict")) {
		DMEMIT("%lu", scribe_vsd_evict(vsd, ULONG_MAX));
		return 1;
	}
	if (argc == 2 && !strcmp(argv[0], "copy") && !kstrtou32(argv[1], 10, &copy) &&
	    copy <= SCRIBE_MAX_COPIES) {
		WRITE_ONCE(vsd->read_copy, copy);
		return 0;
	}
	DMERR("unknown message, expected: flush | evict | copy 0..%u", SCRIBE_MAX_COPIES);
	return -EINVAL;
}

/*
 * There are no devices below in dm's sense. Without this callback, kernels before 6.6 would not ask
 * for the hints either, and the device would have no discard.
 */
static int scribe_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	return 0;
}

static void scribe_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->logical_block_size = SCRIBE_SECTOR_BYTES;
	limits->physical_block_size = 4096;
	limits->io_min = 4096;
	limits->io_opt = SCRIBE_WIRE_MAX_BYTES;
	limits->discard_granularity = 4096;
	scribe_limit_discards(limits, SCRIBE_CHUNK_SECTORS);
}

static struct target_type scribe_target = {
	.name = "scribe",
	.version = { 1, 0, 0 },
	.module = THIS_MODULE,
	.ctr = scribe_ctr,
	.dtr = scribe_dtr,
	.map = scribe_map,
	.postsuspend = scribe_postsuspend,
	.status = scribe_status,
	.message = scribe_message,
	.iterate_devices = scribe_iterate_devices,
	.io_hints = scribe_io_hints,
};

int scribe_dm_init(void)
{
	return dm_register_target(&scribe_target);
}

void scribe_dm_exit(void)
{
	dm_unregister_target(&scribe_target);
}
