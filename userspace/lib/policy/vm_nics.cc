// SPDX-License-Identifier: GPL-2.0
// Network interfaces of virtual machines, and what nodes have for them. They change at any time: a
// node that runs the VM has its domain follow.
#include <algorithm>
#include <set>

#include "policy/handlers.h"
#include "policy/vm_rows.h"
#include "vm/domain.h"

namespace policy {

namespace {

constexpr size_t kMostPorts = 8;
constexpr size_t kLongestPort = 15;  // IFNAMSIZ

bool flag(const json::object& args, const char* name, bool otherwise) {
  const json::value* value = args.if_contains(name);
  return value == nullptr ? otherwise : value->as_bool();
}

// What a request says of one, over what it was.
void take_fields(const json::object& args, meta::VmNic& nic) {
  if (args.contains("mac")) nic.mac = text(args, "mac");
  if (args.contains("model")) nic.model = text(args, "model");
  if (args.contains("bridge")) {
    nic.bridge = text(args, "bridge");
    nic.vlan = 0;
  }
  if (args.contains("vlan")) nic.vlan = number(args, "vlan");
  nic.connected = flag(args, "connected", nic.connected);
}

// Where its domain is on its way, what it is made of is settled.
Result<meta::Vm> changeable(Context& c, const json::object& args) {
  auto vm = vm_of(c, args);
  if (vm) CORE_TRY(may_change_devices(*vm));
  return vm;
}

Result<meta::VmNic*> nic_of(meta::Vm& vm, const json::object& args) {
  const uint64_t slot = number(args, "slot");
  for (meta::VmNic& nic : vm.nics)
    if (nic.slot == slot) return &nic;
  return Error{Code::not_found,
               "VM " + vm.name + " has no network interface " + std::to_string(slot)};
}

Outcome replace(Context& c, const meta::Vm& vm) {
  CORE_TRY(vm::check(vm));
  run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm.id));
  CORE_TRY(put_nics(c, vm));
  return json::object{};
}

bool is_port(const std::string& name) {
  return !name.empty() && name.size() <= kLongestPort && name != "." && name != ".." &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) {
           return c <= ' ' || c == '/' || c == ':' || c >= 0x7f;
         });
}

Result<void> check_bond(Context& c, const meta::Bond& bond) {
  if (bond.network != "lan" && bond.network != "backplane")
    return Error{Code::invalid, "'" + bond.network + "' is no network of nodes: lan or backplane"};
  if (bond.ports.size() > kMostPorts)
    return Error{Code::invalid, "a network has at most " + std::to_string(kMostPorts) + " ports"};
  std::set<std::string> once;
  for (const std::string& port : bond.ports) {
    if (!is_port(port)) return Error{Code::invalid, "'" + port + "' is no name of a port"};
    if (!once.insert(port).second) return Error{Code::invalid, "port " + port + " is named twice"};
  }
  if (!bond.preferred.empty() && !once.contains(bond.preferred))
    return Error{Code::invalid, bond.preferred + " is none of the ports"};
  const auto bonds = c.cluster.bonds();
  if (!bonds) return bonds.error();
  for (const meta::Bond& other : *bonds)
    for (const std::string& port : other.ports)
      if (other.node == bond.node && other.network != bond.network && once.contains(port))
        return Error{Code::conflict, "port " + port + " is one of the " + other.network};
  return {};
}

}  // namespace

Result<void> may_change_devices(const meta::Vm& vm) {
  if (vm.to_node || vm.state == "arriving")
    return Error{Code::conflict,
                 "VM " + vm.name + " is migrating: its disks and network change when that is over"};
  return {};
}

// All of a VM's. One that was there keeps its MAC.
void take_nics(const json::object& args, meta::Vm& vm) {
  if (!args.contains("nics")) return;
  const std::vector<meta::VmNic> before = std::move(vm.nics);
  vm.nics.clear();
  for (const json::value& one : args.at("nics").as_array()) {
    meta::VmNic nic;
    nic.slot = vm.nics.size();
    for (const meta::VmNic& was : before)
      if (was.slot == nic.slot) nic.mac = was.mac;
    take_fields(one.as_object(), nic);
    vm.nics.push_back(std::move(nic));
  }
}

// Where no MAC is named it is the VM's own.
Result<void> put_nics(Context& c, const meta::Vm& vm) {
  for (const meta::VmNic& nic : vm.nics) {
    const std::string mac = nic.mac.empty() ? vm::mac_of(vm.uuid, nic.slot) : nic.mac;
    if (ask(c, "SELECT count(*) FROM vm_nic WHERE mac = ?", mac) != 0)
      return Error{Code::conflict, "MAC " + mac + " is another interface's; try another one"};
    run(c, "INSERT INTO vm_nic VALUES(?, ?, ?, ?, ?, ?, ?)", s64(vm.id), s64(nic.slot), mac,
        nic.bridge, s64(nic.vlan), nic.model, nic.connected ? 1 : 0);
  }
  return {};
}

Outcome vm_nic_add(Context& c, const json::object& args) {
  auto vm = changeable(c, args);
  if (!vm) return vm.error();
  meta::VmNic nic;
  for (const meta::VmNic& one : vm->nics) nic.slot += one.slot == nic.slot;
  take_fields(args, nic);
  const uint64_t slot = nic.slot;
  vm->nics.push_back(std::move(nic));
  auto done = replace(c, *vm);
  if (done) (*done)["nic"] = slot;
  return done;
}

Outcome vm_nic_change(Context& c, const json::object& args) {
  auto vm = changeable(c, args);
  if (!vm) return vm.error();
  const auto nic = nic_of(*vm, args);
  if (!nic) return nic.error();
  take_fields(args, **nic);
  return replace(c, *vm);
}

Outcome vm_nic_remove(Context& c, const json::object& args) {
  auto vm = changeable(c, args);
  if (!vm) return vm.error();
  const auto nic = nic_of(*vm, args);
  if (!nic) return nic.error();
  vm->nics.erase(vm->nics.begin() + (*nic - vm->nics.data()));
  return replace(c, *vm);
}

// Which ports of a node are its LAN, or its backplane; none: that is the administrator's.
Outcome node_bond(Context& c, const json::object& args) {
  meta::Bond bond{{number(args, "node")},
                  text(args, "network"),
                  json::value_to<std::vector<std::string>>(args.at("ports")),
                  text(args, "preferred")};
  const int64_t node = s64(bond.node.value);
  if (ask(c, "SELECT count(*) FROM node WHERE id = ? AND state <> 'removed'", node) == 0)
    return no_such("node", bond.node.value);
  CORE_TRY(check_bond(c, bond));
  run(c, "DELETE FROM bond WHERE node = ? AND network = ?", node, bond.network);
  if (!bond.ports.empty())
    run(c, "INSERT INTO bond VALUES(?, ?, ?, ?)", node, bond.network, words(bond.ports),
        bond.preferred);
  return json::object{};
}

// What a node has for VMs, in its life.
Outcome capacity(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  if (!is_live(c, node, number(args, "life"))) return not_live(node);
  run(c, "INSERT OR REPLACE INTO capacity VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", s64(node),
      s64(number(args, "life")), s64(number(args, "memory_mib")), s64(number(args, "cpus")),
      text(args, "cpu"), text(args, "problem"), text(args, "lan_bridge"), text(args, "uplink"),
      text(args, "lan_problem"), text(args, "models"));
  return json::object{};
}

}  // namespace policy
