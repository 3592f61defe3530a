/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Peers and the connections to them.
 *
 *      node A                                   node B
 *   initiator conn  == TCP, several per peer ==>  target conn     A's legs on B's disks
 *   target conn     <============================ initiator conn  B's legs on A's disks
 *
 * The daemon connects and authenticates, then hands the socket over with SOCKET_ADD. A connection
 * has a receiver and a sender thread; a leg's submitter may send as well. Whatever goes wrong ends
 * it (scribe_conn_fail()): the socket is shut down, a work item joins them all, and only then are
 * unanswered legs given back with an error, because until then the receiver may write into their
 * pages.
 *
 * Peers live until the module is unloaded. A peer has an expected life; connections of any other
 * life are refused, those of an earlier one ended.
 */
#ifndef SCRIBE_BACKPLANE_H
#define SCRIBE_BACKPLANE_H

#include "scribe.h"

struct scribe_disk;
struct scribe_leg;

int scribe_backplane_init(void);
void scribe_backplane_exit(void);

/* Is there an initiator connection to the node? Any context. */
bool scribe_peer_connected(u32 node);

/*
 * Sends a leg to its disk's node; completes it with an error where no connection is. A short one
 * that ->may_push is sent from here, where nobody else sends and the socket has room: it need not
 * wait for the sender thread to get a processor. Context: any; may sleep where ->may_push.
 */
void scribe_backplane_submit(u32 node, struct scribe_leg *leg);

/* Sets the expected life of a node; ends connections of another one. Context: process. */
int scribe_peer_set(u32 node, u64 life);

/**
 * scribe_peer_fence() - end everything that a life of a node has here
 * @node: node id
 * @life: life that is over; it is refused from now on
 *
 * Return: 0 when all its bios on disks of this node have ended; -EINTR killed.
 */
int scribe_peer_fence(u32 node, u64 life);

/**
 * scribe_backplane_add_socket() - take over a connected stream socket
 * @node: peer
 * @life: its life
 * @role: enum scribe_role, what this end is
 * @flags: SCRIBE_F_DATA_CRC
 * @fd: the caller's file descriptor; the module holds its own reference
 * @why: set to a text on error
 *
 * Context: process.
 * Return: 0; -ENOTSOCK, -EPROTOTYPE, -ENOTCONN for a bad socket; -ESTALE for a fenced or other
 * life; -ENOSPC beyond SCRIBE_CONNS_PER_PEER.
 */
int scribe_backplane_add_socket(u32 node, u64 life, u8 role, u32 flags, int fd, const char **why);

/* Answers with an error what peers wait for from this disk of ours, whose life is over. */
void scribe_backplane_abandon(const struct scribe_disk *disk);

/* Known peers without an initiator connection, for WORK_GET. */
u32 scribe_peer_collect_lost(struct scribe_work_rec *recs, u32 max);

struct seq_file;
void scribe_peer_show(struct seq_file *seq);

#endif
