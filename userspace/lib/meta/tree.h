// SPDX-License-Identifier: GPL-2.0
// Rows of the map's trees, for the files that make up Map alone.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "meta/map.h"

namespace meta {

using core::ExtentId;
using core::Segment;
using core::Segments;
using core::VsdId;

inline constexpr uint64_t kInnerChildren = 64;
inline constexpr size_t kIdBytes = 8;

inline uint64_t children_of(int64_t level) {
  return level == 1 ? core::kLeafChunks : kInnerChildren;
}

// Chunks below one child of a row at `level`.
inline uint64_t child_span(int64_t level) {
  uint64_t span = 1;
  for (int64_t l = 1; l < level; l++) span *= children_of(l);
  return span;
}

// The level of the root of a VSD: the lowest that reaches all of its chunks.
inline int64_t root_level(uint64_t sectors) {
  const uint64_t chunks = (sectors + core::kChunkSectors - 1) / core::kChunkSectors;
  int64_t level = 1;
  while (child_span(level) * children_of(level) < chunks) level++;
  return level;
}

inline uint64_t child_at(const std::string& body, uint64_t i) {
  uint64_t id = 0;
  for (size_t b = 0; b < kIdBytes; b++)
    id |= uint64_t{static_cast<unsigned char>(body[i * kIdBytes + b])} << 8 * b;
  return id;
}

inline void set_child(std::string& body, uint64_t i, uint64_t id) {
  for (size_t b = 0; b < kIdBytes; b++) body[i * kIdBytes + b] = static_cast<char>(id >> 8 * b);
}

inline std::set<ExtentId> extents_of(const Segments& segments) {
  std::set<ExtentId> out;
  for (const Segment& seg : segments) out.insert(seg.extent);
  return out;
}

inline Segments parse(const std::string& body, uint64_t id) {
  auto segments = core::unpack(body);
  if (!segments) throw SQLite::Exception("tree row " + std::to_string(id) + " is no valid chunk");
  return *segments;
}

inline int64_t signed_id(uint64_t id) { return static_cast<int64_t>(id); }

/// No name that people can give: see Vsd::is_medium().
inline std::string medium_name(uint64_t medium) { return "medium:" + std::to_string(medium); }

inline Error bad_name(const std::string& name, const char* what) {
  return {Code::invalid,
          "'" + name + "' is no name for " + what + ": 1 to 64 letters, digits, '-', '_' or '.'"};
}

inline Error no_vsd(VsdId vsd) {
  return {Code::not_found, "no VSD with id " + std::to_string(vsd.value)};
}

}  // namespace meta
