// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/id.h"

namespace core {

inline constexpr uint32_t kChunkSectors = 2048;
inline constexpr uint32_t kLeafChunks = 16;
inline constexpr uint32_t kMaxSegments = 64;

/// A range of a chunk that maps to a range of an extent, all in sectors.
struct Segment {
  uint16_t start = 0;
  uint16_t len = 0;
  uint16_t off = 0;
  ExtentId extent;

  friend bool operator==(const Segment&, const Segment&) = default;
};

/// Sorted by start, disjoint.
using Segments = std::vector<Segment>;

/// Whether a range lies in a chunk, and its target, if any, in an extent.
[[nodiscard]] bool valid_range(uint32_t start, uint32_t len, uint32_t off);

/// Replaces a range of a chunk by one of an extent; extent 0 unmaps it. Neighbours that continue
/// each other become one segment. Pre: valid_range(start, len, off).
[[nodiscard]] Segments splice(const Segments& old, const Segment& change);

/// A range of a chunk in which two maps of it differ.
struct Difference {
  uint16_t start = 0;
  uint16_t len = 0;
  bool mapped = false;  ///< in the second map

  friend bool operator==(const Difference&, const Difference&) = default;
};

/// Where they lead to different places, in order; neighbours are one.
[[nodiscard]] std::vector<Difference> differences(const Segments& before, const Segments& after);

/// The stored form: 14 bytes each, little endian.
[[nodiscard]] std::string pack(const Segments& segments);

/// Nothing where the bytes are no valid segments of one chunk.
[[nodiscard]] std::optional<Segments> unpack(std::string_view bytes);

}  // namespace core
