// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "meta/cluster.h"
#include "vm/domain.h"

namespace scaled {

/// Where the machine of a VM has what it keeps, by the VM's disks.
core::Result<vm::DomainMachine> domain_machine(meta::Cluster& cluster, const meta::Vm& vm);

/// Before a VM's domain begins here: variables of a new UEFI, what cloud-init is to read, its TPM.
/// All of its devices are open.
core::Result<void> prepare_machine(meta::Cluster& cluster, const meta::Vm& vm);

/// A VM's TPM runs beside its QEMU, as a unit of systemd's named after its VSD, from before that
/// begins until that ends. Here anew; also before its domain arrives.
core::Result<void> start_tpm(const std::string& vsd);
/// What it keeps can be closed then. Nothing to do where a VM has none, or it has ended.
core::Result<void> end_tpm(meta::Cluster& cluster, const meta::Vm& vm);
/// TPMs that run here, or did, of VMs that do neither run here nor come here, end: what keeps them
/// is open on another node.
void stop_tpms(meta::Cluster& cluster, const std::vector<meta::Vm>& vms, core::NodeId node);
/// The VSD of a VM's TPM; empty: it has none.
core::Result<std::string> tpm_of(meta::Cluster& cluster, const meta::Vm& vm);

}  // namespace scaled
