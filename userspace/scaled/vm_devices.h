// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "hypervisor/hypervisor.h"
#include "meta/cluster.h"
#include "vm/disks.h"

namespace scaled {

class Member;

/// A VM's disks as its domain has them.
[[nodiscard]] core::Result<std::vector<vm::DomainDisk>> domain_disks(meta::Cluster& cluster,
                                                                     const meta::Vm& vm);

/// The same of its drives: media that are open on its node.
[[nodiscard]] core::Result<std::vector<vm::DomainCdrom>> domain_cdroms(meta::Cluster& cluster,
                                                                       const meta::Vm& vm);

/// What a guest sees as the serial number of a disk: its own among all.
[[nodiscard]] std::string serial_of(const meta::VmDisk& disk);

/// What a node proposes of a run that is its own.
[[nodiscard]] boost::json::object of_run(const char* op, const meta::Vm& vm);

/// Makes the disks and network interfaces of domains that run here what their VMs' rows say.
/// libvirt is asked when that has changed, and where something is not so yet. What cannot be done
/// is a condition, and tried again.
class VmDevices {
 public:
  explicit VmDevices(Member& member) : member_(member) {}

  /// Of a VM whose run this node has.
  void keep(const meta::Vm& vm, hypervisor::Hypervisor& hypervisor, meta::Database& database);
  /// Domains that are here, by UUID: nothing is known of others any more.
  void forget_but(const std::set<std::string>& here);

 private:
  using Clock = std::chrono::steady_clock;
  /// What a run's devices of a kind were last made.
  struct Kept {
    uint64_t run = 0;
    std::string are;                        ///< what they are to be, in short
    bool settled = false;                   ///< they are
    Clock::time_point next;                 ///< where not: when that is looked at again
    std::string subject;                    ///< of the condition
    std::map<core::VsdId, uint64_t> sizes;  ///< of disks: that the guest knows, in sectors
  };
  struct Now {
    const meta::Vm& vm;
    hypervisor::Hypervisor& hypervisor;
    meta::Cluster cluster;
  };
  using Changed = core::Result<bool>;

  bool settle(Kept& kept, const meta::Vm& vm, const std::string& wanted, const char* what,
              const std::function<Changed()>& change);
  bool is_open(Now& now, const std::string& serial);
  Changed change_disks(Now& now, const std::vector<vm::DomainDisk>& wanted, Kept& kept);
  static Changed grow(Now& now, const meta::VmDisk& disk, Kept& kept);
  void keep_disks(Now& now);
  void say_gone(const meta::Vm& vm, const meta::VmDisk& disk);
  Changed change_media(Now& now, const std::vector<vm::DomainCdrom>& wanted);
  void keep_media(Now& now);
  static Changed change_vcpus(Now& now);
  static Changed change_memory(Now& now);
  void keep_vcpus(Now& now);
  void keep_memory(Now& now);
  Changed change_nics(Now& now, const std::string& lan_bridge, Kept& kept);
  void keep_nics(Now& now);

  Member& member_;
  std::map<std::string, Kept> disks_;  // by UUID
  std::map<std::string, Kept> nics_;
  std::map<std::string, Kept> media_;
  std::map<std::string, Kept> vcpus_;
  std::map<std::string, Kept> memory_;
};

}  // namespace scaled
