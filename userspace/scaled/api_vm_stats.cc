// SPDX-License-Identifier: GPL-2.0
// What guests use, by the node that runs them.
#include <algorithm>

#include "api_vms.h"
#include "vm/disks.h"
#include "vm/nics.h"
#include "vm_devices.h"

namespace scaled {

namespace json = boost::json;
using hypervisor::Hypervisor;
using hypervisor::Stats;

namespace {

// libvirt asks QEMU, which may be at something else for its guest.
constexpr std::chrono::milliseconds kStatsTimeout{30'000};

void put(json::object& out, const std::string& name, const Stats::Io& io) {
  out[name] = io.requests;
  out[name + "_bytes"] = io.bytes;
  out[name + "_ns"] = io.ns;
}

void put(json::object& out, const std::string& name, const Stats::Traffic& traffic) {
  out[name + "_bytes"] = traffic.bytes;
  out[name + "_packets"] = traffic.packets;
  out[name + "_dropped"] = traffic.dropped;
}

// By the numbers that disks and network interfaces have here; what the row has not is left out.
json::object shown(const meta::Vm& vm, const Stats& stats,
                   const std::map<std::string, std::string>& serials,
                   const std::map<std::string, std::string>& macs) {
  json::array disks;
  json::array nics;
  for (const meta::VmDisk& disk : vm.disks)
    for (const Stats::Disk& one : stats.disks) {
      const auto at = serials.find(one.target);
      if (at == serials.end() || at->second != serial_of(disk)) continue;
      json::object out{{"disk", disk.slot}};
      put(out, "reads", one.reads);
      put(out, "writes", one.writes);
      out["flushes"] = one.flushes.requests;
      out["flushes_ns"] = one.flushes.ns;
      disks.push_back(std::move(out));
    }
  for (const meta::VmNic& nic : vm.nics)
    for (const Stats::Nic& one : stats.nics) {
      const auto at = macs.find(one.target);
      if (at == macs.end() || at->second != nic.mac) continue;
      json::object out{{"nic", nic.slot}};
      put(out, "received", one.received);
      put(out, "sent", one.sent);
      nics.push_back(std::move(out));
    }
  return {{"name", vm.name},           {"node", vm.node.value},
          {"cpu_ns", stats.cpu_ns},    {"memory_bytes", stats.memory_bytes},
          {"disks", std::move(disks)}, {"nics", std::move(nics)}};
}

Outcome stats_here(const meta::Vm& vm) {
  auto libvirt = Hypervisor::open(hypervisor::kSystem);
  if (!libvirt) return libvirt.error();
  const auto xml = (*libvirt)->xml(vm.uuid);
  if (!xml) return xml.error();
  const auto stats = (*libvirt)->stats(vm.uuid);
  const auto serials = vm::serials_by_target(*xml);
  const auto macs = vm::macs_by_target(*xml);
  if (!stats) return stats.error();
  if (!serials) return serials.error();
  if (!macs) return macs.error();
  return shown(vm, *stats, *serials, *macs);
}

}  // namespace

Outcome serve_stats(Call& call) {
  const auto vm = find_vm(call, json::value_to<std::string>(call.body().at("name")));
  if (!vm) return vm.error();
  return stats_here(*vm);
}

Outcome show_stats(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  if (!vm->node || vm->state == "starting")
    return Error{Code::conflict, "VM " + name + " is " + vm->state};
  if (vm->node == call.member().config().node) return stats_here(*vm);
  return call.member().peers().call(vm->node, "/peer/stats", {{"name", name}}, kStatsTimeout);
}

}  // namespace scaled
