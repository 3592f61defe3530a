// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/id.h"

namespace policy {

/// A disk as placement sees it; only disks that may take new data are given to it.
struct Candidate {
  core::DiskId disk;
  core::NodeId node;
  bool ssd = false;
  uint64_t free = 0;   ///< slots
  uint64_t total = 0;  ///< slots
};

/// The disks for the copies of a new extent, or nothing where there is no room that keeps them
/// apart: on different nodes, or, where all disks belong to one node, on different disks.
///
/// SSDs come first while some of them have room above a reserve of 5 %; then hard disks; then what
/// is left of any kind. Within a tier a disk is drawn in proportion to its free slots, so that load
/// spreads over all and a new, empty disk takes most new data without taking all. A function of its
/// arguments alone: `seed` is the draw.
[[nodiscard]] std::vector<core::DiskId> place(const std::vector<Candidate>& disks, uint32_t copies,
                                              bool one_node, uint64_t seed);

}  // namespace policy
