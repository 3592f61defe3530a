// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "policy/context.h"
#include "policy/hosts.h"

/// What the handlers of VMs share; for them alone.
namespace policy {

/// Words as a column has them: with blanks between.
std::string words(const std::vector<std::string>& all);
/// The VM of a call.
Result<meta::Vm> vm_of(Context& c, const json::object& args);
/// The run of a VM that a node speaks of; another one is none of its business any more.
Result<meta::Vm> run_of(Context& c, const json::object& args);
/// Whether a VM's disks and network interfaces may change now: not while it moves.
Result<void> may_change_devices(const meta::Vm& vm);
/// Network interfaces as a request has them all, and as rows.
void take_nics(const json::object& args, meta::Vm& vm);
Result<void> put_nics(Context& c, const meta::Vm& vm);
/// A disk as a request has it, without its VSD; that, which may be new; and its row.
meta::VmDisk disk_from(const json::object& args, uint64_t slot);
Result<VsdId> disk_for(Context& c, const meta::Vm& vm, uint64_t slot, const json::object& disk);
void put_disk(Context& c, const meta::Vm& vm, const meta::VmDisk& disk);
/// Its run is over: disks that were to go are the VM's no more.
void forget_leaving(Context& c, const meta::Vm& vm);
/// Drives as a request has them all, and as rows.
Result<void> take_cdroms(Context& c, const json::object& args, meta::Vm& vm);
void put_cdroms(Context& c, const meta::Vm& vm);
/// What its machine keeps is on VSDs as its row says, which are made, or deleted; of another
/// firmware than it had it is begun anew.
Result<void> keep_machine(Context& c, uint64_t vm, bool other_firmware);
/// What cloud-init is given, as a request has it; whether that is something else than it was.
Result<bool> take_seed(Context& c, const json::object& args, uint64_t vm);
/// A run of a VM begins, with the media that are in its drives, or is over.
void hold_media(Context& c, const meta::Vm& vm, bool runs);
/// Where VMs run, but for one.
Result<std::vector<Host>> vm_hosts(Context& c, uint64_t without_vm);
/// The devices that a VM has on a node go.
void close_disks(Context& c, const meta::Vm& vm, NodeId node);
/// It goes nowhere from now on; why, for whoever waits for it.
void forget_move(Context& c, const meta::Vm& vm, const std::string& why);
/// Where a VM does not run, or not move, on a node any more.
void end_drain(Context& c, NodeId node);
void end_tasks(Context& c, const meta::Vm& vm, const char* what, const std::string& error);
/// A run of a VM is over, on its node: as was wanted, or because the guest powered off
/// ("shutdown"), or not; then it begins anew after a while, on whatever node suits then.
void end_run(Context& c, const meta::Vm& vm, const std::string& how, const std::string& reason);

}  // namespace policy
