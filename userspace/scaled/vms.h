// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "consoles.h"
#include "hypervisor/freezes.h"
#include "hypervisor/hypervisor.h"
#include "meta/cluster.h"
#include "migration.h"
#include "vm/domain.h"
#include "vm/lifecycle.h"
#include "vm_devices.h"

namespace scaled {

class Member;

/// A connection to the screen of a run that is here, as a socket that the caller closes.
core::Result<int> screen_of(const std::string& uuid, uint64_t run);

/// Makes the domains of this node what the metadata says of its VMs, and says what became of them.
/// On the leader also: those whose node was lost, or which could not be started, begin anew.
///
/// libvirt is asked each second, and only where there are VMs at all. A thread of its own, which
/// waits for nobody, holds all guests when this node's time is over, so that none of them runs
/// twice.
class Vms {
 public:
  explicit Vms(Member& member);
  ~Vms();
  /// The metadata has changed: what moves is looked at without delay.
  void poke();
  /// Has the guest of a run that is here begin anew: "reboot" asks it, "reset" does not. Done once,
  /// and known to nobody else: a run that begins anew elsewhere is another one.
  core::Result<void> restart(const std::string& uuid, uint64_t run, const std::string& how);
  /// Has the agent of a run's guest hold its file systems still, for hypervisor::Freezes::kAtMost;
  /// Code::not_found where there is none. A ticket to thaw() it with.
  core::Result<uint64_t> freeze(const std::string& uuid, uint64_t run);
  /// Whether they were until now.
  bool thaw(const std::string& uuid, uint64_t ticket) { return freezes_.thaw(uuid, ticket); }
  /// The path of a local socket that leads to the libvirt, or the screen, of the node that runs a
  /// VM.
  core::Result<std::string> console(const meta::Vm& vm, bool screen);
  /// How far a VM of this node's has moved; nothing where none is under way.
  std::optional<hypervisor::Hypervisor::Progress> progress(const std::string& uuid);

 private:
  using Clock = std::chrono::steady_clock;
  /// A domain here that is this cluster's.
  struct Ours {
    std::string uuid;
    uint64_t vm = 0;
    uint64_t run = 0;
    hypervisor::State state = hypervisor::State::running;
  };

  /// A connection, and what is known of the domains there.
  struct Watch {
    std::unique_ptr<hypervisor::Hypervisor> hypervisor;
    std::map<std::pair<std::string, int>, std::pair<uint64_t, uint64_t>> known;

    core::Result<void> open();
    core::Result<std::vector<Ours>> ours();
  };

  /// When a VM that is to leave its node is tried to be moved again, and why it was not.
  struct Leaving {
    Clock::time_point next;
    std::string why;
  };

  /// What a migration's guest stood still for is known when it goes on.
  struct Left {
    meta::Vm vm;
    Clock::time_point at;
  };

  void run(const std::stop_token& stop);
  void rest(const std::stop_token& stop);
  void guard(const std::stop_token& stop);
  void report_capacity(const std::vector<meta::Vm>& vms);
  void learn_models(const std::vector<meta::Vm>& vms);
  bool connect(bool needed);
  void serve(const std::vector<meta::Vm>& vms);
  vm::View view_of(const meta::Vm& vm, const Ours* domain, bool known);
  void look_at_target(const meta::Vm& vm, vm::View& view);
  void act(const meta::Vm& vm, const vm::View& view);
  core::Result<void> migrate(const meta::Vm& vm);
  core::Result<void> say_moved(const meta::Vm& vm);
  core::Result<void> say_stays(const meta::Vm& vm, const vm::View& view);
  void end_moves();
  void say_pauses(const std::vector<meta::Vm>& vms);
  void say_ended(const meta::Vm& vm, const std::string& how, const std::string& reason);
  core::Result<void> say_state(const meta::Vm& vm, const char* state);
  core::Result<void> create(const meta::Vm& vm);
  core::Result<bool> disks_open(const meta::Vm& vm);
  std::string bridge_there(core::NodeId node);
  void lead(const std::vector<meta::Vm>& vms);
  void move_away(const std::vector<meta::Vm>& vms, const std::vector<meta::Node>& nodes,
                 std::set<std::string>& wrong);
  void quit_tpm(const meta::Vm& vm);
  void close_left(const std::vector<meta::Vm>& vms);
  void note(const std::string& subject, const std::string& text);
  void forget();
  core::Result<boost::json::object> propose(boost::json::object body);

  Member& member_;
  VmDevices devices_;
  Consoles consoles_;
  hypervisor::Freezes freezes_;
  std::unique_ptr<meta::Database> database_;
  Watch watch_;
  uint64_t told_life_ = 0;  // for which the capacity was said
  std::string told_problem_;
  std::string told_lan_;
  std::string models_;  // of CPUs that guests can have here; empty: not asked yet
  std::string told_models_;
  bool ends_ = false;  // its machine is being shut down
  std::map<std::string, std::pair<uint64_t, std::string>> failed_;  // by UUID: run and why
  std::map<std::string, Clock::time_point> asked_;  // guests to shut down or go on, by UUID
  std::map<std::string, std::string> noted_;        // conditions that are set here
  std::map<uint64_t, Leaving> leaving_;             // VMs that are to leave their nodes
  Clock::time_point tidy_;                          // when TPMs are looked at next
  Clock::time_point close_left_;                    // when that is tried next
  std::atomic<bool> guests_{false};                 // some run here, or begin to
  std::map<std::string, std::unique_ptr<Migration>> moves_;  // from here, by UUID
  std::vector<Left> left_;
  std::mutex mutex_;
  std::condition_variable_any poked_;
  bool changed_ = false;
  bool moving_ = false;  // some move from here, or to here
  std::jthread thread_;
  std::jthread guard_;  // last
};

}  // namespace scaled
