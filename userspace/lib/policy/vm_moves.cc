// SPDX-License-Identifier: GPL-2.0
// Virtual machines that move from one node to another while their guests run. Until the entry that
// says so, they are where they were, whatever the other node has by then.
#include <algorithm>

#include "policy/handlers.h"
#include "policy/vm_rows.h"

namespace policy {

namespace {

// A guest that has all of its node's CPU may use what another's has not.
Result<void> tell_cpus_apart(Context& c, const meta::Vm& vm, std::vector<Host>& hosts) {
  if (vm.cpu != "host") return {};
  const auto capacities = c.cluster.capacities();
  if (!capacities) return capacities.error();
  const auto cpu_of = [&](NodeId node) {
    const auto at = std::find_if(capacities->begin(), capacities->end(),
                                 [&](const auto& one) { return one.node == node; });
    return at == capacities->end() ? std::string() : at->cpu;
  };
  const std::string own = cpu_of(vm.node);
  for (Host& host : hosts)
    if (host.problem.empty() && cpu_of(host.node) != own)
      host.problem = "has another kind of CPU, and the VM has all of its node's (cpu: host)";
  return {};
}

}  // namespace

void forget_move(Context& c, const meta::Vm& vm, const std::string& why) {
  if (!vm.to_node) return;
  close_disks(c, vm, vm.to_node);
  run(c, "UPDATE vm SET to_node = 0, to_life = 0, move = '' WHERE id = ?", s64(vm.id));
  keep_media(c);
  end_tasks(c, vm, "vm move", why);
}

// Draining is over when none moves from there any more, well where none is left.
void end_drain(Context& c, NodeId node) {
  const int64_t id = s64(node.value);
  if (ask(c, "SELECT count(*) FROM vm WHERE node = ? AND to_node <> 0", id) != 0) return;
  const uint64_t left = ask(c, "SELECT count(*) FROM vm WHERE node = ?", id);
  c.tasks.end("node drain", node.value, node.value,
              left == 0 ? "" : std::to_string(left) + " of its VMs are still there");
}

// To that node, or the one that suits best. Its disks are opened there, its memory is taken.
Outcome vm_migrate(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  const uint64_t wish = number(args, "on");
  if (wish != 0 && ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(wish)) == 0)
    return no_such("node", wish);
  if (vm->to_node)
    return Error{Code::conflict, "VM " + vm->name + " moves to node " +
                                     std::to_string(vm->to_node.value) + " already"};
  if ((vm->state != "running" && vm->state != "paused") || vm->wanted == "off")
    return Error{Code::conflict, "VM " + vm->name + " is " +
                                     (vm->state == "running" ? "being stopped" : vm->state) +
                                     "; what runs or is paused can be moved"};
  if (!is_live(c, vm->node.value, vm->life)) return not_live(vm->node.value);
  if (wish == vm->node.value) return Error{Code::conflict, "VM " + vm->name + " runs on that node"};
  auto hosts = vm_hosts(c, vm->id);
  if (!hosts) return hosts.error();
  std::erase_if(*hosts, [&](const Host& one) {
    return one.node == vm->node || (wish != 0 && one.node.value != wish);
  });
  CORE_TRY(tell_cpus_apart(c, *vm, *hosts));
  const auto chosen = choose_host(*hosts, guest_of(*vm));
  if (!chosen) return chosen.error();
  for (const meta::VmDisk& disk : vm->disks) {
    const auto vsd = c.cluster.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (!*vsd) return no_such("VSD", disk.vsd.value);
    const auto opened = open_device(c, disk.vsd, (*vsd)->name, chosen->value);
    if (!opened) return opened.error();
  }
  const uint64_t life = ask(c, "SELECT life FROM node WHERE id = ?", s64(chosen->value));
  run(c, "UPDATE vm SET to_node = ?, to_life = ?, move = 'preparing', runs = runs + 1 WHERE id = ?",
      s64(chosen->value), s64(life), s64(vm->id));
  keep_media(c);
  return json::object{{"node", chosen->value},
                      {"task", c.tasks.begin("vm move", vm->id, vm->name, 0)}};
}

// It takes no VMs from now on, and those that it runs move elsewhere: at once, as far as there is
// room now, and as they can. `drain`: "on", "restart", or "" for that it takes some again.
Outcome node_drain(Context& c, const json::object& args) {
  const auto nodes = c.cluster.nodes();
  const auto vms = c.cluster.vms();
  if (!nodes || !vms) return Error{Code::storage, "the metadata is unreadable"};
  const uint64_t id = number(args, "node");
  const auto node = std::find_if(nodes->begin(), nodes->end(), [&](const meta::Node& one) {
    return one.id.value == id && one.state != "removed";
  });
  if (node == nodes->end()) return no_such("node", id);
  const std::string drain = text(args, "drain");
  run(c, "UPDATE node SET drain = ? WHERE id = ?", drain, s64(id));
  json::array stay;
  if (drain.empty()) {
    c.tasks.end("node drain", id, id, "it was taken back");
    return json::object{{"task", 0}, {"stay", std::move(stay)}};
  }
  const uint64_t task = c.tasks.begin("node drain", id, node->name, id);
  std::vector<meta::Vm> ordered = *vms;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.priority > b.priority; });
  for (const meta::Vm& vm : ordered) {
    if (vm.node.value != id || vm.to_node) continue;
    const auto begun = vm_migrate(c, {{"vm", vm.id}, {"on", 0}});
    if (!begun) stay.push_back(json::object{{"vm", vm.name}, {"reason", begun.error().text}});
  }
  end_drain(c, node->id);
  return json::object{{"task", task}, {"stay", std::move(stay)}};
}

// Its node begins now. Once: a second attempt is another run, so that nothing that the first one
// left on the other node is ever taken for it.
Outcome vm_moving(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  if (run(c, "UPDATE vm SET move = 'moving' WHERE id = ? AND move = 'preparing'", s64(vm->id)) != 1)
    return Error{Code::conflict, "VM " + vm->name + " does not move any more"};
  return json::object{};
}

// Its node has it no more, and all of it is on the other: there it may go on from this entry on.
Outcome vm_moved(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  if (!vm->to_node || vm->move == "preparing")
    return Error{Code::conflict, "VM " + vm->name + " does not move"};
  if (!is_live(c, vm->to_node.value, vm->to_life)) {
    end_run(c, *vm, "failed",
            "node " + std::to_string(vm->to_node.value) + " was lost while it moved there");
    return json::object{};
  }
  close_disks(c, *vm, vm->node);
  run(c,
      "UPDATE vm SET node = to_node, life = to_life, run = runs, to_node = 0, to_life = 0, "
      "move = '', state = 'arriving', reason = '', since = ? WHERE id = ?",
      c.now, s64(vm->id));
  keep_media(c);
  end_drain(c, vm->node);
  return json::object{};
}

// It did not get there, and is what it was.
Outcome vm_stays(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  forget_move(c, *vm, text(args, "reason"));
  end_drain(c, vm->node);
  return json::object{};
}

Outcome vm_migrate_cancel(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  if (!vm->to_node) return Error{Code::conflict, "VM " + vm->name + " does not move"};
  run(c, "UPDATE vm SET move = 'cancelled' WHERE id = ?", s64(vm->id));
  return json::object{};
}

// How long its guest stood still, by the clock of the node that it left.
Outcome vm_paused_for(Context& c, const json::object& args) {
  run(c, "UPDATE vm SET paused_ms = ? WHERE id = ? AND run = ?", s64(number(args, "ms")),
      s64(number(args, "vm")), s64(number(args, "run")));
  return json::object{};
}

}  // namespace policy
