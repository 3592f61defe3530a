// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <optional>
#include <vector>

#include "core/id.h"
#include "meta/cluster.h"

namespace policy {

/// The node whose loss the pool could not make good: what its disks hold does not fit on those of
/// the others that are in use. The one that lacks most; nothing where all fit, or where fewer than
/// three nodes have disks: two cannot replace each other.
[[nodiscard]] std::optional<core::NodeId> too_big_to_lose(const std::vector<meta::Disk>& disks,
                                                          const std::vector<meta::DiskUse>& use);

}  // namespace policy
