// SPDX-License-Identifier: GPL-2.0
#include "netlink.h"

#include <net/genetlink.h>

#include "backplane.h"
#include "copy.h"
#include "disk.h"
#include "io.h"
#include "node.h"
#include "reserve.h"
#include "vsd.h"

static struct genl_family family;
static atomic_t event_pending;
static void send_event(struct work_struct *work);
static DECLARE_WORK(event_work, send_event);

static const struct nla_policy policy[SCRIBE_A_MAX + 1] = {
	[SCRIBE_A_VERSION] = { .type = NLA_U32 },
	[SCRIBE_A_NODE_ID] = NLA_POLICY_RANGE(NLA_U32, 1, SCRIBE_MAX_NODE),
	[SCRIBE_A_LIFE] = { .type = NLA_U64 },
	[SCRIBE_A_CLUSTER_UUID] = NLA_POLICY_EXACT_LEN(16),
	[SCRIBE_A_DEADLINE_NS] = { .type = NLA_U64 },
	[SCRIBE_A_DISK_ID] = NLA_POLICY_RANGE(NLA_U32, 1, SCRIBE_DISK_MAX_ID),
	[SCRIBE_A_DISK_LIFE] = { .type = NLA_U64 },
	[SCRIBE_A_DISK_UUID] = NLA_POLICY_EXACT_LEN(16),
	[SCRIBE_A_PATH] = { .type = NLA_NUL_STRING, .len = 4095 },
	[SCRIBE_A_TIER] = NLA_POLICY_MAX(NLA_U8, SCRIBE_NR_TIERS - 1),
	[SCRIBE_A_SLOTS] = { .type = NLA_U64 },
	[SCRIBE_A_ROLE] = NLA_POLICY_MAX(NLA_U8, SCRIBE_NR_ROLES - 1),
	[SCRIBE_A_SOCK_FD] = { .type = NLA_U32 },
	[SCRIBE_A_FLAGS] = { .type = NLA_U32 },
	[SCRIBE_A_VSD] = { .type = NLA_U64 },
	[SCRIBE_A_EPOCH] = { .type = NLA_U64 },
	[SCRIBE_A_LEAF] = { .type = NLA_U64 },
	[SCRIBE_A_SEGS] = { .type = NLA_BINARY },
	[SCRIBE_A_EXTENTS] = { .type = NLA_BINARY },
	[SCRIBE_A_BATCH] = { .type = NLA_U64 },
	[SCRIBE_A_OPS] = { .type = NLA_BINARY },
	[SCRIBE_A_STALES] = { .type = NLA_BINARY },
	[SCRIBE_A_WORK] = { .type = NLA_BINARY },
	[SCRIBE_A_SLOTS_MOVE] = { .type = NLA_BINARY },
	[SCRIBE_A_DONE] = { .type = NLA_U64 },
	[SCRIBE_A_IDS] = { .type = NLA_BINARY },
	[SCRIBE_A_RANGES] = { .type = NLA_BINARY },
	[SCRIBE_A_TARGETS] = { .type = NLA_BINARY },
	[SCRIBE_A_PIECES] = { .type = NLA_BINARY },
	[SCRIBE_A_COPIES] = NLA_POLICY_RANGE(NLA_U8, SCRIBE_VSD_MIN_COPIES, SCRIBE_VSD_MAX_COPIES),
};

/* Attributes that a command cannot do without. */
static int need(struct genl_info *info, const int *attrs)
{
	for (; *attrs; attrs++) {
		if (!info->attrs[*attrs]) {
			NL_SET_ERR_MSG(info->extack, "a required attribute is missing");
			return -EINVAL;
		}
	}
	return 0;
}

#define NEED(info, ...) need(info, (const int[]){ __VA_ARGS__, 0 })

/* All texts are string literals, which is what an extended ack needs. */
static int complain(struct genl_info *info, int err, const char *why)
{
	if (err && why && info->extack)
		info->extack->_msg = why;
	return err;
}

static u32 get_u32(struct genl_info *info, int attr)
{
	return nla_get_u32(info->attrs[attr]);
}

static u32 get_flags(struct genl_info *info)
{
	return info->attrs[SCRIBE_A_FLAGS] ? get_u32(info, SCRIBE_A_FLAGS) : 0;
}

static u64 get_u64(struct genl_info *info, int attr)
{
	return nla_get_u64(info->attrs[attr]);
}

/* Records of an array attribute; -EINVAL where its length is not a multiple. */
static int get_array(struct genl_info *info, int attr, size_t record_bytes, const void **recs,
		     u32 *nr)
{
	const struct nlattr *nla = info->attrs[attr];

	*recs = nla ? nla_data(nla) : NULL;
	*nr = nla ? nla_len(nla) / record_bytes : 0;
	if (nla && nla_len(nla) % record_bytes)
		return complain(info, -EINVAL, "an array is not a whole number of records");
	return 0;
}

static struct sk_buff *reply_new(struct genl_info *info, size_t payload_bytes, void **header)
{
	struct sk_buff *skb = genlmsg_new(payload_bytes, GFP_KERNEL);

	if (!skb)
		return NULL;
	*header = genlmsg_put_reply(skb, info, &family, 0, info->genlhdr->cmd);
	return skb;
}

static int reply_send(struct genl_info *info, struct sk_buff *skb, void *header, int err)
{
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	genlmsg_end(skb, header);
	return genlmsg_reply(skb, info);
}

/* Calls fn with the VSD of the request. */
static int with_vsd(struct genl_info *info,
		    int (*fn)(struct scribe_vsd *vsd, struct genl_info *info))
{
	struct scribe_vsd *vsd;
	int err;

	vsd = scribe_vsd_find(get_u64(info, SCRIBE_A_VSD));
	if (!vsd)
		return complain(info, -ENOENT, "no device of this VSD here");
	err = fn(vsd, info);
	scribe_vsd_put(vsd);
	return err;
}

static int cmd_hello(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply;
	void *header;
	int err = 0;

	if (info->attrs[SCRIBE_A_NODE_ID]) {
		err = NEED(info, SCRIBE_A_CLUSTER_UUID)
			      ?: scribe_node_identify(get_u32(info, SCRIBE_A_NODE_ID),
						      nla_data(info->attrs[SCRIBE_A_CLUSTER_UUID]));
		if (err)
			return complain(info, err,
					"this module was loaded for another node or cluster");
	}
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &header);
	if (!reply)
		return -ENOMEM;
	if (nla_put_u32(reply, SCRIBE_A_VERSION, SCRIBE_GENL_VERSION) ||
	    nla_put_u32(reply, SCRIBE_A_NODE_ID, scribe_node_id()) ||
	    nla_put_u64_64bit(reply, SCRIBE_A_LIFE, scribe_node_life(), SCRIBE_A_UNSPEC))
		err = -EMSGSIZE;
	return reply_send(info, reply, header, err);
}

static int cmd_deadline(struct sk_buff *skb, struct genl_info *info)
{
	int err = NEED(info, SCRIBE_A_DEADLINE_NS, SCRIBE_A_LIFE);

	if (err)
		return err;
	if (get_u64(info, SCRIBE_A_LIFE) != scribe_node_life())
		return complain(info, -ESTALE, "the deadline is for another life of this node");
	scribe_node_set_deadline(get_u64(info, SCRIBE_A_DEADLINE_NS));
	scribe_vsd_kick_all();
	return 0;
}

static int cmd_disk_open(struct sk_buff *skb, struct genl_info *info)
{
	const char *why = NULL;
	struct sk_buff *reply;
	u64 life, slots;
	void *header;
	int err;

	err = NEED(info, SCRIBE_A_DISK_ID, SCRIBE_A_DISK_UUID, SCRIBE_A_PATH, SCRIBE_A_TIER);
	if (err)
		return err;
	if (!scribe_node_id())
		return complain(info, -ENXIO, "say HELLO with node and cluster first");
	err = scribe_disk_open(get_u32(info, SCRIBE_A_DISK_ID),
			       nla_data(info->attrs[SCRIBE_A_DISK_UUID]),
			       nla_data(info->attrs[SCRIBE_A_PATH]),
			       nla_get_u8(info->attrs[SCRIBE_A_TIER]), &life, &slots, &why);
	if (err)
		return complain(info, err, why);
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &header);
	if (!reply)
		return -ENOMEM;
	if (nla_put_u64_64bit(reply, SCRIBE_A_DISK_LIFE, life, SCRIBE_A_UNSPEC) ||
	    nla_put_u64_64bit(reply, SCRIBE_A_SLOTS, slots, SCRIBE_A_UNSPEC))
		err = -EMSGSIZE;
	return reply_send(info, reply, header, err);
}

static int cmd_disk_close(struct sk_buff *skb, struct genl_info *info)
{
	int err = NEED(info, SCRIBE_A_DISK_ID);

	if (err)
		return err;
	err = scribe_disk_close(get_u32(info, SCRIBE_A_DISK_ID));
	return complain(info, err,
			err == -EAGAIN ? "its device has not ended all requests yet"
				       : "the disk is not open here");
}

static int cmd_route_set(struct sk_buff *skb, struct genl_info *info)
{
	int err = NEED(info, SCRIBE_A_DISK_ID, SCRIBE_A_NODE_ID, SCRIBE_A_DISK_LIFE, SCRIBE_A_TIER);

	if (err)
		return err;
	err = scribe_disk_set_route(get_u32(info, SCRIBE_A_DISK_ID),
				    get_u32(info, SCRIBE_A_NODE_ID),
				    get_u64(info, SCRIBE_A_DISK_LIFE),
				    nla_get_u8(info->attrs[SCRIBE_A_TIER]));
	scribe_vsd_kick_all();
	return complain(info, err, "the disk is open on this node");
}

static int cmd_route_del(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_DISK_ID)
		       ?: complain(info, scribe_disk_del_route(get_u32(info, SCRIBE_A_DISK_ID)),
				   "no such route");
}

static int cmd_peer_set(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_NODE_ID, SCRIBE_A_LIFE)
		       ?: complain(info,
				   scribe_peer_set(get_u32(info, SCRIBE_A_NODE_ID),
						   get_u64(info, SCRIBE_A_LIFE)),
				   "this life was fenced");
}

static int cmd_peer_fence(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_NODE_ID, SCRIBE_A_LIFE)
		       ?: scribe_peer_fence(get_u32(info, SCRIBE_A_NODE_ID),
					    get_u64(info, SCRIBE_A_LIFE));
}

static int cmd_socket_add(struct sk_buff *skb, struct genl_info *info)
{
	u32 flags = get_flags(info);
	const char *why = NULL;
	int err;

	err = NEED(info, SCRIBE_A_NODE_ID, SCRIBE_A_LIFE, SCRIBE_A_ROLE, SCRIBE_A_SOCK_FD);
	if (err)
		return err;
	if (flags & ~SCRIBE_F_DATA_CRC)
		return complain(info, -EINVAL, "unknown flags");
	err = scribe_backplane_add_socket(get_u32(info, SCRIBE_A_NODE_ID),
					  get_u64(info, SCRIBE_A_LIFE),
					  nla_get_u8(info->attrs[SCRIBE_A_ROLE]), flags,
					  get_u32(info, SCRIBE_A_SOCK_FD), &why);
	scribe_vsd_kick_all();
	return complain(info, err, why);
}

static u32 get_copies(struct genl_info *info)
{
	const struct nlattr *nla = info->attrs[SCRIBE_A_COPIES];

	return nla ? nla_get_u8(nla) : SCRIBE_VSD_MIN_COPIES;
}

static int grant(struct scribe_vsd *vsd, struct genl_info *info)
{
	int err = scribe_vsd_grant(vsd, get_u64(info, SCRIBE_A_EPOCH), get_copies(info));

	return complain(info, err,
			err == -ESTALE ? "not a newer epoch" : "an older epoch holds the lease");
}

static int cmd_lease_grant(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH) ?: with_vsd(info, grant);
}

static int release(struct scribe_vsd *vsd, struct genl_info *info)
{
	int err = scribe_vsd_release(vsd, get_u64(info, SCRIBE_A_EPOCH));

	return complain(info, err,
			err == -ESTALE ? "another epoch holds the lease"
				       : "the lease was not released");
}

static int cmd_lease_release(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH) ?: with_vsd(info, release);
}

static int fail_lease(struct scribe_vsd *vsd, struct genl_info *info)
{
	u64 epoch = info->attrs[SCRIBE_A_EPOCH] ? get_u64(info, SCRIBE_A_EPOCH) : 0;
	bool relet = get_flags(info) & SCRIBE_F_RELET;

	return complain(info, scribe_vsd_fail(vsd, epoch, relet), "another epoch holds the lease");
}

static int cmd_lease_fail(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD) ?: with_vsd(info, fail_lease);
}

static int put_leaf(struct scribe_vsd *vsd, struct genl_info *info)
{
	const void *segs, *extents;
	const char *why = NULL;
	u32 nr_segs, nr_extents;
	int err;

	err = get_array(info, SCRIBE_A_SEGS, sizeof(struct scribe_seg_rec), &segs, &nr_segs)
		      ?: get_array(info, SCRIBE_A_EXTENTS, sizeof(struct scribe_extent_rec),
				   &extents, &nr_extents);
	if (err)
		return err;
	err = scribe_vsd_put_leaf(vsd, get_u64(info, SCRIBE_A_EPOCH), get_u64(info, SCRIBE_A_LEAF),
				  segs, nr_segs, extents, nr_extents, &why);
	return complain(info, err, err == -ESTALE ? "another epoch holds the lease" : why);
}

static int cmd_leaf_put(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_LEAF) ?: with_vsd(info, put_leaf);
}

static int cmd_reserve_add(struct sk_buff *skb, struct genl_info *info)
{
	u32 flags = get_flags(info);
	const struct scribe_extent_rec *recs;
	const void *data;
	u32 nr, i;
	int err;

	err = get_array(info, SCRIBE_A_EXTENTS, sizeof(*recs), &data, &nr);
	if (err)
		return err;
	recs = data;
	for (i = 0; i < nr; i++) {
		const char *why = scribe_extent_rec_check(&recs[i]);

		if (why)
			return complain(info, -EINVAL, why);
	}
	for (i = 0; i < nr && !err; i++) {
		struct scribe_extent *extent = scribe_extent_intern(&recs[i], 0, true);

		err = extent ? scribe_reserve_add(extent) : -ENOMEM;
		if (err && extent)
			scribe_extent_put(extent);
	}
	scribe_reserve_set_nospace(get_copies(info), flags & SCRIBE_F_NOSPACE);
	scribe_vsd_kick_all();
	return complain(info, err, err == -ENOSPC ? "the stock is full" : NULL);
}

static int cmd_reserve_take_back(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply;
	void *header;
	u64 *ids;
	int err;
	u32 nr;

	err = NEED(info, SCRIBE_A_DISK_ID);
	if (err)
		return err;
	ids = kcalloc(SCRIBE_TAKE_BACK_MAX, sizeof(*ids), GFP_KERNEL);
	if (!ids)
		return -ENOMEM;
	/* The answer first: what has left the stock must not be forgotten for want of memory. */
	reply = reply_new(info, NLMSG_DEFAULT_SIZE + SCRIBE_TAKE_BACK_MAX * sizeof(*ids), &header);
	if (!reply) {
		kfree(ids);
		return -ENOMEM;
	}
	nr = scribe_reserve_take_back(get_u32(info, SCRIBE_A_DISK_ID), ids, SCRIBE_TAKE_BACK_MAX);
	err = nla_put(reply, SCRIBE_A_IDS, nr * sizeof(*ids), ids);
	kfree(ids);
	return reply_send(info, reply, header, err);
}

static int get_batch(struct scribe_vsd *vsd, struct genl_info *info)
{
	struct sk_buff *reply;
	void *header;

	if (!READ_ONCE(vsd->closed_ready))
		return -ENOENT;
	reply = reply_new(info, scribe_batch_bytes(vsd), &header);
	if (!reply)
		return -ENOMEM;
	return reply_send(info, reply, header, scribe_batch_fill(vsd, reply));
}

static int cmd_batch_get(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD) ?: with_vsd(info, get_batch);
}

static int batch_done(struct scribe_vsd *vsd, struct genl_info *info)
{
	return complain(info,
			scribe_batch_done(vsd, get_u64(info, SCRIBE_A_EPOCH),
					  get_u64(info, SCRIBE_A_BATCH),
					  get_flags(info) & SCRIBE_F_REFUSED),
			"no such batch waits");
}

static int cmd_batch_done(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_BATCH)
		       ?: with_vsd(info, batch_done);
}

struct wants {
	struct scribe_work_rec *recs;
	u32 nr;
	u32 copies; /* the most that a VSD wants */
};

/* Of all but the stocks, whose two records have room behind them. */
#define WANTS_MAX (SCRIBE_WORK_MAX - 2)

static void collect_wants(struct scribe_vsd *vsd, void *arg)
{
	struct wants *wants = arg;

	wants->copies = max(wants->copies, READ_ONCE(vsd->copies));
	wants->nr += scribe_io_collect_wants(vsd, wants->recs + wants->nr, WANTS_MAX - wants->nr);
	wants->nr += scribe_freeze_collect(vsd, wants->recs + wants->nr, WANTS_MAX - wants->nr);
	wants->nr += scribe_intent_collect(vsd, wants->recs + wants->nr, WANTS_MAX - wants->nr);
}

static int cmd_work_get(struct sk_buff *skb, struct genl_info *info)
{
	struct wants wants = {};
	struct sk_buff *reply;
	void *header;
	int err = 0;

	wants.recs = kcalloc(SCRIBE_WORK_MAX, sizeof(*wants.recs), GFP_KERNEL);
	if (!wants.recs)
		return -ENOMEM;
	wants.nr = scribe_disk_collect_failed(wants.recs, WANTS_MAX);
	wants.nr += scribe_peer_collect_lost(wants.recs + wants.nr, WANTS_MAX - wants.nr);
	wants.copies = SCRIBE_VSD_MIN_COPIES;
	scribe_vsd_for_each(collect_wants, &wants);
	for (; wants.copies >= SCRIBE_VSD_MIN_COPIES; wants.copies--)
		wants.nr += scribe_reserve_collect_low(wants.copies, wants.recs + wants.nr,
						       SCRIBE_WORK_MAX - wants.nr);

	reply = reply_new(info, NLMSG_DEFAULT_SIZE + wants.nr * sizeof(*wants.recs), &header);
	if (!reply)
		err = -ENOMEM;
	else if (nla_put(reply, SCRIBE_A_WORK, wants.nr * sizeof(*wants.recs), wants.recs))
		err = -EMSGSIZE;
	kfree(wants.recs);
	return reply ? reply_send(info, reply, header, err) : err;
}

static int cmd_barrier(struct sk_buff *skb, struct genl_info *info)
{
	return scribe_barrier_wait();
}

static int set_extents(struct scribe_vsd *vsd, struct genl_info *info)
{
	const char *why = NULL;
	const void *recs;
	u32 nr;
	int err;

	err = get_array(info, SCRIBE_A_EXTENTS, sizeof(struct scribe_extent_rec), &recs, &nr);
	if (err)
		return err;
	err = scribe_freeze_set(vsd, get_u64(info, SCRIBE_A_EPOCH), recs, nr, &why);
	return complain(info, err, err == -ESTALE ? "another epoch holds the lease" : why);
}

static int cmd_extents_moved(struct sk_buff *skb, struct genl_info *info)
{
	const char *why = NULL;
	const void *recs;
	u32 nr;
	int err;

	err = NEED(info, SCRIBE_A_EXTENTS)
		      ?: get_array(info, SCRIBE_A_EXTENTS, sizeof(struct scribe_extent_rec), &recs,
				   &nr);
	if (err)
		return err;
	return complain(info, scribe_freeze_moved(recs, nr, &why), why);
}

static int cmd_extents_set(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_EXTENTS)
		       ?: with_vsd(info, set_extents);
}

static int flush_vsd(struct scribe_vsd *vsd, struct genl_info *info)
{
	bool ours;

	spin_lock_irq(&vsd->lock);
	ours = scribe_vsd_in_epoch(vsd, get_u64(info, SCRIBE_A_EPOCH));
	spin_unlock_irq(&vsd->lock);
	if (!ours)
		return complain(info, -ESTALE, "another epoch holds the lease");
	return complain(info, scribe_flush_sync(vsd, SCRIBE_RELEASE_MS),
			"what was written is not flushed and committed");
}

static int cmd_vsd_flush(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH) ?: with_vsd(info, flush_vsd);
}

static int add_intent(struct scribe_vsd *vsd, struct genl_info *info)
{
	const void *leaves;
	u32 nr;
	int err;

	err = get_array(info, SCRIBE_A_IDS, sizeof(u64), &leaves, &nr)
		      ?: scribe_intent_add(vsd, get_u64(info, SCRIBE_A_EPOCH), leaves, nr);
	return complain(info, err, err == -ESTALE ? "another epoch holds the lease" : NULL);
}

static int cmd_intent_add(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_IDS) ?: with_vsd(info, add_intent);
}

static int drop_intent(struct scribe_vsd *vsd, struct genl_info *info)
{
	struct sk_buff *reply;
	const void *leaves;
	void *header;
	u64 *copy;
	u32 nr;
	int err;

	err = get_array(info, SCRIBE_A_IDS, sizeof(u64), &leaves, &nr);
	if (err)
		return err;
	copy = kmemdup(leaves, nr * sizeof(*copy), GFP_KERNEL);
	reply = reply_new(info, NLMSG_DEFAULT_SIZE + nr * sizeof(*copy), &header);
	if (!copy || !reply) {
		kfree(copy);
		nlmsg_free(reply);
		return -ENOMEM;
	}
	err = scribe_intent_drop(vsd, get_u64(info, SCRIBE_A_EPOCH), copy, &nr);
	if (!err)
		err = nla_put(reply, SCRIBE_A_IDS, nr * sizeof(*copy), copy);
	kfree(copy);
	complain(info, err, err == -ESTALE ? "another epoch holds the lease" : NULL);
	return reply_send(info, reply, header, err);
}

static int cmd_intent_drop(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_IDS)
		       ?: with_vsd(info, drop_intent);
}

static int cmd_slots_copy(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply;
	const void *recs;
	void *header;
	u64 done;
	u32 nr;
	int err;

	err = NEED(info, SCRIBE_A_SLOTS_MOVE)
		      ?: get_array(info, SCRIBE_A_SLOTS_MOVE, sizeof(struct scribe_slot_rec), &recs,
				   &nr);
	if (err)
		return err;
	if (nr > SCRIBE_COPY_SLOTS_MAX)
		return complain(info, -EINVAL, "too many slots at once");
	err = scribe_copy_slots(recs, nr, &done);
	if (err)
		return complain(info, err,
				err == -ESTALE ? "this node's lease ran out"
					       : "disk of a slot out of range");
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &header);
	if (!reply)
		return -ENOMEM;
	if (nla_put_u64_64bit(reply, SCRIBE_A_DONE, done, SCRIBE_A_UNSPEC))
		err = -EMSGSIZE;
	return reply_send(info, reply, header, err);
}

static int cmd_slots_digest(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply;
	const void *recs;
	u64 *digests;
	void *header;
	u64 done;
	u32 nr;
	int err;

	err = NEED(info, SCRIBE_A_RANGES)
		      ?: get_array(info, SCRIBE_A_RANGES, sizeof(struct scribe_range_rec), &recs,
				   &nr);
	if (err)
		return err;
	if (nr > SCRIBE_COPY_SLOTS_MAX)
		return complain(info, -EINVAL, "too many ranges at once");
	digests = kcalloc(SCRIBE_COPY_SLOTS_MAX, sizeof(*digests), GFP_KERNEL);
	if (!digests)
		return -ENOMEM;
	err = scribe_copy_digest(recs, nr, digests, &done);
	if (err) {
		kfree(digests);
		return complain(info, err,
				err == -ESTALE	 ? "this node's lease ran out"
				: err == -EAGAIN ? "a disk is out of reach"
						 : "a range is not within a slot of a disk");
	}
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &header);
	if (!reply)
		err = -ENOMEM;
	else if (nla_put_u64_64bit(reply, SCRIBE_A_DONE, done, SCRIBE_A_UNSPEC) ||
		 nla_put(reply, SCRIBE_A_IDS, nr * sizeof(*digests), digests))
		err = -EMSGSIZE;
	kfree(digests);
	return reply ? reply_send(info, reply, header, err) : err;
}

static int cmd_slots_gather(struct sk_buff *skb, struct genl_info *info)
{
	const void *from, *to;
	u32 nr_from, nr_to;
	int err;

	err = NEED(info, SCRIBE_A_RANGES, SCRIBE_A_TARGETS)
		      ?: get_array(info, SCRIBE_A_RANGES, sizeof(struct scribe_range_rec), &from,
				   &nr_from)
		      ?: get_array(info, SCRIBE_A_TARGETS, sizeof(struct scribe_range_rec), &to,
				   &nr_to);
	if (err)
		return err;
	if (nr_from > SCRIBE_COPY_SLOTS_MAX || nr_to > SCRIBE_MAX_COPIES)
		return complain(info, -EINVAL, "too many ranges at once");
	err = scribe_copy_gather(from, nr_from, to, nr_to);
	return complain(info, err,
			err == -ESTALE	 ? "this node's lease ran out"
			: err == -EAGAIN ? "a disk is out of reach"
			: err == -EIO	 ? "a disk answered with an error"
					 : "a range is not within a slot of a disk");
}

static int move_pieces(struct scribe_vsd *vsd, struct genl_info *info)
{
	const char *why = NULL;
	const void *pieces, *to;
	u32 nr, nr_to;
	int err;

	err = get_array(info, SCRIBE_A_PIECES, sizeof(struct scribe_piece_rec), &pieces, &nr)
		      ?: get_array(info, SCRIBE_A_EXTENTS, sizeof(struct scribe_extent_rec), &to,
				   &nr_to);
	if (err)
		return err;
	if (nr_to != 1)
		return complain(info, -EINVAL, "pieces move to one extent");
	err = scribe_pieces_moved(vsd, get_u64(info, SCRIBE_A_EPOCH), pieces, nr, to, &why);
	return complain(info, err, err == -ESTALE ? "another epoch holds the lease" : why);
}

static int cmd_pieces_moved(struct sk_buff *skb, struct genl_info *info)
{
	return NEED(info, SCRIBE_A_VSD, SCRIBE_A_EPOCH, SCRIBE_A_PIECES, SCRIBE_A_EXTENTS)
		       ?: with_vsd(info, move_pieces);
}

static int cmd_disks_flush(struct sk_buff *skb, struct genl_info *info)
{
	scribe_copy_flush_disks();
	return 0;
}

#define OP(name, function)                                                           \
	{                                                                            \
		.cmd = SCRIBE_CMD_##name, .flags = GENL_ADMIN_PERM, .doit = function \
	}

static const struct genl_small_ops ops[] = {
	OP(HELLO, cmd_hello),
	OP(DEADLINE, cmd_deadline),
	OP(DISK_OPEN, cmd_disk_open),
	OP(DISK_CLOSE, cmd_disk_close),
	OP(ROUTE_SET, cmd_route_set),
	OP(ROUTE_DEL, cmd_route_del),
	OP(PEER_SET, cmd_peer_set),
	OP(PEER_FENCE, cmd_peer_fence),
	OP(SOCKET_ADD, cmd_socket_add),
	OP(LEASE_GRANT, cmd_lease_grant),
	OP(LEASE_RELEASE, cmd_lease_release),
	OP(LEASE_FAIL, cmd_lease_fail),
	OP(LEAF_PUT, cmd_leaf_put),
	OP(RESERVE_ADD, cmd_reserve_add),
	OP(RESERVE_TAKE_BACK, cmd_reserve_take_back),
	OP(BATCH_GET, cmd_batch_get),
	OP(BATCH_DONE, cmd_batch_done),
	OP(WORK_GET, cmd_work_get),
	OP(BARRIER, cmd_barrier),
	OP(EXTENTS_SET, cmd_extents_set),
	OP(EXTENTS_MOVED, cmd_extents_moved),
	OP(PIECES_MOVED, cmd_pieces_moved),
	OP(VSD_FLUSH, cmd_vsd_flush),
	OP(SLOTS_COPY, cmd_slots_copy),
	OP(SLOTS_DIGEST, cmd_slots_digest),
	OP(SLOTS_GATHER, cmd_slots_gather),
	OP(DISKS_FLUSH, cmd_disks_flush),
	OP(INTENT_ADD, cmd_intent_add),
	OP(INTENT_DROP, cmd_intent_drop),
};

static const struct genl_multicast_group groups[] = {
	{ .name = SCRIBE_GENL_EVENTS, .flags = GENL_UNS_ADMIN_PERM },
};

/* parallel_ops: a release waits for a batch that another call of the daemon completes. */
static struct genl_family family = {
	.name = SCRIBE_GENL_NAME,
	.version = SCRIBE_GENL_VERSION,
	.maxattr = SCRIBE_A_MAX,
	.policy = policy,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.small_ops = ops,
	.n_small_ops = ARRAY_SIZE(ops),
	.resv_start_op = __SCRIBE_CMD_MAX,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

static void send_event(struct work_struct *work)
{
	struct sk_buff *skb;
	void *header;

	atomic_set(&event_pending, 0);
	skb = genlmsg_new(0, GFP_NOIO);
	if (!skb)
		return; /* the daemon asks every second */
	header = genlmsg_put(skb, 0, 0, &family, 0, SCRIBE_CMD_EVENT);
	genlmsg_end(skb, header);
	genlmsg_multicast(&family, skb, 0, 0, GFP_NOIO);
}

void scribe_event(void)
{
	if (!atomic_xchg(&event_pending, 1))
		queue_work(scribe_wq, &event_work);
}

int scribe_netlink_init(void)
{
	return genl_register_family(&family);
}

void scribe_netlink_exit(void)
{
	genl_unregister_family(&family);
}
