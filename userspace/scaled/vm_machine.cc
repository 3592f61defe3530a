// SPDX-License-Identifier: GPL-2.0
#include "vm_machine.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <set>

#include "config.h"
#include "host/command.h"
#include "host/dm.h"
#include "media/machine.h"

namespace scaled {

using core::Code;
using core::Result;

namespace {

constexpr const char* kTpms = "/run/scribe-tpm";
constexpr const char* kTpmSocket = ".sock";

std::string socket_of(const std::string& vsd) {
  return std::string(kTpms) + "/" + vsd + kTpmSocket;
}

Result<void> tpm_unit(const char* verb, const std::string& vsd) {
  const std::string unit = "scribe-tpm@" + vsd + ".service";
  const auto done = host::run_command({"systemctl", verb, unit});
  if (!done)
    return core::Error{Code::storage,
                       std::string("systemctl ") + verb + " " + unit + ": " + done.error().text};
  return {};
}

// The VSD of one of its own; empty: it has none.
Result<std::string> vsd_at(meta::Cluster& cluster, const meta::Vm& vm, uint64_t slot) {
  for (const meta::VmDisk& disk : vm.disks) {
    if (disk.slot != slot) continue;
    const auto vsd = cluster.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    if (!*vsd) return core::Error{Code::not_found, "what its machine keeps is gone"};
    return (*vsd)->name;
  }
  return std::string();
}

Result<std::string> device_at(meta::Cluster& cluster, const meta::Vm& vm, uint64_t slot) {
  auto name = vsd_at(cluster, vm, slot);
  if (!name || name->empty()) return name;
  return kDevices + host::device_name(*name);
}

}  // namespace

Result<std::string> tpm_of(meta::Cluster& cluster, const meta::Vm& vm) {
  return vsd_at(cluster, vm, meta::kTpmSlot);
}

Result<vm::DomainMachine> domain_machine(meta::Cluster& cluster, const meta::Vm& vm) {
  auto flash = device_at(cluster, vm, meta::kFlashSlot);
  auto seed = device_at(cluster, vm, meta::kSeedSlot);
  const auto tpm = tpm_of(cluster, vm);
  if (!flash) return flash.error();
  if (!seed) return seed.error();
  if (!tpm) return tpm.error();
  return vm::DomainMachine{std::move(*flash), tpm->empty() ? "" : socket_of(*tpm),
                           std::move(*seed)};
}

Result<void> prepare_machine(meta::Cluster& cluster, const meta::Vm& vm) {
  const auto machine = domain_machine(cluster, vm);
  const auto tpm = tpm_of(cluster, vm);
  const auto seed = cluster.seed(vm.id);
  if (!machine) return machine.error();
  if (!tpm) return tpm.error();
  if (!seed) return seed.error();
  const vm::Firmware* const firmware = vm::firmware_of(vm);
  if (firmware != nullptr) CORE_TRY(media::prepare_flash(machine->flash, firmware->variables));
  if (*seed && !machine->seed.empty())
    CORE_TRY(media::prepare_seed(machine->seed,
                                 {vm.uuid, vm.name, (*seed)->user_data, (*seed)->network_config}));
  if (!tpm->empty()) CORE_TRY(start_tpm(*tpm));
  return {};
}

Result<void> start_tpm(const std::string& vsd) {
  if (!meta::valid_name(vsd)) return core::Error{Code::invalid, "'" + vsd + "' is no VSD"};
  return tpm_unit("restart", vsd);
}

Result<void> end_tpm(meta::Cluster& cluster, const meta::Vm& vm) {
  const auto tpm = tpm_of(cluster, vm);
  if (!tpm) return tpm.error();
  if (tpm->empty()) return {};
  CORE_TRY(tpm_unit("stop", *tpm));
  std::error_code err;
  std::filesystem::remove(socket_of(*tpm), err);
  return {};
}

void stop_tpms(meta::Cluster& cluster, const std::vector<meta::Vm>& vms, core::NodeId node) {
  std::error_code err;
  std::set<std::string> running;
  for (const auto& entry : std::filesystem::directory_iterator(kTpms, err))
    if (entry.path().extension() == kTpmSocket) running.insert(entry.path().stem().string());
  if (running.empty()) return;
  for (const meta::Vm& vm : vms) {
    if (vm.node != node && vm.to_node != node) continue;
    const auto tpm = tpm_of(cluster, vm);
    if (!tpm) return;
    running.erase(*tpm);
  }
  for (const std::string& vsd : running) {
    if (const auto done = tpm_unit("stop", vsd); !done) {
      spdlog::warn("{}", done.error().text);
      continue;
    }
    std::filesystem::remove(socket_of(vsd), err);
  }
}

}  // namespace scaled
