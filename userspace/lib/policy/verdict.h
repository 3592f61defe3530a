// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/id.h"

namespace policy {

/// What was read of a copy that should be like the others: a digest, nothing where it could not be
/// read.
struct Reading {
  core::DiskId disk;
  std::optional<uint64_t> digest;
};

struct Verdict {
  std::vector<core::DiskId> wrong;  ///< copies to be made anew from the others
  bool damaged = false;             ///< nobody can tell which copy is right

  friend bool operator==(const Verdict&, const Verdict&) = default;
};

/// Which of an extent's current copies are wrong: those that cannot be read, where another can, and
/// those that a majority of them contradicts.
[[nodiscard]] Verdict judge(const std::vector<Reading>& readings);

}  // namespace policy
