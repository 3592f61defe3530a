// SPDX-License-Identifier: GPL-2.0
/* Loading and unloading: each layer after those that it uses, and back in exact reverse. */
#include <linux/module.h>
#include <net/genetlink.h>

#include "backplane.h"
#include "copy.h"
#include "debugfs.h"
#include "disk.h"
#include "extent.h"
#include "io.h"
#include "netlink.h"
#include "node.h"
#include "reserve.h"
#include "scribe.h"
#include "target.h"
#include "vsd.h"

struct workqueue_struct *scribe_wq;

static void tick(struct work_struct *work);
static DECLARE_DELAYED_WORK(tick_work, tick);

/* What waits for time, not for an event: disks that hang, the end of waiting, lost kicks. */
static void tick(struct work_struct *work)
{
	scribe_disk_tick();
	scribe_vsd_kick_all();
	queue_delayed_work(scribe_wq, &tick_work, HZ);
}

static int __init scribe_init(void)
{
	int err;

	scribe_node_init();
	scribe_wq = alloc_workqueue("scribe", WQ_MEM_RECLAIM | WQ_HIGHPRI, 0);
	if (!scribe_wq)
		return -ENOMEM;
	err = scribe_extent_init();
	if (err)
		goto err_wq;
	err = scribe_disk_init();
	if (err)
		goto err_extent;
	err = scribe_backplane_init();
	if (err)
		goto err_disk;
	err = scribe_copy_init();
	if (err)
		goto err_backplane;
	err = scribe_flush_init();
	if (err)
		goto err_copy;
	err = scribe_rewrite_init();
	if (err)
		goto err_flush;
	err = scribe_vsd_init();
	if (err)
		goto err_rewrite;
	err = scribe_netlink_init();
	if (err)
		goto err_vsd;
	err = scribe_dm_init();
	if (err)
		goto err_netlink;
	scribe_debugfs_init();
	queue_delayed_work(scribe_wq, &tick_work, HZ);
	return 0;

err_netlink:
	scribe_netlink_exit();
err_vsd:
	scribe_vsd_exit();
err_rewrite:
	scribe_rewrite_exit();
err_flush:
	scribe_flush_exit();
err_copy:
	scribe_copy_exit();
err_backplane:
	scribe_backplane_exit();
err_disk:
	scribe_disk_exit();
err_extent:
	scribe_extent_exit();
err_wq:
	destroy_workqueue(scribe_wq);
	return err;
}

static void __exit scribe_exit(void)
{
	/* 1. No device exists, the module's reference count said so; no commands from here on. */
	scribe_debugfs_exit();
	scribe_dm_exit();
	scribe_netlink_exit();
	cancel_delayed_work_sync(&tick_work);
	scribe_vsd_exit();
	scribe_rewrite_exit();
	scribe_flush_exit();
	scribe_copy_exit();
	/* 2. Peers' requests end before the disks that they are for. */
	scribe_backplane_exit();
	scribe_disk_exit();
	/* 3. Nothing but the stock refers to extents now. */
	scribe_reserve_drop();
	scribe_extent_exit();
	destroy_workqueue(scribe_wq);
}

MODULE_ALIAS_GENL_FAMILY(SCRIBE_GENL_NAME);
module_init(scribe_init);
module_exit(scribe_exit);
MODULE_DESCRIPTION("device-mapper target of the open hyperconverged cluster");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_ALIAS("dm-scribe");
