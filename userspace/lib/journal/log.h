// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/id.h"
#include "core/result.h"

namespace journal {

using core::Code;
using core::Error;
using core::Result;

/// A batch of 2,048 changes in as many full chunks makes about 2 MiB of patch.
inline constexpr size_t kMaxPayloadBytes = size_t{3} << 20;

/// One entry of the ordered log. The hash covers the payload, the index and the hash before it, so
/// two logs with an equal hash at one index are equal up to there.
struct Entry {
  uint64_t index = 0;
  uint64_t prev_hash = 0;
  uint64_t hash = 0;
  std::string payload;
};

struct View {
  bool leading = false;  ///< this node may append
  core::NodeId leader;   ///< who does, as far as this node knows
};

/// The ordered log of metadata changes; its entries are durable when append() returns.
class Log {
 public:
  virtual ~Log() = default;

  /// Keeps or seeks leadership for a database that holds `applied` entries; about every second.
  [[nodiscard]] virtual Result<View> tend(uint64_t applied) = 0;

  /// Adds the entry behind the one with `prev_hash`. Code::conflict: another leads or led
  /// meanwhile, it was not added. Code::unknown: it may have been; only opening the log again
  /// tells.
  [[nodiscard]] virtual Result<Entry> append(uint64_t index, uint64_t prev_hash,
                                             std::string payload) = 0;

  /// Entries from `index` on, in order without a gap; none at the end of the log. Code::stale where
  /// `index` was trimmed: the database must be copied from another node.
  [[nodiscard]] virtual Result<std::vector<Entry>> read_from(uint64_t index, size_t limit) = 0;

  /// Drops entries up to `index`, or some of them.
  [[nodiscard]] virtual Result<void> trim(uint64_t index) = 0;
};

}  // namespace journal
