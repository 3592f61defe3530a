// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "core/id.h"

namespace policy {

/// Which leases are on their way to the kernel of a node, or out of it, in threads beside the one
/// that asks the kernel which leases it wants. What the kernel has answered was true when it was
/// asked: a lease that it was given since then is in that answer as one that it wants, and taking
/// it again would end the epoch in which it was given. Without a lock of its own: it is under that
/// of whoever has it. It remembers each VSD that ever changed hands, as long as the daemon runs.
class Hands {
 public:
  /// False where a change is under way already.
  bool begin(core::VsdId vsd) { return under_way_.insert(vsd).second; }
  void end(core::VsdId vsd) {
    if (under_way_.erase(vsd) != 0) ended_[vsd] = ++ends_;
  }
  [[nodiscard]] bool change(core::VsdId vsd) const { return under_way_.contains(vsd); }

  /// To be asked for before the kernel is asked.
  [[nodiscard]] uint64_t moment() const { return ends_; }
  /// Whether the kernel's answer counts: no change is under way, and none has ended since then.
  [[nodiscard]] bool calm_since(core::VsdId vsd, uint64_t moment) const {
    const auto at = ended_.find(vsd);
    return !change(vsd) && (at == ended_.end() || at->second <= moment);
  }

 private:
  std::set<core::VsdId> under_way_;
  std::map<core::VsdId, uint64_t> ended_;  // which of all ends was its last
  uint64_t ends_ = 0;
};

}  // namespace policy
