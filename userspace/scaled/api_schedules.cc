// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <ctime>

#include "api_vms.h"
#include "recurrence/recurrence.h"

namespace scaled {

namespace json = boost::json;

namespace {

constexpr uint64_t kFarAway = uint64_t{1} << 40;  // for times and numbers: no rule needs more

Result<meta::Schedule> find_schedule(Call& call, const std::string& name) {
  auto all = call.cluster().schedules();
  if (!all) return all.error();
  for (meta::Schedule& one : *all)
    if (one.name == name) return std::move(one);
  return Error{Code::not_found, "no schedule named " + name};
}

json::object schedule_json(const meta::Schedule& schedule, const std::vector<meta::Vsd>& vsds,
                           const std::vector<meta::Snapshot>& snapshots,
                           const std::vector<meta::Vm>& vms,
                           const std::vector<meta::VmSnapshot>& vm_snapshots) {
  json::array machines;
  for (const meta::Vm& one : vms)
    for (const meta::Schedule::OfVm& of : schedule.vms)
      if (of.vm == one.id) machines.push_back(json::value(one.name));
  json::array names;
  for (const meta::Vsd& one : vsds)
    if (std::find(schedule.vsds.begin(), schedule.vsds.end(), one.id) != schedule.vsds.end())
      names.push_back(json::value(one.name));
  uint64_t kept = 0;
  int64_t newest = 0;
  for (const meta::Snapshot& one : snapshots) {
    if (one.schedule != schedule.id) continue;
    kept++;
    newest = std::max(newest, one.created);
  }
  for (const meta::VmSnapshot& one : vm_snapshots) {
    if (one.schedule != schedule.id) continue;
    kept++;
    newest = std::max(newest, one.created);
  }
  const auto next =
      recurrence::next_after({schedule.rule, schedule.zone, schedule.starts}, std::time(nullptr));
  return {{"id", schedule.id},
          {"name", schedule.name},
          {"vsds", std::move(names)},
          {"vms", std::move(machines)},
          {"rule", schedule.rule},
          {"zone", schedule.zone},
          {"starts", schedule.starts},
          {"keep", schedule.keep},
          {"keep_seconds", schedule.keep_seconds},
          {"snapshots", kept},
          {"newest", newest},
          {"next", next.value_or(0)}};
}

Outcome schedules_json(Call& call, const std::string& only) {
  auto schedules = call.cluster().schedules();
  auto vsds = call.cluster().vsds();
  auto snapshots = call.cluster().snapshots();
  const auto vms = call.cluster().vms();
  const auto vm_snapshots = call.cluster().vm_snapshots();
  if (!schedules || !vsds || !snapshots || !vms || !vm_snapshots)
    return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::Schedule& one : *schedules)
    if (only.empty() || one.name == only)
      out.push_back(schedule_json(one, *vsds, *snapshots, *vms, *vm_snapshots));
  if (only.empty()) return json::object{{"schedules", std::move(out)}};
  if (out.empty()) return Error{Code::not_found, "no schedule named " + only};
  return out.at(0).as_object();
}

// A schedule's fields as a request wants them; what it does not name stays as it is.
Result<json::object> wanted(Call& call, Fields& fields, const meta::Schedule& now) {
  const uint64_t starts = fields.number("starts", static_cast<uint64_t>(now.starts));
  const uint64_t keep = fields.number("keep", now.keep);
  const uint64_t keep_seconds = fields.number("keep_seconds", now.keep_seconds);
  recurrence::Rule rule{fields.text("rule", now.rule), fields.text("zone", now.zone), 0};
  // An empty list takes all away.
  const auto names = [&](const char* field) {
    const json::value* all = call.body().if_contains(field);
    const bool none = all != nullptr && all->is_array() && all->as_array().empty();
    if (none) fields.skip(field);
    return none ? std::vector<std::string>() : fields.texts(field);
  };
  json::array vsds;
  json::array vms;
  if (!call.body().contains("vsds"))
    for (const core::VsdId vsd : now.vsds) vsds.push_back(vsd.value);
  else
    for (const std::string& name : names("vsds")) {
      auto vsd = call.vsd(name);
      if (!vsd) return vsd.error();
      vsds.push_back(vsd->id.value);
    }
  if (!call.body().contains("vms"))
    for (const meta::Schedule::OfVm& of : now.vms) vms.push_back(of.vm);
  else
    for (const std::string& name : names("vms")) {
      auto vm = find_vm(call, name);
      if (!vm) return vm.error();
      vms.push_back(vm->id);
    }
  CORE_TRY(fields.check());
  if (std::max({starts, keep, keep_seconds}) >= kFarAway)
    return Error{Code::invalid, "a number is too large"};
  rule.starts = starts != 0 ? static_cast<int64_t>(starts) : std::time(nullptr);
  CORE_TRY(recurrence::check(rule));
  return json::object{{"rule", rule.text},
                      {"zone", rule.zone},
                      {"starts", starts},
                      {"keep", keep},
                      {"vsds", std::move(vsds)},
                      {"vms", std::move(vms)},
                      {"keep_seconds", keep_seconds}};
}

}  // namespace

Outcome list_schedules(Call& call) { return schedules_json(call, ""); }

Outcome show_schedule(Call& call, const std::string& name) { return schedules_json(call, name); }

Outcome create_schedule(Call& call) {
  Fields fields = call.fields();
  const std::string name = fields.text("name");
  meta::Schedule begin;
  begin.zone = "UTC";
  if (!call.body().contains("rule")) fields.text("rule");  // must be given
  auto body = wanted(call, fields, begin);
  if (!body) return body.error();
  (*body)["op"] = "schedule_create";
  (*body)["name"] = name;
  auto made = call.propose(std::move(*body));
  return made ? schedules_json(call, name) : made;
}

Outcome change_schedule(Call& call, const std::string& name) {
  auto schedule = find_schedule(call, name);
  if (!schedule) return schedule.error();
  Fields fields = call.fields();
  auto body = wanted(call, fields, *schedule);
  if (!body) return body.error();
  (*body)["op"] = "schedule_set";
  (*body)["schedule"] = schedule->id;
  auto made = call.propose(std::move(*body));
  return made ? schedules_json(call, name) : made;
}

// The snapshots stay.
Outcome delete_schedule(Call& call, const std::string& name) {
  auto schedule = find_schedule(call, name);
  if (!schedule) return schedule.error();
  return call.propose({{"op", "schedule_delete"}, {"schedule", schedule->id}});
}

}  // namespace scaled
