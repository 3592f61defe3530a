// SPDX-License-Identifier: GPL-2.0
#include "migration.h"

#include <spdlog/spdlog.h>

#include "hypervisor/hypervisor.h"
#include "vm/domain.h"
#include "vm/nics.h"

namespace scaled {

using core::Result;

Migration::Migration(const meta::Vm& vm, std::string lan_bridge, std::string tunnel_path,
                     std::function<core::Result<void>()> prepare, host::Tunnel::Connect connect,
                     std::function<void()> ended)
    : name_(vm.name),
      uuid_(vm.uuid),
      run_(vm.runs),
      nics_(vm.nics),
      lan_bridge_(std::move(lan_bridge)),
      tunnel_path_(std::move(tunnel_path)),
      prepare_(std::move(prepare)),
      tunnel_(tunnel_path_, std::move(connect)),
      thread_([this, ended = std::move(ended)] {
        auto done = move();
        {
          const std::lock_guard lock(mutex_);
          result_ = std::move(done);
        }
        ended();
      }) {}

Migration::~Migration() { thread_.join(); }

std::optional<Result<void>> Migration::result() const {
  const std::lock_guard lock(mutex_);
  return result_;
}

Result<void> Migration::move() {
  CORE_TRY(tunnel_.listen());
  auto hypervisor = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!hypervisor) return hypervisor.error();
  const auto xml = (*hypervisor)->movable_xml(uuid_);
  if (!xml) return xml.error();
  const auto run = vm::as_run(*xml, run_);
  if (!run) return run.error();
  const auto there = vm::with_bridges(*run, nics_, lan_bridge_);
  if (!there) return there.error();
  CORE_TRY(prepare_());
  spdlog::info("VM {}: moves, as run {}", name_, run_);
  return (*hypervisor)->migrate(uuid_, "qemu+unix:///system?socket=" + tunnel_path_, *there);
}

}  // namespace scaled
