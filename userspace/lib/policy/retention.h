// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "meta/cluster.h"

namespace policy {

struct Expired {
  meta::Snapshot snapshot;
  bool by_age = false;  ///< and not for there being enough newer ones
};

/// Snapshots that a schedule took and does not keep any longer. The newest one of each VSD is kept
/// whatever its age.
std::vector<Expired> expired(const meta::Schedule& schedule,
                             const std::vector<meta::Snapshot>& snapshots, int64_t now);

}  // namespace policy
