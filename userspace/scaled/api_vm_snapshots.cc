// SPDX-License-Identifier: GPL-2.0
// Snapshots and clones of virtual machines.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "api_vms.h"
#include "host/disks.h"
#include "host/dm.h"
#include "net/plan.h"
#include "vm/domain.h"

namespace scaled {

namespace json = boost::json;

namespace {

// More than the agent gets to answer.
constexpr std::chrono::milliseconds kFreezeTimeout{15'000};

Result<meta::VmSnapshot> find_vm_snapshot(Call& call, const std::string& label) {
  const size_t at = label.find('@');
  const auto vm = find_vm(call, label.substr(0, at));
  if (!vm) return vm.error();
  auto all = call.cluster().vm_snapshots();
  if (!all) return all.error();
  for (meta::VmSnapshot& one : *all)
    if (at != std::string::npos && one.was.id == vm->id && one.name == label.substr(at + 1))
      return std::move(one);
  return Error{Code::not_found, "VM " + vm->name + " has no such snapshot: " + label};
}

Outcome vm_snapshots_json(Call& call, uint64_t only) {
  auto all = call.cluster().vm_snapshots();
  auto vms = call.cluster().vms();
  if (!all || !vms) return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::VmSnapshot& one : *all) {
    if (only != 0 && one.was.id != only) continue;
    const auto vm = std::find_if(vms->begin(), vms->end(),
                                 [&](const meta::Vm& of) { return of.id == one.was.id; });
    json::array disks;
    for (const auto& disk : one.disks) {
      if (!disk.of_guest()) continue;
      auto label = call.cluster().label(disk.snapshot);
      if (!label) return label.error();
      disks.push_back(json::value(*label));
    }
    out.push_back(json::object{{"vm", vm == vms->end() ? "" : vm->name},
                               {"name", one.name},
                               {"created", one.created},
                               {"vcpus", one.was.vcpus},
                               {"memory_mib", one.was.memory_mib},
                               {"at_rest", one.at_rest},
                               {"disks", std::move(disks)}});
  }
  return json::object{{"snapshots", std::move(out)}};
}

Result<Vms*> vms_here(Call& call) {
  Vms* const vms = call.member().vms();
  if (vms == nullptr) return Error{Code::conflict, "its node's daemon has just begun; try again"};
  return vms;
}

// By this node's own row, not by that of whoever asks: a word that comes late, to a daemon that
// began anew, would freeze a guest which another daemon is moving away.
Outcome freeze_here(Call& call, const std::string& uuid, uint64_t run) {
  const auto vms = vms_here(call);
  if (!vms) return vms.error();
  const auto rows = call.cluster().vms();
  if (!rows) return rows.error();
  for (const meta::Vm& vm : *rows)
    if (vm.uuid == uuid && vm.to_node)
      return Error{Code::conflict, "it is on its way to another node"};
  const auto ticket = (*vms)->freeze(uuid, run);
  if (!ticket) return ticket.error();
  return json::object{{"ticket", *ticket}};
}

Outcome thaw_here(Call& call, const std::string& uuid, uint64_t ticket) {
  const auto vms = vms_here(call);
  if (!vms) return vms.error();
  return json::object{{"until_now", (*vms)->thaw(uuid, ticket)}};
}

/// A guest whose agent holds its file systems still, as long as this is there.
class Frozen {
 public:
  Frozen(Call& call, const meta::Vm& vm) : call_(call), vm_(vm) {
    if (vm.state == "off") return;  // its file systems are as much at rest as they can be
    if (vm.state != "running" || vm.to_node) {
      why_not_ = vm.to_node ? "it is on its way to another node" : "it is " + vm.state;
      return;
    }
    const auto done = freeze();
    if (done && done->contains("ticket"))
      ticket_ = done->at("ticket").to_number<uint64_t>();
    else
      why_not_ = done ? "a node's answer is incomplete" : done.error().text;
  }
  ~Frozen() { thaw(); }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

  void thaw() {
    const uint64_t ticket = std::exchange(ticket_, 0);
    if (ticket == 0) return;
    const auto done = is_here() ? thaw_here(call_, vm_.uuid, ticket)
                                : call_.member().peers().call(
                                      vm_.node, "/peer/thaw",
                                      {{"uuid", vm_.uuid}, {"ticket", ticket}}, kFreezeTimeout);
    was_frozen_ = done && done->contains("until_now") && done->at("until_now") == true;
    if (!was_frozen_) why_not_ = done ? "its guest went on before" : done.error().text;
  }
  bool was_frozen() const { return was_frozen_; }
  void say(json::object& answer) const {
    answer["frozen"] = was_frozen_;
    answer["why_not_frozen"] = why_not_;
  }

 private:
  bool is_here() const { return vm_.node == call_.member().config().node; }
  Outcome freeze() {
    if (is_here()) return freeze_here(call_, vm_.uuid, vm_.run);
    return call_.member().peers().call(vm_.node, "/peer/freeze",
                                       {{"uuid", vm_.uuid}, {"run", vm_.run}}, kFreezeTimeout);
  }

  Call& call_;
  const meta::Vm& vm_;
  uint64_t ticket_ = 0;  // 0: it is not frozen
  bool was_frozen_ = false;
  std::string why_not_;
};

// Of the snapshot that an entry has taken: it may be gone by now, and another one have its name.
void note_rest(Call& call, const json::array& taken) {
  const auto all = call.cluster().vm_snapshots();
  if (!all || taken.empty()) return;
  const core::SnapshotId first{taken.at(0).at("snapshot").to_number<uint64_t>()};
  for (const meta::VmSnapshot& one : *all) {
    if (std::none_of(one.disks.begin(), one.disks.end(),
                     [&](const auto& disk) { return disk.snapshot == first; }))
      continue;
    const auto said = call.propose({{"op", "vm_snapshot_rested"}, {"vm_snapshot", one.id}});
    if (!said)
      spdlog::warn("snapshot {}: that it is of a guest at rest is not kept: {}", one.name,
                   said.error().text);
  }
}

}  // namespace

// For take_vm_snapshot() on another node.
Outcome serve_freeze(Call& call) {
  return freeze_here(call, json::value_to<std::string>(call.body().at("uuid")),
                     call.body().at("run").to_number<uint64_t>());
}

Outcome serve_thaw(Call& call) {
  return thaw_here(call, json::value_to<std::string>(call.body().at("uuid")),
                   call.body().at("ticket").to_number<uint64_t>());
}

Outcome take_vm_snapshot(Call& call, const meta::Vm& vm, json::object what) {
  const std::string name = json::value_to<std::string>(what.at("name"));
  if (!meta::valid_name(name)) return Error{Code::invalid, "'" + name + "' is no name"};
  if (vm.disks.empty()) return Error{Code::invalid, "VM " + vm.name + " has no disks"};
  std::vector<std::string> names;
  for (const meta::VmDisk& disk : vm.disks) {
    if (disk.slot == meta::kSeedSlot) continue;  // it is made anew at each start
    const auto vsd = call.cluster().vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (*vsd) names.push_back((*vsd)->name);
  }
  what["vm"] = vm.id;
  // Its agent writes before anybody holds the disks' writers.
  Frozen frozen(call, vm);
  auto taken = take_snapshots(call, names, what);
  frozen.thaw();
  if (taken) frozen.say(*taken);
  if (taken && frozen.was_frozen()) note_rest(call, taken->at("taken").as_array());
  return taken;
}

// As a domain whose disks are called after the VM, and whose drives are empty: for another cluster.
Outcome export_vm_snapshot(Call& call, const std::string& label) {
  const auto snapshot = find_vm_snapshot(call, label);
  if (!snapshot) return snapshot.error();
  meta::Vm vm = snapshot->was;
  vm.name = label.substr(0, label.find('@'));
  const auto now = find_vm(call, vm.name);
  if (!now) return now.error();
  vm.uuid = now->uuid;
  json::array snapshots;
  std::vector<vm::DomainDisk> disks;
  for (const auto& disk : snapshot->disks) {
    if (!disk.of_guest()) continue;
    const std::string number = std::to_string(disks.size());
    const auto of = call.cluster().label(disk.snapshot);
    if (!of) return of.error();
    snapshots.push_back(json::value(*of));
    disks.push_back({"/dev/mapper/" + host::device_name(vm.name + "-" + number), disk.bus,
                     "disk-" + number, disk.iops, disk.bytes_per_s});
  }
  std::vector<vm::DomainCdrom> cdroms;
  for (const meta::VmCdrom& cdrom : vm.cdroms) cdroms.push_back({cdrom.slot, ""});
  // An interface of what has come back gets its own MAC, where this one is still there.
  for (meta::VmNic& nic : vm.nics)
    for (const meta::VmNic& one : now->nics)
      if (one.slot == nic.slot) nic.mac = one.mac;
  return json::object{{"xml", vm::domain_xml(vm, disks, net::kLanBridge, cdroms)},
                      {"snapshots", std::move(snapshots)}};
}

Outcome list_vm_snapshots(Call& call) { return vm_snapshots_json(call, 0); }

Outcome create_vm_snapshot(Call& call) {
  Fields fields = call.fields();
  const std::string of = fields.text("vm");
  const std::string name = fields.text("name");
  CORE_TRY(fields.check());
  const auto vm = find_vm(call, of);
  if (!vm) return vm.error();
  auto taken = take_vm_snapshot(call, *vm, {{"name", name}});
  if (!taken) return taken;
  auto out = vm_snapshots_json(call, vm->id);
  if (out)
    for (const char* field : {"paused_ms", "frozen", "why_not_frozen"})
      (*out)[field] = taken->at(field);
  return out;
}

Outcome delete_vm_snapshot(Call& call, const std::string& name) {
  const auto snapshot = find_vm_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  return call.propose({{"op", "vm_snapshot_delete"}, {"vm_snapshot", snapshot->id}});
}

Outcome revert_vm(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string keep = fields.text("keep");
  CORE_TRY(fields.check());
  const auto snapshot = find_vm_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  for (;;) {
    auto done = call.propose({{"op", "vm_revert"}, {"vm_snapshot", snapshot->id}, {"keep", keep}});
    if (!done) return done;
    if (!done->contains("again")) break;
  }
  return vm_snapshots_json(call, snapshot->was.id);
}

Outcome clone_vm(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string clone = fields.text("name");
  auto body = vm_fields(call, fields, false);
  CORE_TRY(fields.check());
  if (!body) return body;
  const bool now = name.find('@') == std::string::npos;
  std::string label = name;
  if (now) {
    const auto vm = find_vm(call, name);
    if (!vm) return vm.error();
    // Before anybody has to wait for it.
    if (find_vm(call, clone)) return Error{Code::conflict, "a VM named " + clone + " exists"};
    label = name + "@for-" + clone;
    auto taken = take_vm_snapshot(call, *vm, {{"name", "for-" + clone}});
    if (!taken) return taken;
  }
  const auto snapshot = find_vm_snapshot(call, label);
  if (!snapshot) return snapshot.error();
  (*body)["op"] = "vm_clone";
  (*body)["vm_snapshot"] = snapshot->id;
  (*body)["name"] = clone;
  (*body)["uuid"] = host::to_string(host::make_uuid());
  (*body)["drop"] = now;
  auto made = call.propose(std::move(*body));
  if (made) return vms_json(call, clone);
  if (now && made.error().code != Code::unknown)
    (void)call.propose({{"op", "vm_snapshot_delete"}, {"vm_snapshot", snapshot->id}});
  return made;
}

}  // namespace scaled
