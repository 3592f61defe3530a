// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/id.h"

namespace policy {

/// Whose metadata is right, by the digests of all nodes that have one: the largest group that
/// agrees, where it is larger than every other. Nobody where that cannot be told.
[[nodiscard]] std::vector<core::NodeId> majority(const std::map<core::NodeId, uint64_t>& digests);

}  // namespace policy
