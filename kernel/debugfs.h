/* SPDX-License-Identifier: GPL-2.0 */
/* /sys/kernel/debug/scribe: node, disks, peers, vsds as text lines, for people. No ABI. */
#ifndef SCRIBE_DEBUGFS_H
#define SCRIBE_DEBUGFS_H

void scribe_debugfs_init(void);
void scribe_debugfs_exit(void);

#endif
