// SPDX-License-Identifier: GPL-2.0
/* The initiator's half of a connection: legs out, answers in. */
#include <linux/sched/mm.h>

#include "backplane_conn.h"
#include "disk.h"
#include "node.h"

#define PING_TAG U64_MAX

static blk_status_t status_of(u16 wire_status)
{
	switch (wire_status) {
	case SCRIBE_WIRE_OK:
		return BLK_STS_OK;
	case SCRIBE_WIRE_STALE:
	case SCRIBE_WIRE_NODISK:
	case SCRIBE_WIRE_FENCED:
		return BLK_STS_OFFLINE;
	case SCRIBE_WIRE_NOTSUPP:
		return BLK_STS_NOTSUPP;
	default:
		return BLK_STS_IOERR;
	}
}

static bool initiator_pending(struct scribe_conn *conn)
{
	bool pending;

	spin_lock_irq(&conn->lock);
	pending = !scribe_lanes_empty(&conn->lanes) && !bitmap_full(conn->tags, SCRIBE_CONN_DEPTH);
	pending |= !!READ_ONCE(conn->rest);
	spin_unlock_irq(&conn->lock);
	return pending;
}

/* Takes the next leg and a free tag; NULL where one of both lacks. */
static struct scribe_leg *next_leg(struct scribe_conn *conn)
{
	struct scribe_leg *leg = NULL;
	u32 tag;

	spin_lock_irq(&conn->lock);
	tag = find_first_zero_bit(conn->tags, SCRIBE_CONN_DEPTH);
	if (tag < SCRIBE_CONN_DEPTH && !scribe_lanes_empty(&conn->lanes)) {
		leg = list_entry(scribe_lanes_take(&conn->lanes), struct scribe_leg, node);
		leg->tag = tag;
		conn->sending = tag + 1;
		__set_bit(tag, conn->tags);
	}
	spin_unlock_irq(&conn->lock);
	return leg;
}

static void copy_to_bounce(struct scribe_conn *conn, struct scribe_leg *leg)
{
	void *to = conn->bounce;
	struct bvec_iter iter;
	struct bio_vec vec;

	__bio_for_each_segment(vec, &leg->bio, iter, leg->iter) {
		memcpy_from_bvec(to, &vec);
		to += vec.bv_len;
	}
}

static struct scribe_msg msg_of(const struct scribe_leg *leg)
{
	return (struct scribe_msg){
		.tag = leg->tag,
		.sender_life = scribe_node_life(),
		.expected_life = leg->life,
		.sector = leg->sector,
		.length_bytes = leg->length_bytes,
		.disk = leg->disk->id,
		.flags = leg->background ? SCRIBE_WIRE_F_BACKGROUND : 0,
		.op = leg->op,
	};
}

static void add_crc(struct scribe_conn *conn, struct scribe_leg *leg, struct scribe_msg *msg)
{
	if (leg->op != SCRIBE_WIRE_WRITE || !(conn->flags & SCRIBE_F_DATA_CRC))
		return;
	msg->flags |= SCRIBE_WIRE_F_DATA_CRC;
	msg->data_crc = scribe_bio_crc(&leg->bio, leg->iter);
}

static struct bio *data_of(struct scribe_leg *leg)
{
	return leg->op == SCRIBE_WIRE_WRITE ? &leg->bio : NULL;
}

static int send_leg(struct scribe_conn *conn, struct scribe_leg *leg)
{
	struct scribe_msg msg = msg_of(leg);

	if (data_of(leg) && leg->sends) {
		/* Its owner changed the data while we sent it: send what we saw at one instant. */
		copy_to_bounce(conn, leg);
		msg.flags |= SCRIBE_WIRE_F_DATA_CRC;
		msg.data_crc = ~crc32c(~0U, conn->bounce, msg.length_bytes);
		conn->sent[leg->tag] = leg;
		return scribe_conn_send_buffer(conn, &msg, conn->bounce);
	}
	add_crc(conn, leg, &msg);
	conn->sent[leg->tag] = leg;
	return scribe_conn_send(conn, &msg, data_of(leg), leg->iter);
}

/* It may be freed from here on, by its answer. */
static void leg_is_sent(struct scribe_conn *conn)
{
	WRITE_ONCE(conn->sending, 0);
	wake_up(&conn->served);
}

static int send_ping(struct scribe_conn *conn)
{
	struct scribe_msg msg = {
		.tag = PING_TAG,
		.sender_life = scribe_node_life(),
		.expected_life = conn->peer_life,
		.op = SCRIBE_WIRE_PING,
	};

	return scribe_conn_send(conn, &msg, NULL, (struct bvec_iter){});
}

static int initiator_send(struct scribe_conn *conn)
{
	struct scribe_leg *leg = conn->rest;
	int err = 0;

	if (leg) {
		err = conn->rest_done ? scribe_conn_send_rest(conn, data_of(leg), leg->iter,
							      conn->rest_done)
				      : send_leg(conn, leg);
		WRITE_ONCE(conn->rest, NULL);
		leg_is_sent(conn);
	}
	while (!err && (leg = next_leg(conn))) {
		err = send_leg(conn, leg);
		leg_is_sent(conn);
	}
	if (err)
		return err;
	if (time_after_eq(jiffies, conn->last_tx_jiffies + msecs_to_jiffies(SCRIBE_PING_MS)))
		return send_ping(conn);
	return 0;
}

/* Non-zero ends the connection. */
static int push_leg(struct scribe_conn *conn, struct scribe_leg *leg)
{
	struct scribe_msg msg = msg_of(leg);
	u32 whole = sizeof(*conn->tx_header) + (data_of(leg) ? msg.length_bytes : 0);
	int sent = 0;

	add_crc(conn, leg, &msg);
	conn->sent[leg->tag] = leg;
	if (!leg->sends) /* else it goes from other memory, by the sender */
		sent = scribe_conn_try_send(conn, &msg, data_of(leg), leg->iter);
	if (sent == whole) {
		atomic64_inc(&conn->peer->pushed);
		leg_is_sent(conn);
		return 0;
	}
	if (sent > 0)
		atomic64_inc(&conn->peer->partly);
	conn->rest_done = max(sent, 0);
	WRITE_ONCE(conn->rest, leg);
	return min(sent, 0);
}

void scribe_initiator_push(struct scribe_conn *conn)
{
	unsigned int noio = memalloc_noio_save();
	struct scribe_leg *leg;
	int err = 0;
	u32 nr;

	if (!READ_ONCE(conn->dead) && mutex_trylock(&conn->tx_lock)) {
		for (nr = 0; nr < SCRIBE_PUSH_LEGS && !err && !conn->rest; nr++) {
			leg = next_leg(conn);
			if (!leg)
				break;
			err = push_leg(conn, leg);
		}
		mutex_unlock(&conn->tx_lock);
	}
	memalloc_noio_restore(noio);
	if (err)
		scribe_conn_fail(conn, "send failed");
	/* Also where somebody else was sending: that may have looked just before. */
	if (initiator_pending(conn))
		wake_up(&conn->wake);
	spin_lock_irq(&conn->lock);
	conn->pushing--;
	wake_up(&conn->served);
	spin_unlock_irq(&conn->lock);
}

static int receive_data(struct scribe_conn *conn, struct scribe_leg *leg,
			const struct scribe_msg *msg)
{
	int err;

	if (msg->length_bytes != leg->length_bytes)
		return -EBADMSG;
	err = scribe_conn_recv_bvec(conn, &leg->bio, leg->iter);
	if (err)
		return err;
	if (msg->flags & SCRIBE_WIRE_F_DATA_CRC &&
	    scribe_bio_crc(&leg->bio, leg->iter) != msg->data_crc)
		leg->status = BLK_STS_PROTECTION;
	return 0;
}

static int initiator_receive(struct scribe_conn *conn, const struct scribe_msg *msg)
{
	struct scribe_leg *leg;
	bool again;
	int err;

	if (!(msg->flags & SCRIBE_WIRE_F_RESPONSE))
		return -EBADMSG;
	if (msg->op == SCRIBE_WIRE_PING)
		return msg->tag == PING_TAG && msg->status == SCRIBE_WIRE_OK ? 0 : -EBADMSG;
	if (msg->tag >= SCRIBE_CONN_DEPTH)
		return -EBADMSG;
	/* An answer that comes before we are done with sending must not free what we send from. */
	wait_event(conn->served, READ_ONCE(conn->sending) != msg->tag + 1 || READ_ONCE(conn->dead));
	if (READ_ONCE(conn->sending) == msg->tag + 1)
		return -ECONNRESET; /* the rest of it is not sent any more */
	leg = conn->sent[msg->tag];
	if (!leg || leg->op != msg->op)
		return -EBADMSG;

	leg->status = status_of(msg->status);
	if (scribe_wire_payload_bytes(msg)) {
		err = receive_data(conn, leg, msg);
		if (err)
			return err; /* still in ->sent[]: stop() gives it back */
	}
	/* The host has failed the disk, or will; do not wait for the daemon to say so. */
	if (msg->status == SCRIBE_WIRE_IOERR && msg->op != SCRIBE_WIRE_READ)
		scribe_disk_fail(leg->disk, leg->life);

	again = msg->status == SCRIBE_WIRE_BADCRC && leg->sends < SCRIBE_CRC_RETRIES;
	spin_lock_irq(&conn->lock);
	conn->sent[msg->tag] = NULL;
	__clear_bit(msg->tag, conn->tags);
	if (again) {
		leg->sends++;
		scribe_lanes_add(&conn->lanes, &leg->node, leg->background);
	}
	spin_unlock_irq(&conn->lock);
	if (!again)
		scribe_leg_end(leg);
	if (initiator_pending(conn))
		wake_up(&conn->wake);
	return 0;
}

static void initiator_stop(struct scribe_conn *conn)
{
	struct scribe_leg *leg, *next;
	LIST_HEAD(unfinished);
	u32 tag;

	spin_lock_irq(&conn->lock);
	while (!scribe_lanes_empty(&conn->lanes))
		list_add_tail(scribe_lanes_take(&conn->lanes), &unfinished);
	for (tag = 0; tag < SCRIBE_CONN_DEPTH; tag++) {
		if (conn->sent[tag])
			list_add_tail(&conn->sent[tag]->node, &unfinished);
		conn->sent[tag] = NULL;
	}
	spin_unlock_irq(&conn->lock);
	list_for_each_entry_safe(leg, next, &unfinished, node) {
		list_del_init(&leg->node);
		leg->status = BLK_STS_TRANSPORT;
		scribe_leg_end(leg);
	}
}

const struct scribe_conn_ops scribe_initiator_ops = {
	.name = "initiator",
	.receive = initiator_receive,
	.pending = initiator_pending,
	.send = initiator_send,
	.stop = initiator_stop,
};
