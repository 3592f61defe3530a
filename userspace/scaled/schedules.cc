// SPDX-License-Identifier: GPL-2.0
#include "schedules.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

#include "api_vms.h"
#include "core/rest.h"
#include "policy/retention.h"
#include "recurrence/recurrence.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kSchedulesLookEvery{1};
constexpr seconds kScheduleAgain{60};  // writers are held for each attempt
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
    core::rest_until(stop, Clock::now() + kSchedulesLookEvery);
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
  forget_what_is_gone(*schedules);
  const int64_t now = std::time(nullptr);
  bool taken = false;
  for (const meta::Schedule& one : *schedules) {
    if (stop.stop_requested()) return;
    if (!one.vsds.empty()) taken = take_in_time(one, 0, one.done, now) || taken;
    for (const meta::Schedule::OfVm& of : one.vms)
      taken = take_in_time(one, of.vm, of.done, now) || taken;
  }
  looked_ = now;
  if (!taken && Clock::now() - expired_ < kExpireEvery) return;
  expired_ = Clock::now();
  expire(*schedules, now, stop);
}

// Whether something that a schedule is of could not be kept, and is tried again.
bool Schedules::waits(uint64_t schedule) const {
  return std::any_of(not_before_.begin(), not_before_.end(),
                     [&](const auto& one) { return one.first.first == schedule; });
}

// A VM that could not be kept, and is none of the schedule's any more.
void Schedules::forget_what_is_gone(const std::vector<meta::Schedule>& schedules) {
  std::erase_if(not_before_, [&](const auto& one) {
    const uint64_t id = one.first.first;
    const uint64_t vm = one.first.second;
    return std::none_of(schedules.begin(), schedules.end(), [&](const meta::Schedule& schedule) {
      return schedule.id == id &&
             (vm == 0 || std::any_of(schedule.vms.begin(), schedule.vms.end(),
                                     [&](const auto& of) { return of.vm == vm; }));
    });
  });
  for (const meta::Schedule& one : schedules)
    if (noted_.contains("schedule " + one.name) && !waits(one.id)) note(one.name, "");
}

bool Schedules::take_in_time(const meta::Schedule& schedule, uint64_t vm, int64_t done,
                             int64_t now) {
  const auto at = not_before_.find({schedule.id, vm});
  if (at != not_before_.end() && Clock::now() < at->second) return false;
  // A clock that was wrong, here or on the last leader, has left a time that is still to come.
  const int64_t after = done <= now ? done : looked_.value_or(now);
  const auto time =
      recurrence::last_within({schedule.rule, schedule.zone, schedule.starts}, after, now);
  if (time) take(schedule, vm, *time);
  return time.has_value();
}

std::optional<core::Result<void>> Schedules::try_to_take(const meta::Schedule& schedule,
                                                         uint64_t vm, int64_t time) {
  const std::string name = scheduled_name(schedule.name, time);
  const json::object what{{"name", name}, {"schedule", schedule.id}, {"time", time}};
  if (vm != 0) {
    const auto vms = call_->cluster().vms();
    if (!vms) return vms.error();
    const auto of =
        std::find_if(vms->begin(), vms->end(), [&](const auto& one) { return one.id == vm; });
    if (of == vms->end()) return std::nullopt;
    const auto taken = take_vm_snapshot(*call_, *of, what);
    if (!taken) return taken.error();
    const bool frozen = taken->at("frozen").as_bool();
    spdlog::info("schedule {}: snapshot {} of VM {}, {}", schedule.name, name, of->name,
                 frozen ? "at rest" : "not at rest");
    return core::Result<void>();
  }
  std::vector<std::string> names;
  const auto vsds = call_->cluster().vsds();
  if (!vsds) return vsds.error();
  for (const meta::Vsd& one : *vsds)
    if (one.is_listed() &&
        std::find(schedule.vsds.begin(), schedule.vsds.end(), one.id) != schedule.vsds.end())
      names.push_back(one.name);
  if (names.empty()) return std::nullopt;
  const auto taken = take_snapshots(*call_, names, what);
  if (!taken) return taken.error();
  spdlog::info("schedule {}: snapshots {} of {} virtual disks", schedule.name, name, names.size());
  return core::Result<void>();
}

void Schedules::take(const meta::Schedule& schedule, uint64_t vm, int64_t time) {
  const auto taken = try_to_take(schedule, vm, time);
  if (!taken) return;
  const auto was_done = [&](const meta::Schedule& one) {
    if (one.id != schedule.id) return false;
    if (vm == 0) return one.done == time;
    return std::any_of(one.vms.begin(), one.vms.end(),
                       [&](const auto& of) { return of.vm == vm && of.done == time; });
  };
  // The answer of an attempt that went well may have been lost.
  const auto after = call_->cluster().schedules();
  if (*taken || (after && std::any_of(after->begin(), after->end(), was_done))) {
    not_before_.erase({schedule.id, vm});
    if (!waits(schedule.id)) note(schedule.name, "");
    return;
  }
  not_before_[{schedule.id, vm}] = Clock::now() + kScheduleAgain;
  note(schedule.name, "no snapshots could be taken (it is tried again): " + taken->error().text);
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
  const auto of_vms = call_->cluster().vm_snapshots();
  if (!of_vms) return;
  // As if a VM were one disk.
  std::vector<meta::Snapshot> whole;
  for (const meta::VmSnapshot& one : *of_vms)
    whole.push_back({{one.id}, {one.was.id}, one.name, 0, one.created, one.schedule});
  // What was told of clocks is looked at again, also where nothing is old enough to ask for it.
  agreed_.reset();
  if (noted_.contains("clock")) agreed_ = clocks_agree();
  size_t deleted = 0;
  const auto drop = [&](const meta::Schedule& schedule, const policy::Expired& one,
                        json::object proposal, const std::string& what) {
    if (stop.stop_requested() || deleted == kMostDeleted || !may_go(one.by_age)) return;
    // One that is open is asked for again.
    if (!call_->propose(std::move(proposal))) return;
    deleted++;
    spdlog::info("schedule {}: snapshot {} is deleted, {}", schedule.name, what,
                 one.by_age ? "for its age" : "for there are enough newer ones");
  };
  for (const meta::Schedule& schedule : schedules) {
    for (const policy::Expired& one : policy::expired(schedule, *snapshots, now)) {
      const auto label = call_->cluster().label(one.snapshot.id);
      if (label)
        drop(schedule, one, {{"op", "snapshot_delete"}, {"snapshot", one.snapshot.id.value}},
             *label);
    }
    for (const policy::Expired& one : policy::expired(schedule, whole, now))
      drop(schedule, one, {{"op", "vm_snapshot_delete"}, {"vm_snapshot", one.snapshot.id.value}},
           one.snapshot.name + " of VM " + std::to_string(one.snapshot.vsd.value));
  }
}

bool Schedules::may_go(bool by_age) {
  if (!by_age) return true;
  if (!agreed_) agreed_ = clocks_agree();
  return *agreed_;
}

}  // namespace scaled
