/* SPDX-License-Identifier: GPL-2.0 */
/* One connection: shared by its engine (backplane.c) and the two roles. Not for others. */
#ifndef SCRIBE_BACKPLANE_CONN_H
#define SCRIBE_BACKPLANE_CONN_H

#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/uio.h>

#include "lanes.h"
#include "scribe.h"
#include "wire.h"

struct scribe_conn;
struct scribe_disk;
struct scribe_leg;

struct scribe_peer {
	u32 id;
	spinlock_t lock;		/* life, fenced_life, conns, nr_initiators */
	u64 life;
	u64 fenced_life;
	struct list_head conns;
	u32 nr_conns[SCRIBE_NR_ROLES];
	struct scribe_conn __rcu *initiators[SCRIBE_CONNS_PER_PEER];
	wait_queue_head_t empty;
	atomic64_t legs, errors, bytes_out, bytes_in;
	atomic64_t pushed, partly;	/* legs that submitters sent; that the sender ended */
};

/* What a role does; all are called by the connection's own threads. */
struct scribe_conn_ops {
	const char *name;
	/*
	 * One message has come; read its data with scribe_conn_recv*(). Non-zero ends the
	 * connection.
	 */
	int (*receive)(struct scribe_conn *conn, const struct scribe_msg *msg);
	/* Is there something to send? Under no lock. */
	bool (*pending)(struct scribe_conn *conn);
	/* Send what is pending; also called every SCRIBE_PING_MS. Under tx_lock. */
	int (*send)(struct scribe_conn *conn);
	/* Both threads have stopped: give back what is unfinished, free the role's data. */
	void (*stop)(struct scribe_conn *conn);
};

/* What a socket is to send or to fill next: by page, where these may be taken, or by address. */
struct scribe_vecs {
	union {
		struct kvec kvec[SCRIBE_CONN_VECS];
		struct bio_vec bvec[SCRIBE_CONN_VECS];
	};
	u32 nr, bytes;
	bool pages;
};

struct scribe_conn {
	struct list_head node;		/* peer->conns */
	struct scribe_peer *peer;
	const struct scribe_conn_ops *ops;
	u64 peer_life;
	u8 role;
	u32 flags;
	u32 index;			/* in peer->initiators */
	struct socket *sock;
	struct task_struct *rx, *tx;
	struct mutex tx_lock;		/* who sends, and what is of that */
	wait_queue_head_t wake;		/* the sender */
	bool dead;
	unsigned long last_rx_jiffies, last_tx_jiffies;
	struct work_struct reap;
	struct rcu_head rcu;
	void *bounce;			/* 1 MiB: data that its owner changes while it is sent */
	struct scribe_vecs tx_vecs;
	struct scribe_wire_header *tx_header; /* a page of its own */
	struct scribe_leg *rest;	/* initiator: of which the sender is to send the rest */
	u32 rest_done;			/* bytes of its message that have been sent */
	struct scribe_vecs rx_vecs;	/* the receiver's own */

	spinlock_t lock;		/* the role's fields below */
	struct scribe_lanes lanes;	/* initiator: legs to send; target: answers to send */
	struct scribe_leg *sent[SCRIBE_CONN_DEPTH];	/* initiator: by tag */
	DECLARE_BITMAP(tags, SCRIBE_CONN_DEPTH);
	u32 sending;			/* initiator: 1 + tag of the leg being sent */
	u32 pushing;			/* initiator: submitters that are here to send */
	struct list_head serving;	/* target: requests that are being served */
	u32 nr_serving;			/* target: requests taken and not answered */
	wait_queue_head_t served;
};

extern const struct scribe_conn_ops scribe_initiator_ops;
extern const struct scribe_conn_ops scribe_target_ops;

/*
 * Sends a few legs from the task of whoever submitted one, as far as that can be done at once; the
 * rest is left to the sender. Nothing where somebody else sends. Context: may sleep; ->pushing has
 * been raised, and is lowered at the end: the connection may be gone then.
 */
void scribe_initiator_push(struct scribe_conn *conn);

/* Answers with an error what waits for this disk. Under peer->lock. */
void scribe_target_abandon(struct scribe_conn *conn, const struct scribe_disk *disk);

int scribe_target_init(void);
void scribe_target_exit(void);

/* Ends the connection. Any context, any number of times. */
void scribe_conn_fail(struct scribe_conn *conn, const char *why);

/* Blocking, whole length or an error. Only the receiver thread. */
int scribe_conn_recv(struct scribe_conn *conn, void *data, size_t bytes);
int scribe_conn_recv_bvec(struct scribe_conn *conn, struct bio *bio, struct bvec_iter iter);

/* The whole of it, or an error. Under tx_lock. @bio may be NULL. */
int scribe_conn_send(struct scribe_conn *conn, const struct scribe_msg *msg, struct bio *bio,
		     struct bvec_iter iter);
int scribe_conn_send_buffer(struct scribe_conn *conn, const struct scribe_msg *msg, void *data);

/**
 * scribe_conn_try_send() - send as much of a message as the socket takes at once
 *
 * Context: may sleep for the socket's lock and for memory, not for the peer; under tx_lock.
 * Return: bytes sent, of header and data together, or an error that ends the connection. The rest
 * is for scribe_conn_send_rest().
 */
int scribe_conn_try_send(struct scribe_conn *conn, const struct scribe_msg *msg, struct bio *bio,
			 struct bvec_iter iter);

/* What is left of the last message, of which @done bytes were sent. Under tx_lock. */
int scribe_conn_send_rest(struct scribe_conn *conn, struct bio *bio, struct bvec_iter iter,
			  u32 done);

u32 scribe_bio_crc(struct bio *bio, struct bvec_iter start);

#endif
