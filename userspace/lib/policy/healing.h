// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/id.h"
#include "meta/cluster.h"

namespace policy {

/// What can be expected of a disk.
enum class Home : uint8_t {
  good,     ///< in use
  away,     ///< out of reach, and awaited: its node is down, or does not find it
  leaving,  ///< in use, and is to become empty
  gone      ///< not awaited any more
};

struct Place {
  core::NodeId node;
  Home home = Home::gone;
};

using Places = std::map<core::DiskId, Place>;

[[nodiscard]] Places places_of(const std::vector<meta::Disk>& disks,
                               const std::vector<meta::Node>& nodes);

/// What an extent needs next.
struct Step {
  enum class Kind : uint8_t {
    none,   ///< nothing: it has all its copies
    wait,   ///< something is missing, and nothing can be done about it now
    place,  ///< a copy in the making, on another disk
    /// Copy `from` to `to`, or nothing where that is 0; then drop `drop`, or nothing. With `to`
    /// alone: that copy is as good as any there is.
    move
  };
  Kind kind = Kind::none;
  core::DiskId from;
  core::DiskId to;
  core::DiskId drop;

  friend bool operator==(const Step&, const Step&) = default;
};

/// The most copies that an extent has, one in the making included; SCRIBE_MAX_COPIES.
constexpr size_t kMaxCopies = 4;

/// What brings an extent closer to `replicas` current copies on disks that are good or away, and
/// none elsewhere. A function of its arguments: the mover asks it what to do, the leader whether
/// that is right.
/// Which of an extent's current copies stays so when they may differ: one that can be read, where
/// there is one. 0 where there is none.
[[nodiscard]] core::DiskId chosen_copy(const std::vector<meta::CopyRow>& copies,
                                       const Places& places);

[[nodiscard]] Step next_step(const std::vector<meta::CopyRow>& copies, const Places& places,
                             uint32_t replicas);

/// Whether the extent keeps all that it should when this copy of it is dropped.
[[nodiscard]] bool may_drop(const std::vector<meta::CopyRow>& copies, const Places& places,
                            uint32_t replicas, core::DiskId drop);

}  // namespace policy
