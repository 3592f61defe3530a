// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <vector>

#include "config.h"
#include "control/kernel.h"
#include "host/dm.h"
#include "meta/cluster.h"
#include "policy/gathering.h"
#include "policy/healing.h"
#include "policy/pace.h"
#include "policy/verdict.h"
#include "replica/replica.h"

namespace scaled {

class Agent;

/// Gives every extent the copies that it should have: what is stale is copied anew, what lies on a
/// disk that is lost, failed or to become empty is copied elsewhere. policy::next_step() says what,
/// this does it.
///
/// The holder of a VSD's lease moves its extents. Where nobody has one, a node takes the lease for
/// that ("minded": its kernel knows nothing of it) and gives it back when the work is done, or when
/// another node asks for it. kernel/freeze.c says in which steps an extent is moved under a guest's
/// writes. Where nothing is to be moved it compares copies (scrub.cc) and puts together what small
/// writes have scattered (gather.cc). How fast it goes the guests of this node decide, by how long
/// their I/O takes (policy::Pace).
class Mover {
 public:
  Mover(const Paths& paths, const Config& config, replica::Replica& replica, Agent& agent);

  /// The thread's function.
  void run(const std::stop_token& stop);

  /// Nothing is copied while the result lives, and the mover does not mind this VSD any more: for
  /// whoever gives up its lease.
  struct Paused {
    std::unique_lock<std::mutex> lock;
    uint64_t minded = 0;  ///< the epoch in which it minded the VSD; 0: it did not
  };
  [[nodiscard]] Paused pause(core::VsdId vsd);
  /// While that lives: the same of another VSD.
  uint64_t stop_minding(const Paused& paused, core::VsdId vsd);
  /// Whether the mover has the lease of a VSD for itself; also where that cannot be told now.
  [[nodiscard]] bool minds(core::VsdId vsd);

  struct Progress {
    meta::Redundancy left;
    double copies_per_second = 0;  ///< by which that became less lately, all nodes together
  };
  Progress progress() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Item {
    meta::MappedExtent extent;
    std::vector<meta::CopyRow> rows;
    policy::Step step;
  };
  struct Lease {
    uint64_t epoch = 0;
    bool minded = false;
  };
  /// Frozen, and it is not known whether what was proposed will come to pass.
  struct Unsettled {
    core::VsdId vsd;
    uint64_t epoch = 0;
    std::vector<Item> items;
  };
  struct Round {
    uint64_t moved = 0;
    uint64_t waiting = 0;
  };

  /// A walk over a VSD that compares its copies.
  struct Pass {
    core::VsdId vsd;
    int64_t began = 0;
    uint64_t next = 0;  ///< leaf
    bool end = false;
  };
  struct Subject;
  struct Findings;

  bool recover(control::Kernel& kernel, meta::Database& database);
  Round round(control::Kernel& kernel, meta::Database& database, const std::stop_token& stop);
  void give_up_disks(meta::Cluster& cluster);
  void settle(control::Kernel& kernel, meta::Database& database);
  void give_back_leases();
  void report(meta::Cluster& cluster, const Round& round);
  void guard_capacity(meta::Cluster& cluster);
  void widen(meta::Cluster& cluster);
  void balance(meta::Cluster& cluster);

  /// A piece of work, and how the node's users fared meanwhile; then a rest.
  struct Piece {
    Clock::time_point began = Clock::now();
    host::DeviceLoad before = host::device_load();
  };
  void rest_behind(const Piece& piece, policy::Haste haste, const std::stop_token& stop);
  static core::NodeId worker_of(const meta::Vsd& vsd, const std::vector<meta::Node>& nodes);
  std::optional<Lease> hold(control::Kernel& kernel, meta::Cluster& cluster, core::VsdId vsd);
  std::optional<Lease> mind(control::Kernel& kernel, core::VsdId vsd);
  core::Result<std::vector<Item>> plan(meta::Database& database, core::VsdId vsd,
                                       const std::vector<core::ExtentId>& extents);
  void find_places(meta::Database& database, core::VsdId vsd, uint64_t epoch,
                   const std::vector<core::ExtentId>& extents);
  Round move_some(control::Kernel& kernel, meta::Database& database, core::VsdId vsd,
                  const std::vector<core::ExtentId>& extents);
  core::Result<void> freeze(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch,
                            const std::vector<Item>& items);
  std::vector<Item> copy(control::Kernel& kernel, meta::Cluster& cluster, std::vector<Item> items);
  std::vector<Item> let_go(control::Kernel& kernel, core::VsdId vsd, uint64_t epoch,
                           std::vector<Item> items);
  void thaw(control::Kernel& kernel, meta::Database& database, core::VsdId vsd, uint64_t epoch,
            const std::vector<Item>& items);
  /// False where the module could not be told: what was frozen stays so.
  bool try_thaw(control::Kernel& kernel, meta::Database& database, core::VsdId vsd, uint64_t epoch,
                const std::vector<Item>& items);

  /// What is to be put together in one extent, as it was when that was seen.
  struct Scattered {
    core::VsdId vsd;
    std::vector<meta::Piece> pieces;
    Clock::time_point since;
    int warm = 0;  ///< times that somebody wrote there
  };
  /// A walk over a VSD that looks for such.
  struct Look {
    uint64_t next = 0;    // leaf
    uint64_t newest = 0;  // extent of the VSD when it began
    bool under_way = false;
    std::optional<Clock::time_point> ended;
    policy::Sparse sparse;
  };
  struct Gathering;

  void gather(control::Kernel& kernel, meta::Database& database, const std::stop_token& stop);
  void look_for_scattered(meta::Database& database);
  void look_at(meta::Database& database, core::VsdId vsd, Look& look, size_t& leaves);
  bool is_warm(meta::Cluster& cluster, const Scattered& one);
  bool gather_pieces(control::Kernel& kernel, meta::Database& database, const Scattered& one);
  core::Result<Gathering> plan_gathering(meta::Database& database, const Scattered& one,
                                         const meta::MappedExtent& to);
  core::Result<Gathering> hold_and_copy(control::Kernel& kernel, meta::Database& database,
                                        const Scattered& one, const Lease& lease,
                                        const meta::MappedExtent& to);
  bool find_room(uint64_t copies);
  void give_back_room();
  bool can_spare(meta::Cluster& cluster);

  void scrub(control::Kernel& kernel, meta::Database& database, const std::stop_token& stop);
  std::vector<Pass> due_passes(meta::Cluster& cluster);
  bool scrub_leaf(control::Kernel& kernel, meta::Database& database, Pass& pass);
  core::Result<std::vector<Subject>> subjects(meta::Database& database, core::VsdId vsd,
                                              uint64_t leaf);
  static std::map<core::DiskId, uint64_t> reachable(meta::Cluster& cluster);
  core::Result<std::vector<policy::Verdict>> compare(control::Kernel& kernel,
                                                     meta::Cluster& cluster,
                                                     const std::vector<Subject>& subjects);
  bool confirm(control::Kernel& kernel, meta::Database& database, const Pass& pass,
               const Lease& lease, uint64_t leaf, const std::set<core::ExtentId>& doubtful,
               Findings found);
  bool report_scrub(const Pass& pass, uint64_t epoch, Findings found);
  void settle_damage(control::Kernel& kernel, meta::Database& database);
  void conclude_verify(meta::Database& database);
  static std::string place_of(meta::Cluster& cluster, const meta::Damage& damage);

  core::Result<boost::json::object> propose(boost::json::object body);
  boost::json::object about(const char* op, core::VsdId vsd, uint64_t epoch) const;

  const Paths& paths_;
  const Config& config_;
  replica::Replica& replica_;
  Agent& agent_;

  std::mutex moving_;
  std::map<core::VsdId, uint64_t> minded_;  // -> epoch; under moving_
  std::vector<Unsettled> unsettled_;

  mutable std::mutex progress_mutex_;
  Progress progress_;
  Clock::time_point counted_;
  Clock::time_point count_again_;
  std::vector<Scattered> scattered_;
  std::map<core::VsdId, Look> looks_;
  std::optional<meta::MappedExtent> room_;  // a reservation that nothing was proposed for
  std::set<core::ExtentId> unused_;         // reservations that nothing may have become of
  std::optional<Clock::time_point> measured_;
  bool can_spare_ = false;
  Clock::time_point guarded_;
  Clock::time_point balanced_;
  policy::Pace pace_;
  uint64_t checked_ = 0;       // task "pool verify" for which the metadata was recounted
  std::string contradiction_;  // that was found then
};

}  // namespace scaled
