// SPDX-License-Identifier: GPL-2.0
#include "backplane.h"

#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/tcp.h>
#include <linux/vmalloc.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tls.h>

#include "backplane_conn.h"
#include "disk.h"
#include "node.h"

static struct scribe_peer *peers[SCRIBE_MAX_NODE + 1];
static DEFINE_MUTEX(peers_lock); /* creation */

static const struct scribe_conn_ops *const role_ops[] = {
	[SCRIBE_ROLE_INITIATOR] = &scribe_initiator_ops,
	[SCRIBE_ROLE_TARGET] = &scribe_target_ops,
};

static struct scribe_peer *peer_find(u32 node)
{
	return node <= SCRIBE_MAX_NODE ? READ_ONCE(peers[node]) : NULL;
}

static struct scribe_peer *peer_get_or_make(u32 node)
{
	struct scribe_peer *peer;

	mutex_lock(&peers_lock);
	peer = peers[node];
	if (!peer) {
		peer = kzalloc(sizeof(*peer), GFP_KERNEL);
		if (peer) {
			peer->id = node;
			spin_lock_init(&peer->lock);
			INIT_LIST_HEAD(&peer->conns);
			init_waitqueue_head(&peer->empty);
			/* The object is complete before the pointer to it is seen. */
			smp_store_release(&peers[node], peer);
		}
	}
	mutex_unlock(&peers_lock);
	return peer;
}

bool scribe_peer_connected(u32 node)
{
	struct scribe_peer *peer = peer_find(node);

	return peer && READ_ONCE(peer->nr_conns[SCRIBE_ROLE_INITIATOR]);
}

/* Streams */

/* For tests of what becomes of the rest. */
static uint push_bytes = UINT_MAX;
#ifdef SCRIBE_KUNIT
module_param(push_bytes, uint, 0600);
MODULE_PARM_DESC(push_bytes, "of a message, at most, that a submitter sends");
#endif

int scribe_conn_recv(struct scribe_conn *conn, void *data, size_t bytes)
{
	while (bytes) {
		struct msghdr msg = { .msg_flags = MSG_WAITALL | MSG_NOSIGNAL };
		struct kvec vec = { .iov_base = data, .iov_len = bytes };
		int got = kernel_recvmsg(conn->sock, &msg, &vec, 1, bytes, msg.msg_flags);

		if (got <= 0)
			return got ? got : -ECONNRESET;
		WRITE_ONCE(conn->last_rx_jiffies, jiffies);
		atomic64_add(got, &conn->peer->bytes_in);
		data += got;
		bytes -= got;
	}
	return 0;
}

/*
 * May others take references to the pages of this data? Not to those of slabs, nor to the tails of
 * an allocation that is not compound.
 */
static bool pages_ok(struct bio *bio, struct bvec_iter start)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	__bio_for_each_segment(vec, bio, iter, start)
		if (!sendpage_ok(vec.bv_page))
			return false;
	return true;
}

static void vecs_add(struct scribe_vecs *vecs, struct page *page, u32 off, u32 len)
{
	if (vecs->pages)
		vecs->bvec[vecs->nr++] = (struct bio_vec){ page, len, off };
	else
		vecs->kvec[vecs->nr++] = (struct kvec){ page_address(page) + off, len };
	vecs->bytes += len;
}

static void vecs_empty(struct scribe_vecs *vecs)
{
	vecs->nr = 0;
	vecs->bytes = 0;
}

/* The next part of a bio's data; *iter goes on behind it. */
static void vecs_add_data(struct scribe_vecs *vecs, struct bio *bio, struct bvec_iter *iter)
{
	struct bio_vec vec;

	BUILD_BUG_ON(IS_ENABLED(CONFIG_HIGHMEM));
	while (iter->bi_size && vecs->nr < SCRIBE_CONN_VECS) {
		vec = mp_bvec_iter_bvec(bio->bi_io_vec, *iter);
		vecs_add(vecs, vec.bv_page, vec.bv_offset, vec.bv_len);
		bvec_iter_advance(bio->bi_io_vec, iter, vec.bv_len);
	}
}

/*
 * As pages where possible: with those, TLS encrypts what it sends from where it is, and decrypts to
 * where it is to be, without a copy. It may change meanwhile, then that is sent: what TLS
 * authenticates, and TCP repeats, is what was encrypted.
 */
static void vecs_iter(const struct scribe_vecs *vecs, unsigned int direction, struct iov_iter *iter)
{
	if (vecs->pages)
		iov_iter_bvec(iter, direction, vecs->bvec, vecs->nr, vecs->bytes);
	else
		iov_iter_kvec(iter, direction, vecs->kvec, vecs->nr, vecs->bytes);
}

int scribe_conn_recv_bvec(struct scribe_conn *conn, struct bio *bio, struct bvec_iter iter)
{
	struct scribe_vecs *vecs = &conn->rx_vecs;

	vecs->pages = pages_ok(bio, iter);
	while (iter.bi_size) {
		struct msghdr msg = { .msg_flags = MSG_WAITALL | MSG_NOSIGNAL };

		vecs_empty(vecs);
		vecs_add_data(vecs, bio, &iter);
		vecs_iter(vecs, ITER_DEST, &msg.msg_iter);
		while (msg_data_left(&msg)) {
			int got = sock_recvmsg(conn->sock, &msg, msg.msg_flags);

			if (got <= 0)
				return got ? got : -ECONNRESET;
			WRITE_ONCE(conn->last_rx_jiffies, jiffies);
			atomic64_add(got, &conn->peer->bytes_in);
		}
	}
	return 0;
}

static int send_all(struct scribe_conn *conn, struct msghdr *msg)
{
	while (msg_data_left(msg)) {
		int sent = sock_sendmsg(conn->sock, msg);

		if (sent <= 0)
			return sent ? sent : -ECONNRESET;
		atomic64_add(sent, &conn->peer->bytes_out);
	}
	WRITE_ONCE(conn->last_tx_jiffies, jiffies);
	return 0;
}

static int send_vecs(struct scribe_conn *conn, bool more)
{
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0) };

	vecs_iter(&conn->tx_vecs, ITER_SOURCE, &msg.msg_iter);
	return send_all(conn, &msg);
}

/* The vectors begin with the header, but for what of it was sent already. */
static void vecs_begin(struct scribe_conn *conn, bool pages, u32 done)
{
	struct scribe_vecs *vecs = &conn->tx_vecs;
	void *header = conn->tx_header;

	vecs_empty(vecs);
	vecs->pages = pages;
	if (done < sizeof(*conn->tx_header))
		vecs_add(vecs, virt_to_page(header), offset_in_page(header) + done,
			 sizeof(*conn->tx_header) - done);
}

/* With the header in front of the data: one call, and one record of TLS. */
int scribe_conn_send_rest(struct scribe_conn *conn, struct bio *bio, struct bvec_iter iter,
			  u32 done)
{
	struct scribe_vecs *vecs = &conn->tx_vecs;
	int err;

	vecs_begin(conn, !bio || pages_ok(bio, iter), done);
	if (bio && done > sizeof(*conn->tx_header))
		bvec_iter_advance(bio->bi_io_vec, &iter, done - sizeof(*conn->tx_header));
	do {
		bool more;

		if (bio)
			vecs_add_data(vecs, bio, &iter);
		more = bio && iter.bi_size;
		err = send_vecs(conn, more);
		if (!more)
			return err;
		vecs_empty(vecs);
	} while (!err);
	return err;
}

int scribe_conn_send(struct scribe_conn *conn, const struct scribe_msg *content, struct bio *bio,
		     struct bvec_iter iter)
{
	scribe_wire_encode(content, conn->tx_header);
	return scribe_conn_send_rest(conn, bio, iter, 0);
}

/*
 * A signal for the task whose request this is may come at any time: with MSG_DONTWAIT nothing here
 * waits for room, which is what a signal would interrupt.
 */
int scribe_conn_try_send(struct scribe_conn *conn, const struct scribe_msg *content,
			 struct bio *bio, struct bvec_iter iter)
{
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT };
	struct scribe_vecs *vecs = &conn->tx_vecs;
	int sent;

	scribe_wire_encode(content, conn->tx_header);
	vecs_begin(conn, !bio || pages_ok(bio, iter), 0);
	if (bio)
		vecs_add_data(vecs, bio, &iter);
	/* Where there is no room for it as a whole, the sender waits for that. */
	if ((bio && iter.bi_size) || sk_stream_wspace(conn->sock->sk) < (int)vecs->bytes)
		return 0;
	vecs_iter(vecs, ITER_SOURCE, &msg.msg_iter);
	iov_iter_truncate(&msg.msg_iter, READ_ONCE(push_bytes));
	sent = sock_sendmsg(conn->sock, &msg);
	if (sent == -EAGAIN || sent == -EINTR || sent == -ERESTARTSYS)
		return 0;
	if (sent <= 0)
		return sent ? sent : -ECONNRESET;
	atomic64_add(sent, &conn->peer->bytes_out);
	WRITE_ONCE(conn->last_tx_jiffies, jiffies);
	return sent;
}

int scribe_conn_send_buffer(struct scribe_conn *conn, const struct scribe_msg *content, void *data)
{
	struct scribe_vecs *vecs = &conn->tx_vecs;

	scribe_wire_encode(content, conn->tx_header);
	vecs_begin(conn, false, 0);
	vecs->kvec[vecs->nr++] = (struct kvec){ data, content->length_bytes };
	vecs->bytes += content->length_bytes;
	return send_vecs(conn, false);
}

u32 scribe_bio_crc(struct bio *bio, struct bvec_iter start)
{
	struct bvec_iter iter;
	struct bio_vec vec;
	u32 crc = ~0U;

	__bio_for_each_segment(vec, bio, iter, start) {
		void *data = bvec_kmap_local(&vec);

		crc = crc32c(crc, data, vec.bv_len);
		kunmap_local(data);
	}
	return ~crc;
}

/* Threads */

static void wait_for_stop(void)
{
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
}

static int receiver(void *data)
{
	unsigned int noio = memalloc_noio_save();
	struct scribe_conn *conn = data;

	while (!READ_ONCE(conn->dead)) {
		struct scribe_wire_header header;
		struct scribe_msg msg;
		const char *why;
		int err = scribe_conn_recv(conn, &header, sizeof(header));

		if (err) {
			scribe_conn_fail(conn, err == -ECONNRESET ? "closed by the peer"
								  : "receive failed");
			break;
		}
		why = scribe_wire_decode(&header, &msg);
		if (!why && msg.sender_life != conn->peer_life)
			why = "another life of the sender";
		if (why) {
			scribe_conn_fail(conn, why);
			break;
		}
		if (conn->ops->receive(conn, &msg)) {
			scribe_conn_fail(conn, "bad message");
			break;
		}
	}
	memalloc_noio_restore(noio);
	wait_for_stop();
	return 0;
}

static int sender(void *data)
{
	const unsigned long tick = msecs_to_jiffies(SCRIBE_PING_MS);
	const unsigned long limit = msecs_to_jiffies(SCRIBE_PEER_TIMEOUT_MS);
	unsigned int noio = memalloc_noio_save();
	struct scribe_conn *conn = data;
	int err;

	while (!READ_ONCE(conn->dead)) {
		wait_event_interruptible_timeout(
			conn->wake, READ_ONCE(conn->dead) || conn->ops->pending(conn), tick);
		if (READ_ONCE(conn->dead))
			break;
		mutex_lock(&conn->tx_lock);
		err = conn->ops->send(conn);
		mutex_unlock(&conn->tx_lock);
		if (err) {
			scribe_conn_fail(conn, "send failed");
			break;
		}
		if (time_after(jiffies, READ_ONCE(conn->last_rx_jiffies) + limit)) {
			scribe_conn_fail(conn, "the peer is silent");
			break;
		}
	}
	memalloc_noio_restore(noio);
	wait_for_stop();
	return 0;
}

void scribe_conn_fail(struct scribe_conn *conn, const char *why)
{
	struct scribe_peer *peer = conn->peer;
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&peer->lock, flags);
	first = !conn->dead;
	WRITE_ONCE(conn->dead, true);
	if (first) {
		peer->nr_conns[conn->role]--;
		if (conn->role == SCRIBE_ROLE_INITIATOR)
			RCU_INIT_POINTER(peer->initiators[conn->index], NULL);
	}
	spin_unlock_irqrestore(&peer->lock, flags);
	if (!first)
		return;
	pr_notice("node %u: %s connection ended: %s\n", peer->id, conn->ops->name, why);
	atomic64_inc(&peer->errors);
	queue_work(scribe_wq, &conn->reap);
	scribe_event();
}

static void conn_free(struct scribe_conn *conn)
{
	free_page((unsigned long)conn->tx_header);
	vfree(conn->bounce);
	kfree(conn);
}

static void reap_connection(struct work_struct *work)
{
	struct scribe_conn *conn = container_of(work, struct scribe_conn, reap);
	struct scribe_peer *peer = conn->peer;
	unsigned long flags;

	/* 1. Both threads leave their socket calls. */
	kernel_sock_shutdown(conn->sock, SHUT_RDWR);
	wake_up_all(&conn->wake);
	wake_up_all(&conn->served);
	/* 2. They end; nobody uses the pages of unanswered legs from here on. */
	kthread_stop(conn->rx);
	kthread_stop(conn->tx);
	/* 3. Nobody finds the connection to add a leg, and nobody is left who sends one. */
	synchronize_rcu();
	wait_event(conn->served, !READ_ONCE(conn->pushing));
	spin_lock_irqsave(&conn->lock, flags);
	spin_unlock_irqrestore(&conn->lock, flags);
	/* 4. What is unfinished goes back; a target waits for its bios. */
	conn->ops->stop(conn);
	/* 5. Only now does a fence see the connection gone. */
	spin_lock_irqsave(&peer->lock, flags);
	list_del(&conn->node);
	wake_up_all(&peer->empty);
	spin_unlock_irqrestore(&peer->lock, flags);
	sockfd_put(conn->sock);
	conn_free(conn);
}

/* Sockets from the daemon */

static const char *check_socket(struct socket *sock, int *err)
{
	*err = -EPROTOTYPE;
	if (sock->type != SOCK_STREAM || sock->sk->sk_protocol != IPPROTO_TCP)
		return "not a TCP socket";
	*err = -ENOTCONN;
	if (sock->sk->sk_state != TCP_ESTABLISHED)
		return "not connected";
	*err = 0;
	return NULL;
}

/*
 * For lockdep: who writes to a VSD to free memory takes these locks; of other sockets, whose owners
 * allocate under them as everybody does, it would say that this may wait for itself.
 */
static void set_lock_classes(struct sock *sk)
{
	static struct lock_class_key slock_key, sk_key, tls_key;
	const struct tcp_ulp_ops *ulp;

	lock_sock(sk);
	lockdep_set_class_and_name(&sk->sk_lock.slock, &slock_key, "slock-scribe");
	lockdep_set_class_and_name(&sk->sk_lock, &sk_key, "sk_lock-scribe");
	ulp = inet_csk(sk)->icsk_ulp_ops;
	if (ulp && !strcmp(ulp->name, "tls"))
		lockdep_set_class_and_name(&tls_get_ctx(sk)->tx_lock, &tls_key, "tls-scribe");
	release_sock(sk);
}

static void tune_socket(struct sock *sk)
{
	sk->sk_allocation = GFP_NOIO;
	sk->sk_rcvtimeo = MAX_SCHEDULE_TIMEOUT;
	sk->sk_sndtimeo = msecs_to_jiffies(SCRIBE_PEER_TIMEOUT_MS);
	tcp_sock_set_nodelay(sk);
	sock_set_keepalive(sk);
	/* Page fragments of a task may come from its own memory reclaim; take the socket's. */
	sk->sk_use_task_frag = false;
	set_lock_classes(sk);
}

/* Puts the connection into its peer's lists, or says why not. */
static int publish(struct scribe_conn *conn, const char **why)
{
	struct scribe_peer *peer = conn->peer;
	int err = 0;
	u32 i;

	spin_lock_irq(&peer->lock);
	if (peer->life != conn->peer_life || peer->fenced_life == conn->peer_life) {
		*why = "the peer's life is not the expected one";
		err = -ESTALE;
	} else if (peer->nr_conns[conn->role] >= SCRIBE_CONNS_PER_PEER) {
		*why = "too many connections to this peer";
		err = -ENOSPC;
	} else {
		list_add_tail(&conn->node, &peer->conns);
		peer->nr_conns[conn->role]++;
		for (i = 0; conn->role == SCRIBE_ROLE_INITIATOR && i < SCRIBE_CONNS_PER_PEER; i++) {
			if (rcu_access_pointer(peer->initiators[i]))
				continue;
			conn->index = i;
			rcu_assign_pointer(peer->initiators[i], conn);
			break;
		}
	}
	spin_unlock_irq(&peer->lock);
	return err;
}

static struct scribe_conn *conn_alloc(struct scribe_peer *peer, u64 life, u8 role, u32 flags)
{
	struct scribe_conn *conn = kzalloc(sizeof(*conn), GFP_KERNEL);

	if (!conn)
		return NULL;
	conn->bounce = vmalloc(SCRIBE_WIRE_MAX_BYTES);
	conn->tx_header = (void *)__get_free_page(GFP_KERNEL);
	if (!conn->bounce || !conn->tx_header) {
		conn_free(conn);
		return NULL;
	}
	conn->peer = peer;
	conn->ops = role_ops[role];
	conn->peer_life = life;
	conn->role = role;
	conn->flags = flags;
	conn->last_rx_jiffies = jiffies;
	conn->last_tx_jiffies = jiffies;
	mutex_init(&conn->tx_lock);
	spin_lock_init(&conn->lock);
	scribe_lanes_init(&conn->lanes);
	INIT_LIST_HEAD(&conn->serving);
	init_waitqueue_head(&conn->wake);
	init_waitqueue_head(&conn->served);
	INIT_WORK(&conn->reap, reap_connection);
	return conn;
}

int scribe_backplane_add_socket(u32 node, u64 life, u8 role, u32 flags, int fd, const char **why)
{
	struct scribe_peer *peer = peer_find(node);
	struct scribe_conn *conn;
	struct socket *sock;
	int err;

	*why = "unknown peer";
	if (!peer)
		return -ENOENT;
	sock = sockfd_lookup(fd, &err);
	*why = "not a socket";
	if (!sock)
		return err;
	*why = check_socket(sock, &err);
	if (err)
		goto err_put_sock;
	err = -ENOMEM;
	conn = conn_alloc(peer, life, role, flags);
	if (!conn)
		goto err_put_sock;
	conn->sock = sock;
	tune_socket(sock->sk);

	conn->rx = kthread_create(receiver, conn, "scribe_rx/%u", node);
	if (IS_ERR(conn->rx)) {
		err = PTR_ERR(conn->rx);
		goto err_free_conn;
	}
	conn->tx = kthread_create(sender, conn, "scribe_tx/%u", node);
	if (IS_ERR(conn->tx)) {
		err = PTR_ERR(conn->tx);
		goto err_stop_rx;
	}
	err = publish(conn, why);
	if (err)
		goto err_stop_tx;
	pr_info("node %u: %s connection, life %016llx\n", node, conn->ops->name, life);
	wake_up_process(conn->rx);
	wake_up_process(conn->tx);
	return 0;

err_stop_tx:
	kthread_stop(conn->tx); /* never woken: the thread function does not run */
err_stop_rx:
	kthread_stop(conn->rx);
err_free_conn:
	conn_free(conn);
err_put_sock:
	sockfd_put(sock);
	return err;
}

void scribe_backplane_abandon(const struct scribe_disk *disk)
{
	struct scribe_conn *conn;
	u32 node;

	for (node = 1; node <= SCRIBE_MAX_NODE; node++) {
		struct scribe_peer *peer = peer_find(node);

		if (!peer)
			continue;
		spin_lock_irq(&peer->lock);
		list_for_each_entry(conn, &peer->conns, node) {
			if (conn->role == SCRIBE_ROLE_TARGET)
				scribe_target_abandon(conn, disk);
		}
		spin_unlock_irq(&peer->lock);
	}
}

/* Lives of peers */

static void end_connections(struct scribe_peer *peer, u64 but_life, const char *why)
{
	struct scribe_conn *conn;
	bool again;

	/* scribe_conn_fail() takes the lock: find one, end it, look again. */
	do {
		again = false;
		rcu_read_lock(); /* keeps conn from being freed: reap waits in synchronize_rcu() */
		spin_lock_irq(&peer->lock);
		list_for_each_entry(conn, &peer->conns, node) {
			if (!conn->dead && conn->peer_life != but_life) {
				again = true;
				break;
			}
		}
		spin_unlock_irq(&peer->lock);
		if (again)
			scribe_conn_fail(conn, why);
		rcu_read_unlock();
	} while (again);
}

int scribe_peer_set(u32 node, u64 life)
{
	struct scribe_peer *peer = peer_get_or_make(node);
	int err = 0;

	if (!peer)
		return -ENOMEM;
	spin_lock_irq(&peer->lock);
	if (peer->fenced_life == life)
		err = -ESTALE;
	else
		peer->life = life;
	spin_unlock_irq(&peer->lock);
	if (!err)
		end_connections(peer, life, "the peer has a new life");
	return err;
}

static bool peer_quiet(struct scribe_peer *peer, u64 life)
{
	struct scribe_conn *conn;
	bool quiet = true;

	spin_lock_irq(&peer->lock);
	list_for_each_entry(conn, &peer->conns, node)
		quiet &= conn->peer_life != life;
	spin_unlock_irq(&peer->lock);
	return quiet;
}

int scribe_peer_fence(u32 node, u64 life)
{
	struct scribe_peer *peer = peer_get_or_make(node);

	if (!peer)
		return -ENOMEM;
	spin_lock_irq(&peer->lock);
	peer->fenced_life = life;
	if (peer->life == life)
		peer->life = 0;
	spin_unlock_irq(&peer->lock);
	end_connections(peer, peer->life, "the peer is fenced");
	if (wait_event_killable(peer->empty, peer_quiet(peer, life)))
		return -EINTR;
	pr_notice("node %u: life %016llx fenced\n", node, life);
	return 0;
}

u32 scribe_peer_collect_lost(struct scribe_work_rec *recs, u32 max)
{
	u32 id, nr = 0;

	for (id = 1; id <= SCRIBE_MAX_NODE && nr < max; id++) {
		struct scribe_peer *peer = peer_find(id);

		if (peer && READ_ONCE(peer->life) &&
		    !READ_ONCE(peer->nr_conns[SCRIBE_ROLE_INITIATOR]))
			recs[nr++] = (struct scribe_work_rec){
				.type = SCRIBE_WORK_PEER_LOST,
				.id = id,
				.arg = READ_ONCE(peer->life),
			};
	}
	return nr;
}

static bool may_push(const struct scribe_leg *leg)
{
	return leg->may_push &&
	       (leg->op != SCRIBE_WIRE_WRITE || leg->length_bytes <= SCRIBE_PUSH_BYTES);
}

void scribe_backplane_submit(u32 node, struct scribe_leg *leg)
{
	struct scribe_peer *peer = peer_find(node);
	struct scribe_conn *conn = NULL;
	bool queued = false, push = may_push(leg);
	unsigned long flags;
	u32 i, start;

	if (!peer)
		goto out;
	atomic64_inc(&peer->legs);
	start = raw_smp_processor_id();
	rcu_read_lock();
	for (i = 0; i < SCRIBE_CONNS_PER_PEER && !queued; i++) {
		conn = rcu_dereference(peer->initiators[(start + i) % SCRIBE_CONNS_PER_PEER]);
		if (!conn)
			continue;
		spin_lock_irqsave(&conn->lock, flags);
		if (!READ_ONCE(conn->dead)) {
			scribe_lanes_add(&conn->lanes, &leg->node, leg->background);
			conn->pushing += push; /* keeps it behind rcu_read_unlock() */
			queued = true;
		}
		spin_unlock_irqrestore(&conn->lock, flags);
		if (queued && !push)
			wake_up(&conn->wake);
	}
	rcu_read_unlock();
	if (queued && push)
		scribe_initiator_push(conn);
out:
	if (!queued) {
		leg->status = BLK_STS_TRANSPORT;
		scribe_leg_end(leg);
	}
}

void scribe_peer_show(struct seq_file *seq)
{
	u32 id;

	for (id = 1; id <= SCRIBE_MAX_NODE; id++) {
		struct scribe_peer *peer = peer_find(id);

		if (!peer)
			continue;
		seq_printf(seq,
			   "node %u life %016llx initiators %u targets %u legs %lld errors %lld "
			   "sent %lld received %lld pushed %lld partly %lld\n",
			   id, READ_ONCE(peer->life),
			   READ_ONCE(peer->nr_conns[SCRIBE_ROLE_INITIATOR]),
			   READ_ONCE(peer->nr_conns[SCRIBE_ROLE_TARGET]),
			   atomic64_read(&peer->legs), atomic64_read(&peer->errors),
			   atomic64_read(&peer->bytes_out), atomic64_read(&peer->bytes_in),
			   atomic64_read(&peer->pushed), atomic64_read(&peer->partly));
	}
}

int scribe_backplane_init(void)
{
	return scribe_target_init();
}

void scribe_backplane_exit(void)
{
	u32 id;

	for (id = 0; id <= SCRIBE_MAX_NODE; id++) {
		struct scribe_peer *peer = peers[id];

		if (!peer)
			continue;
		/* No life is expected any more, so nothing is added behind this. */
		spin_lock_irq(&peer->lock);
		peer->life = 0;
		spin_unlock_irq(&peer->lock);
		end_connections(peer, 0, "the module is unloaded");
		wait_event(peer->empty, list_empty_careful(&peer->conns));
	}
	flush_workqueue(scribe_wq);
	for (id = 0; id <= SCRIBE_MAX_NODE; id++) {
		kfree(peers[id]);
		peers[id] = NULL;
	}
	scribe_target_exit();
}
