// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "agent.h"
#include "config.h"
#include "control/kernel.h"
#include "host/watchdog.h"
#include "journal/etcd.h"
#include "meta/cluster.h"
#include "replica/replica.h"

namespace scaled {

/// That this node is alive, said to the others; and who of them is not.
///
/// Each node writes its key in etcd every fifth of its lease, on condition that nobody has declared
/// this life dead, and then may do I/O until a lease's time after it began to write. The leader
/// declares a life dead, on condition that the key has not changed since it was last seen, when
/// that is a lease and a quarter ago on its own clock. So when the declaration stands, the deadline
/// of that node's kernel has passed, whatever the clocks of the two say; only their rates must
/// agree. A life that has not written its key yet may do no I/O; it gets more time, because a node
/// that has just started is slow and nobody waits for it.
class Liveness {
 public:
  Liveness(const Paths& paths, const Config& config, replica::Replica& replica, Agent& agent,
           host::Watchdog& watchdog, journal::Etcd::Endpoints endpoints);
  ~Liveness();

  /// Whether this node's time is over: others may declare it dead, and go on without it. Any
  /// thread.
  [[nodiscard]] bool expired() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    uint64_t life = 0;
    uint64_t revision = 0;
    Clock::time_point since;
  };

  void run(const std::stop_token& stop);
  void run_single(const std::stop_token& stop);
  void beat(control::Kernel& kernel, uint64_t life);
  void watch();
  void observe();
  void declare(const meta::Node& node, const Seen& seen);

  const Paths& paths_;
  const Config& config_;
  replica::Replica& replica_;
  Agent& agent_;
  host::Watchdog& watchdog_;
  journal::Etcd etcd_;
  std::map<core::NodeId, Seen> seen_;
  std::atomic<uint64_t> deadline_ns_{UINT64_MAX};  // of CLOCK_BOOTTIME; none before the first beat
  Clock::time_point observed_;                     // when the keys were last read
  std::jthread thread_;
};

}  // namespace scaled
