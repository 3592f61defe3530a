// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/segments.h"
#include "meta/map.h"

namespace policy {

/// How many chunk rows name each extent.
using References = std::map<core::ExtentId, uint64_t>;

/// Whether the data of a chunk that was written here and there should lie in one extent: because
/// that frees space, or because reading it is many requests. `live`: the disk is so now, not only
/// snapshots of it. `room`: the pool can spare some space for that.
[[nodiscard]] bool is_scattered(const core::Segments& segments, const References& refs, bool live,
                                bool room);

/// Extents of which little is used, found in a walk over all versions of a VSD.
class Sparse {
 public:
  /// A chunk row that is left as it is.
  void add(const meta::History::Chunk& chunk, const References& refs);
  /// What is to be put together in one extent, each time; the walk is over.
  std::vector<std::vector<meta::Piece>> pack();

 private:
  struct Extent {
    uint64_t missing = 0;  // rows that name it, and did not come by
    uint32_t sectors = 0;
    std::vector<meta::Piece> pieces;
  };
  std::map<core::ExtentId, Extent> extents_;
};

}  // namespace policy
