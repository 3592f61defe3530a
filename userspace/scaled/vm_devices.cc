// SPDX-License-Identifier: GPL-2.0
#include "vm_devices.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "daemon.h"
#include "host/dm.h"
#include "vm/nics.h"

namespace scaled {

namespace json = boost::json;
using core::Code;
using core::Result;
using std::chrono::seconds;

namespace {

// A guest that was asked to let go of a device takes its time; so may what failed.
constexpr seconds kDevicesAskEvery{10};

}  // namespace

std::string serial_of(const meta::VmDisk& disk) { return "vsd-" + std::to_string(disk.vsd.value); }

Result<std::vector<vm::DomainDisk>> domain_disks(meta::Cluster& cluster, const meta::Vm& vm) {
  std::vector<vm::DomainDisk> out;
  for (const meta::VmDisk& disk : vm.disks) {
    if (disk.leaving || !disk.of_guest()) continue;
    const auto vsd = cluster.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (!*vsd) return core::Error{Code::not_found, "a disk is gone"};
    const auto label = cluster.device_label(**vsd);
    if (!label) return label.error();
    out.push_back({kDevices + host::device_name(*label), disk.bus, serial_of(disk), disk.iops,
                   disk.bytes_per_s});
  }
  return out;
}

Result<std::vector<vm::DomainCdrom>> domain_cdroms(meta::Cluster& cluster, const meta::Vm& vm) {
  const auto media = cluster.media();
  if (!media) return media.error();
  std::vector<vm::DomainCdrom> out;
  for (const meta::VmCdrom& cdrom : vm.cdroms) {
    vm::DomainCdrom one{cdrom.slot, ""};
    for (const meta::Medium& medium : *media) {
      if (medium.id != cdrom.medium) continue;
      const auto label = cluster.label(medium.snapshot);
      if (!label) return label.error();
      one.path = kDevices + host::device_name(*label);
    }
    out.push_back(std::move(one));
  }
  return out;
}

json::object of_run(const char* op, const meta::Vm& vm) {
  return {{"op", op}, {"vm", vm.id}, {"node", vm.node.value}, {"life", vm.life}, {"run", vm.run}};
}

void VmDevices::keep(const meta::Vm& vm, hypervisor::Hypervisor& hypervisor,
                     meta::Database& database) {
  Now now{vm, hypervisor, meta::Cluster(database)};
  keep_disks(now);
  keep_nics(now);
  keep_media(now);
  keep_vcpus(now);
  keep_memory(now);
}

void VmDevices::forget_but(const std::set<std::string>& here) {
  for (auto* all : {&disks_, &nics_, &media_, &vcpus_, &memory_})
    std::erase_if(*all, [&](const auto& one) {
      if (here.contains(one.first)) return false;
      member_.agent().set_condition(one.second.subject, "");
      return true;
    });
}

bool VmDevices::settle(Kept& kept, const meta::Vm& vm, const std::string& wanted, const char* what,
                       const std::function<Changed()>& change) {
  if (kept.run != vm.run) kept.sizes.clear();
  if (kept.run != vm.run || kept.are != wanted) {
    kept.run = vm.run;
    kept.are = wanted;
    kept.settled = false;
    kept.next = {};
    kept.subject = what + (" of VM " + vm.name);
  }
  if (kept.settled || Clock::now() < kept.next) return kept.settled;
  kept.next = Clock::now() + kDevicesAskEvery;
  const auto done = change();
  kept.settled = done && *done;
  member_.agent().set_condition(kept.subject, done ? "" : done.error().text);
  return kept.settled;
}

// Disks

bool VmDevices::is_open(Now& now, const std::string& serial) {
  const auto opened = now.cluster.opened();
  if (!opened) return false;
  for (const meta::VmDisk& disk : now.vm.disks)
    for (const meta::Opened& row : *opened)
      if (serial_of(disk) == serial && row.vsd == disk.vsd && row.state == "open" &&
          row.node == member_.config().node)
        return true;
  return false;
}

// Whether a guest knows a disk's size: the device grows first. Said once more after a restart.
VmDevices::Changed VmDevices::grow(Now& now, const meta::VmDisk& disk, Kept& kept) {
  const auto vsd = now.cluster.vsd(disk.vsd);
  if (!vsd) return vsd.error();
  uint64_t& known = kept.sizes[disk.vsd];
  if (!*vsd || known == (*vsd)->sectors) return true;
  const auto device = host::find_device(disk.vsd);
  const auto label = now.cluster.device_label(**vsd);
  if (!device) return device.error();
  if (!label) return label.error();
  if (!*device || (*device)->sectors != (*vsd)->sectors) return false;
  CORE_TRY(now.hypervisor.resize(now.vm.uuid, kDevices + host::device_name(*label),
                                 (*vsd)->sectors * kSectorBytes));
  known = (*vsd)->sectors;
  return true;
}

// Whether it has them now. A new one is plugged in when its device is here; one that is to go is
// there until its guest has let go of it.
VmDevices::Changed VmDevices::change_disks(Now& now, const std::vector<vm::DomainDisk>& wanted,
                                           Kept& kept) {
  using What = vm::DiskChange::What;
  const auto xml = now.hypervisor.xml(now.vm.uuid);
  if (!xml) return xml.error();
  const auto changes = vm::disk_changes(*xml, wanted);
  if (!changes) return changes.error();
  bool waits = false;
  for (const vm::DiskChange& change : *changes) {
    waits = waits || change.what == What::detach;
    if (change.what == What::detach) CORE_TRY(now.hypervisor.detach(now.vm.uuid, change.xml));
    if (change.what == What::attach && is_open(now, change.serial))
      CORE_TRY(now.hypervisor.attach(now.vm.uuid, change.xml));
    if (change.what == What::limit)
      CORE_TRY(now.hypervisor.limit(now.vm.uuid, change.target, change.iops, change.bytes_per_s));
  }
  bool grown = changes->empty();
  for (const meta::VmDisk& disk : now.vm.disks) {
    if (disk.leaving || !disk.of_guest() || !changes->empty()) continue;
    const auto done = grow(now, disk, kept);
    if (!done) return done.error();
    grown = grown && *done;
  }
  if (!waits) kept.next = {};
  return grown;
}

void VmDevices::keep_disks(Now& now) {
  const auto wanted = domain_disks(now.cluster, now.vm);
  if (!wanted) return;
  std::string are;
  for (const vm::DomainDisk& disk : *wanted) are += vm::disk_xml(disk, "", 0);
  for (const meta::VmDisk& disk : now.vm.disks)
    if (const auto vsd = now.cluster.vsd(disk.vsd); vsd && *vsd)
      are += std::to_string((*vsd)->sectors) + " ";
  Kept& kept = disks_[now.vm.uuid];
  if (!settle(kept, now.vm, are, "disks", [&] { return change_disks(now, *wanted, kept); })) return;
  for (const meta::VmDisk& disk : now.vm.disks)
    if (disk.leaving) say_gone(now.vm, disk);
}

void VmDevices::say_gone(const meta::Vm& vm, const meta::VmDisk& disk) {
  json::object body = of_run("vm_disk_gone", vm);
  body["slot"] = disk.slot;
  const auto said = member_.replica().propose(std::move(body), Clock::now() + kProposeFor);
  if (said)
    spdlog::info("VM {}: disk {} is taken out", vm.name, disk.slot);
  else
    spdlog::warn("VM {}: {}", vm.name, said.error().text);
}

// Media

// Whether the drives have them. A medium is put in when its device is here.
VmDevices::Changed VmDevices::change_media(Now& now, const std::vector<vm::DomainCdrom>& wanted) {
  const core::NodeId self = member_.config().node;
  const auto devices = now.cluster.devices_of(now.vm, self);
  const auto opened = now.cluster.opened();
  if (!devices) return devices.error();
  if (!opened) return opened.error();
  for (const core::VsdId vsd : *devices)
    if (std::none_of(opened->begin(), opened->end(), [&](const meta::Opened& row) {
          return row.vsd == vsd && row.node == self && row.state == "open";
        }))
      return false;
  const auto xml = now.hypervisor.xml(now.vm.uuid);
  if (!xml) return xml.error();
  const auto changes = vm::cdrom_changes(*xml, wanted);
  if (!changes) return changes.error();
  for (const vm::CdromChange& change : *changes)
    CORE_TRY(now.hypervisor.insert(now.vm.uuid, change.xml));
  if (changes->empty()) return true;
  const auto after = now.hypervisor.xml(now.vm.uuid);
  if (!after) return after.error();
  const auto left = vm::cdrom_changes(*after, wanted);
  if (!left) return left.error();
  if (!left->empty()) return core::Error{Code::conflict, "libvirt has not changed what is in them"};
  return true;
}

void VmDevices::keep_media(Now& now) {
  const auto wanted = domain_cdroms(now.cluster, now.vm);
  if (!wanted || wanted->empty()) return;
  std::string are;
  for (const vm::DomainCdrom& cdrom : *wanted) are += cdrom.path + " ";
  Kept& kept = media_[now.vm.uuid];
  const bool settled = settle(kept, now.vm, are, "drives", [&] {
    auto done = change_media(now, *wanted);
    // A device takes a moment; what libvirt refuses takes longer.
    if (done && !*done) kept.next = {};
    return done;
  });
  for (const meta::VmCdrom& cdrom : now.vm.cdroms) {
    if (!settled || cdrom.held == cdrom.medium) continue;
    json::object body = of_run("vm_cdrom_has", now.vm);
    body["slot"] = cdrom.slot;
    body["medium"] = cdrom.medium;
    const auto said = member_.replica().propose(std::move(body), Clock::now() + kProposeFor);
    if (!said) spdlog::warn("VM {}: {}", now.vm.name, said.error().text);
  }
}

// vCPUs

VmDevices::Changed VmDevices::change_vcpus(Now& now) {
  const auto xml = now.hypervisor.xml(now.vm.uuid);
  if (!xml) return xml.error();
  // It is never to have fewer than it has: a guest keeps those that it uses.
  if (vm::vcpus_of(*xml) < now.vm.vcpus)
    CORE_TRY(now.hypervisor.set_vcpus(now.vm.uuid, now.vm.vcpus));
  return true;
}

void VmDevices::keep_vcpus(Now& now) {
  settle(vcpus_[now.vm.uuid], now.vm, std::to_string(now.vm.vcpus), "vCPUs",
         [&] { return change_vcpus(now); });
}

// Memory

VmDevices::Changed VmDevices::change_memory(Now& now) {
  const auto xml = now.hypervisor.xml(now.vm.uuid);
  if (!xml) return xml.error();
  // What was plugged in is counted by libvirt: whoever tries again adds what is missing.
  const uint64_t has = vm::memory_of(*xml);
  if (has != 0 && has < now.vm.memory_mib)
    CORE_TRY(now.hypervisor.attach(now.vm.uuid, vm::memory_xml(now.vm.memory_mib - has)));
  return true;
}

void VmDevices::keep_memory(Now& now) {
  settle(memory_[now.vm.uuid], now.vm, std::to_string(now.vm.memory_mib), "memory",
         [&] { return change_memory(now); });
}

// Network interfaces

VmDevices::Changed VmDevices::change_nics(Now& now, const std::string& lan_bridge, Kept& kept) {
  using What = vm::NicChange::What;
  CORE_TRY(member_.networks().ready(now.vm));
  const auto xml = now.hypervisor.xml(now.vm.uuid);
  if (!xml) return xml.error();
  const auto changes = vm::nic_changes(*xml, now.vm.nics, lan_bridge);
  if (!changes) return changes.error();
  bool waits = false;
  for (const vm::NicChange& change : *changes) {
    waits = waits || change.what == What::detach;
    CORE_TRY(change.what == What::attach   ? now.hypervisor.attach(now.vm.uuid, change.xml)
             : change.what == What::detach ? now.hypervisor.detach(now.vm.uuid, change.xml)
                                           : now.hypervisor.update(now.vm.uuid, change.xml));
  }
  if (!waits) kept.next = {};
  return changes->empty();
}

void VmDevices::keep_nics(Now& now) {
  const std::string lan_bridge = member_.networks().lan().bridge;
  std::string wanted;
  for (const meta::VmNic& nic : now.vm.nics) wanted += vm::nic_xml(nic, lan_bridge);
  Kept& kept = nics_[now.vm.uuid];
  settle(kept, now.vm, wanted, "network", [&] { return change_nics(now, lan_bridge, kept); });
}

}  // namespace scaled
