// SPDX-License-Identifier: GPL-2.0
// Virtual machines: what they are, where they run, what became of them. Their disks are VSDs,
// opened on the node that runs them in the entry that says so.
#include <algorithm>
#include <set>

#include "policy/handlers.h"
#include "policy/hosts.h"
#include "vm/domain.h"

namespace policy {

namespace {

constexpr int64_t kRetrySeconds = 10;
constexpr int64_t kRetryAtMost = 600;
constexpr int64_t kRanWell = 600;  // what crashes after that begins anew to count

Error no_vm(uint64_t id) { return {Code::not_found, "no VM with id " + std::to_string(id)}; }

Result<meta::Vm> vm_of(Context& c, const json::object& args) {
  auto all = c.cluster.vms();
  if (!all) return all.error();
  for (meta::Vm& one : *all)
    if (one.id == number(args, "vm")) return std::move(one);
  return no_vm(number(args, "vm"));
}

// The run of a VM that a node speaks of; another one is none of its business any more.
Result<meta::Vm> run_of(Context& c, const json::object& args) {
  auto vm = vm_of(c, args);
  if (!vm) return vm;
  if (vm->node.value != number(args, "node") || vm->life != number(args, "life") ||
      vm->run != number(args, "run"))
    return Error{Code::stale, "VM " + vm->name + " runs elsewhere, or anew"};
  return vm;
}

std::string words(const std::vector<std::string>& tags) {
  std::string out;
  for (const std::string& tag : tags) out += (out.empty() ? "" : " ") + tag;
  return out;
}

// What a request says of a VM, over what it was.
void take_fields(const json::object& args, meta::Vm& vm) {
  if (args.contains("name")) vm.name = text(args, "name");
  if (args.contains("description")) vm.description = text(args, "description");
  if (args.contains("vcpus")) vm.vcpus = number(args, "vcpus");
  if (args.contains("memory_mib")) vm.memory_mib = number(args, "memory_mib");
  if (args.contains("cpu")) vm.cpu = text(args, "cpu");
  if (args.contains("priority")) vm.priority = number(args, "priority");
  if (args.contains("tags")) vm.tags = json::value_to<std::vector<std::string>>(args.at("tags"));
}

void take_nics(const json::object& args, meta::Vm& vm) {
  if (!args.contains("nics")) return;
  vm.nics.clear();
  for (const json::value& one : args.at("nics").as_array())
    vm.nics.push_back({"", text(one.as_object(), "bridge"), text(one.as_object(), "model")});
}

Result<void> name_is_free(Context& c, const meta::Vm& vm) {
  if (ask(c, "SELECT count(*) FROM vm WHERE name = ? AND id <> ?", vm.name, s64(vm.id)) != 0)
    return Error{Code::conflict, "a VM named " + vm.name + " exists"};
  return {};
}

// As a request or a snapshot has them; their MACs are the VM's own.
Result<void> put_nics(Context& c, const meta::Vm& vm) {
  for (size_t slot = 0; slot < vm.nics.size(); slot++) {
    const std::string mac = vm::mac_of(vm.uuid, slot);
    if (ask(c, "SELECT count(*) FROM vm_nic WHERE mac = ? AND vm <> ?", mac, s64(vm.id)) != 0)
      return Error{Code::conflict, "MAC " + mac + " is another VM's; try again"};
    run(c, "INSERT INTO vm_nic VALUES(?, ?, ?, ?, ?)", s64(vm.id), s64(slot), mac,
        vm.nics[slot].bridge, vm.nics[slot].model);
  }
  return {};
}

// A disk that is there already, or a new one, called after the VM.
Result<VsdId> disk_for(Context& c, const meta::Vm& vm, size_t slot, const json::object& disk) {
  if (disk.contains("vsd")) {
    const auto vsd = living_vsd(c, disk);
    if (!vsd) return vsd.error();
    if (const uint64_t other = ask(c, "SELECT vm FROM vm_disk WHERE vsd = ?", s64(vsd->id.value)))
      return Error{Code::conflict,
                   "VSD " + vsd->name + " is a disk of VM " + std::to_string(other)};
    if (ask(c, "SELECT count(*) FROM opened WHERE vsd = ?", s64(vsd->id.value)) != 0)
      return Error{Code::conflict, "VSD " + vsd->name + " is open; close it first"};
    return vsd->id;
  }
  const auto made = vsd_create(c, {{"name", vm.name + "-" + std::to_string(slot)},
                                   {"sectors", disk.at("sectors")},
                                   {"replicas", disk.at("replicas")}});
  if (!made) return made.error();
  return VsdId{made->at("vsd").to_number<uint64_t>()};
}

Result<std::vector<Host>> hosts(Context& c, uint64_t without_vm) {
  auto nodes = c.cluster.nodes();
  auto capacities = c.cluster.capacities();
  auto vms = c.cluster.vms();
  if (!nodes || !capacities || !vms) return Error{Code::storage, "the metadata is unreadable"};
  return hosts_of(*nodes, *capacities, *vms, without_vm);
}

void close_disks(Context& c, const meta::Vm& vm) {
  for (const meta::VmDisk& disk : vm.disks) {
    const auto vsd = c.cluster.vsd(disk.vsd);
    // One that is closed already needs nothing.
    if (vsd && *vsd) (void)close_device(c, disk.vsd, (*vsd)->name, vm.node.value);
  }
}

// It runs nowhere from now on; whether it is to run again is in its other columns.
void leave_node(Context& c, const meta::Vm& vm, const char* state, const std::string& reason) {
  run(c, "UPDATE vm SET node = 0, life = 0, state = ?, reason = ?, since = ? WHERE id = ?", state,
      reason, c.now, s64(vm.id));
}

void end_tasks(Context& c, const meta::Vm& vm, const char* what, const std::string& error) {
  c.tasks.end(what, vm.id, 0, error);
}

// A new row, of a VM that is off; it gets its number.
void put_vm(Context& c, meta::Vm& vm) {
  vm.id = next_id(c, "vm");
  run(c,
      "INSERT INTO vm VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'off', 'stop', 0, 0, 0, 'off', '', ?, "
      "0, 0)",
      s64(vm.id), vm.name, vm.uuid, vm.description, words(vm.tags), s64(vm.vcpus),
      s64(vm.memory_mib), vm.machine, vm.cpu, s64(vm.priority), c.now);
}

Result<meta::VmSnapshot> vm_snapshot_of(Context& c, const json::object& args) {
  auto all = c.cluster.vm_snapshots();
  if (!all) return all.error();
  const uint64_t id = number(args, "vm_snapshot");
  for (meta::VmSnapshot& one : *all)
    if (one.id == id) return std::move(one);
  return Error{Code::not_found, "no snapshot of a VM with id " + std::to_string(id)};
}

// A VM as it is now, of whose disks these are the snapshots, in their order.
void put_vm_snapshot(Context& c, const meta::Vm& vm, const std::string& name,
                     const std::vector<uint64_t>& snapshots) {
  const uint64_t id = next_id(c, "vm_snapshot");
  run(c, "INSERT INTO vm_snapshot VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", s64(id), s64(vm.id),
      name, c.now, vm.description, words(vm.tags), s64(vm.vcpus), s64(vm.memory_mib), vm.machine,
      vm.cpu, s64(vm.priority));
  for (size_t slot = 0; slot < snapshots.size(); slot++)
    run(c, "INSERT INTO vm_snapshot_disk VALUES(?, ?, ?, ?)", s64(id), s64(slot),
        s64(snapshots[slot]), vm.disks[slot].bus);
  for (size_t slot = 0; slot < vm.nics.size(); slot++)
    run(c, "INSERT INTO vm_snapshot_nic VALUES(?, ?, ?, ?)", s64(id), s64(slot),
        vm.nics[slot].bridge, vm.nics[slot].model);
}

// Any node uses any VSD: only that no other has the device keeps two QEMUs from writing it. One
// that still runs keeps its device from being closed; a life that is fenced has none.
Result<void> open_nowhere_else(Context& c, const meta::Vsd& vsd, uint64_t node) {
  const auto opened = c.cluster.opened();
  if (!opened) return opened.error();
  for (const meta::Opened& row : *opened) {
    if (row.vsd != vsd.id || row.node.value == node) continue;
    const int64_t other = s64(row.node.value);
    const uint64_t life = ask(c, "SELECT life FROM node WHERE id = ?", other);
    const bool down =
        ask(c, "SELECT count(*) FROM node WHERE id = ? AND state = 'down'", other) != 0;
    if (!down || !is_fenced(c, row.node.value, life))
      return Error{Code::conflict,
                   "VSD " + vsd.name + " is still open on node " + std::to_string(row.node.value)};
    run(c, "DELETE FROM opened WHERE vsd = ? AND node = ?", s64(vsd.id.value), other);
  }
  return {};
}

// Runs it on that node, or on the one that suits best.
Outcome place_vm(Context& c, const meta::Vm& vm, uint64_t wish) {
  auto all = hosts(c, vm.id);
  if (!all) return all.error();
  if (wish != 0) std::erase_if(*all, [&](const Host& one) { return one.node.value != wish; });
  const auto chosen = choose_host(*all, guest_of(vm), vm.failures);
  if (!chosen) return chosen.error();
  const uint64_t life = ask(c, "SELECT life FROM node WHERE id = ?", s64(chosen->value));
  // All are looked at before one is opened: whoever asks may go on behind a refusal.
  std::vector<meta::Vsd> vsds;
  for (const meta::VmDisk& disk : vm.disks) {
    auto vsd = c.cluster.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (!*vsd) return no_such("VSD", disk.vsd.value);
    CORE_TRY(open_nowhere_else(c, **vsd, chosen->value));
    vsds.push_back(std::move(**vsd));
  }
  for (const meta::Vsd& vsd : vsds) {
    const auto opened = open_device(c, vsd.id, vsd.name, chosen->value);
    if (!opened) return opened.error();
  }
  run(c,
      "UPDATE vm SET node = ?, life = ?, run = run + 1, state = 'starting', reason = '', since = ? "
      "WHERE id = ?",
      s64(chosen->value), s64(life), c.now, s64(vm.id));
  return json::object{{"node", chosen->value}};
}

int64_t retry_after(uint64_t failures) {
  constexpr uint64_t kDoublings = 6;
  return std::min(kRetrySeconds << std::min(failures - 1, kDoublings), kRetryAtMost);
}

}  // namespace

Outcome vm_create(Context& c, const json::object& args) {
  meta::Vm vm;
  vm.cpu = "host";
  take_fields(args, vm);
  vm.uuid = text(args, "uuid");
  const json::array& disks = args.at("disks").as_array();
  for (const json::value& one : disks) vm.disks.push_back({{}, text(one.as_object(), "bus")});
  take_nics(args, vm);
  CORE_TRY(vm::check(vm));
  CORE_TRY(name_is_free(c, vm));
  vm.machine = text(args, "machine");
  put_vm(c, vm);
  CORE_TRY(put_nics(c, vm));
  for (size_t slot = 0; slot < disks.size(); slot++) {
    const auto vsd = disk_for(c, vm, slot, disks[slot].as_object());
    if (!vsd) return vsd.error();
    run(c, "INSERT INTO vm_disk VALUES(?, ?, ?, ?)", s64(vm.id), s64(slot), s64(vsd->value),
        vm.disks[slot].bus);
  }
  return json::object{{"vm", vm.id}};
}

// What its domain is made of changes while it is off; words about it at any time.
Outcome vm_edit(Context& c, const json::object& args) {
  const auto before = vm_of(c, args);
  if (!before) return before.error();
  meta::Vm vm = *before;
  take_fields(args, vm);
  take_nics(args, vm);
  CORE_TRY(vm::check(vm));
  CORE_TRY(name_is_free(c, vm));
  if (vm.state != "off" &&
      (args.contains("nics") || vm.name != before->name || vm.vcpus != before->vcpus ||
       vm.memory_mib != before->memory_mib || vm.cpu != before->cpu))
    return Error{Code::conflict,
                 "VM " + before->name + " is " + before->state +
                     ": its name, vCPUs, memory, CPU and network change while it is "
                     "off"};
  if (args.contains("nics")) {
    run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm.id));
    CORE_TRY(put_nics(c, vm));
  }
  run(c,
      "UPDATE vm SET name = ?, description = ?, tags = ?, vcpus = ?, memory_mib = ?, cpu = ?, "
      "priority = ? WHERE id = ?",
      vm.name, vm.description, words(vm.tags), s64(vm.vcpus), s64(vm.memory_mib), vm.cpu,
      s64(vm.priority), s64(vm.id));
  return json::object{};
}

// With its disks, or without them: then they are VSDs as any.
Outcome vm_delete(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  if (vm->state != "off")
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state + "; stop it first"};
  if (ask(c, "SELECT count(*) FROM vm_snapshot WHERE vm = ?", s64(vm->id)) != 0)
    return Error{Code::conflict, "VM " + vm->name + " has snapshots; delete them first"};
  run(c, "DELETE FROM vm_disk WHERE vm = ?", s64(vm->id));
  run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm->id));
  run(c, "DELETE FROM vm WHERE id = ?", s64(vm->id));
  if (args.at("keep_disks").as_bool()) return json::object{};
  for (const meta::VmDisk& disk : vm->disks) {
    const auto deleted = vsd_delete(c, {{"vsd", disk.vsd.value}});
    if (!deleted) return deleted.error();
  }
  return json::object{};
}

Outcome vm_start(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  if (vm->wanted != "off")
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state + " already"};
  if (vm->state != "off")
    return Error{Code::conflict, "VM " + vm->name + " is being stopped; start it when it is off"};
  const uint64_t wish = number(args, "on");
  if (wish != 0 && ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(wish)) == 0)
    return no_such("node", wish);
  meta::Vm begun = *vm;
  begun.failures = 0;
  auto placed = place_vm(c, begun, wish);
  if (!placed) return placed;
  run(c, "UPDATE vm SET wanted = 'running', failures = 0 WHERE id = ?", s64(vm->id));
  (*placed)["task"] = c.tasks.begin("vm start", vm->id, vm->name, 0);
  return placed;
}

// Off, paused or running again. `how`: a guest that is asked to shut down may take its time.
Outcome vm_want(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  const std::string wanted = text(args, "wanted");
  const std::string how = text(args, "how");
  if (vm->state == "off") return Error{Code::conflict, "VM " + vm->name + " is off"};
  if (wanted != "off" && vm->wanted == "off")
    return Error{Code::conflict, "VM " + vm->name + " is being stopped"};
  run(c, "UPDATE vm SET wanted = ?, how = ? WHERE id = ?", wanted, how, s64(vm->id));
  const std::string what = wanted == "off"      ? "vm stop"
                           : wanted == "paused" ? "vm pause"
                                                : "vm resume";
  for (const char* other : {"vm start", "vm stop", "vm pause", "vm resume"})
    if (what != other) end_tasks(c, *vm, other, "something else was wanted meanwhile");
  if (vm->node) return json::object{{"task", c.tasks.begin(what, vm->id, vm->name, 0)}};
  // It waits for a node: there is nobody to tell.
  if (wanted == "off") leave_node(c, *vm, "off", "");
  return json::object{{"task", 0}};
}

// A node says that its domain is what was wanted.
Outcome vm_state(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  const std::string state = text(args, "state");
  run(c, "UPDATE vm SET state = ?, reason = '', since = ? WHERE id = ? AND state <> ?", state,
      c.now, s64(vm->id), state);
  if (state == "running") {
    end_tasks(c, *vm, "vm start", "");
    end_tasks(c, *vm, "vm resume", "");
  } else {
    end_tasks(c, *vm, "vm pause", "");
  }
  return json::object{};
}

// A node says that a run is over: as was wanted, or because the guest powered off ("shutdown"), or
// not ("failed"); then it begins anew after a while, on whatever node suits then.
Outcome vm_ended(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  close_disks(c, *vm);
  const std::string reason = text(args, "reason");
  if (vm->wanted == "off" || text(args, "how") == "shutdown") {
    run(c, "UPDATE vm SET wanted = 'off', failures = 0 WHERE id = ?", s64(vm->id));
    leave_node(c, *vm, "off", vm->wanted == "off" ? "" : "the guest powered off");
    end_tasks(c, *vm, "vm stop", "");
    for (const char* what : {"vm start", "vm pause", "vm resume"})
      end_tasks(c, *vm, what, "the guest powered off");
    return json::object{};
  }
  const uint64_t failures =
      vm->state == "running" && c.now - vm->since >= kRanWell ? 1 : vm->failures + 1;
  run(c, "UPDATE vm SET failures = ?, retry_at = ? WHERE id = ?", s64(failures),
      c.now + retry_after(failures), s64(vm->id));
  leave_node(c, *vm, "waiting", reason);
  end_tasks(c, *vm, "vm start", reason);
  return json::object{};
}

// The leader's: one whose node is gone, or whose time to be tried again has come, runs anew.
Outcome vm_recover(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  if (vm->node) {
    const uint64_t node = vm->node.value;
    // A machine that is up in another life runs nothing of the one before.
    const bool again =
        ask(c, "SELECT count(*) FROM node WHERE id = ? AND state = 'up'", s64(node)) != 0;
    if (is_live(c, node, vm->life) || (!again && !is_fenced(c, node, vm->life)))
      return Error{Code::conflict,
                   "VM " + vm->name + " may still run on node " + std::to_string(node)};
    for (const meta::VmDisk& disk : vm->disks)
      run(c, "DELETE FROM opened WHERE vsd = ? AND node = ?", s64(disk.vsd.value), s64(node));
    if (vm->wanted == "off") {
      leave_node(c, *vm, "off", "");
      end_tasks(c, *vm, "vm stop", "");
      return json::object{};
    }
    leave_node(c, *vm, "waiting", "node " + std::to_string(node) + " was lost");
  } else if (vm->state != "waiting" || c.now < vm->retry_at) {
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state};
  }
  meta::Vm placed = *vm;
  placed.node = {};
  auto done = place_vm(c, placed, 0);
  if (done || (done.error().code != Code::no_space && done.error().code != Code::conflict))
    return done;
  run(c, "UPDATE vm SET state = 'waiting', reason = ?, retry_at = ? WHERE id = ?",
      done.error().text, c.now + kRetrySeconds, s64(vm->id));
  return json::object{{"node", 0}};
}

Result<void> are_all_disks(Context& c, const json::object& args) {
  if (!args.contains("vm")) return {};
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  std::set<uint64_t> named;
  for (const json::value& item : args.at("vsds").as_array())
    named.insert(number(item.as_object(), "vsd"));
  std::set<uint64_t> has;
  for (const meta::VmDisk& disk : vm->disks) has.insert(disk.vsd.value);
  if (named != has)
    return Error{Code::conflict, "the disks of VM " + vm->name + " changed meanwhile; try again"};
  const std::string name = text(args, "name");
  if (ask(c, "SELECT count(*) FROM vm_snapshot WHERE vm = ? AND name = ?", s64(vm->id), name) != 0)
    return Error{Code::conflict, "VM " + vm->name + " has a snapshot named " + name};
  return {};
}

Result<void> note_vm_snapshot(Context& c, const json::object& args, const json::array& taken) {
  if (!args.contains("vm")) return {};
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  std::vector<uint64_t> snapshots;
  for (const meta::VmDisk& disk : vm->disks)
    for (const json::value& one : taken)
      if (number(one.as_object(), "vsd") == disk.vsd.value)
        snapshots.push_back(number(one.as_object(), "snapshot"));
  put_vm_snapshot(c, *vm, text(args, "name"), snapshots);
  return {};
}

Outcome vm_snapshot_delete(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  run(c, "DELETE FROM vm_snapshot_disk WHERE vm_snapshot = ?", s64(snapshot->id));
  run(c, "DELETE FROM vm_snapshot_nic WHERE vm_snapshot = ?", s64(snapshot->id));
  run(c, "DELETE FROM vm_snapshot WHERE id = ?", s64(snapshot->id));
  for (const auto& disk : snapshot->disks) {
    const auto deleted = snapshot_delete(c, {{"snapshot", disk.snapshot.value}});
    if (!deleted) return deleted.error();
  }
  return json::object{};
}

// All disks and what it is made of, as they were; what it was before is kept as another snapshot.
Outcome vm_revert(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  const auto vm = vm_of(c, {{"vm", snapshot->was.id}});
  if (!vm) return vm.error();
  if (vm->state != "off")
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state + "; stop it first"};
  const std::string keep = text(args, "keep");
  if (ask(c, "SELECT count(*) FROM vm_snapshot WHERE vm = ? AND name = ?", s64(vm->id), keep) != 0)
    return Error{Code::conflict, "VM " + vm->name + " has a snapshot named " + keep};
  for (size_t slot = 0; slot < std::max(vm->disks.size(), snapshot->disks.size()); slot++) {
    const bool both = slot < vm->disks.size() && slot < snapshot->disks.size();
    const auto of = both ? c.cluster.snapshot(snapshot->disks[slot].snapshot)
                         : Result<std::optional<meta::Snapshot>>(std::nullopt);
    if (!of) return of.error();
    if (!*of || (*of)->vsd != vm->disks[slot].vsd)
      return Error{Code::conflict, "VM " + vm->name + " has other disks now than it had then"};
    const auto vsd = c.cluster.vsd(vm->disks[slot].vsd);
    if (!vsd) return vsd.error();
    // Before anything is changed: it is all or nothing.
    const auto still = rests(c, **vsd);
    if (!still) return still.error();
    if (!*still) return json::object{{"again", true}};
  }
  std::vector<uint64_t> kept;
  for (size_t slot = 0; slot < vm->disks.size(); slot++) {
    const auto done = vsd_revert(c, {{"vsd", vm->disks[slot].vsd.value},
                                     {"snapshot", snapshot->disks[slot].snapshot.value},
                                     {"keep", keep}});
    if (!done) return done.error();
    kept.push_back(number(*done, "kept"));
  }
  put_vm_snapshot(c, *vm, keep, kept);
  const meta::Vm& was = snapshot->was;
  run(c,
      "UPDATE vm SET description = ?, tags = ?, vcpus = ?, memory_mib = ?, machine = ?, cpu = ?, "
      "priority = ? WHERE id = ?",
      was.description, words(was.tags), s64(was.vcpus), s64(was.memory_mib), was.machine, was.cpu,
      s64(was.priority), s64(vm->id));
  run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm->id));
  meta::Vm back = was;
  back.uuid = vm->uuid;
  CORE_TRY(put_nics(c, back));
  return json::object{};
}

// A VM of its own, which begins as the snapshot; another UUID, so that it is another machine to its
// guest. `drop`: the snapshot was taken for this alone.
Outcome vm_clone(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  meta::Vm vm = snapshot->was;
  vm.name = text(args, "name");
  vm.uuid = text(args, "uuid");
  CORE_TRY(vm::check(vm));
  vm.id = 0;
  CORE_TRY(name_is_free(c, vm));
  put_vm(c, vm);
  CORE_TRY(put_nics(c, vm));
  for (size_t slot = 0; slot < snapshot->disks.size(); slot++) {
    const auto made = vsd_clone(c, {{"snapshot", snapshot->disks[slot].snapshot.value},
                                    {"name", vm.name + "-" + std::to_string(slot)}});
    if (!made) return made.error();
    run(c, "INSERT INTO vm_disk VALUES(?, ?, ?, ?)", s64(vm.id), s64(slot),
        s64(number(*made, "vsd")), snapshot->disks[slot].bus);
  }
  if (args.at("drop").as_bool()) CORE_TRY(vm_snapshot_delete(c, args));
  return json::object{{"vm", vm.id}};
}

Result<void> may_close(Context& c, const meta::Vsd& vsd, uint64_t node) {
  const auto vms = c.cluster.vms();
  if (!vms) return vms.error();
  for (const meta::Vm& vm : *vms)
    for (const meta::VmDisk& disk : vm.disks)
      if (disk.vsd == vsd.id && vm.node.value == node)
        return Error{Code::conflict, "VSD " + vsd.name + " is a disk of VM " + vm.name +
                                         ", which runs there; it is closed when that is stopped"};
  return {};
}

Result<void> may_delete(Context& c, const meta::Vsd& vsd) {
  const auto vms = c.cluster.vms();
  if (!vms) return vms.error();
  for (const meta::Vm& vm : *vms)
    for (const meta::VmDisk& disk : vm.disks)
      if (disk.vsd == vsd.id)
        return Error{Code::conflict, "VSD " + vsd.name + " is a disk of VM " + vm.name};
  return {};
}

// What a node has for VMs, in its life.
Outcome capacity(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  if (!is_live(c, node, number(args, "life"))) return not_live(node);
  run(c, "INSERT OR REPLACE INTO capacity VALUES(?, ?, ?, ?, ?)", s64(node),
      s64(number(args, "life")), s64(number(args, "memory_mib")), s64(number(args, "cpus")),
      text(args, "problem"));
  return json::object{};
}

}  // namespace policy
