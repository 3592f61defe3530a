// SPDX-License-Identifier: GPL-2.0
// Records of the log: what decodes lies within the data and encodes to the same bytes.
#include <string>

#include "fuzz.h"
#include "journal/record.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto at = input.take<uint16_t>();
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  if (const auto record = journal::decode_record(all, at)) {
    EXPECT(at + record->bytes <= size);
    EXPECT(journal::encode_record(record->index, record->prev_hash, record->payload) ==
           all.substr(at, record->bytes));
  }
  // A record that was cut off or changed anywhere is none. But with another length it may be one
  // whose hash its payload holds: the fuzzer finds such payloads, a torn write does not.
  std::string good = journal::encode_record(7, 8, all.substr(0, 64));
  EXPECT(journal::decode_record(good, 0).has_value());
  const size_t place = at % good.size();
  EXPECT(!journal::decode_record(std::string_view(good).substr(0, place), 0).has_value());
  const char other = static_cast<char>(good[place] ^ (1 << (size % 8)));
  good[place] = other;
  const bool length_changed = place >= 4 && place < 8;
  EXPECT(length_changed || !journal::decode_record(good, 0).has_value());
  return 0;
}
