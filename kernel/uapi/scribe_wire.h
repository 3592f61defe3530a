/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Backplane protocol: one fixed header, then data for a WRITE request and a READ response.
 *
 * The initiator sends requests, the target answers each with a response of the same tag, in any
 * order. The connection belongs to one life of either node. A request names the life that it
 * expects of the addressee: the disk's for disk operations, the node's for PING. A target whose
 * life differs answers SCRIBE_WIRE_STALE and does nothing. A header that is malformed ends the
 * connection: after it nothing on the stream can be trusted.
 */
#ifndef SCRIBE_UAPI_WIRE_H
#define SCRIBE_UAPI_WIRE_H

#include <linux/types.h>

#define SCRIBE_WIRE_MAGIC	0x45424353U	/* "SCBE" */
#define SCRIBE_WIRE_VERSION	1
#define SCRIBE_WIRE_MAX_BYTES	1048576U	/* of data in one request */
#define SCRIBE_WIRE_PORT	7420		/* default TCP port of the backplane */

enum scribe_wire_op {
	SCRIBE_WIRE_READ	= 1,
	SCRIBE_WIRE_WRITE	= 2,
	SCRIBE_WIRE_ZERO	= 3,
	SCRIBE_WIRE_FLUSH	= 4,
	SCRIBE_WIRE_DISCARD	= 5,
	SCRIBE_WIRE_INTENT	= 6,	/* reserved: set or clear intent bits; answered NOTSUPP */
	SCRIBE_WIRE_PING	= 7,
	SCRIBE_WIRE_NR_OPS
};

#define SCRIBE_WIRE_F_RESPONSE	0x0001
#define SCRIBE_WIRE_F_DATA_CRC	0x0002	/* data_crc is set; always checked where it is */
#define SCRIBE_WIRE_F_BACKGROUND 0x0004	/* a request that others may pass, and so may its answer */

enum scribe_wire_status {
	SCRIBE_WIRE_OK		= 0,
	SCRIBE_WIRE_IOERR	= 1,	/* the disk failed the request */
	SCRIBE_WIRE_STALE	= 2,	/* not the life that was expected */
	SCRIBE_WIRE_NODISK	= 3,	/* no such disk here */
	SCRIBE_WIRE_RANGE	= 4,	/* beyond the end of the disk's slots */
	SCRIBE_WIRE_BADCRC	= 5,	/* data did not match data_crc; send it again */
	SCRIBE_WIRE_NOTSUPP	= 6,
	SCRIBE_WIRE_FENCED	= 7,	/* the target is past its own deadline */
};

/**
 * struct scribe_wire_header - first 64 bytes of each message, little endian
 * @magic: SCRIBE_WIRE_MAGIC
 * @version: SCRIBE_WIRE_VERSION
 * @op: enum scribe_wire_op
 * @flags: SCRIBE_WIRE_F_*
 * @tag: chosen by the initiator, unique among its unanswered requests on this connection
 * @sender_life: life of the sending node
 * @expected_life: life that the addressee must have; in a response, that of the answering node
 * @sector: first sector, counted from the start of slot 0
 * @length: bytes, a multiple of 512, at most SCRIBE_WIRE_MAX_BYTES; 0 for FLUSH and PING
 * @disk: disk id; 0 for PING
 * @data_crc: CRC32C of the data
 * @status: enum scribe_wire_status in a response, else 0
 * @reserved: zero
 * @reserved2: zero
 * @header_crc: CRC32C of the 60 bytes before it
 */
struct scribe_wire_header {
	__le32 magic;
	__u8 version;
	__u8 op;
	__le16 flags;
	__le64 tag;
	__le64 sender_life;
	__le64 expected_life;
	__le64 sector;
	__le32 length;
	__le32 disk;
	__le32 data_crc;
	__le16 status;
	__le16 reserved;
	__le32 reserved2;
	__le32 header_crc;
} __attribute__((packed));

#endif
