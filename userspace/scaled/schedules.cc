// SPDX-License-Identifier: GPL-2.0
#include "schedules.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

#include "api_call.h"
#include "core/rest.h"
#include "policy/retention.h"
#include "recurrence/recurrence.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kLookEvery{1};
constexpr seconds kAgain{60};  // writers are held for each attempt
constexpr seconds kExpireEvery{60};
constexpr size_t kMostDeleted = 50;  // in one round: the log is others', too
constexpr milliseconds kClockTimeout{2'000};
constexpr int64_t kClocksDiffer = 300;

}  // namespace

std::string scheduled_name(const std::string& schedule, int64_t time) {
  const auto moment = static_cast<std::time_t>(time);
  std::tm parts{};
  gmtime_r(&moment, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "-%Y%m%d-%H%M%S", &parts);
  return schedule + text.data();
}

Schedules::Schedules(Member& member)
    : member_(member), thread_([this](const std::stop_token& stop) { run(stop); }) {}

Schedules::~Schedules() = default;

void Schedules::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    core::rest_until(stop, Clock::now() + kLookEvery);
    if (stop.stop_requested()) return;
    if (member_.replica().leading())
      look(stop);
    else
      forget();
  }
}

// Another node leads, and has the conditions.
void Schedules::forget() {
  for (const auto& [subject, text] : noted_) member_.agent().set_condition(subject, "");
  noted_.clear();
  not_before_.clear();
  looked_.reset();
}

void Schedules::note(const std::string& schedule, const std::string& text) {
  const std::string subject = schedule.empty() ? "clock" : "schedule " + schedule;
  member_.agent().set_condition(subject, text);
  if (text.empty())
    noted_.erase(subject);
  else
    noted_[subject] = text;
}

void Schedules::look(const std::stop_token& stop) {
  if (!call_) {
    auto call = std::make_unique<Call>(member_, json::object{});
    if (!call->open()) return;
    call_ = std::move(call);
  }
  const auto schedules = call_->cluster().schedules();
  if (!schedules) return;
  for (auto at = noted_.begin(); at != noted_.end();) {
    const std::string subject = (at++)->first;
    const bool known = subject == "clock" ||
                       std::any_of(schedules->begin(), schedules->end(), [&](const auto& one) {
                         return "schedule " + one.name == subject;
                       });
    if (!known) note(subject.substr(subject.find(' ') + 1), "");  // deleted meanwhile
  }
  const int64_t now = std::time(nullptr);
  bool taken = false;
  for (const meta::Schedule& one : *schedules) {
    if (one.vsds.empty() || stop.stop_requested()) continue;
    const auto at = not_before_.find(one.id);
    if (at != not_before_.end() && Clock::now() < at->second) continue;
    // A clock that was wrong, here or on the last leader, has left a time that is still to come.
    const int64_t after = one.done <= now ? one.done : looked_.value_or(now);
    const auto time = recurrence::last_within({one.rule, one.zone, one.starts}, after, now);
    if (!time) continue;
    take(one, *time);
    taken = true;
  }
  looked_ = now;
  if (!taken && Clock::now() - expired_ < kExpireEvery) return;
  expired_ = Clock::now();
  expire(*schedules, now, stop);
}

void Schedules::take(const meta::Schedule& schedule, int64_t time) {
  std::vector<std::string> names;
  const auto vsds = call_->cluster().vsds();
  if (!vsds) return;
  for (const meta::Vsd& one : *vsds)
    if (one.is_listed() &&
        std::find(schedule.vsds.begin(), schedule.vsds.end(), one.id) != schedule.vsds.end())
      names.push_back(one.name);
  if (names.empty()) return;
  const std::string name = scheduled_name(schedule.name, time);
  const auto taken =
      take_snapshots(*call_, names, {{"name", name}, {"schedule", schedule.id}, {"time", time}});
  if (taken) {
    spdlog::info("schedule {}: snapshots {} of {} virtual disks", schedule.name, name,
                 names.size());
    not_before_.erase(schedule.id);
    note(schedule.name, "");
    return;
  }
  // The answer of an attempt that went well may have been lost.
  const auto after = call_->cluster().schedules();
  if (after && std::any_of(after->begin(), after->end(), [&](const meta::Schedule& one) {
        return one.id == schedule.id && one.done == time;
      })) {
    note(schedule.name, "");
    return;
  }
  not_before_[schedule.id] = Clock::now() + kAgain;
  note(schedule.name, "no snapshots could be taken (it is tried again): " + taken.error().text);
}

// What is kept for a time goes by the leader's clock, which must not be alone with its opinion.
bool Schedules::clocks_agree() {
  const auto nodes = call_->cluster().nodes();
  if (!nodes) return false;
  size_t asked = 0;
  size_t answered = 0;
  for (const meta::Node& node : *nodes) {
    if (node.id == member_.config().node || node.state != "up") continue;
    asked++;
    const auto status = member_.peers().call(node.id, "/peer/status", {}, kClockTimeout);
    const json::value* theirs = status ? status->if_contains("time") : nullptr;
    if (theirs == nullptr || !theirs->is_int64()) continue;
    answered++;
    const int64_t differ = theirs->as_int64() - std::time(nullptr);
    if (std::abs(differ) <= kClocksDiffer) continue;
    note("", "the clock of node " + node.name + " differs from this node's by " +
                 std::to_string(std::abs(differ)) +
                 " s: until they agree no snapshot is deleted for its age");
    return false;
  }
  if (answered == 0 && asked != 0) return false;
  note("", "");
  return true;
}

void Schedules::expire(const std::vector<meta::Schedule>& schedules, int64_t now,
                       const std::stop_token& stop) {
  const auto snapshots = call_->cluster().snapshots();
  if (!snapshots) return;
  std::optional<bool> agreed;
  // What was told of clocks is looked at again, also where nothing is old enough to ask for it.
  if (noted_.contains("clock")) agreed = clocks_agree();
  size_t deleted = 0;
  for (const meta::Schedule& schedule : schedules) {
    for (const policy::Expired& one : policy::expired(schedule, *snapshots, now)) {
      if (stop.stop_requested() || deleted == kMostDeleted) return;
      if (one.by_age && !agreed) agreed = clocks_agree();
      if (one.by_age && !*agreed) continue;
      const auto label = call_->cluster().label(one.snapshot.id);
      if (!label) continue;
      const auto done =
          call_->propose({{"op", "snapshot_delete"}, {"snapshot", one.snapshot.id.value}});
      // One that is open is asked for again.
      if (!done) continue;
      deleted++;
      spdlog::info("schedule {}: snapshot {} is deleted, {}", schedule.name, *label,
                   one.by_age ? "for its age" : "for there are enough newer ones");
    }
  }
}

}  // namespace scaled
