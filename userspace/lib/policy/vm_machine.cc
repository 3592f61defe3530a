// SPDX-License-Identifier: GPL-2.0
// What a VM's machine keeps for itself: the variables of its UEFI, what its TPM knows, and what
// cloud-init is to read. Each is on a VSD of its own, which is opened and moves as the VM's disks
// do, and is no disk to its guest.
#include <algorithm>
#include <array>
#include <string_view>

#include "policy/handlers.h"
#include "policy/vm_rows.h"

namespace policy {

namespace {

constexpr uint64_t kMibSectors = 2048;
constexpr uint64_t kTpmMib = 4;
constexpr size_t kLongestUserData = size_t{64} << 10;
constexpr size_t kLongestNetworkConfig = size_t{16} << 10;

struct Kept {
  uint64_t slot;
  const char* what;  ///< the row's bus, and the end of the VSD's name
  uint64_t sectors;
};
constexpr std::array<Kept, 3> kKept = {{{meta::kFlashSlot, "uefi", kMibSectors},
                                        {meta::kTpmSlot, "tpm", kTpmMib* kMibSectors},
                                        {meta::kSeedSlot, "seed", kMibSectors}}};

bool is_wanted(Context& c, const meta::Vm& vm, uint64_t slot) {
  if (slot == meta::kFlashSlot) return vm.firmware != "bios";
  if (slot == meta::kTpmSlot) return vm.tpm;
  return ask(c, "SELECT count(*) FROM vm_seed WHERE vm = ?", s64(vm.id)) != 0;
}

std::string free_name(Context& c, const std::string& vm, const char* what) {
  std::string name = vm + "-" + what;
  for (uint64_t n = 2; ask(c, "SELECT count(*) FROM vsd WHERE name = ?", name) != 0; n++)
    name = vm + "-" + what + "-" + std::to_string(n);
  return name;
}

// As many as the VM's disks have.
uint64_t copies(Context& c, const meta::Vm& vm) {
  return std::max(uint64_t{2}, ask(c,
                                   "SELECT ifnull(max(v.replicas), 2) FROM vm_disk d JOIN vsd v "
                                   "ON v.id = d.vsd WHERE d.vm = ?",
                                   s64(vm.id)));
}

Result<void> drop(Context& c, const meta::Vm& vm, const meta::VmDisk& disk) {
  run(c, "DELETE FROM vm_disk WHERE vm = ? AND slot = ?", s64(vm.id), s64(disk.slot));
  const auto deleted = vsd_delete(c, {{"vsd", disk.vsd.value}});
  if (!deleted) return deleted.error();
  return {};
}

Result<void> check_text(const std::string& text, const char* what, size_t longest) {
  if (text.size() > longest)
    return Error{Code::invalid,
                 std::string(what) + " has at most " + std::to_string(longest >> 10) + " KiB"};
  if (text.find('\0') != std::string::npos)
    return Error{Code::invalid, std::string(what) + " is text, without zeroes"};
  return {};
}

// What cloud-init would pass over, with a line in a log of the guest's.
Result<void> check_user_data(const std::string& text) {
  CORE_TRY(check_text(text, "user data", kLongestUserData));
  const auto begins = [&](std::string_view with) {
    return std::string_view(text).starts_with(with);
  };
  if (text.empty() || begins("#") || begins("Content-Type:") || begins("MIME-Version:")) return {};
  return Error{
      Code::invalid,
      "user data begins with '#cloud-config', '#!' or another of cloud-init's first lines"};
}

}  // namespace

Result<void> keep_machine(Context& c, uint64_t id, bool other_firmware) {
  const auto vm = vm_of(c, {{"vm", id}});
  if (!vm) return vm.error();
  for (const Kept& kept : kKept) {
    const auto has = std::find_if(vm->disks.begin(), vm->disks.end(),
                                  [&](const meta::VmDisk& one) { return one.slot == kept.slot; });
    bool there = has != vm->disks.end();
    const bool wanted = is_wanted(c, *vm, kept.slot);
    if (there && (!wanted || (other_firmware && kept.slot == meta::kFlashSlot))) {
      CORE_TRY(drop(c, *vm, *has));
      there = false;
    }
    if (there || !wanted) continue;
    const auto made = vsd_create(c, {{"name", free_name(c, vm->name, kept.what)},
                                     {"sectors", kept.sectors},
                                     {"replicas", copies(c, *vm)}});
    if (!made) return made.error();
    put_disk(c, *vm, {kept.slot, {number(*made, "vsd")}, kept.what, 0, 0, false});
  }
  return {};
}

Result<bool> take_seed(Context& c, const json::object& args, uint64_t vm) {
  if (!args.contains("user_data") && !args.contains("network_config")) return false;
  const auto now = c.cluster.seed(vm);
  if (!now) return now.error();
  const meta::VmSeed was = now->value_or(meta::VmSeed{});
  meta::VmSeed seed = was;
  if (args.contains("user_data")) seed.user_data = text(args, "user_data");
  if (args.contains("network_config")) seed.network_config = text(args, "network_config");
  CORE_TRY(check_user_data(seed.user_data));
  CORE_TRY(check_text(seed.network_config, "a network configuration", kLongestNetworkConfig));
  if (seed.user_data.empty() && !seed.network_config.empty())
    return Error{Code::invalid, "a network configuration goes with user data; say both"};
  if (seed.user_data == was.user_data && seed.network_config == was.network_config) return false;
  run(c, "DELETE FROM vm_seed WHERE vm = ?", s64(vm));
  if (!seed.user_data.empty())
    run(c, "INSERT INTO vm_seed VALUES(?, ?, ?)", s64(vm), seed.user_data, seed.network_config);
  return true;
}

}  // namespace policy
