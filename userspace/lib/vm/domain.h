// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "meta/cluster.h"
#include "vm/disks.h"

namespace vm {

using core::Code;
using core::Error;
using core::Result;

/// What libvirt is to run: the domain's XML. `disks` and `cdroms` are those of the VM, in order;
/// `lan_bridge` is what guests on the LAN are at on its node.
[[nodiscard]] std::string domain_xml(const meta::Vm& vm, const std::vector<DomainDisk>& disks,
                                     const std::string& lan_bridge,
                                     const std::vector<DomainCdrom>& cdroms = {});

/// Of which run of which VM a domain is, by what domain_xml() wrote into it; Code::not_found where
/// it is none of ours.
struct DomainOf {
  uint64_t vm = 0;
  uint64_t run = 0;
};
[[nodiscard]] Result<DomainOf> domain_of(const std::string& xml);

/// The same domain as another run of its VM; Code::not_found where it is none of ours.
[[nodiscard]] Result<std::string> as_run(const std::string& xml, uint64_t run);

/// Whether a VM may be like this, in words for people where not.
[[nodiscard]] Result<void> check(const meta::Vm& vm);

/// The machine type that new VMs get; one that exists keeps its own.
inline constexpr const char* kMachine = "pc-q35-7.2";
inline constexpr uint64_t kMaxVcpus = 128;
inline constexpr uint64_t kMinMemoryMib = 16;
inline constexpr uint64_t kMaxMemoryMib = uint64_t{4} << 20;
inline constexpr size_t kMaxDisks = 24;
inline constexpr size_t kMaxNics = 8;
inline constexpr size_t kMaxCdroms = 4;

/// The MAC of a VM's n-th network interface: of libvirt's range, from the VM's UUID.
[[nodiscard]] std::string mac_of(const std::string& uuid, size_t slot);

}  // namespace vm
