// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "config.h"
#include "control/kernel.h"
#include "meta/cluster.h"
#include "mover.h"
#include "peers.h"
#include "policy/hands.h"
#include "replica/replica.h"

namespace scaled {

/// Changes are taken together: each commit of a busy disk is one, too.
inline constexpr std::chrono::milliseconds kCalm{100};

/// Makes the kernel of this node what the metadata says, and gives it what it asks for.
///
/// Four threads, each with its own connections to database and kernel:
///   service      answers the module's list of work: leases, map leaves, batches, reservations.
///   Only
///                it stands between a guest's flush and its end, so nothing in it waits long.
///   housekeeping disks, routes, peers, fences, quarantine.
///   devices      device-mapper nodes; removing one waits for the service thread.
///   mover        gives extents the copies that they should have (mover.h).
class Agent {
 public:
  using Clock = std::chrono::steady_clock;

  /// `removed` is called when this node is none of the cluster any more, perhaps several times.
  Agent(const Paths& paths, const Config& config, replica::Replica& replica, Peers& peers,
        std::function<void()> removed);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  /// Starts its threads; before, it only counts changes.
  void run();

  /// The metadata changed: look again. Any thread.
  void poke();

  /// The module's life; 0 until it is known.
  uint64_t life() const { return life_; }

  /// Gives a lease back for another node: flushes, commits, lets go. Blocks.
  Result<void> release(core::VsdId vsd, uint64_t epoch);

  /// For a snapshot: all is flushed, and nobody writes to these from here on, until go_on() or for
  /// some seconds. What a proposal is to say of each: where this node has its lease, in which
  /// epoch. Blocks.
  Result<boost::json::array> hold(const std::vector<core::VsdId>& vsds);
  /// The epochs in which this node has them now; 0: nothing became of it, or it had no lease.
  void go_on(const std::vector<std::pair<core::VsdId, uint64_t>>& epochs);

  /// Held by whoever acts on slots that it read of in the metadata; as long as it is, this node
  /// does not say that it has seen later changes, so that none of them is another's.
  std::mutex& looking() { return looking_; }
  /// Held from reading what copies extents have until the kernel knows it, so that what is older
  /// never comes later.
  std::mutex& telling() { return telling_; }
  /// With telling() held, in a read transaction: what was gathered since it was told last.
  Result<void> tell_gathered(control::Kernel& kernel, meta::Database& database);

  /// Whether a device of this node's is open: mounted, or a program has it.
  bool has_users();
  /// For a node that is being shut down: every lease that it has is given back, flushed, and none
  /// is taken any more. How many were left when `until` came.
  size_t retire(Clock::time_point until);
  bool retiring() const { return retiring_; }

  Mover::Progress progress() const { return mover_.progress(); }

  /// What this node's administrator should know, by subject; empty when all is well.
  std::map<std::string, std::string> conditions() const;
  /// Sets one; "" clears it.
  void set_condition(const std::string& subject, const std::string& text);

 private:
  struct Granted {
    Clock::time_point since;
    uint64_t epoch = 0;   ///< the last one that the kernel knows of
    uint32_t copies = 0;  ///< that new data has there, as far as the kernel knows
  };
  struct Held {
    Clock::time_point until;
    uint64_t epoch = 0;  ///< in which the kernel had it; 0: it had not
  };
  /// Of both policy::Hands.
  struct Moment {
    uint64_t recovering = 0;
    uint64_t releasing = 0;
  };
  /// Leaves of a VSD that come to be written in place, and that cease to be.
  struct IntentChange {
    core::VsdId vsd;
    uint64_t epoch = 0;
    std::vector<uint64_t> add;
    std::vector<uint64_t> drop;
  };

  void serve(const std::stop_token& stop);
  void keep_house(const std::stop_token& stop);
  void keep_devices(const std::stop_token& stop);

  void start(control::Kernel& kernel);
  bool declared_dead(uint64_t life) const;
  void drop_unused_leases(control::Kernel& kernel, uint64_t life);
  void serve_work(control::Kernel& kernel, meta::Database& database);
  bool in_use(meta::Database& database, uint64_t copies);
  void put_leaf(control::Kernel& kernel, meta::Database& database, const control::Work& work);
  void take_lease(control::Kernel& kernel, core::VsdId vsd,
                  const Result<boost::json::object>& answer);
  void ask_for_release(core::VsdId vsd);
  void grant_recovered(core::VsdId vsd, uint64_t epoch, uint32_t copies);
  bool changes_hands(core::VsdId vsd) const;
  Moment moment() const;
  bool calm_since(core::VsdId vsd, const Moment& moment) const;
  void note_granted(core::VsdId vsd, uint64_t epoch, uint32_t copies);
  Result<boost::json::array> hold_still(const Mover::Paused& paused,
                                        const std::vector<core::VsdId>& vsds);
  void go_on_in(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch);
  bool prolong_hold(core::VsdId vsd);
  uint64_t end_hold(core::VsdId vsd);
  void give_up_hold(core::VsdId vsd);
  void keep_holds();
  Result<void> give_back(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch);
  void drop_lost_writes(meta::Database& database, const std::vector<control::Work>& work);
  void relet(core::VsdId vsd, uint64_t epoch, const std::string& why);
  std::vector<IntentChange> collect_intents(control::Kernel& kernel, meta::Database& database,
                                            const std::vector<control::Work>& work);
  void commit(control::Kernel& kernel, const control::ClosedBatch& batch,
              const Result<boost::json::object>& answer);
  void add_reservations(control::Kernel& kernel, uint64_t copies,
                        const Result<boost::json::object>& answer);

  void keep_disks(control::Kernel& kernel, meta::Cluster& cluster);
  void open_disk(control::Kernel& kernel, const meta::Disk& disk);
  void keep_copies(control::Kernel& kernel, meta::Cluster& cluster);
  void keep_leases(control::Kernel& kernel, meta::Cluster& cluster);
  void end_stale_leases(control::Kernel& kernel, meta::Cluster& cluster);
  void keep_stock(control::Kernel& kernel, meta::Cluster& cluster);
  void keep_peers(control::Kernel& kernel, meta::Cluster& cluster);
  void keep_fences(control::Kernel& kernel, meta::Cluster& cluster);
  void keep_quarantine(control::Kernel& kernel, meta::Database& database);
  bool tell_moved(control::Kernel& kernel, meta::Database& database);
  void keep_device(meta::Cluster& cluster, const meta::Opened& opened);

  void wake_service();
  void wait(const std::stop_token& stop, uint64_t& seen, std::chrono::milliseconds limit);
  Result<boost::json::object> propose(boost::json::object body);

  const Paths& paths_;
  const Config& config_;
  replica::Replica& replica_;
  Peers& peers_;
  const std::function<void()> removed_;
  std::atomic<uint64_t> life_{0};
  std::atomic<bool> retiring_{false};

  std::mutex looking_;
  std::mutex telling_;
  uint64_t told_ = 0;  // entry up to which it knows what was gathered; under telling_
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  uint64_t changes_ = 0;
  std::map<std::string, std::string> conditions_;
  std::map<core::VsdId, Granted> granted_;
  std::set<core::VsdId> asked_;       // releases under way at other nodes
  policy::Hands recovering_;          // grants under way
  policy::Hands releasing_;           // releases under way here
  std::map<core::VsdId, Held> held_;  // of these, for snapshots

  // Of the housekeeping thread alone.
  std::map<core::DiskId, uint64_t> routed_;
  std::map<core::NodeId, uint64_t> introduced_;
  std::map<core::NodeId, std::string> remembered_;
  uint64_t barrier_ = 0;                      // up to which index it has said "seen"
  std::set<core::ExtentId> unused_;           // taken out of the stock, and still reserved
  std::map<core::VsdId, Granted> unclaimed_;  // leases of ours that nothing here knows of
  std::map<core::VsdId, uint64_t>
      ended_;  // the last epoch that the kernel was seen to have no more

  const int wake_;  // an eventfd: the service thread has something to do
  std::map<core::VsdId, Clock::time_point>
      waits_since_;  // for another's lease; the service thread's
  std::map<uint64_t, Clock::time_point> no_space_until_;  // by copies; the service thread's
  Mover mover_;
  std::map<core::VsdId, std::jthread> askers_;
  std::map<core::VsdId, std::jthread> granters_;
  std::vector<std::jthread> threads_;
};

}  // namespace scaled
