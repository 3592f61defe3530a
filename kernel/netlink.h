/* SPDX-License-Identifier: GPL-2.0 */
/* The daemon's side: uapi/scribe_netlink.h. Parses, checks, calls; decides nothing. */
#ifndef SCRIBE_NETLINK_H
#define SCRIBE_NETLINK_H

int scribe_netlink_init(void);
void scribe_netlink_exit(void);

#endif
