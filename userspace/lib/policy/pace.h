// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace policy {

/// I/O of a node's users in some time: how many, and how long they waited in all.
struct Load {
  uint64_t count = 0;
  uint64_t waited_ms = 0;
};

/// Redundancy that is missing is urgent: where users are busy all the time it still comes back in
/// a time that can be waited for.
enum class Haste { none, urgent };

/// How fast background work goes: as fast as it can while nobody else does I/O, and so slow that
/// the others hardly notice while somebody does. It learns what they notice by comparing how long
/// their I/O takes while it works and while it rests.
class Pace {
 public:
  /// After a piece of work: how long to rest now.
  std::chrono::milliseconds rest_after(std::chrono::milliseconds worked, const Load& meanwhile,
                                       Haste haste = Haste::none);
  /// After a rest: what the others did in that time.
  void rested(const Load& meanwhile);
  /// How much to do at once, of at most so much.
  [[nodiscard]] size_t piece(size_t most) const;

 private:
  double factor_ = 1;   // of the time worked, to rest
  double calm_ms_ = 0;  // how long an I/O takes without us; 0: not known
};

}  // namespace policy
