// SPDX-License-Identifier: GPL-2.0
// Drives of virtual machines, and the media in them. Drives come and go while a VM is off, media at
// any time: one that is taken out is held until the run has let go of it.
#include <algorithm>

#include "policy/handlers.h"
#include "policy/vm_rows.h"
#include "vm/domain.h"

namespace policy {

namespace {

Result<meta::VmCdrom> cdrom_of(const meta::Vm& vm, const json::object& args) {
  const uint64_t slot = number(args, "slot");
  for (const meta::VmCdrom& cdrom : vm.cdroms)
    if (cdrom.slot == slot) return cdrom;
  return Error{Code::not_found, "VM " + vm.name + " has no drive " + std::to_string(slot)};
}

// What is an image of a disk in another form is none of a CD.
Result<void> may_insert(Context& c, uint64_t id) {
  if (id == 0) return {};
  const auto medium = medium_of(c, {{"medium", id}});
  if (!medium) return medium.error();
  if (medium->state != "ready")
    return Error{Code::conflict, "medium " + medium->name + " is " + medium->state};
  if (medium->format != "iso" && medium->format != "raw")
    return Error{Code::conflict, "medium " + medium->name + " is an image of a disk (" +
                                     medium->format + "): make one of it: scalectl vsd import"};
  return {};
}

Result<void> is_off(const meta::Vm& vm) {
  if (!vm.node) return {};
  return Error{Code::conflict,
               "VM " + vm.name + " is " + vm.state + ": drives come and go while it is off"};
}

}  // namespace

Result<void> take_cdroms(Context& c, const json::object& args, meta::Vm& vm) {
  const json::value* all = args.if_contains("cdroms");
  if (all == nullptr) return {};
  for (const json::value& one : all->as_array()) {
    const uint64_t medium = number(one.as_object(), "medium");
    CORE_TRY(may_insert(c, medium));
    vm.cdroms.push_back({vm.cdroms.size(), medium, 0});
  }
  return {};
}

void put_cdroms(Context& c, const meta::Vm& vm) {
  run(c, "DELETE FROM vm_cdrom WHERE vm = ?", s64(vm.id));
  for (const meta::VmCdrom& cdrom : vm.cdroms)
    run(c, "INSERT INTO vm_cdrom VALUES(?, ?, ?, 0)", s64(vm.id), s64(cdrom.slot),
        s64(cdrom.medium));
}

void hold_media(Context& c, const meta::Vm& vm, bool runs) {
  run(c, "UPDATE vm_cdrom SET held = CASE WHEN ? THEN medium ELSE 0 END WHERE vm = ?", runs ? 1 : 0,
      s64(vm.id));
  keep_media(c);
}

Outcome vm_cdrom_add(Context& c, const json::object& args) {
  auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(is_off(*vm));
  const uint64_t medium = number(args, "medium");
  CORE_TRY(may_insert(c, medium));
  uint64_t slot = 0;
  while (cdrom_of(*vm, {{"slot", slot}})) slot++;
  vm->cdroms.push_back({slot, medium, 0});
  CORE_TRY(vm::check(*vm));
  run(c, "INSERT INTO vm_cdrom VALUES(?, ?, ?, 0)", s64(vm->id), s64(slot), s64(medium));
  return json::object{{"cdrom", slot}};
}

Outcome vm_cdrom_remove(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(is_off(*vm));
  const auto cdrom = cdrom_of(*vm, args);
  if (!cdrom) return cdrom.error();
  run(c, "DELETE FROM vm_cdrom WHERE vm = ? AND slot = ?", s64(vm->id), s64(cdrom->slot));
  return json::object{};
}

// Another medium, or none.
Outcome vm_cdrom_change(Context& c, const json::object& args) {
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  CORE_TRY(may_change_devices(*vm));
  const auto cdrom = cdrom_of(*vm, args);
  if (!cdrom) return cdrom.error();
  const uint64_t medium = number(args, "medium");
  CORE_TRY(may_insert(c, medium));
  run(c, "UPDATE vm_cdrom SET medium = ? WHERE vm = ? AND slot = ?", s64(medium), s64(vm->id),
      s64(cdrom->slot));
  keep_media(c);
  return json::object{};
}

// The node that runs it says that its domain has that medium in a drive, and no other.
Outcome vm_cdrom_has(Context& c, const json::object& args) {
  const auto vm = run_of(c, args);
  if (!vm) return vm.error();
  const auto cdrom = cdrom_of(*vm, args);
  if (!cdrom) return cdrom.error();
  run(c, "UPDATE vm_cdrom SET held = ? WHERE vm = ? AND slot = ?", s64(number(args, "medium")),
      s64(vm->id), s64(cdrom->slot));
  keep_media(c);
  return json::object{};
}

}  // namespace policy
