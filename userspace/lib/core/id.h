// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace core {

/// A number that names one kind of thing: an ExtentId is no VsdId. 0 names nothing.
template <class Tag>
struct Id {
  uint64_t value = 0;

  constexpr explicit operator bool() const { return value != 0; }
  friend constexpr auto operator<=>(Id, Id) = default;
};

using VsdId = Id<struct VsdTag>;
using ExtentId = Id<struct ExtentTag>;
using SnapshotId = Id<struct SnapshotTag>;
using NodeId = Id<struct NodeTag>;
using DiskId = Id<struct DiskTag>;

}  // namespace core

template <class Tag>
struct std::hash<core::Id<Tag>> {
  size_t operator()(core::Id<Tag> id) const noexcept { return std::hash<uint64_t>{}(id.value); }
};
