// SPDX-License-Identifier: GPL-2.0
// Virtual machines: what they are, their snapshots and clones.
#include <algorithm>
#include <set>

#include "policy/handlers.h"
#include "policy/vm_rows.h"
#include "vm/domain.h"

namespace policy {

std::string words(const std::vector<std::string>& all) {
  std::string out;
  for (const std::string& tag : all) out += (out.empty() ? "" : " ") + tag;
  return out;
}

namespace {

// What a request says of a VM, over what it was.
void take_fields(const json::object& args, meta::Vm& vm) {
  if (args.contains("name")) vm.name = text(args, "name");
  if (args.contains("description")) vm.description = text(args, "description");
  if (args.contains("vcpus")) vm.vcpus = number(args, "vcpus");
  if (args.contains("memory_mib")) vm.memory_mib = number(args, "memory_mib");
  if (args.contains("max_memory_mib")) vm.max_memory_mib = number(args, "max_memory_mib");
  if (args.contains("cpu")) vm.cpu = text(args, "cpu");
  if (args.contains("firmware")) vm.firmware = text(args, "firmware");
  if (args.contains("tpm")) vm.tpm = args.at("tpm").as_bool();
  if (args.contains("screen")) vm.screen = args.at("screen").as_bool();
  if (args.contains("priority")) vm.priority = number(args, "priority");
  if (args.contains("preferred")) vm.preferred = {number(args, "preferred")};
  if (args.contains("apart")) vm.apart = text(args, "apart");
  if (args.contains("template")) vm.is_template = args.at("template").as_bool();
  if (args.contains("together")) vm.together = text(args, "together");
  if (args.contains("tags")) vm.tags = json::value_to<std::vector<std::string>>(args.at("tags"));
}

Result<void> name_is_free(Context& c, const meta::Vm& vm) {
  if (ask(c, "SELECT count(*) FROM vm WHERE name = ? AND id <> ?", vm.name, s64(vm.id)) != 0)
    return Error{Code::conflict, "a VM named " + vm.name + " exists"};
  return {};
}

// A new row, of a VM that is off; it gets its number.
void put_vm(Context& c, meta::Vm& vm) {
  vm.id = next_id(c, "vm");
  run(c,
      "INSERT INTO vm VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'off', 'stop', 0, 0, 0, 'off', '', ?, "
      "0, 0, 0, 0, 0, '', 0, ?, ?, ?, ?, ?, ?, ?, 0, ?, '')",
      s64(vm.id), vm.name, vm.uuid, vm.description, words(vm.tags), s64(vm.vcpus),
      s64(vm.memory_mib), vm.machine, vm.cpu, s64(vm.priority), c.now, s64(vm.preferred.value),
      vm.apart, vm.together, vm.is_template ? 1 : 0, vm.firmware, vm.tpm ? 1 : 0, vm.screen ? 1 : 0,
      s64(vm.max_memory_mib));
}

Result<meta::VmSnapshot> vm_snapshot_of(Context& c, const json::object& args) {
  auto all = c.cluster.vm_snapshots();
  if (!all) return all.error();
  const uint64_t id = number(args, "vm_snapshot");
  for (meta::VmSnapshot& one : *all)
    if (one.id == id) return std::move(one);
  return Error{Code::not_found, "no snapshot of a VM with id " + std::to_string(id)};
}

// What is in snapshots of a VM. What cloud-init reads is made anew at each start.
std::vector<meta::VmDisk> kept(const meta::Vm& vm) {
  std::vector<meta::VmDisk> out = vm.disks;
  std::erase_if(out, [](const meta::VmDisk& one) { return one.slot == meta::kSeedSlot; });
  return out;
}

// A VM as it is now, of whose kept() disks these are the snapshots, in their order.
void put_vm_snapshot(Context& c, const meta::Vm& vm, const std::string& name,
                     const std::vector<uint64_t>& snapshots, uint64_t schedule) {
  const uint64_t id = next_id(c, "vm_snapshot");
  run(c, "INSERT INTO vm_snapshot VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      s64(id), s64(vm.id), name, c.now, vm.description, words(vm.tags), s64(vm.vcpus),
      s64(vm.memory_mib), vm.machine, vm.cpu, s64(vm.priority), s64(schedule), vm.firmware,
      vm.tpm ? 1 : 0, vm.screen ? 1 : 0, s64(vm.max_memory_mib), vm.state == "off" ? 1 : 0);
  const std::vector<meta::VmDisk> disks = kept(vm);
  for (size_t i = 0; i < snapshots.size(); i++)
    run(c, "INSERT INTO vm_snapshot_disk VALUES(?, ?, ?, ?, ?, ?)", s64(id), s64(disks[i].slot),
        s64(snapshots[i]), disks[i].bus, s64(disks[i].iops), s64(disks[i].bytes_per_s));
  for (const meta::VmNic& nic : vm.nics)
    run(c, "INSERT INTO vm_snapshot_nic VALUES(?, ?, ?, ?, ?, ?)", s64(id), s64(nic.slot),
        nic.bridge, s64(nic.vlan), nic.model, nic.connected ? 1 : 0);
  for (const meta::VmCdrom& cdrom : vm.cdroms)
    run(c, "INSERT INTO vm_snapshot_cdrom VALUES(?, ?, ?)", s64(id), s64(cdrom.slot),
        s64(cdrom.medium));
}

}  // namespace

Outcome vm_create(Context& c, const json::object& args) {
  meta::Vm vm;
  vm.cpu = "host";
  take_fields(args, vm);
  vm.uuid = text(args, "uuid");
  const json::array& disks = args.at("disks").as_array();
  for (const json::value& one : disks)
    vm.disks.push_back(disk_from(one.as_object(), vm.disks.size()));
  take_nics(args, vm);
  CORE_TRY(take_cdroms(c, args, vm));
  CORE_TRY(vm::check(vm));
  CORE_TRY(name_is_free(c, vm));
  vm.machine = text(args, "machine");
  put_vm(c, vm);
  CORE_TRY(put_nics(c, vm));
  put_cdroms(c, vm);
  for (size_t slot = 0; slot < disks.size(); slot++) {
    const auto vsd = disk_for(c, vm, slot, disks[slot].as_object());
    if (!vsd) return vsd.error();
    vm.disks[slot].vsd = *vsd;
    put_disk(c, vm, vm.disks[slot]);
  }
  const auto seed = take_seed(c, args, vm.id);
  if (!seed) return seed.error();
  CORE_TRY(keep_machine(c, vm.id, false));
  return json::object{{"vm", vm.id}};
}

namespace {

// More of them while it runs: as many as its domain has room for, and its node has.
Result<void> may_have_vcpus(Context& c, const meta::Vm& vm, const meta::Vm& before) {
  if (vm.state == "off" || vm.vcpus == before.vcpus) return {};
  CORE_TRY(may_change_devices(vm));
  if (vm.vcpus < before.vcpus)
    return Error{Code::conflict, "VM " + before.name + " is " + before.state +
                                     ": it gets more vCPUs while it runs, and fewer while it is "
                                     "off"};
  const uint64_t most = vm::most_vcpus(vm);
  if (vm.vcpus > most)
    return Error{Code::conflict, "VM " + before.name + " can have " + std::to_string(most) +
                                     " vCPUs as long as it runs, and more when it is started "
                                     "again"};
  const uint64_t cpus = ask(c, "SELECT cpus FROM capacity WHERE node = ?", s64(vm.node.value));
  if (vm.node && vm.vcpus > cpus)
    return Error{Code::conflict,
                 "the node that runs VM " + before.name + " has " + std::to_string(cpus) + " CPUs"};
  return {};
}

// More of it while it runs: as far as its domain has room for, and its node has some left.
Result<void> may_have_memory(Context& c, const meta::Vm& vm, const meta::Vm& before) {
  if (vm.state == "off" || vm.memory_mib == before.memory_mib) return {};
  CORE_TRY(may_change_devices(vm));
  if (vm.memory_mib < before.memory_mib)
    return Error{Code::conflict, "VM " + before.name + " is " + before.state +
                                     ": it gets more memory while it runs, and less while it is "
                                     "off"};
  if (before.max_memory_mib == 0)
    return Error{Code::conflict, "VM " + before.name + " is " + before.state +
                                     ": its memory changes while it is off, or as far as the "
                                     "most that it was given then (max-memory: none)"};
  const uint64_t more = vm.memory_mib - before.memory_mib;
  if (more % vm::kMemoryStepMib != 0)
    return Error{Code::invalid, "memory is added in steps of " +
                                    std::to_string(vm::kMemoryStepMib) + " MiB, and not " +
                                    std::to_string(more) + " MiB"};
  // Whatever its node's networks, or whether it is drained: the guest is there already.
  const auto hosts = vm_hosts(c, vm.id);
  if (!hosts) return hosts.error();
  const uint64_t all = ask(c, "SELECT memory_mib FROM capacity WHERE node = ?", s64(vm.node.value));
  for (const Host& host : *hosts) {
    const uint64_t left = all - std::min(all, host.used_memory_mib);
    if (vm.node && host.node == vm.node && vm.memory_mib > left)
      return Error{Code::no_space, "the node that runs VM " + before.name + " has " +
                                       std::to_string(left - std::min(left, before.memory_mib)) +
                                       " MiB of memory left"};
  }
  return {};
}

}  // namespace

// What its domain is made of changes while it is off; words about it at any time.
Outcome vm_edit(Context& c, const json::object& args) {
  const auto before = vm_of(c, args);
  if (!before) return before.error();
  meta::Vm vm = *before;
  take_fields(args, vm);
  take_nics(args, vm);
  CORE_TRY(vm::check(vm));
  CORE_TRY(name_is_free(c, vm));
  const auto seed = take_seed(c, args, vm.id);
  if (!seed) return seed.error();
  const bool other_firmware = vm.firmware != before->firmware;
  if (vm.state != "off" &&
      (vm.name != before->name || vm.max_memory_mib != before->max_memory_mib ||
       vm.cpu != before->cpu || other_firmware || vm.tpm != before->tpm ||
       vm.screen != before->screen || *seed))
    return Error{Code::conflict, "VM " + before->name + " is " + before->state +
                                     ": its name, the most memory it can have, CPU, firmware, "
                                     "TPM, screen and user data change while it is off"};
  CORE_TRY(may_have_vcpus(c, vm, *before));
  CORE_TRY(may_have_memory(c, vm, *before));
  if (vm.state != "off" && vm.is_template)
    return Error{Code::conflict, "VM " + before->name + " is " + before->state +
                                     "; what is off becomes a template"};
  if (args.contains("nics")) {
    CORE_TRY(may_change_devices(vm));
    run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm.id));
    CORE_TRY(put_nics(c, vm));
  }
  run(c,
      "UPDATE vm SET name = ?, description = ?, tags = ?, vcpus = ?, memory_mib = ?, "
      "max_memory_mib = ?, cpu = ?, priority = ?, preferred = ?, apart = ?, together = ?, template "
      "= ?, firmware = ?, tpm = ?, "
      "screen = ? WHERE id = ?",
      vm.name, vm.description, words(vm.tags), s64(vm.vcpus), s64(vm.memory_mib),
      s64(vm.max_memory_mib), vm.cpu, s64(vm.priority), s64(vm.preferred.value), vm.apart,
      vm.together, vm.is_template ? 1 : 0, vm.firmware, vm.tpm ? 1 : 0, vm.screen ? 1 : 0,
      s64(vm.id));
  CORE_TRY(keep_machine(c, vm.id, other_firmware));
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
  run(c, "DELETE FROM vm_cdrom WHERE vm = ?", s64(vm->id));
  run(c, "DELETE FROM scheduled_vm WHERE vm = ?", s64(vm->id));
  run(c, "DELETE FROM vm_seed WHERE vm = ?", s64(vm->id));
  run(c, "DELETE FROM vm WHERE id = ?", s64(vm->id));
  const bool keep = args.at("keep_disks").as_bool();
  for (const meta::VmDisk& disk : vm->disks) {
    if (keep && disk.of_guest()) continue;
    const auto deleted = vsd_delete(c, {{"vsd", disk.vsd.value}});
    if (!deleted) return deleted.error();
  }
  return json::object{};
}

Result<void> are_all_disks(Context& c, const json::object& args) {
  if (!args.contains("vm")) return {};
  const auto vm = vm_of(c, args);
  if (!vm) return vm.error();
  std::set<uint64_t> named;
  for (const json::value& item : args.at("vsds").as_array())
    named.insert(number(item.as_object(), "vsd"));
  std::set<uint64_t> has;
  for (const meta::VmDisk& disk : kept(*vm)) has.insert(disk.vsd.value);
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
  for (const meta::VmDisk& disk : kept(*vm))
    for (const json::value& one : taken)
      if (number(one.as_object(), "vsd") == disk.vsd.value)
        snapshots.push_back(number(one.as_object(), "snapshot"));
  put_vm_snapshot(c, *vm, text(args, "name"), snapshots,
                  args.contains("schedule") ? number(args, "schedule") : 0);
  return {};
}

// Its guest was at rest when it was taken: known only when it has gone on.
Outcome vm_snapshot_rested(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  run(c, "UPDATE vm_snapshot SET at_rest = 1 WHERE id = ?", s64(snapshot->id));
  return json::object{};
}

Outcome vm_snapshot_delete(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  run(c, "DELETE FROM vm_snapshot_disk WHERE vm_snapshot = ?", s64(snapshot->id));
  run(c, "DELETE FROM vm_snapshot_nic WHERE vm_snapshot = ?", s64(snapshot->id));
  run(c, "DELETE FROM vm_snapshot_cdrom WHERE vm_snapshot = ?", s64(snapshot->id));
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
  const std::vector<meta::VmDisk> disks = kept(*vm);
  for (size_t i = 0; i < std::max(disks.size(), snapshot->disks.size()); i++) {
    const bool both = i < disks.size() && i < snapshot->disks.size();
    const auto of = both ? c.cluster.snapshot(snapshot->disks[i].snapshot)
                         : Result<std::optional<meta::Snapshot>>(std::nullopt);
    if (!of) return of.error();
    if (!*of || (*of)->vsd != disks[i].vsd)
      return Error{Code::conflict, "VM " + vm->name +
                                       " has other disks, or another firmware or TPM, now than it "
                                       "had then"};
    const auto vsd = c.cluster.vsd(disks[i].vsd);
    if (!vsd) return vsd.error();
    // Before anything is changed: it is all or nothing.
    const auto still = rests(c, **vsd);
    if (!still) return still.error();
    if (!*still) return json::object{{"again", true}};
  }
  std::vector<uint64_t> before;
  for (size_t i = 0; i < disks.size(); i++) {
    const auto done = vsd_revert(c, {{"vsd", disks[i].vsd.value},
                                     {"snapshot", snapshot->disks[i].snapshot.value},
                                     {"keep", keep}});
    if (!done) return done.error();
    before.push_back(number(*done, "kept"));
  }
  put_vm_snapshot(c, *vm, keep, before, 0);
  const meta::Vm& was = snapshot->was;
  run(c,
      "UPDATE vm SET description = ?, tags = ?, vcpus = ?, memory_mib = ?, max_memory_mib = ?, "
      "machine = ?, cpu = ?, priority = ?, firmware = ?, tpm = ?, screen = ? WHERE id = ?",
      was.description, words(was.tags), s64(was.vcpus), s64(was.memory_mib),
      s64(was.max_memory_mib), was.machine, was.cpu, s64(was.priority), was.firmware,
      was.tpm ? 1 : 0, was.screen ? 1 : 0, s64(vm->id));
  run(c, "DELETE FROM vm_nic WHERE vm = ?", s64(vm->id));
  meta::Vm back = was;
  back.uuid = vm->uuid;
  back.id = vm->id;
  for (meta::VmNic& nic : back.nics)
    for (const meta::VmNic& now : vm->nics)
      if (now.slot == nic.slot) nic.mac = now.mac;
  CORE_TRY(put_nics(c, back));
  put_cdroms(c, back);
  return json::object{};
}

// A VM of its own, which begins as the snapshot but for what the request says of it; another UUID
// and another TPM, so that it is another machine to its guest. What cloud-init is given is the VM's
// as it is now. `drop`: the snapshot was taken for this alone.
Outcome vm_clone(Context& c, const json::object& args) {
  const auto snapshot = vm_snapshot_of(c, args);
  if (!snapshot) return snapshot.error();
  meta::Vm vm = snapshot->was;
  vm.uuid = text(args, "uuid");
  vm.id = 0;
  take_fields(args, vm);
  take_nics(args, vm);
  CORE_TRY(vm::check(vm));
  CORE_TRY(name_is_free(c, vm));
  put_vm(c, vm);
  CORE_TRY(put_nics(c, vm));
  put_cdroms(c, vm);
  for (const auto& was : snapshot->disks) {
    if (was.slot == meta::kTpmSlot ||
        (was.slot == meta::kFlashSlot && vm.firmware != snapshot->was.firmware))
      continue;
    const std::string number_or_what = was.of_guest() ? std::to_string(was.slot) : was.bus;
    const auto made =
        vsd_clone(c, {{"snapshot", was.snapshot.value}, {"name", vm.name + "-" + number_or_what}});
    if (!made) return made.error();
    put_disk(c, vm, {was.slot, {number(*made, "vsd")}, was.bus, was.iops, was.bytes_per_s, false});
  }
  run(c, "INSERT INTO vm_seed SELECT ?, user_data, network_config FROM vm_seed WHERE vm = ?",
      s64(vm.id), s64(snapshot->was.id));
  const auto seed = take_seed(c, args, vm.id);
  if (!seed) return seed.error();
  CORE_TRY(keep_machine(c, vm.id, false));
  if (args.at("drop").as_bool()) CORE_TRY(vm_snapshot_delete(c, args));
  return json::object{{"vm", vm.id}};
}

Result<void> may_close(Context& c, const meta::Vsd& vsd, uint64_t node) {
  const auto vms = c.cluster.vms();
  if (!vms) return vms.error();
  for (const meta::Vm& vm : *vms)
    for (const meta::VmDisk& disk : vm.disks)
      if (disk.vsd == vsd.id && (vm.node.value == node || vm.to_node.value == node))
        return Error{Code::conflict,
                     "VSD " + vsd.name + " is a disk of VM " + vm.name +
                         ", which runs there or moves there; it is closed when that is stopped"};
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

}  // namespace policy
