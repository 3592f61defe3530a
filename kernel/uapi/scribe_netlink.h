/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Generic netlink family "scribe": how the daemon controls the module.
 *
 * All commands need CAP_NET_ADMIN and answer with an ack or one message of the same command;
 * an error comes with a text (extended ack). Arrays travel as one binary attribute of fixed
 * records in host byte order. The module never waits for the daemon on mapped I/O. What it needs
 * is listed by SCRIBE_CMD_WORK_GET; the multicast group "events" only says that the list grew,
 * so a lost event costs time, nothing else: ask again every second.
 */
#ifndef SCRIBE_UAPI_NETLINK_H
#define SCRIBE_UAPI_NETLINK_H

#include <linux/types.h>

#define SCRIBE_GENL_NAME	"scribe"
#define SCRIBE_GENL_VERSION	1
#define SCRIBE_GENL_EVENTS	"events"

#define SCRIBE_CHUNK_SECTORS	2048U	/* a chunk of a VSD, as long as a slot */
#define SCRIBE_LEAF_CHUNKS	16U	/* chunks that are loaded at once */
#define SCRIBE_MAX_SEGS		64U	/* segments in one chunk */
#define SCRIBE_VSD_MIN_COPIES	2U
#define SCRIBE_VSD_MAX_COPIES	3U
#define SCRIBE_MAX_COPIES	4U	/* three, and one in the making */
#define SCRIBE_MAX_NODE		255U
#define SCRIBE_COPY_SLOTS_MAX	64U	/* slots in one SLOTS_COPY, _DIGEST or _GATHER */
#define SCRIBE_TAKE_BACK_MAX	512U	/* extents in one answer to RESERVE_TAKE_BACK */
#define SCRIBE_INTENTS_MAX	512U	/* leaves of one VSD with intent */
#define SCRIBE_FROZEN_MAX	256U	/* extents of one VSD that are frozen at once */
#define SCRIBE_BATCH_MAX_OPS	2048U	/* map changes in one batch */

enum scribe_cmd {
	SCRIBE_CMD_UNSPEC,
	/*
	 * HELLO: [NODE_ID, CLUSTER_UUID] -> VERSION, LIFE, NODE_ID. Without attributes it asks.
	 * With them it says who this node is; -EBUSY where that was said differently before.
	 */
	SCRIBE_CMD_HELLO,
	/* DEADLINE: DEADLINE_NS of CLOCK_BOOTTIME up to which this node may do I/O, LIFE. */
	SCRIBE_CMD_DEADLINE,
	/*
	 * DISK_OPEN: DISK_ID, DISK_UUID, PATH, TIER -> DISK_LIFE, SLOTS. Claims it exclusively.
	 * Said again, it answers with the life that the disk has; -EBUSY where that is another
	 * disk, or has failed.
	 */
	SCRIBE_CMD_DISK_OPEN,
	/*
	 * DISK_CLOSE: DISK_ID. Returns when its last bio has ended; -EAGAIN where that takes more
	 * than a second: nothing new is begun, ask again.
	 */
	SCRIBE_CMD_DISK_CLOSE,
	/*
	 * ROUTE_SET: DISK_ID, NODE_ID, DISK_LIFE, TIER. A disk of another node, its current
	 * life.
	 */
	SCRIBE_CMD_ROUTE_SET,
	/* ROUTE_DEL: DISK_ID. The disk counts as unreachable. */
	SCRIBE_CMD_ROUTE_DEL,
	/*
	 * PEER_SET: NODE_ID, LIFE. The life that is expected of a peer; ends connections of
	 * others.
	 */
	SCRIBE_CMD_PEER_SET,
	/*
	 * PEER_FENCE: NODE_ID, LIFE. Ends that life's connections and refuses new ones; returns
	 * when all bios that they started have ended. The barrier before a take-over.
	 */
	SCRIBE_CMD_PEER_FENCE,
	/* SOCKET_ADD: NODE_ID, LIFE, ROLE, SOCK_FD, [FLAGS]. Takes over a connected TCP socket. */
	SCRIBE_CMD_SOCKET_ADD,
	/*
	 * LEASE_GRANT: VSD, EPOCH, [COPIES]. This node may use the VSD; its map is empty and loads
	 * on demand. New data has so many copies, 2 where nothing is said. Said again in the same
	 * epoch, it changes that.
	 */
	SCRIBE_CMD_LEASE_GRANT,
	/*
	 * LEASE_RELEASE: VSD, EPOCH. Holds new I/O, waits for what is in flight, flushes, waits
	 * until that is committed, drops the map and the lease. The daemon must go on serving
	 * batches. -EIO: the lease failed, and not all was flushed.
	 */
	SCRIBE_CMD_LEASE_RELEASE,
	/*
	 * LEASE_FAIL: VSD, [EPOCH], [FLAGS & RELET]. The lease is lost: held and new I/O fails
	 * until the next grant; with RELET it waits for that, and the next flush of a user's fails.
	 * -ESTALE where it is not held in that epoch any more.
	 */
	SCRIBE_CMD_LEASE_FAIL,
	/* LEAF_PUT: VSD, EPOCH, LEAF, [SEGS], [EXTENTS]. Answers a LEAF_WANTED. */
	SCRIBE_CMD_LEAF_PUT,
	/*
	 * RESERVE_ADD: [EXTENTS], [FLAGS & NOSPACE], [COPIES]. Space for writes, to the node's
	 * stock; NOSPACE is of extents with so many copies, 2 where nothing is said.
	 */
	SCRIBE_CMD_RESERVE_ADD,
	/*
	 * RESERVE_TAKE_BACK: DISK_ID -> IDS. What lies on that disk leaves the stock: nothing will
	 * be written to it. As many as SCRIBE_TAKE_BACK_MAX; ask until there are none.
	 */
	SCRIBE_CMD_RESERVE_TAKE_BACK,
	/* BATCH_GET: VSD -> EPOCH, BATCH, [OPS], [STALES]... -ENOENT where none is ready. */
	SCRIBE_CMD_BATCH_GET,
	/*
	 * BATCH_DONE: VSD, EPOCH, BATCH, [FLAGS & REFUSED]. The batch is committed and applied;
	 * with REFUSED it is not, for its stale copies would leave an extent without a good one: it
	 * is flushed and offered again.
	 */
	SCRIBE_CMD_BATCH_DONE,
	/* WORK_GET -> [WORK]: everything that the module waits for. */
	SCRIBE_CMD_WORK_GET,
	/* BARRIER: returns when all I/O that was planned before the call has ended. */
	SCRIBE_CMD_BARRIER,
	/*
	 * EXTENTS_SET: VSD, EPOCH, EXTENTS. What copies they have. With FROZEN: writes leave them
	 * alone from now on, elsewhere they go; BARRIER and VSD_FLUSH say when those under way have
	 * ended and are safe. Without: it was frozen, and that is over. An extent that this node
	 * has not frozen stays as it is. With PARTIAL it is not even written in a full pool from
	 * now on. -EAGAIN: that, or that a copy is taken away, cannot be now, because of writes
	 * since it was frozen, or before VSD_FLUSH; nothing was changed by this record and those
	 * behind it. -EBUSY: too many are frozen.
	 */
	SCRIBE_CMD_EXTENTS_SET,
	/* VSD_FLUSH: VSD, EPOCH. As a guest's flush. -ETIMEDOUT after 30 s. */
	SCRIBE_CMD_VSD_FLUSH,
	/*
	 * SLOTS_COPY: SLOTS_MOVE -> DONE. Copies whole slots between disks of the cluster and
	 * flushes them. That nobody writes to them meanwhile is the caller's to see to.
	 */
	SCRIBE_CMD_SLOTS_COPY,
	/*
	 * INTENT_ADD: VSD, EPOCH, IDS. The metadata knows that copies may differ in these leaves:
	 * they may be written in place (R5).
	 */
	SCRIBE_CMD_INTENT_ADD,
	/*
	 * INTENT_DROP: VSD, EPOCH, IDS -> IDS. These leaves are not written in place from now on;
	 * the answer has those of them whose copies are equal, and durably so.
	 */
	SCRIBE_CMD_INTENT_DROP,
	/*
	 * DISKS_FLUSH: of all disks that can be reached. Before a VSD is granted whose last holder
	 * did not flush: what is in caches is read from now on.
	 */
	SCRIBE_CMD_DISKS_FLUSH,
	/*
	 * SLOTS_DIGEST: RANGES -> DONE, IDS. XXH64 of parts of slots, as their disks give them; 0
	 * where a disk answered with an error. -EAGAIN where one is out of reach.
	 */
	SCRIBE_CMD_SLOTS_DIGEST,
	/*
	 * EXTENTS_MOVED: EXTENTS. All copies of extents that more than one VSD may lead to, as they
	 * are now. Those that a VSD here may write in place stay as they are.
	 * What was read from before may be read from until a BARRIER behind it has returned.
	 */
	SCRIBE_CMD_EXTENTS_MOVED,
	/*
	 * SLOTS_GATHER: RANGES, TARGETS. Reads all ranges and writes them to each target, each at
	 * its place there, what is between them as zeros; then all of these disks are flushed. All
	 * or nothing of it counts. -EIO: a disk answered with an error; -EAGAIN: one is out of
	 * reach. That nobody writes to any of it meanwhile is the caller's to see to.
	 */
	SCRIBE_CMD_SLOTS_GATHER,
	/*
	 * PIECES_MOVED: VSD, EPOCH, PIECES, EXTENTS. The VSD's map leads to other places with the
	 * same data, all in this one extent; where the module's map is newer it stays as it is.
	 * Extents that the VSD may write in place are frozen before. What was read from before may
	 * be read from until a BARRIER behind it has returned.
	 */
	SCRIBE_CMD_PIECES_MOVED,
	/* EVENT: multicast only. Ask WORK_GET. */
	SCRIBE_CMD_EVENT,
	__SCRIBE_CMD_MAX
};

enum scribe_attr {
	SCRIBE_A_UNSPEC,
	SCRIBE_A_VERSION,	/* u32 */
	SCRIBE_A_NODE_ID,	/* u32, 1 to SCRIBE_MAX_NODE */
	SCRIBE_A_LIFE,		/* u64, of a node */
	SCRIBE_A_CLUSTER_UUID,	/* 16 bytes */
	SCRIBE_A_DEADLINE_NS,	/* u64 */
	SCRIBE_A_DISK_ID,	/* u32, 1 to SCRIBE_DISK_MAX_ID */
	SCRIBE_A_DISK_LIFE,	/* u64 */
	SCRIBE_A_DISK_UUID,	/* 16 bytes */
	SCRIBE_A_PATH,		/* string */
	SCRIBE_A_TIER,		/* u8, enum scribe_tier */
	SCRIBE_A_SLOTS,		/* u64 */
	SCRIBE_A_ROLE,		/* u8, enum scribe_role */
	SCRIBE_A_SOCK_FD,	/* u32 */
	SCRIBE_A_FLAGS,		/* u32, SCRIBE_F_* */
	SCRIBE_A_VSD,		/* u64 */
	SCRIBE_A_EPOCH,		/* u64 */
	SCRIBE_A_LEAF,		/* u64, chunk / SCRIBE_LEAF_CHUNKS */
	SCRIBE_A_SEGS,		/* struct scribe_seg_rec[], ordered by chunk and start */
	SCRIBE_A_EXTENTS,	/* struct scribe_extent_rec[] */
	SCRIBE_A_BATCH,		/* u64, sequence in the epoch */
	SCRIBE_A_OPS,		/* struct scribe_op_rec[], in order */
	SCRIBE_A_STALES,	/* struct scribe_stale_rec[], may repeat */
	SCRIBE_A_WORK,		/* struct scribe_work_rec[] */
	SCRIBE_A_SLOTS_MOVE,	/* struct scribe_slot_rec[], at most SCRIBE_COPY_SLOTS_MAX */
	SCRIBE_A_DONE,		/* u64, bit i: record i is copied and flushed, or was read */
	SCRIBE_A_IDS,		/* u64[], extents, leaves or digests */
	SCRIBE_A_RANGES,	/* struct scribe_range_rec[], at most SCRIBE_COPY_SLOTS_MAX */
	SCRIBE_A_COPIES,	/* u8, SCRIBE_VSD_MIN_COPIES to SCRIBE_VSD_MAX_COPIES */
	SCRIBE_A_TARGETS,	/* struct scribe_range_rec[], at most SCRIBE_MAX_COPIES */
	SCRIBE_A_PIECES,	/* struct scribe_piece_rec[] */
	__SCRIBE_A_MAX
};

#define SCRIBE_A_MAX (__SCRIBE_A_MAX - 1)

enum scribe_tier { SCRIBE_TIER_SSD, SCRIBE_TIER_HDD, SCRIBE_NR_TIERS };
enum scribe_role { SCRIBE_ROLE_INITIATOR, SCRIBE_ROLE_TARGET, SCRIBE_NR_ROLES };

#define SCRIBE_F_DATA_CRC	0x1	/* SOCKET_ADD: the stream has no integrity of its own */
#define SCRIBE_F_NOSPACE	0x2	/* RESERVE_ADD: the pool is full, there will be no more */
#define SCRIBE_F_REFUSED	0x4	/* BATCH_DONE: it is not, flush again */
#define SCRIBE_F_RELET		0x8	/* LEASE_FAIL: it is to be taken anew */

#define SCRIBE_EXTENT_EXCLUSIVE	0x1	/* filled by this VSD and not shared since */
#define SCRIBE_EXTENT_FROZEN	0x2	/* EXTENTS_SET: not written in place */
#define SCRIBE_EXTENT_PARTIAL	0x4	/* with FROZEN: as it is, or with a copy left out */
#define SCRIBE_COPY_STALE	0x1
#define SCRIBE_COPY_REFRESHED	0x2	/* EXTENTS_SET, not FROZEN: it is not stale any more */

struct scribe_copy_rec {
	__u32 slot;
	__u16 disk;
	__u16 flags;		/* SCRIBE_COPY_* */
};

struct scribe_extent_rec {
	__u64 id;
	__u32 flags;		/* SCRIBE_EXTENT_* */
	__u32 nr_copies;
	struct scribe_copy_rec copy[SCRIBE_MAX_COPIES];
};

/* A range of a chunk that maps to an extent; all in sectors. */
struct scribe_seg_rec {
	__u64 extent;
	__u16 chunk;		/* in its leaf */
	__u16 start;
	__u16 len;
	__u16 off;		/* in the extent */
};

/* One change of the map: extent 0 unmaps. Applied in order. */
struct scribe_op_rec {
	__u64 chunk;
	__u64 extent;
	__u16 start;
	__u16 len;
	__u16 off;
	__u16 reserved;
};

/*
 * A copy that misses flushed data once this batch is committed. A suspect misses none, but may
 * differ from the copy that stays current where a write failed: it may be chosen should that one
 * be lost, and is made equal to it else.
 */
struct scribe_stale_rec {
	__u64 extent;
	__u32 disk;
	__u32 suspect;		/* 0 or 1 */
};

/* A slot to copy, and the lives in which its disks are expected. */
struct scribe_slot_rec {
	__u64 from_life;
	__u64 to_life;
	__u32 from_slot;
	__u32 to_slot;
	__u16 from_disk;
	__u16 to_disk;
	__u32 reserved;
};

/* A part of a slot to read, and the life in which its disk is expected. */
struct scribe_range_rec {
	__u64 life;
	__u32 slot;
	__u16 disk;
	__u16 start;		/* in sectors, as len */
	__u16 len;		/* 1 up to the slot's end */
	__u16 to;		/* SLOTS_GATHER, RANGES: its first sector in the target */
	__u16 reserved[2];
};

/* A range of a chunk that maps to another extent than before; all but chunk and from in sectors. */
struct scribe_piece_rec {
	__u64 chunk;
	__u64 from;		/* extent */
	__u16 start;
	__u16 len;
	__u16 off;		/* in the extent that it was mapped to */
	__u16 to;		/* in that to which it is mapped now */
};

enum scribe_work {
	SCRIBE_WORK_LEASE_WANTED = 1,	/* vsd */
	SCRIBE_WORK_LEAF_WANTED,	/* vsd, arg: leaf */
	SCRIBE_WORK_BATCH_READY,	/* vsd, arg: batch */
	SCRIBE_WORK_RESERVE_LOW,	/* vsd: copies, id: extents in stock, arg: wanted */
	SCRIBE_WORK_DISK_FAILED,	/* id: disk, arg: its life */
	SCRIBE_WORK_PEER_LOST,		/* id: node that we have no connection to, arg: its life */
	SCRIBE_WORK_FROZEN,		/* vsd, arg: extent that was frozen and not set since */
	SCRIBE_WORK_INTENT_WANTED,	/* vsd, arg: leaf that is to be written in place */
	SCRIBE_WORK_INTENT_IDLE,	/* vsd, arg: leaf whose intent may be dropped */
	/*
	 * vsd, id: disk, arg: its life. What was written and not flushed has no good copy; a flush
	 * waits for one of those of one extent, so many records. Disk 0: there is none to wait for.
	 */
	SCRIBE_WORK_FLUSH_STUCK,
};

struct scribe_work_rec {
	__u32 type;		/* enum scribe_work */
	__u32 id;
	__u64 vsd;
	__u64 arg;
};

#endif
