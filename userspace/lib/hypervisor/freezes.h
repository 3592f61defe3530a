// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "core/result.h"

namespace hypervisor {

using core::Result;

/// Guests of this node whose agents hold their file systems still for a snapshot.
///
/// None is held for longer than its time, whatever becomes of whoever asked: a file says that it is
/// before it is, so that a daemon which was killed lets it go on when it begins again. An agent
/// that does not answer may have done as it was told all the same: it is asked again, for minutes,
/// until it says that its guest goes on, or its domain has ended. It does not move meanwhile.
///
/// Any thread; agents are called without the lock. Its own thread lets guests go on.
class Freezes {
 public:
  /// How agents are reached, by a domain's UUID. thaw() says Code::not_found where it has ended.
  struct Agents {
    std::function<Result<void>(const std::string& uuid)> freeze;
    std::function<Result<void>(const std::string& uuid)> thaw;
    /// What is to be known of one that did not thaw; `given_up`: it is not asked again.
    std::function<void(const std::string& uuid, const std::string& why, bool given_up)> failed;
  };

  /// As Windows' own limit. A freeze() must take less.
  static constexpr std::chrono::seconds kAtMost{10};
  /// Between attempts to let a guest go on, of which there are so many.
  static constexpr std::chrono::seconds kAgain{2};
  static constexpr int kTries = 100;

  /// `folder` is this object's alone; what files in it name is let go on.
  Freezes(std::filesystem::path folder, Agents agents, std::chrono::milliseconds at_most = kAtMost,
          std::chrono::milliseconds again = kAgain);
  ~Freezes();
  Freezes(const Freezes&) = delete;
  Freezes& operator=(const Freezes&) = delete;

  /// A ticket to thaw() it with, never 0. Code::conflict where it is frozen for somebody else, or
  /// moves to another node.
  Result<uint64_t> freeze(const std::string& uuid);
  /// Lets it go on, soon; whether it was held until now. What is said too late does nothing to the
  /// next one's: that has another ticket.
  bool thaw(const std::string& uuid, uint64_t ticket);

  /// A guest that is frozen does not move: false. One that moves is not frozen, until moved().
  bool may_move(const std::string& uuid);
  void moved(const std::string& uuid);

 private:
  using Clock = std::chrono::steady_clock;
  struct Frozen {
    uint64_t ticket = 0;  // 0: of a daemon before this one
    Clock::time_point until;
    bool begins = false;  // its agent has not answered yet
    bool ends = false;    // it is let go on
    int tries = 0;        // so often it was not
  };

  void run(const std::stop_token& stop);
  void poke();
  uint64_t another_ticket();
  void forget(const std::string& uuid);
  std::filesystem::path file_of(const std::string& uuid) const { return folder_ / uuid; }

  const std::filesystem::path folder_;  // a file for each of frozen_, by UUID
  const Agents agents_;
  const std::chrono::milliseconds at_most_;
  const std::chrono::milliseconds again_;
  std::mutex mutex_;  // of all that follows
  std::condition_variable_any poked_;
  bool changed_ = false;
  std::map<std::string, Frozen> frozen_;  // by UUID
  std::set<std::string> moving_;
  std::random_device random_;
  std::jthread thread_;  // last
};

}  // namespace hypervisor
