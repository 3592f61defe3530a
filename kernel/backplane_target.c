// SPDX-License-Identifier: GPL-2.0
/* The target's half of a connection: requests in, bios on local disks, answers out. */
#include "backplane_conn.h"
#include "disk.h"
#include "node.h"
#include "trace.h"

/*
 * One request being served. Its pages are ours, so neither an answer nor a connection that ends
 * need wait for a disk that has failed.
 */
struct target_request {
	struct list_head node; /* conn->serving; conn->lanes, when the answer is ready */
	refcount_t refs; /* whoever serves it, and its answer */
	atomic_t answered; /* once; conn may be gone after that */
	struct scribe_conn *conn;
	struct scribe_disk *disk; /* NULL where no bio was started */
	struct scribe_msg msg; /* the request, then the answer */
	u64 disk_life;
	struct bvec_iter iter;
	struct work_struct work; /* ZERO and DISCARD sleep */
	struct bio bio; /* last */
};

static struct bio_set requests;

int scribe_target_init(void)
{
	return bioset_init(&requests, SCRIBE_TARGET_DEPTH, offsetof(struct target_request, bio),
			   BIOSET_NEED_BVECS);
}

void scribe_target_exit(void)
{
	bioset_exit(&requests);
}

static void put_request(struct target_request *req)
{
	if (!refcount_dec_and_test(&req->refs))
		return;
	bio_free_pages(&req->bio);
	bio_put(&req->bio);
}

/* Under conn->lock, by whoever set ->answered. */
static void queue_answer(struct target_request *req, u16 status)
{
	struct scribe_conn *conn = req->conn;

	list_del(&req->node);
	scribe_lanes_add(&conn->lanes, &req->node, req->msg.flags & SCRIBE_WIRE_F_BACKGROUND);
	req->msg.status = status;
	req->msg.flags = SCRIBE_WIRE_F_RESPONSE;
	/* Under the lock: once it is dropped, a stop that saw the last answer may free conn. */
	wake_up(&conn->wake);
	wake_up(&conn->served);
}

/* The serving is over; gives the request up. Any context. */
static void answer(struct target_request *req, u16 status)
{
	unsigned long flags;

	if (!atomic_xchg(&req->answered, 1)) {
		spin_lock_irqsave(&req->conn->lock, flags);
		queue_answer(req, status);
		spin_unlock_irqrestore(&req->conn->lock, flags);
	}
	put_request(req);
}

void scribe_target_abandon(struct scribe_conn *conn, const struct scribe_disk *disk)
{
	struct target_request *req, *next;
	unsigned long flags;

	spin_lock_irqsave(&conn->lock, flags);
	list_for_each_entry_safe(req, next, &conn->serving, node) {
		if (READ_ONCE(req->disk) == disk && !atomic_xchg(&req->answered, 1))
			queue_answer(req, SCRIBE_WIRE_IOERR);
	}
	spin_unlock_irqrestore(&conn->lock, flags);
}

static struct target_request *new_request(struct scribe_conn *conn, const struct scribe_msg *msg)
{
	u32 bytes = msg->op == SCRIBE_WIRE_READ || msg->op == SCRIBE_WIRE_WRITE ? msg->length_bytes
										: 0;
	struct target_request *req;
	struct bio *bio;

	bio = bio_alloc_bioset(NULL, max(1U, DIV_ROUND_UP(bytes, (u32)PAGE_SIZE)), REQ_OP_READ,
			       GFP_NOIO, &requests);
	req = container_of(bio, struct target_request, bio);
	memset(req, 0, offsetof(struct target_request, bio));
	INIT_LIST_HEAD(&req->node);
	refcount_set(&req->refs, 2);
	req->conn = conn;
	req->msg = *msg;
	req->disk_life = msg->expected_life;
	while (bytes) {
		u32 part = min_t(u32, bytes, PAGE_SIZE);
		/*
		 * The wire's length is bounded and so are requests: GFP_NOIO pages, freed on
		 * answer.
		 */
		struct page *page = alloc_page(GFP_NOIO);

		if (!page) {
			bio_free_pages(bio);
			bio_put(bio);
			return NULL;
		}
		__bio_add_page(bio, page, part, 0);
		bytes -= part;
	}
	req->iter = bio->bi_iter;
	return req;
}

static void end_request(struct bio *bio)
{
	struct target_request *req = container_of(bio, struct target_request, bio);
	struct scribe_disk *disk = req->disk;
	blk_status_t status = bio->bi_status;

	trace_scribe_leg_end(req->msg.disk, req->msg.op, req->msg.sector, req->msg.length_bytes,
			     blk_status_to_errno(status));
	if (status && req->msg.op != SCRIBE_WIRE_READ)
		scribe_disk_fail(disk, req->disk_life);
	answer(req, status ? SCRIBE_WIRE_IOERR : SCRIBE_WIRE_OK);
	scribe_disk_end(disk);
}

static void erase_range(struct work_struct *work)
{
	struct target_request *req = container_of(work, struct target_request, work);
	struct block_device *bdev = scribe_bdev_get(&req->disk->handle);
	u64 start = SCRIBE_DATA_START_SECTOR + req->msg.sector;
	u32 sectors = req->msg.length_bytes >> SECTOR_SHIFT;
	struct scribe_disk *disk = req->disk;
	int err = 0;

	if (req->msg.op == SCRIBE_WIRE_ZERO)
		err = blkdev_issue_zeroout(bdev, start, sectors, GFP_NOIO, BLKDEV_ZERO_NOUNMAP);
	else if (bdev_max_discard_sectors(bdev))
		err = blkdev_issue_discard(bdev, start, sectors, GFP_NOIO);
	if (err)
		scribe_disk_fail(disk, req->disk_life);
	answer(req, err ? SCRIBE_WIRE_IOERR : SCRIBE_WIRE_OK);
	scribe_disk_end(disk);
}

static void start_bio(struct target_request *req)
{
	struct bio *bio = &req->bio;

	switch (req->msg.op) {
	case SCRIBE_WIRE_READ:
		bio->bi_opf = REQ_OP_READ;
		break;
	case SCRIBE_WIRE_WRITE:
		bio->bi_opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
		break;
	case SCRIBE_WIRE_FLUSH:
		bio->bi_opf = REQ_OP_WRITE | REQ_PREFLUSH;
		break;
	default:
		INIT_WORK(&req->work, erase_range);
		queue_work(scribe_wq, &req->work);
		return;
	}
	bio_set_dev(bio, scribe_bdev_get(&req->disk->handle));
	if (req->msg.op != SCRIBE_WIRE_FLUSH)
		bio->bi_iter.bi_sector = SCRIBE_DATA_START_SECTOR + req->msg.sector;
	bio->bi_end_io = end_request;
	trace_scribe_leg_submit(req->msg.disk, req->msg.op, req->msg.sector, req->msg.length_bytes,
				0);
	submit_bio_noacct(bio);
}

/* What is wrong with a well-formed request, before anything is done. */
static u16 admit(struct target_request *req)
{
	int err;

	if (scribe_node_expired())
		return SCRIBE_WIRE_FENCED;
	if (req->msg.op == SCRIBE_WIRE_INTENT)
		return SCRIBE_WIRE_NOTSUPP;
	err = scribe_disk_begin(req->msg.disk, req->msg.expected_life, req->msg.sector,
				req->msg.length_bytes, &req->disk);
	switch (err) {
	case 0:
		return SCRIBE_WIRE_OK;
	case -ENODEV:
		return SCRIBE_WIRE_NODISK;
	case -ESTALE:
		return SCRIBE_WIRE_STALE;
	default:
		return SCRIBE_WIRE_RANGE;
	}
}

static int serve(struct scribe_conn *conn, struct target_request *req)
{
	u16 status;

	if (req->msg.op == SCRIBE_WIRE_PING) {
		answer(req, req->msg.expected_life == scribe_node_life() ? SCRIBE_WIRE_OK
									 : SCRIBE_WIRE_STALE);
		return 0;
	}
	/* The data is on the stream whether we want it or not. */
	if (scribe_wire_payload_bytes(&req->msg)) {
		int err = scribe_conn_recv_bvec(conn, &req->bio, req->iter);

		if (err) {
			answer(req, SCRIBE_WIRE_IOERR);
			return err;
		}
		if (req->msg.flags & SCRIBE_WIRE_F_DATA_CRC &&
		    scribe_bio_crc(&req->bio, req->iter) != req->msg.data_crc) {
			answer(req, SCRIBE_WIRE_BADCRC);
			return 0;
		}
	}
	status = admit(req);
	if (status) {
		pr_notice_ratelimited(
			"node %u: refused operation %u on disk %u at %llu+%u: status %u\n",
			conn->peer->id, req->msg.op, req->msg.disk, req->msg.sector,
			req->msg.length_bytes, status);
		answer(req, status);
		return 0;
	}
	start_bio(req);
	return 0;
}

static int target_receive(struct scribe_conn *conn, const struct scribe_msg *msg)
{
	struct target_request *req;

	if (msg->flags & SCRIBE_WIRE_F_RESPONSE)
		return -EBADMSG;
	/* The peer is slowed down by its window, not by our memory. */
	if (wait_event_interruptible(conn->served,
				     READ_ONCE(conn->dead) ||
					     READ_ONCE(conn->nr_serving) < SCRIBE_TARGET_DEPTH))
		return -EINTR;
	if (READ_ONCE(conn->dead))
		return -ECONNRESET;
	req = new_request(conn, msg);
	if (!req)
		return -ENOMEM;
	spin_lock_irq(&conn->lock);
	conn->nr_serving++;
	list_add_tail(&req->node, &conn->serving);
	spin_unlock_irq(&conn->lock);
	return serve(conn, req);
}

static bool target_pending(struct scribe_conn *conn)
{
	return !scribe_lanes_empty(&conn->lanes);
}

static struct target_request *next_answer(struct scribe_conn *conn)
{
	struct target_request *req = NULL;

	spin_lock_irq(&conn->lock);
	if (!scribe_lanes_empty(&conn->lanes))
		req = list_entry(scribe_lanes_take(&conn->lanes), struct target_request, node);
	spin_unlock_irq(&conn->lock);
	return req;
}

static void request_done(struct scribe_conn *conn, struct target_request *req)
{
	put_request(req);
	spin_lock_irq(&conn->lock);
	conn->nr_serving--;
	wake_up(&conn->served);
	spin_unlock_irq(&conn->lock);
}

static int target_send(struct scribe_conn *conn)
{
	struct target_request *req;
	int err = 0;

	while (!err && (req = next_answer(conn))) {
		struct scribe_msg *msg = &req->msg;
		bool data;

		msg->sender_life = scribe_node_life();
		msg->expected_life = conn->peer_life;
		data = scribe_wire_payload_bytes(msg);
		if (data && conn->flags & SCRIBE_F_DATA_CRC) {
			msg->flags |= SCRIBE_WIRE_F_DATA_CRC;
			msg->data_crc = scribe_bio_crc(&req->bio, req->iter);
		}
		err = scribe_conn_send(conn, msg, data ? &req->bio : NULL, req->iter);
		request_done(conn, req);
	}
	return err;
}

/* Waits until the last bio has ended: that is what a fence promises. */
static void target_stop(struct scribe_conn *conn)
{
	struct target_request *req;

	while (READ_ONCE(conn->nr_serving)) {
		while ((req = next_answer(conn)))
			request_done(conn, req);
		wait_event_timeout(conn->served,
				   !READ_ONCE(conn->nr_serving) || target_pending(conn), HZ);
	}
	/* An answer that still holds the lock is the last one that touches conn. */
	spin_lock_irq(&conn->lock);
	spin_unlock_irq(&conn->lock);
}

const struct scribe_conn_ops scribe_target_ops = {
	.name = "target",
	.receive = target_receive,
	.pending = target_pending,
	.send = target_send,
	.stop = target_stop,
};
