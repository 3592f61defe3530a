/* SPDX-License-Identifier: GPL-2.0 */
/* Backplane headers: build and check. Pure; the sockets are in backplane.c. */
#ifndef SCRIBE_WIRE_H
#define SCRIBE_WIRE_H

#include "shim.h"
#include "uapi/scribe_wire.h"

/* A header in host byte order, checked. */
struct scribe_msg {
	u64 tag;
	u64 sender_life;
	u64 expected_life;
	u64 sector;
	u32 length_bytes;
	u32 disk;
	u32 data_crc;
	u16 flags;
	u16 status;
	u8 op;
};

void scribe_wire_encode(const struct scribe_msg *msg, struct scribe_wire_header *out);

/**
 * scribe_wire_decode() - check a received header
 * @in: the 64 bytes
 * @msg: filled where the header is good
 *
 * Return: NULL, or why the connection must end.
 */
const char *scribe_wire_decode(const struct scribe_wire_header *in, struct scribe_msg *msg);

/* Bytes of data that follow the header on the stream. */
u32 scribe_wire_payload_bytes(const struct scribe_msg *msg);

#endif
