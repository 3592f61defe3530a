// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "core/result.h"

namespace host {

/// The machine's watchdog, which resets it where nobody pets it for a while: for what even a
/// kernel that hangs, or a daemon that does not run any more, must come to. Hardware comes first,
/// the kernel's own softdog after it. May be used by several threads.
class Watchdog {
 public:
  explicit Watchdog(std::string dev = "/dev", std::string sys = "/sys/class/watchdog")
      : dev_(std::move(dev)), sys_(std::move(sys)) {}
  /// Leaves an armed one armed: who dies without a word is reset.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Takes and arms the first that can be had; nothing where one is armed already. not_found: there
  /// is none. conflict: another program has it.
  core::Result<void> arm(std::chrono::seconds timeout);
  /// All is well for another timeout.
  void pet();
  /// Ends it, also one that an earlier run of this program left armed; arms no more after that
  /// where `for_good`. A device with the "nowayout" option set goes on all the same.
  void disarm(bool for_good);
  /// Name of the device in use, such as "i6300ESB timer"; empty: none.
  std::string in_use() const;

 private:
  void close_device();

  const std::string dev_;
  const std::string sys_;
  mutable std::mutex mutex_;
  int fd_ = -1;
  std::string identity_;
  bool over_ = false;
};

}  // namespace host
