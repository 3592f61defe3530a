// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config.h"
#include "meta/cluster.h"
#include "net/netlink.h"
#include "net/plan.h"
#include "net/watch.h"

namespace scaled {

class Agent;

/// Makes this node's networks what the metadata says: bonds of its ports, where those were named,
/// and a bridge for each VLAN of guests. Watches the ports; where another one of the LAN's is used
/// from now on, it tells the switches where the guests are.
class Networks {
 public:
  /// Once, before anything uses them: errors are told by run().
  Networks(const Paths& paths, const Config& config);
  /// From now on, on a thread of its own, at once where a link changes.
  void run(Agent& agent);

  /// Makes sure that a VM's networks are here; Code::conflict names what is not.
  core::Result<void> ready(const meta::Vm& vm);
  [[nodiscard]] net::Lan lan() const;

 private:
  using Conditions = std::map<std::string, std::string>;

  core::Result<void> read(net::Wanted& wanted);
  core::Result<Conditions> keep();
  core::Result<Conditions> make(const net::Wanted& wanted);
  void take_back(const net::Step& failed, const std::string& why);
  void announce();
  void say(Agent& agent, const Conditions& conditions);

  const Paths& paths_;
  const Config& config_;
  // Of all that follows but what the thread says; the thread alone waits for events without it.
  mutable std::mutex mutex_;
  std::unique_ptr<net::Netlink> netlink_;
  std::unique_ptr<meta::Database> database_;
  std::vector<net::Link> links_;
  net::Lan lan_;
  std::string named_;                           // the ports, as of `refused_`
  std::map<std::string, std::string> refused_;  // ports that their bonds did not take
  net::Watch watch_;
  Conditions said_;  // the thread's
  std::jthread thread_;
};

}  // namespace scaled
