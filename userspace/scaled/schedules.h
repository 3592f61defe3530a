// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "meta/cluster.h"

namespace scaled {

class Call;
class Member;

/// The leader's: takes the snapshots that schedules ask for, of VSDs together at one instant and of
/// each VM, and deletes those that they do not
/// keep any longer. What was missed, because there was no leader or a node could not be asked, is
/// caught up once.
class Schedules {
 public:
  explicit Schedules(Member& member);
  ~Schedules();

 private:
  using Clock = std::chrono::steady_clock;

  void run(const std::stop_token& stop);
  void forget();
  void look(const std::stop_token& stop);
  /// Of a schedule's VSDs, or one of its VMs (0: the VSDs); whether there was anything to take.
  bool take_in_time(const meta::Schedule& schedule, uint64_t vm, int64_t done, int64_t now);
  void take(const meta::Schedule& schedule, uint64_t vm, int64_t time);
  /// Nothing: there is none of what the schedule is of.
  std::optional<core::Result<void>> try_to_take(const meta::Schedule& schedule, uint64_t vm,
                                                int64_t time);
  void expire(const std::vector<meta::Schedule>& schedules, int64_t now,
              const std::stop_token& stop);
  bool waits(uint64_t schedule) const;
  void forget_what_is_gone(const std::vector<meta::Schedule>& schedules);
  /// Whether one that is not kept any longer may go now; by its age only where clocks agree.
  bool may_go(bool by_age);
  bool clocks_agree();
  void note(const std::string& schedule, const std::string& text);

  Member& member_;
  std::unique_ptr<Call> call_;
  using Of = std::pair<uint64_t, uint64_t>;     // a schedule and a VM, or 0
  std::map<Of, Clock::time_point> not_before_;  // where it did not go well
  std::optional<bool> agreed_;                  // of this look: whether clocks do
  std::map<std::string, std::string> noted_;    // conditions that are set here
  std::optional<int64_t> looked_;               // when, as long as this node leads
  Clock::time_point expired_;
  std::jthread thread_;  // last
};

/// Of the snapshots that a schedule takes at a time: its name, and the time in UTC.
std::string scheduled_name(const std::string& schedule, int64_t time);

}  // namespace scaled
