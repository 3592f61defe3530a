// SPDX-License-Identifier: GPL-2.0
// The kernel's crc32c() for the pure files that are built into userspace tests.
#include <array>
#include <cstdint>

namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
    table[i] = crc;
  }
  return table;
}

constexpr auto kTable = make_table();

}  // namespace

extern "C" uint32_t crc32c(uint32_t seed, const void* data, unsigned int length) {
  const auto* byte = static_cast<const unsigned char*>(data);
  while (length--) seed = seed >> 8 ^ kTable[(seed ^ *byte++) & 0xff];
  return seed;
}
