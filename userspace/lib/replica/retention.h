// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <deque>

namespace replica {

/// How far back the log is kept: as many entries as nodes may need that were away for minutes, or
/// that copy a large database meanwhile, but never more bytes than the log's backend bears.
class Retention {
 public:
  Retention(uint64_t entries, uint64_t bytes) : entries_(entries), bytes_(bytes) {}

  /// An entry was appended or read; they come in order.
  void add(uint64_t index, uint64_t bytes) {
    last_ = index;
    total_ += bytes;
    sizes_.push_back(bytes);
    while (sizes_.size() > 1 && (sizes_.size() > entries_ || total_ > bytes_)) {
      total_ -= sizes_.front();
      sizes_.pop_front();
      full_ = true;
    }
  }

  /// The last entry that may be trimmed; 0 for none. The sizes of those from before this run are
  /// not known, only their number counts.
  uint64_t trimmable() const {
    if (full_) return last_ - sizes_.size();
    return last_ > entries_ ? last_ - entries_ : 0;
  }

 private:
  const uint64_t entries_;
  const uint64_t bytes_;
  std::deque<uint64_t> sizes_;
  uint64_t total_ = 0;
  uint64_t last_ = 0;
  bool full_ = false;
};

}  // namespace replica
