/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Vocabulary of the module: what every layer may know.
 *
 *   L0  scribe.h bounds.h shim.h compat.h uapi/ trace
 *   L1  segs wire superblock lanes           pure
 *   L2  node disk backplane extent reserve    this node, disks, peers, extents, space,
 *       sync copy                             copying between disks
 *   L3  vsd io range plan read flush rewrite  a virtual disk: map and lease, I/O, commit,
 *       freeze intent                         what the mover and take-over need
 *   L4  target netlink debugfs               dm, daemon, people
 *   L5  main kunit kunit_vsd
 */
#ifndef SCRIBE_H
#define SCRIBE_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "bounds.h"
#include "uapi/scribe_disk.h"
#include "uapi/scribe_netlink.h"
#include "uapi/scribe_wire.h"

#define SCRIBE_BYTES(sectors) ((u32)(sectors) << SECTOR_SHIFT)

#ifdef pr_fmt
#undef pr_fmt
#endif
#define pr_fmt(fmt) "scribe: " fmt

/* Runs completions that need to sleep, restarts of parked I/O, teardown of connections. */
extern struct workqueue_struct *scribe_wq;

/* Tells the daemon that WORK_GET has something new. Any context. */
void scribe_event(void);

#endif
