// SPDX-License-Identifier: GPL-2.0
// Disks of virtual machines. They come, go and are limited while a guest runs, too: the device of
// one that comes is opened on its node in the entry that says so; one that goes is the VM's until
// its guest has let go of it, or its run is over.
#include <algorithm>

#include "policy/handlers.h"
#include "policy/vm_rows.h"
#include "vm/domain.h"

namespace policy {

namespace {

constexpr const char* kRemove = "vm disk-remove";

// What a request says of one, over what it was.
void take_limits(const json::object& args, meta::VmDisk& disk) {
  if (args.contains("iops")) disk.iops = number(args, "iops");
  if (args.contains("bytes_per_s")) disk.bytes_per_s = number(args, "bytes_per_s");
}

// A new one is called after the VM and its number, and gets one whose name is free.
uint64_t free_slot(Context& c, const meta::Vm& vm) {
  for (uint64_t slot = 0;; slot++) {
    const bool used = std::any_of(vm.disks.begin(), vm.disks.end(),
                                  [&](const meta::VmDisk& one) { return one.slot == slot; });
    if (!used && ask(c, "SELECT count(*) FROM vsd WHERE name = ?",
                     vm.name + "-" + std::to_string(slot)) == 0)
      return slot;
  }
}

Result<meta::VmDisk> disk_of(const meta::Vm& vm, const json::object& args) {
  const uint64_t slot = number(args, "slot");
  for (const meta::VmDisk& disk : vm.disks)
    if (disk.of_guest() && disk.slot == slot) return disk;
  return Error{Code::not_found, "VM " + vm.name + " has no disk " + std::to_string(slot)};
}

// Only what has a bus for that is plugged in, or taken out, while it runs.
Result<void> is_pluggable(const meta::Vm& vm, const meta::VmDisk& disk) {
  if (!vm.node || disk.bus != "sata") return {};
  return Error{Code::conflict, "VM " + vm.name + " is " + vm.state +
                                   ": a disk at sata comes and goes while it is off"};
}

void forget(Context& c, const meta::Vm& vm, const meta::VmDisk& disk) {
  run(c, "DELETE FROM vm_disk WHERE vm = ? AND slot = ?", s64(vm.id), s64(disk.slot));
  c.tasks.end(kRemove, disk.vsd.value, 0, "");
}

}  // namespace

// A disk that is there already, or a new one, called after the VM.
Result<VsdId> disk_for(Context& c, const meta::Vm& vm, uint64_t slot, const json::object& disk) {
  if (disk.contains("vsd")) {
    const auto vsd = living_vsd(c, disk);
    if (!vsd) return vsd.error();
    CORE_TRY(is_whole(c, *vsd));
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

void put_disk(Context& c, const meta::Vm& vm, const meta::VmDisk& disk) {
  run(c, "INSERT INTO vm_disk VALUES(?, ?, ?, ?, ?, ?, 0)", s64(vm.id), s64(disk.slot),
      s64(disk.vsd.value), disk.bus, s64(disk.iops), s64(disk.bytes_per_s));
}

meta::VmDisk disk_from(const json::object& args, uint64_t slot) {
  meta::VmDisk out;
  out.slot = slot;
  out.bus = text(args, "bus");
  take_limits(args, out);
  return out;
}

void forget_leaving(Context& c, const meta::Vm& vm) {
  for (const meta::VmDisk& disk : vm.disks)
    if (disk.leaving) forget(c, vm, disk);
}

Outcome vm_disk_add(Context& c, const json::object& args) {
  auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(may_change_devices(*vm));
  meta::VmDisk disk = disk_from(args, free_slot(c, *vm));
  vm->disks.push_back(disk);
  CORE_TRY(vm::check(*vm));
  CORE_TRY(is_pluggable(*vm, disk));
  const auto vsd = disk_for(c, *vm, disk.slot, args);
  if (!vsd) return vsd.error();
  disk.vsd = *vsd;
  put_disk(c, *vm, disk);
  if (vm->node) {
    const auto row = c.cluster.vsd(*vsd);
    if (!row) return row.error();
    const auto opened = open_device(c, *vsd, (*row)->name, vm->node.value);
    if (!opened) return opened.error();
  }
  return json::object{{"disk", disk.slot}};
}

Outcome vm_disk_change(Context& c, const json::object& args) {
  auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(may_change_devices(*vm));
  auto disk = disk_of(*vm, args);
  if (!disk) return disk.error();
  take_limits(args, *disk);
  for (meta::VmDisk& one : vm->disks)
    if (one.slot == disk->slot) one = *disk;
  CORE_TRY(vm::check(*vm));
  run(c, "UPDATE vm_disk SET iops = ?, bytes_per_s = ? WHERE vm = ? AND slot = ?", s64(disk->iops),
      s64(disk->bytes_per_s), s64(vm->id), s64(disk->slot));
  return json::object{};
}

// The VSD stays. Where a run has it, it is the VM's until that has it no more.
Outcome vm_disk_remove(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(may_change_devices(*vm));
  const auto disk = disk_of(*vm, args);
  if (!disk) return disk.error();
  if (disk->leaving)
    return Error{Code::conflict, "disk " + std::to_string(disk->slot) + " of VM " + vm->name +
                                     " is being taken out already"};
  CORE_TRY(is_pluggable(*vm, *disk));
  if (!vm->node) {
    forget(c, *vm, *disk);
    return json::object{{"task", 0}};
  }
  const auto vsd = c.cluster.vsd(disk->vsd);
  if (!vsd) return vsd.error();
  run(c, "UPDATE vm_disk SET leaving = 1 WHERE vm = ? AND slot = ?", s64(vm->id), s64(disk->slot));
  return json::object{
      {"task", c.tasks.begin(kRemove, disk->vsd.value, *vsd ? (*vsd)->name : "", 0)}};
}

// The node that runs it says that its domain has a disk no more.
Outcome vm_disk_gone(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(may_change_devices(*vm));
  const auto disk = disk_of(*vm, args);
  if (!disk) return disk.error();
  if (!disk->leaving)
    return Error{Code::conflict,
                 "disk " + std::to_string(disk->slot) + " of VM " + vm->name + " is not to go"};
  const auto vsd = c.cluster.vsd(disk->vsd);
  if (!vsd) return vsd.error();
  forget(c, *vm, *disk);
  if (*vsd) (void)close_device(c, disk->vsd, (*vsd)->name, vm->node.value);
  return json::object{};
}

}  // namespace policy
