// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "core/id.h"
#include "peers.h"

namespace scaled {

/// Tells the other nodes that the log has grown, so that they look at once and not at their next
/// tick. Nothing depends on it: a hint that gets lost costs a second.
class Hints {
 public:
  Hints(Peers& peers, core::NodeId self) : peers_(peers), self_(self) {}
  ~Hints();
  Hints(const Hints&) = delete;
  Hints& operator=(const Hints&) = delete;

  /// The log has this entry. Does not block; of several, a slow node hears the last.
  void announce(uint64_t index);

 private:
  void tell(core::NodeId node, const std::stop_token& stop);

  Peers& peers_;
  const core::NodeId self_;
  std::mutex mutex_;
  std::condition_variable_any grown_;
  uint64_t index_ = 0;
  std::map<core::NodeId, std::jthread> threads_;  // one each: a dead node delays no other
};

}  // namespace scaled
