// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/result.h"
#include "host/channel.h"
#include "meta/cluster.h"

namespace scaled {

/// One attempt to move a VM's domain from here to another node, on a thread of its own. What came
/// of it is for its owner to tell the cluster.
class Migration {
 public:
  /// `tunnel_path`: a local socket, for as long as this lives, that leads to that node's libvirt.
  /// `lan_bridge`: what guests on the LAN are at there. `prepare` is called from the thread before
  /// its domain goes there, `ended` in the end.
  Migration(const meta::Vm& vm, std::string lan_bridge, std::string tunnel_path,
            std::function<core::Result<void>()> prepare, host::Tunnel::Connect connect,
            std::function<void()> ended);
  /// Waits until it has ended.
  ~Migration();
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;

  [[nodiscard]] uint64_t run() const { return run_; }
  /// Nothing while it is under way. Where it went well, the domain is not here any more.
  [[nodiscard]] std::optional<core::Result<void>> result() const;

 private:
  core::Result<void> move();

  const std::string name_;
  const std::string uuid_;
  const uint64_t run_;  // that it will be there
  const std::vector<meta::VmNic> nics_;
  const std::string lan_bridge_;
  const std::string tunnel_path_;
  const std::function<core::Result<void>()> prepare_;
  host::Tunnel tunnel_;
  mutable std::mutex mutex_;
  std::optional<core::Result<void>> result_;
  std::jthread thread_;
};

}  // namespace scaled
