// SPDX-License-Identifier: GPL-2.0
#include "journal/record.h"

#include <xxhash.h>

#include "journal/log.h"

namespace journal {

namespace {

constexpr uint32_t kMagic = 0x4c624353;  // "SCbL"
constexpr size_t kHeaderBytes = 24;
constexpr size_t kHashBytes = 8;
static_assert(kMinRecordBytes == kHeaderBytes + kHashBytes);

void put(std::string& out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) out.push_back(static_cast<char>(value >> 8 * i));
}

uint64_t get(std::string_view data, size_t at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++)
    value |= uint64_t{static_cast<unsigned char>(data[at + i])} << 8 * i;
  return value;
}

// Half of the 128 bit hash: in the 64 bit one, eight bytes of a short record that happen to equal
// its secret take eight more out of the sum, and a change of those would not be seen.
uint64_t hash_of(std::string_view data) { return XXH3_128bits(data.data(), data.size()).low64; }

}  // namespace

std::string encode_record(uint64_t index, uint64_t prev_hash, std::string_view payload) {
  std::string record;
  record.reserve(payload.size() + kMinRecordBytes);
  put(record, kMagic, 4);
  put(record, payload.size(), 4);
  put(record, index, 8);
  put(record, prev_hash, 8);
  record += payload;
  put(record, hash_of(record), kHashBytes);
  return record;
}

std::optional<Record> decode_record(std::string_view data, size_t at) {
  if (at > data.size() || data.size() - at < kMinRecordBytes || get(data, at, 4) != kMagic)
    return std::nullopt;
  const uint64_t length = get(data, at + 4, 4);
  if (length > kMaxPayloadBytes || data.size() - at < kMinRecordBytes + length) return std::nullopt;
  const uint64_t hash = get(data, at + kHeaderBytes + length, kHashBytes);
  if (hash != hash_of(data.substr(at, kHeaderBytes + length))) return std::nullopt;
  return Record{get(data, at + 8, 8), get(data, at + 16, 8), hash,
                data.substr(at + kHeaderBytes, length), kMinRecordBytes + length};
}

}  // namespace journal
