// SPDX-License-Identifier: GPL-2.0
// A node: a model of what the module does (kernel/), and of the daemon's housekeeping around the
// real ledger and policy.
#pragma once

#include <boost/json.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/healing.h"
#include "world.h"

namespace sim {

/// An extent as the module caches it.
struct Extent {
  struct Missed {
    std::set<DiskId> written;
    std::set<DiskId> failed;   ///< a request to that copy failed
    std::set<DiskId> skipped;  ///< it was left out
    bool unsettled = false;    ///< a range may differ in any copy, and did not go elsewhere
    std::set<DiskId> reached;  ///< of which one should stay current then
  };
  /// What a batch says of the copies.
  struct Marks {
    std::set<DiskId> stale;
    std::set<DiskId> suspects;  ///< may differ from the one that stays current
    bool good = false;          ///< there is one that stays so
  };
  ExtentId id;
  bool exclusive = false;
  bool frozen = false;
  bool own = false;   ///< holds one chunk at its own offsets
  bool dead = false;  ///< its last segment was replaced: nothing is written there any more
  uint32_t fill = 0;
  std::vector<meta::Copy> copies;
  bool open_dirty = false;
  bool closed_dirty = false;
  Missed open;
  Missed closed;
};

struct Batch {
  struct Written {
    uint64_t life = 0;
    bool failed = false;
  };
  std::vector<meta::Op> ops;
  std::map<DiskId, Written> disks;
  std::set<ExtentId> dirty;
};

/// What one node's module knows of a VSD. One leaf is all that a simulated VSD has.
struct Vsd {
  enum class Lease : uint8_t { none, owned, releasing, failed };
  VsdId id;
  Lease lease = Lease::none;
  uint64_t epoch = 0;
  uint32_t copies = 2;
  bool loaded = false;
  bool intent = false;
  uint64_t gen = 1;
  uint64_t flushed_gen = 0;
  uint64_t written_gen = 0;
  uint64_t touched = 0;
  std::map<uint64_t, core::Segments> chunks;
  std::map<ExtentId, std::shared_ptr<Extent>> extents;
  std::shared_ptr<Extent> young;
  Batch open;
  Batch closed;
  bool ready = false;
  uint64_t batch = 0;
  uint64_t acked = 0;
  uint64_t refused = 0;
  bool relet = false;    ///< failed, and to be taken anew
  bool dropped = false;  ///< the last epoch ended that way
  bool strict = false;   ///< the closed batch was refused once
  /// Copies that the closed batch waits for, and the lives in which they were written.
  std::optional<std::map<DiskId, uint64_t>> stuck;
  uint64_t active = 0;
  uint64_t pins = 0;
  uint64_t asked = 0;    ///< flushes
  uint64_t closing = 0;  ///< that the closed batch serves
  uint64_t served = 0;   ///< that ended
  bool failed_flush = false;
  bool wanted = false;  ///< somebody waits for the lease, ...
  bool wants_intent = false;
  bool wants_space = false;
  std::set<std::pair<uint64_t, uint32_t>> busy;  ///< cells with I/O under way
  std::set<ExtentId> frozen;
};

/// Cells of a slot to gather, or to write them to.
struct Cells {
  DiskId disk;
  uint64_t life = 0;
  uint32_t slot = 0;
  uint32_t cell = 0;
  uint32_t count = 0;
  uint32_t to = 0;
};

/// The module of one life of a node.
class Kernel {
 public:
  Kernel(World& world, uint64_t node, uint64_t life) : world_(world), node_(node), life_(life) {}

  [[nodiscard]] uint64_t life() const { return life_; }
  [[nodiscard]] bool expired() const;
  Vsd& vsd(VsdId id);
  std::map<VsdId, Vsd>& vsds() { return vsds_; }

  Co<bool> write(VsdId id, uint64_t chunk, uint32_t cell, uint32_t count, bool zero);
  Co<bool> read(VsdId id, uint64_t chunk, uint32_t cell);
  Co<bool> flush(VsdId id);
  Co<Done> flusher(VsdId id);
  Co<bool> release(VsdId id, uint64_t epoch);
  Co<Done> barrier();
  Co<bool> flush_disks();
  Co<bool> copy_slot(DiskId from, uint32_t from_slot, uint64_t from_life, DiskId to,
                     uint32_t to_slot, uint64_t to_life);

  /// Reads all, then writes the same cells of each target, then flushes.
  Co<bool> gather(std::vector<Cells> from, std::vector<Cells> targets);
  /// kernel/pieces.c
  void move_pieces(const meta::Moved& moved);

  void fail(VsdId id, uint64_t epoch);
  /// The same, and the lease is to be taken anew; when that may be, `relet` is false again.
  void relet(VsdId id, uint64_t epoch);
  void grant(VsdId id, uint64_t epoch, uint32_t copies);
  void put_leaf(VsdId id, uint64_t epoch, const meta::Leaf& leaf);
  void batch_done(VsdId id, uint64_t epoch, uint64_t batch, bool refused);
  [[nodiscard]] std::vector<meta::Stale> stales(Vsd& vsd) const;
  /// kernel/freeze.c: a frozen state, or, with `thaw`, as the metadata says; false for "not now".
  bool set_extent(VsdId id, uint64_t epoch, const meta::MappedExtent& as, bool frozen,
                  DiskId refreshed, bool partial = false);
  [[nodiscard]] bool in_epoch(VsdId id, uint64_t epoch);
  [[nodiscard]] bool equal_copies(const Vsd& vsd) const;

  std::map<uint64_t, std::vector<std::shared_ptr<Extent>>> stock;  ///< by number of copies
  std::map<uint64_t, bool> no_space;
  std::set<std::pair<uint64_t, uint64_t>> fenced;
  uint64_t deadline = 0;

 private:
  enum class Plan : uint8_t { in_place, fresh, degraded, intent, no_space };
  struct Target {
    std::shared_ptr<Extent> extent;
    uint32_t cell = 0;
    std::map<DiskId, uint64_t> lives;
    std::set<DiskId> skipped;
  };
  [[nodiscard]] bool reachable(DiskId id) const;
  [[nodiscard]] bool copy_ok(const Vsd& vsd, const Extent& extent, const meta::Copy& copy) const;
  bool in_place_ok(const Vsd& vsd, const Extent& extent, std::map<DiskId, uint64_t>& lives) const;
  Plan plan(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, Target& out);
  bool plan_fresh(Vsd& vsd, uint32_t cell, uint32_t count, Target& out);
  std::shared_ptr<Extent> take(Vsd& vsd, std::map<DiskId, uint64_t>& lives);
  void note_written(Vsd& vsd, const Target& target, const std::set<DiskId>& failed);
  static bool mapped(const Vsd& vsd, ExtentId id);
  bool remap(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, ExtentId extent,
             uint32_t off);
  static Extent::Marks marks(const Vsd& vsd, const Extent& extent);
  void give_up(Vsd& vsd, const std::shared_ptr<Extent>& left) const;
  static const core::Segment* cover(const Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count);
  /// An extent of the closed batch that would be left without a good copy.
  [[nodiscard]] std::optional<ExtentId> without_copy(const Vsd& vsd) const;
  Co<bool> await_good_copy(Vsd& vsd);
  Co<Done> drop_unflushed(VsdId id);
  [[nodiscard]] bool ready(const Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count) const;
  Co<bool> write_once(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, bool zero);
  Co<bool> read_once(Vsd& vsd, uint64_t chunk, uint32_t cell);
  static void drop_batch(Vsd& vsd, Batch& batch);
  static void drop_map(Vsd& vsd);
  std::shared_ptr<Request> leg(Request::Op op, DiskId disk, uint64_t life) const;
  Co<Done> flush_written(Vsd& vsd, bool again);
  Co<bool> flush_closed(Vsd& vsd);

  World& world_;
  const uint64_t node_;
  const uint64_t life_;
  std::map<VsdId, Vsd> vsds_;
  std::multiset<uint64_t> running_;  ///< generations of I/O under way
  uint64_t generation_ = 0;

  friend class Active;
};

class SimLog final : public journal::Log {
 public:
  SimLog(World& world, uint64_t node, uint64_t session)
      : world_(world), node_(node), session_(session) {}
  Result<journal::View> tend(uint64_t applied) override;
  Result<journal::Entry> append(uint64_t index, uint64_t prev_hash, std::string payload) override;
  Result<std::vector<journal::Entry>> read_from(uint64_t index, size_t limit) override;
  Result<void> trim(uint64_t) override { return {}; }

 private:
  World& world_;
  const uint64_t node_;
  const uint64_t session_;
};

/// True for as long as it lives; whoever wants the same waits.
class Held {
 public:
  explicit Held(bool& flag) : flag_(flag) { flag_ = true; }
  ~Held() { release(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  void release() {
    if (held_) flag_ = false;
    held_ = false;
  }

 private:
  bool& flag_;
  bool held_ = true;
};

/// One run of the daemon.
class Daemon {
 public:
  Daemon(World& world, Node& node, meta::Database& database);

  /// A call of another node's, or one's own.
  void serve(const std::shared_ptr<Call>& call);
  Co<Result<json::object>> propose(json::object body);
  Co<Done> release(VsdId vsd, uint64_t epoch);
  /// Its machine is being shut down: every lease is given back, and none is taken any more.
  Co<Done> retire();
  /// All of them at one instant, or none; whoever has their leases stands still for it.
  Co<Done> snapshot(std::vector<VsdId> vsds, std::string name);
  /// An administrator's; what comes of it is in the metadata.
  Co<Done> order(json::object body);
  void start_fibers();

  [[nodiscard]] bool leading() const { return view_.leading; }
  [[nodiscard]] uint64_t applied() const { return ledger_.applied().index; }
  [[nodiscard]] bool up() const { return life_ != 0; }
  [[nodiscard]] std::string describe() const;

 private:
  struct Item {
    meta::MappedExtent extent;
    std::vector<meta::CopyRow> rows;
    policy::Step step;
  };
  struct Lease {
    uint64_t epoch = 0;
    bool minded = false;
  };

  /// A VSD that stands still, and what became of the snapshot.
  struct Still {
    bool ended = false;
    bool good = false;
    json::object item;
    bool told = false;
    uint64_t epoch = 0;
  };

  Co<Done> stand_still(VsdId id, std::shared_ptr<Still> still);
  Co<Done> go_on(VsdId id, uint64_t before, std::shared_ptr<Still> still);
  Co<Done> keep_log();
  Co<Done> keep_alive();
  Co<Done> observe();
  Co<Done> start();
  Co<Done> serve_work();
  Co<Done> take_lease(VsdId vsd);
  Co<Done> commit(VsdId vsd);
  bool lost_writes(const Vsd& vsd);
  Co<Done> relet(VsdId vsd, uint64_t epoch);
  Co<Done> intents(VsdId vsd);
  Co<Done> reserve(uint64_t copies);
  Co<Done> keep_house();
  Co<Done> keep_disks();
  Co<Done> keep_stock();
  Co<Done> keep_leases();
  Co<Done> keep_fences();
  Co<Done> keep_quarantine();
  Co<Done> keep_leader();
  Co<Done> mover();
  Co<Done> move_some(VsdId vsd, std::vector<ExtentId> extents);
  Co<bool> freeze(VsdId vsd, uint64_t epoch, const std::vector<Item>& items);
  Co<std::vector<Item>> copy(std::vector<Item> items);
  void thaw(VsdId vsd, uint64_t epoch, const std::vector<Item>& items);
  struct Gathering {
    json::array pieces;
    json::array sources;
    std::vector<Cells> from;
    std::vector<Cells> targets;
    std::vector<Item> writable;
  };
  Co<Done> gather_one();
  Co<Done> gather_chunk(VsdId vsd, uint64_t row);
  std::optional<Gathering> plan_gathering(VsdId vsd, uint64_t row, const json::array& to);
  void tell_gathered(uint64_t behind);
  Co<std::optional<Lease>> hold(VsdId vsd);
  Co<Done> give_back_leases();
  std::vector<Item> plan(VsdId vsd, const std::vector<ExtentId>& extents);
  json::object about(const char* op, VsdId vsd, uint64_t epoch) const;
  void die(const std::string& why);

  World& world_;
  Node& node_;
  meta::Database& database_;
  meta::Cluster cluster_;
  const uint64_t session_;
  SimLog log_;
  replica::Ledger ledger_;
  journal::View view_;
  std::vector<std::shared_ptr<Call>> queue_;
  std::set<uint64_t> open_;
  uint64_t next_sequence_ = 1;
  uint64_t life_ = 0;
  std::map<VsdId, uint64_t> granted_;
  std::set<VsdId> changing_;  // leases that are taken or given back
  std::set<VsdId> reletting_;
  std::map<VsdId, uint64_t> minded_;
  bool retiring_ = false;
  bool moving_ = false;
  bool looking_ = false;
  uint64_t barrier_ = 0;
  std::set<uint64_t> unused_;
  std::map<VsdId, std::pair<uint64_t, uint64_t>> unclaimed_;  // epoch, since
  struct Seen {
    uint64_t life = 0;
    uint64_t revision = 0;
    uint64_t since = 0;
  };
  std::map<uint64_t, Seen> seen_;
  uint64_t observed_ = 0;
};

class Node {
 public:
  Node(World& world, uint64_t number, std::unique_ptr<meta::Database> metadata)
      : id(number), database(std::move(metadata)), world_(world) {}

  void boot();
  /// Ends everything at once; what disks had not flushed is World::power_cut()'s.
  void halt();
  void start_daemon();
  void kill_daemon();
  void freeze(bool daemon_only);
  void resume();
  /// Somebody reads a little here, which takes over what a dead owner left.
  Co<Done> touch(VsdId vsd);

  const uint64_t id;
  bool powered = false;
  bool frozen = false;
  bool daemon_frozen = false;
  const std::unique_ptr<meta::Database> database;
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<Daemon> daemon;

 private:
  Co<Done> guest(VsdId vsd);

  World& world_;
};

}  // namespace sim
