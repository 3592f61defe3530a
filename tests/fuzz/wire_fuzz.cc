// SPDX-License-Identifier: GPL-2.0
// Backplane headers: what is accepted is within bounds and encodes to the bytes it came from.
#include "fuzz.h"

extern "C" {
#include "wire.h"
}

namespace {

void check(const scribe_wire_header& header) {
  scribe_msg msg{};
  if (scribe_wire_decode(&header, &msg) != nullptr) return;
  EXPECT(msg.op > 0 && msg.op < SCRIBE_WIRE_NR_OPS);
  EXPECT(msg.length_bytes <= SCRIBE_WIRE_MAX_BYTES && msg.length_bytes % 512 == 0);
  EXPECT(scribe_wire_payload_bytes(&msg) <= msg.length_bytes);
  scribe_wire_header again{};
  scribe_wire_encode(&msg, &again);
  scribe_msg same{};
  EXPECT(scribe_wire_decode(&again, &same) == nullptr);
  EXPECT(std::memcmp(&msg, &same, sizeof(msg)) == 0);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto header = input.take<scribe_wire_header>();
  check(header);
  // The checksum keeps random bytes out; behind it, every field may hold anything.
  header.magic = cpu_to_le32(SCRIBE_WIRE_MAGIC);
  header.version = SCRIBE_WIRE_VERSION;
  header.header_crc = cpu_to_le32(~crc32c(~0U, &header, offsetof(scribe_wire_header, header_crc)));
  check(header);
  return 0;
}
