// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace journal {

/// The stored form of an entry, the same in a file and in etcd: magic, length, index, hash of the
/// entry before, payload, hash over all of that. Little endian.
inline constexpr size_t kMinRecordBytes = 32;

struct Record {
  uint64_t index = 0;
  uint64_t prev_hash = 0;
  uint64_t hash = 0;
  std::string_view payload;  ///< in the decoded data
  size_t bytes = 0;
};

[[nodiscard]] std::string encode_record(uint64_t index, uint64_t prev_hash,
                                        std::string_view payload);

/// A whole record with the right hash at byte `at`, or nothing.
[[nodiscard]] std::optional<Record> decode_record(std::string_view data, size_t at);

}  // namespace journal
