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

/// Where its machine keeps what it keeps, as far as it has that.
struct DomainMachine {
  std::string flash;  ///< path of the device with the variables of its UEFI
  std::string tpm;    ///< path of the socket at which its TPM is
  std::string seed;   ///< path of the device that cloud-init reads
};

/// What libvirt is to run: the domain's XML. `disks` and `cdroms` are those of the VM, in order;
/// `lan_bridge` is what guests on the LAN are at on its node.
[[nodiscard]] std::string domain_xml(const meta::Vm& vm, const std::vector<DomainDisk>& disks,
                                     const std::string& lan_bridge,
                                     const std::vector<DomainCdrom>& cdroms = {},
                                     const DomainMachine& machine = {});

/// A UEFI of Debian's package ovmf.
struct Firmware {
  const char* name;       ///< as a VM's row has it
  const char* code;       ///< what is run
  const char* variables;  ///< as they are at first, kFlashSectors long
  bool secure;            ///< it starts only what is signed, and keeps its variables from the guest
};
/// None where a VM has a BIOS.
[[nodiscard]] const Firmware* firmware_of(const meta::Vm& vm);

/// Of which run of which VM a domain is, by what domain_xml() wrote into it; Code::not_found where
/// it is none of ours.
struct DomainOf {
  uint64_t vm = 0;
  uint64_t run = 0;
};
[[nodiscard]] Result<DomainOf> domain_of(const std::string& xml);
/// How many vCPUs a VM's domain has room for as long as it runs: four times those it began with.
[[nodiscard]] uint64_t most_vcpus(const meta::Vm& vm);
/// How many a domain has, by libvirt's description of it; 0 where that says nothing.
[[nodiscard]] uint64_t vcpus_of(const std::string& xml);
/// Memory is added to a domain in steps of this: no guest takes less.
inline constexpr uint64_t kMemoryStepMib = 128;
/// How much of it a domain has, by libvirt's description of it; 0 where that says nothing.
[[nodiscard]] uint64_t memory_of(const std::string& xml);
/// So much more of it, as a device to be plugged in.
[[nodiscard]] std::string memory_xml(uint64_t mib);
/// Whether the agent in the guest of a domain listens, by libvirt's description of it.
[[nodiscard]] bool has_agent(const std::string& xml);

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
