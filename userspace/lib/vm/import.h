// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "meta/cluster.h"

namespace vm {

/// What a domain of libvirt's XML would be here.
struct Imported {
  struct Disk {
    std::string vsd;  ///< its name
    std::string bus;
    uint64_t iops = 0;  ///< at most; 0: no limit
    uint64_t bytes_per_s = 0;
  };
  meta::Vm vm;  ///< name, UUID, description, vCPUs, memory, CPU, firmware, TPM and NICs with
                ///< their MACs; machine
  std::vector<Disk> disks;
  std::vector<std::string> left_out;  ///< what will be another thing here, in words
};

/// Takes nothing that leads out of the pool: disks are VSDs by their devices, networks are bridges.
/// What names a file, a host's device, a script or a command line, and what is not known here, is
/// refused: Code::invalid, with the element.
[[nodiscard]] core::Result<Imported> from_xml(const std::string& xml);

inline constexpr size_t kMaxXmlBytes = size_t{256} << 10;

}  // namespace vm
