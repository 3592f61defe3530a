// SPDX-License-Identifier: GPL-2.0
// Where virtual machines run, and what became of them. Their disks are opened on the node that runs
// them in the entry that says so.
#include <algorithm>

#include "policy/handlers.h"
#include "policy/vm_rows.h"
#include "vm/cpus.h"

namespace policy {

namespace {

constexpr int64_t kRetrySeconds = 10;
constexpr int64_t kRetryAtMost = 600;
constexpr int64_t kRanWell = 600;  // what crashes after that begins anew to count

// It runs nowhere from now on; whether it is to run again is in its other columns.
void leave_node(Context& c, const meta::Vm& vm, const char* state, const std::string& reason) {
  run(c,
      "UPDATE vm SET node = 0, life = 0, run_vcpus = 0, run_cpu = '', "
      "state = ?, reason = ?, since = ? WHERE id = ?",
      state, reason, c.now, s64(vm.id));
  hold_media(c, vm, false);
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

// Of the CPUs that each node can give to its guests, as far as it has said that.
Result<std::vector<std::vector<std::string>>> models_of(Context& c) {
  const auto capacities = c.cluster.capacities();
  if (!capacities) return capacities.error();
  std::vector<std::vector<std::string>> out;
  for (const meta::Capacity& one : *capacities)
    if (!one.models.empty()) out.push_back(one.models);
  return out;
}

// Runs it on that node, or on the one that suits best.
Outcome place_vm(Context& c, const meta::Vm& vm, uint64_t wish) {
  auto all = vm_hosts(c, vm.id);
  if (!all) return all.error();
  if (wish != 0) std::erase_if(*all, [&](const Host& one) { return one.node.value != wish; });
  Guest guest = guest_of(vm);
  const auto models = models_of(c);
  if (!models) return models.error();
  guest.model = vm.cpu == "baseline" ? vm::baseline_of(*models) : "";
  const auto chosen = choose_host(*all, guest, vm.failures);
  if (!chosen) return chosen.error();
  const uint64_t life = ask(c, "SELECT life FROM node WHERE id = ?", s64(chosen->value));
  // All are looked at before one is opened: whoever asks may go on behind a refusal.
  std::vector<meta::Vsd> vsds;
  for (const meta::VmDisk& disk : vm.disks) {
    auto vsd = c.cluster.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (!*vsd) return no_such("VSD", disk.vsd.value);
    CORE_TRY(is_whole(c, **vsd));
    CORE_TRY(open_nowhere_else(c, **vsd, chosen->value));
    vsds.push_back(std::move(**vsd));
  }
  for (const meta::Vsd& vsd : vsds) {
    const auto opened = open_device(c, vsd.id, vsd.name, chosen->value);
    if (!opened) return opened.error();
  }
  run(c,
      "UPDATE vm SET node = ?, life = ?, run = runs + 1, runs = runs + 1, state = 'starting', "
      "reason = '', since = ?, run_vcpus = vcpus, run_cpu = ? WHERE id = ?",
      s64(chosen->value), s64(life), c.now, guest.model, s64(vm.id));
  hold_media(c, vm, true);
  return json::object{{"node", chosen->value}};
}

int64_t retry_after(uint64_t failures) {
  constexpr uint64_t kDoublings = 6;
  return std::min(kRetrySeconds << std::min(failures - 1, kDoublings), kRetryAtMost);
}

}  // namespace

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

Result<std::vector<Host>> vm_hosts(Context& c, uint64_t without_vm) {
  auto nodes = c.cluster.nodes();
  auto capacities = c.cluster.capacities();
  auto vms = c.cluster.vms();
  if (!nodes || !capacities || !vms) return Error{Code::storage, "the metadata is unreadable"};
  return hosts_of(*nodes, *capacities, *vms, without_vm);
}

void close_disks(Context& c, const meta::Vm& vm, NodeId node) {
  for (const meta::VmDisk& disk : vm.disks) {
    const auto vsd = c.cluster.vsd(disk.vsd);
    // One that is closed already needs nothing.
    if (vsd && *vsd) (void)close_device(c, disk.vsd, (*vsd)->name, node.value);
  }
}

void end_tasks(Context& c, const meta::Vm& vm, const char* what, const std::string& error) {
  c.tasks.end(what, vm.id, 0, error);
}

Outcome vm_start(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  if (vm->wanted != "off")
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state + " already"};
  if (vm->state != "off")
    return Error{Code::conflict, "VM " + vm->name + " is being stopped; start it when it is off"};
  if (vm->is_template)
    return Error{Code::conflict,
                 "VM " + vm->name +
                     " is a template: clone it, and start the clone; or: scalectl vm "
                     "edit " +
                     vm->name + " --template off"};
  const uint64_t wish = number(args, "on");
  if (wish != 0 && ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(wish)) == 0)
    return no_such("node", wish);
  if (vm->cpu == "baseline") {
    // They look at that when the first such VM is there.
    const auto models = models_of(c);
    if (!models) return models.error();
    if (models->empty()) return json::object{{"again", true}};
  }
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
  run(c,
      "UPDATE vm SET wanted = ?, how = ?, move = CASE WHEN to_node = 0 THEN '' ELSE 'cancelled' "
      "END WHERE id = ?",
      wanted, how, s64(vm->id));
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
  if (!vm->to_node) end_tasks(c, *vm, "vm move", "");
  return json::object{};
}

void end_run(Context& c, const meta::Vm& vm, const std::string& how, const std::string& reason) {
  close_disks(c, vm, vm.node);
  forget_move(c, vm, reason);
  forget_leaving(c, vm);
  // The one that arrived goes nowhere any more.
  end_tasks(c, vm, "vm move", reason);
  if (vm.wanted == "off" || how == "shutdown") {
    run(c, "UPDATE vm SET wanted = 'off', failures = 0 WHERE id = ?", s64(vm.id));
    leave_node(c, vm, "off", vm.wanted == "off" ? "" : "the guest powered off");
    end_tasks(c, vm, "vm stop", "");
    for (const char* what : {"vm start", "vm pause", "vm resume"})
      end_tasks(c, vm, what, "the guest powered off");
    end_drain(c, vm.node);
    return;
  }
  const uint64_t failures =
      vm.state == "running" && c.now - vm.since >= kRanWell ? 1 : vm.failures + 1;
  run(c, "UPDATE vm SET failures = ?, retry_at = ? WHERE id = ?", s64(failures),
      c.now + retry_after(failures), s64(vm.id));
  leave_node(c, vm, "waiting", reason);
  end_tasks(c, vm, "vm start", reason);
  end_drain(c, vm.node);
}

// A node says that a run is over: how, as end_run() has it.
Outcome vm_ended(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  end_run(c, *vm, text(args, "how"), text(args, "reason"));
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
    const std::string why = "node " + std::to_string(node) + " was lost";
    forget_move(c, *vm, why);
    forget_leaving(c, *vm);
    end_tasks(c, *vm, "vm move", why);
    c.tasks.end("node drain", node, node, why);
    if (vm->wanted == "off") {
      leave_node(c, *vm, "off", "");
      end_tasks(c, *vm, "vm stop", "");
      return json::object{};
    }
    leave_node(c, *vm, "waiting", why);
  } else if (vm->state != "waiting" || c.now < vm->retry_at) {
    return Error{Code::conflict, "VM " + vm->name + " is " + vm->state};
  }
  meta::Vm placed = *vm;
  placed.node = {};
  std::erase_if(placed.disks, [](const meta::VmDisk& disk) { return disk.leaving; });
  // Where it was to move, its devices are open: on any other node it would wait for their end.
  const bool there = vm->to_node && is_live(c, vm->to_node.value, vm->to_life);
  auto done = place_vm(c, placed, there ? vm->to_node.value : 0);
  if (done || (done.error().code != Code::no_space && done.error().code != Code::conflict))
    return done;
  run(c, "UPDATE vm SET state = 'waiting', reason = ?, retry_at = ? WHERE id = ?",
      done.error().text, c.now + kRetrySeconds, s64(vm->id));
  return json::object{{"node", 0}};
}

}  // namespace policy
