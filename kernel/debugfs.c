// SPDX-License-Identifier: GPL-2.0
#include "debugfs.h"

#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "backplane.h"
#include "copy.h"
#include "disk.h"
#include "node.h"
#include "vsd.h"

static struct dentry *root;

static int node_show(struct seq_file *seq, void *unused)
{
	seq_printf(seq, "id %u life %016llx remaining_ms %llu copied %llu extents %lu\n",
		   scribe_node_id(), scribe_node_life(), scribe_node_remaining_ms(),
		   scribe_copy_count(), scribe_extent_count());
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(node);

static int disks_show(struct seq_file *seq, void *unused)
{
	static const char *const states[] = {
		[SCRIBE_DISK_ABSENT] = "absent",
		[SCRIBE_DISK_LOCAL] = "local",
		[SCRIBE_DISK_REMOTE] = "remote",
		[SCRIBE_DISK_FAILED] = "failed",
	};
	u32 id;

	static_assert(ARRAY_SIZE(states) == SCRIBE_DISK_NR_STATES);
	for (id = 1; id <= SCRIBE_DISK_MAX_ID; id++) {
		struct scribe_disk *disk = scribe_disk_find(id);

		if (disk)
			seq_printf(seq,
				   "disk %u %s node %u life %016llx tier %s reads %lld writes %lld "
				   "flushes %lld errors %lld inflight %d\n",
				   id, states[READ_ONCE(disk->state)], READ_ONCE(disk->node),
				   READ_ONCE(disk->life),
				   disk->tier == SCRIBE_TIER_SSD ? "ssd" : "hdd",
				   atomic64_read(&disk->reads), atomic64_read(&disk->writes),
				   atomic64_read(&disk->flushes), atomic64_read(&disk->errors),
				   atomic_read(&disk->inflight));
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(disks);

static int peers_show(struct seq_file *seq, void *unused)
{
	scribe_peer_show(seq);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(peers);

static void show_vsd(struct scribe_vsd *vsd, void *arg)
{
	struct scribe_vsd_stats stats;

	spin_lock_irq(&vsd->lock);
	stats = vsd->stats;
	spin_unlock_irq(&vsd->lock);
	seq_printf((struct seq_file *)arg,
		   "vsd %llu epoch %llu leaves %lu intents %u active %u frozen %u reads %llu "
		   "writes %llu "
		   "discards %llu "
		   "flushes %llu in_place %llu allocated %llu redirected %llu rewrites %llu "
		   "batches %llu ops %llu stales %llu read_retries %llu\n",
		   vsd->id, vsd->epoch, vsd->nr_leaves, vsd->nr_intents, vsd->nr_active,
		   vsd->nr_frozen, stats.reads, stats.writes, stats.discards, stats.flushes,
		   stats.in_place, stats.allocated, stats.redirected, stats.rewrites, stats.batches,
		   stats.ops, stats.stales, stats.read_retries);
}

static int vsds_show(struct seq_file *seq, void *unused)
{
	scribe_vsd_for_each(show_vsd, seq);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vsds);

void scribe_debugfs_init(void)
{
	root = debugfs_create_dir("scribe", NULL);
	debugfs_create_file("node", 0400, root, NULL, &node_fops);
	debugfs_create_file("disks", 0400, root, NULL, &disks_fops);
	debugfs_create_file("peers", 0400, root, NULL, &peers_fops);
	debugfs_create_file("vsds", 0400, root, NULL, &vsds_fops);
}

void scribe_debugfs_exit(void)
{
	debugfs_remove(root);
}
