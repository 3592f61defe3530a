// SPDX-License-Identifier: GPL-2.0
#include "wire.h"

static u32 header_crc(const struct scribe_wire_header *header)
{
	return ~crc32c(~0U, header, offsetof(struct scribe_wire_header, header_crc));
}

void scribe_wire_encode(const struct scribe_msg *msg, struct scribe_wire_header *out)
{
	*out = (struct scribe_wire_header){
		.magic = cpu_to_le32(SCRIBE_WIRE_MAGIC),
		.version = SCRIBE_WIRE_VERSION,
		.op = msg->op,
		.flags = cpu_to_le16(msg->flags),
		.tag = cpu_to_le64(msg->tag),
		.sender_life = cpu_to_le64(msg->sender_life),
		.expected_life = cpu_to_le64(msg->expected_life),
		.sector = cpu_to_le64(msg->sector),
		.length = cpu_to_le32(msg->length_bytes),
		.disk = cpu_to_le32(msg->disk),
		.data_crc = cpu_to_le32(msg->data_crc),
		.status = cpu_to_le16(msg->status),
	};
	out->header_crc = cpu_to_le32(header_crc(out));
}

static const char *check_length(const struct scribe_msg *msg)
{
	switch (msg->op) {
	case SCRIBE_WIRE_FLUSH:
	case SCRIBE_WIRE_PING:
		return msg->length_bytes ? "length on an operation without data" : NULL;
	default:
		if (!msg->length_bytes || msg->length_bytes > SCRIBE_WIRE_MAX_BYTES)
			return "length out of range";
		return msg->length_bytes % 512 ? "length not a multiple of 512" : NULL;
	}
}

const char *scribe_wire_decode(const struct scribe_wire_header *in, struct scribe_msg *msg)
{
	if (le32_to_cpu(in->magic) != SCRIBE_WIRE_MAGIC)
		return "bad magic";
	if (in->version != SCRIBE_WIRE_VERSION)
		return "unknown protocol version";
	if (le32_to_cpu(in->header_crc) != header_crc(in))
		return "bad header checksum";
	if (!in->op || in->op >= SCRIBE_WIRE_NR_OPS)
		return "unknown operation";

	*msg = (struct scribe_msg){
		.tag = le64_to_cpu(in->tag),
		.sender_life = le64_to_cpu(in->sender_life),
		.expected_life = le64_to_cpu(in->expected_life),
		.sector = le64_to_cpu(in->sector),
		.length_bytes = le32_to_cpu(in->length),
		.disk = le32_to_cpu(in->disk),
		.data_crc = le32_to_cpu(in->data_crc),
		.flags = le16_to_cpu(in->flags),
		.status = le16_to_cpu(in->status),
		.op = in->op,
	};
	return check_length(msg);
}

u32 scribe_wire_payload_bytes(const struct scribe_msg *msg)
{
	if (msg->flags & SCRIBE_WIRE_F_RESPONSE)
		return msg->op == SCRIBE_WIRE_READ && msg->status == SCRIBE_WIRE_OK
			       ? msg->length_bytes
			       : 0;
	return msg->op == SCRIBE_WIRE_WRITE ? msg->length_bytes : 0;
}
