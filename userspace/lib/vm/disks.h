// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/result.h"

namespace vm {

/// A disk as the domain has it.
struct DomainDisk {
  std::string path;    ///< of the block device
  std::string bus;     ///< virtio, scsi or sata
  std::string serial;  ///< that the guest sees; its own among a VM's
  uint64_t iops = 0;   ///< at most; 0: no limit
  uint64_t bytes_per_s = 0;
};

/// Of the disk that cloud-init reads, which the VM has as long as it runs.
inline constexpr const char* kSeedSerial = "cloud-init";

/// A drive as the domain has it.
struct DomainCdrom {
  uint64_t slot = 0;  ///< which of the VM's it is
  std::string path;   ///< of the medium's block device; empty: there is none in it
};

[[nodiscard]] std::string cdrom_xml(const DomainCdrom& cdrom, const std::string& target,
                                    uint64_t order);
/// What gives the drives of a domain the media that are wanted: drives, each with its medium.
struct CdromChange {
  uint64_t slot = 0;
  std::string xml;  ///< of the drive, to update
};
[[nodiscard]] core::Result<std::vector<CdromChange>> cdrom_changes(
    const std::string& domain, const std::vector<DomainCdrom>& wanted);

/// As a domain has it: <disk>. `order`: in which the guest is booted from them; 0: not from this.
[[nodiscard]] std::string disk_xml(const DomainDisk& disk, const std::string& target,
                                   uint64_t order);

/// vda, sda: the first that is not used, which it is then.
[[nodiscard]] std::string next_target(const std::string& bus, std::set<std::string>& used);

/// What makes the disks of a domain that runs those of its VM.
struct DiskChange {
  enum class What : uint8_t { attach, detach, limit };
  What what;
  std::string serial;
  std::string xml;     ///< of the device, to attach or detach
  std::string target;  ///< of the disk that gets other limits
  uint64_t iops = 0;
  uint64_t bytes_per_s = 0;
};
/// A function of the domain's XML and what is wanted. Disks are told apart by their serials.
[[nodiscard]] core::Result<std::vector<DiskChange>> disk_changes(
    const std::string& domain, const std::vector<DomainDisk>& wanted);

/// Of a domain's disks what they are called there, and their serials.
[[nodiscard]] core::Result<std::map<std::string, std::string>> serials_by_target(
    const std::string& domain);

}  // namespace vm
