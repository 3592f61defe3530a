/* SPDX-License-Identifier: GPL-2.0 */
/* One connection: shared by its engine (backplane.c) and the two roles. Not for others. */
#ifndef SCRIBE_BACKPLANE_CONN_H
#define SCRIBE_BACKPLANE_CONN_H

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
	/* Send what is pending; also called every SCRIBE_PING_MS. */
	int (*send)(struct scribe_conn *conn);
	/* Both threads have stopped: give back what is unfinished, free the role's data. */
	void (*stop)(struct scribe_conn *conn);
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
	wait_queue_head_t wake;		/* the sender */
	bool dead;
	unsigned long last_rx_jiffies, last_tx_jiffies;
	struct work_struct reap;
	struct rcu_head rcu;
	void *bounce;			/* 1 MiB: data that its owner changes while it is sent */
	/* The threads' own. */
	struct kvec tx_vecs[SCRIBE_CONN_VECS], rx_vecs[SCRIBE_CONN_VECS];

	spinlock_t lock;		/* the role's fields below */
	struct scribe_lanes lanes;	/* initiator: legs to send; target: answers to send */
	struct scribe_leg *sent[SCRIBE_CONN_DEPTH];	/* initiator: by tag */
	DECLARE_BITMAP(tags, SCRIBE_CONN_DEPTH);
	u32 sending;			/* initiator: 1 + tag of the leg being sent */
	struct list_head serving;	/* target: requests that are being served */
	u32 nr_serving;			/* target: requests taken and not answered */
	wait_queue_head_t served;
};

extern const struct scribe_conn_ops scribe_initiator_ops;
extern const struct scribe_conn_ops scribe_target_ops;

/* Answers with an error what waits for this disk. Under peer->lock. */
void scribe_target_abandon(struct scribe_conn *conn, const struct scribe_disk *disk);

int scribe_target_init(void);
void scribe_target_exit(void);

/* Ends the connection. Any context, any number of times. */
void scribe_conn_fail(struct scribe_conn *conn, const char *why);

/* Blocking, whole length or an error. Only the receiver thread. */
int scribe_conn_recv(struct scribe_conn *conn, void *data, size_t bytes);
int scribe_conn_recv_bvec(struct scribe_conn *conn, struct bio *bio, struct bvec_iter iter);

/* Only the sender thread. @bio may be NULL. */
int scribe_conn_send(struct scribe_conn *conn, const struct scribe_msg *msg, struct bio *bio,
		     struct bvec_iter iter);
int scribe_conn_send_buffer(struct scribe_conn *conn, const struct scribe_msg *msg, void *data);

u32 scribe_bio_crc(struct bio *bio, struct bvec_iter start);

#endif
