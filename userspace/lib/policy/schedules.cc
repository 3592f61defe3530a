// SPDX-License-Identifier: GPL-2.0
// Snapshots that are taken by themselves. When a rule comes is the leader's to know (scaled);
// here is what was asked for, and what was done.
#include <algorithm>
#include <map>

#include "policy/handlers.h"
#include "policy/vm_rows.h"

namespace policy {

namespace {

constexpr size_t kMostVms = 64;
constexpr size_t kLongestSchedule = 40;  // the time is put behind it, for a snapshot's

Error no_schedule(uint64_t id) {
  return {Code::not_found, "no schedule with id " + std::to_string(id)};
}

json::array vms_of(const json::object& args) {
  const json::value* vms = args.if_contains("vms");
  return vms == nullptr ? json::array{} : vms->as_array();
}

// Times that were seen to of a VM that stays are not seen to again.
Result<void> put_vms(Context& c, uint64_t schedule, const json::object& args) {
  std::map<uint64_t, int64_t> done;
  const auto schedules = c.cluster.schedules();
  if (!schedules) return schedules.error();
  for (const meta::Schedule& one : *schedules)
    if (one.id == schedule)
      for (const meta::Schedule::OfVm& of : one.vms) done[of.vm] = of.done;
  run(c, "DELETE FROM scheduled_vm WHERE schedule = ?", s64(schedule));
  for (const json::value& one : vms_of(args)) {
    const auto vm = vm_of(c, json::object{{"vm", one}});
    if (!vm) return vm.error();
    run(c, "INSERT OR IGNORE INTO scheduled_vm VALUES(?, ?, ?)", s64(schedule), s64(vm->id),
        std::max(done[vm->id], c.now - 1));
  }
  return {};
}

Result<void> put_subjects(Context& c, uint64_t schedule, const json::object& args) {
  const json::array& vsds = args.at("vsds").as_array();
  const size_t vms = vms_of(args).size();
  if (vsds.size() + vms == 0 || vsds.size() > kVsdsAtOnce || vms > kMostVms)
    return Error{Code::invalid, "a schedule is of up to " + std::to_string(kVsdsAtOnce) +
                                    " VSDs and " + std::to_string(kMostVms) + " VMs, one at least"};
  CORE_TRY(put_vms(c, schedule, args));
  run(c, "DELETE FROM scheduled WHERE schedule = ?", s64(schedule));
  for (const json::value& one : vsds) {
    const auto vsd = living_vsd(c, json::object{{"vsd", one}});
    if (!vsd) return vsd.error();
    run(c, "INSERT OR IGNORE INTO scheduled VALUES(?, ?)", s64(schedule), s64(vsd->id.value));
  }
  return {};
}

int64_t starts_of(Context& c, const json::object& args) {
  const uint64_t starts = number(args, "starts");
  return starts == 0 ? c.now : s64(starts);
}

}  // namespace

// Its first time is the first one that comes from now on.
Outcome schedule_create(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  if (!meta::valid_name(name) || name.size() > kLongestSchedule)
    return Error{Code::invalid, "'" + name + "' is no name for a schedule: 1 to " +
                                    std::to_string(kLongestSchedule) +
                                    " letters, digits, '-', '_' and '.'"};
  if (ask(c, "SELECT count(*) FROM schedule WHERE name = ?", name) != 0)
    return Error{Code::conflict, "a schedule named " + name + " exists"};
  const uint64_t id = next_id(c, "schedule");
  run(c, "INSERT INTO schedule VALUES(?, ?, ?, ?, ?, ?, ?, ?)", s64(id), name, text(args, "rule"),
      text(args, "zone"), starts_of(c, args), s64(number(args, "keep")),
      s64(number(args, "keep_seconds")), c.now - 1);
  CORE_TRY(put_subjects(c, id, args));
  return json::object{{"schedule", id}};
}

// As it says from now on; what was missed before is not caught up.
Outcome schedule_set(Context& c, const json::object& args) {
  const uint64_t id = number(args, "schedule");
  if (run(c,
          "UPDATE schedule SET rule = ?, zone = ?, starts = ?, keep = ?, keep_seconds = ?, "
          "done = max(done, ?) WHERE id = ?",
          text(args, "rule"), text(args, "zone"), starts_of(c, args), s64(number(args, "keep")),
          s64(number(args, "keep_seconds")), c.now - 1, s64(id)) != 1)
    return no_schedule(id);
  CORE_TRY(put_subjects(c, id, args));
  return json::object{};
}

// What it took stays.
Outcome schedule_delete(Context& c, const json::object& args) {
  const uint64_t id = number(args, "schedule");
  if (run(c, "DELETE FROM schedule WHERE id = ?", s64(id)) != 1) return no_schedule(id);
  run(c, "DELETE FROM scheduled WHERE schedule = ?", s64(id));
  run(c, "DELETE FROM scheduled_vm WHERE schedule = ?", s64(id));
  for (const char* table : {"snapshot", "vm_snapshot"})
    run(c, (std::string("UPDATE ") + table + " SET schedule = 0 WHERE schedule = ?").c_str(),
        s64(id));
  return json::object{};
}

Result<void> may_take(Context& c, const json::object& args) {
  if (!args.contains("schedule")) return {};
  const uint64_t id = number(args, "schedule");
  const int64_t time = s64(number(args, "time"));
  if (ask(c, "SELECT count(*) FROM schedule WHERE id = ?", s64(id)) == 0) return no_schedule(id);
  // A time in the future was seen to by a leader whose clock was wrong.
  const uint64_t seen =
      args.contains("vm")
          ? ask(c,
                "SELECT count(*) FROM scheduled_vm WHERE schedule = ? AND vm = ? AND done >= ? AND "
                "done <= ?",
                s64(id), s64(number(args, "vm")), time, c.now)
          : ask(c, "SELECT count(*) FROM schedule WHERE id = ? AND done >= ? AND done <= ?",
                s64(id), time, c.now);
  if (seen != 0) return Error{Code::conflict, "the schedule's snapshots of that time were taken"};
  return {};
}

void note_taken(Context& c, const json::object& args, const json::array& taken) {
  if (!args.contains("schedule")) return;
  // Those of a VM's disks are its snapshot's.
  if (args.contains("vm")) {
    run(c, "UPDATE scheduled_vm SET done = ? WHERE schedule = ? AND vm = ?",
        s64(number(args, "time")), s64(number(args, "schedule")), s64(number(args, "vm")));
    return;
  }
  run(c, "UPDATE schedule SET done = ? WHERE id = ?", s64(number(args, "time")),
      s64(number(args, "schedule")));
  for (const json::value& one : taken)
    run(c, "UPDATE snapshot SET schedule = ? WHERE id = ?", s64(number(args, "schedule")),
        s64(number(one.as_object(), "snapshot")));
}

}  // namespace policy
