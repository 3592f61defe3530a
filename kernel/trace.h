/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: /sys/kernel/tracing/events/scribe. What an I/O does, what its requests to disks
 * answer, and what is committed; enough to see where the time of a slow request went.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM scribe

#if !defined(SCRIBE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define SCRIBE_TRACE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(scribe_io_class,
	TP_PROTO(u64 vsd, u64 sector, u32 sectors, u8 kind, int what),
	TP_ARGS(vsd, sector, sectors, kind, what),
	TP_STRUCT__entry(
		__field(u64, vsd)
		__field(u64, sector)
		__field(u32, sectors)
		__field(u8, kind)
		__field(int, what)
	),
	TP_fast_assign(
		__entry->vsd = vsd;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->kind = kind;
		__entry->what = what;
	),
	TP_printk("vsd=%llu sector=%llu sectors=%u kind=%s what=%d", __entry->vsd, __entry->sector,
		  __entry->sectors,
		  __print_symbolic(__entry->kind, { 0, "read" }, { 1, "write" }, { 2, "unmap" }),
		  __entry->what)
);

/* Admitted; what: 1 where it waits behind another range. */
DEFINE_EVENT(scribe_io_class, scribe_io_start,
	TP_PROTO(u64 vsd, u64 sector, u32 sectors, u8 kind, int what),
	TP_ARGS(vsd, sector, sectors, kind, what));

/* Ended; what: 0 or the error. FUA: its flush is still to come. */
DEFINE_EVENT(scribe_io_class, scribe_io_end,
	TP_PROTO(u64 vsd, u64 sector, u32 sectors, u8 kind, int what),
	TP_ARGS(vsd, sector, sectors, kind, what));

/* Holds nothing and waits; what: enum scribe_park. */
DEFINE_EVENT(scribe_io_class, scribe_io_park,
	TP_PROTO(u64 vsd, u64 sector, u32 sectors, u8 kind, int what),
	TP_ARGS(vsd, sector, sectors, kind, what));

/* A write goes elsewhere; what: the mask of copies that failed. */
DEFINE_EVENT(scribe_io_class, scribe_io_redirect,
	TP_PROTO(u64 vsd, u64 sector, u32 sectors, u8 kind, int what),
	TP_ARGS(vsd, sector, sectors, kind, what));

DECLARE_EVENT_CLASS(scribe_leg_class,
	TP_PROTO(u32 disk, u8 op, u64 sector, u32 bytes, int status),
	TP_ARGS(disk, op, sector, bytes, status),
	TP_STRUCT__entry(
		__field(u32, disk)
		__field(u8, op)
		__field(u64, sector)
		__field(u32, bytes)
		__field(int, status)
	),
	TP_fast_assign(
		__entry->disk = disk;
		__entry->op = op;
		__entry->sector = sector;
		__entry->bytes = bytes;
		__entry->status = status;
	),
	TP_printk("disk=%u op=%s sector=%llu bytes=%u status=%d", __entry->disk,
		  __print_symbolic(__entry->op, { 1, "read" }, { 2, "write" }, { 4, "flush" }),
		  __entry->sector, __entry->bytes, __entry->status)
);

/* A request to a disk, local or of a peer; where a peer asked for it, also there. */
DEFINE_EVENT(scribe_leg_class, scribe_leg_submit,
	TP_PROTO(u32 disk, u8 op, u64 sector, u32 bytes, int status),
	TP_ARGS(disk, op, sector, bytes, status));

DEFINE_EVENT(scribe_leg_class, scribe_leg_end,
	TP_PROTO(u32 disk, u8 op, u64 sector, u32 bytes, int status),
	TP_ARGS(disk, op, sector, bytes, status));

/* The disks have flushed a batch, the daemon is to commit it; and its answer. */
TRACE_EVENT(scribe_commit,
	TP_PROTO(u64 vsd, u64 batch, u32 ops, int err),
	TP_ARGS(vsd, batch, ops, err),
	TP_STRUCT__entry(
		__field(u64, vsd)
		__field(u64, batch)
		__field(u32, ops)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->vsd = vsd;
		__entry->batch = batch;
		__entry->ops = ops;
		__entry->err = err;
	),
	TP_printk("vsd=%llu batch=%llu ops=%u err=%d", __entry->vsd, __entry->batch, __entry->ops,
		  __entry->err)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
