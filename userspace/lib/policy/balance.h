// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <optional>
#include <vector>

#include "policy/placement.h"

namespace policy {

/// The disk from which copies should go to others of its tier, for it is fuller than those on
/// average, by more than a fiftieth of its size. The fullest so; nothing where there is none.
[[nodiscard]] std::optional<Candidate> overfull(const std::vector<Candidate>& disks);

/// Whether a copy that goes from one disk to another makes both more equal.
[[nodiscard]] bool evens_out(const Candidate& from, const Candidate& to);

}  // namespace policy
