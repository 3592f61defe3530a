// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "host/channel.h"

namespace scaled {

/// Local sockets that lead to consoles and screens of VMs on any node, each for as long as somebody
/// is connected to it, or may be about to.
class Consoles {
 public:
  /// `paths`: what their paths begin with. What an earlier daemon left there goes.
  explicit Consoles(std::string paths);

  /// The path of a new one, whose connections lead to where `connect` does. It goes a minute after
  /// the last of them. Code::conflict where there are too many.
  core::Result<std::string> open(host::Tunnel::Connect connect);
  /// Those that nobody uses go.
  void tidy();

 private:
  using Clock = std::chrono::steady_clock;
  struct Open {
    std::unique_ptr<host::Tunnel> tunnel;
    Clock::time_point used;
  };

  const std::string paths_;
  std::mutex mutex_;
  uint64_t next_ = 1;
  std::list<Open> open_;
};

}  // namespace scaled
