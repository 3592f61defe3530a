// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
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
/// until it says that its guest goes on, or its domain has ended.
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

  /// Code::conflict where it is frozen for somebody else, or moves to another node.
  Result<void> freeze(const std::string& uuid);
  /// Lets it go on, soon; whether it was held until now.
  bool thaw(const std::string& uuid);

  /// A guest that is frozen does not move: false. One that moves is not frozen, until moved().
  bool may_move(const std::string& uuid);
  void moved(const std::string& uuid);

 private:
  using Clock = std::chrono::steady_clock;
  struct Frozen {
    Clock::time_point until;
    bool begins = false;  // its agent has not answered yet
    bool ends = false;    // it is let go on
    int tries = 0;        // so often it was not
  };

  void run(const std::stop_token& stop);
  void poke();
  void forget(const std::string& uuid);
  std::filesystem::path file_of(const std::string& uuid) const { return folder_ / uuid; }

  const std::filesystem::path folder_;
  const Agents agents_;
  const std::chrono::milliseconds at_most_;
  const std::chrono::milliseconds again_;
  std::mutex mutex_;
  std::condition_variable_any poked_;
  bool changed_ = false;
  std::map<std::string, Frozen> frozen_;  // by UUID
  std::set<std::string> moving_;
  std::jthread thread_;  // last
};

}  // namespace hypervisor
