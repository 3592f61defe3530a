// SPDX-License-Identifier: GPL-2.0
// What surrounds the code under simulation: disks with volatile caches, a network that loses,
// delays and repeats, what etcd is to the nodes, and what the guests were promised.
#pragma once

#include <array>
#include <boost/json.hpp>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/id.h"
#include "core/segments.h"
#include "fiber.h"
#include "journal/log.h"
#include "policy/proposals.h"
#include "replica/ledger.h"

namespace sim {

namespace json = boost::json;

using core::DiskId;
using core::Error;
using core::ExtentId;
using core::NodeId;
using core::Result;
using core::VsdId;

/// Chunks and slots are cut into cells, which are what is written and read at least.
constexpr uint32_t kCells = 4;
constexpr uint32_t kCellSectors = core::kChunkSectors / kCells;
constexpr uint64_t kChunks = 3;
constexpr uint64_t kNodes = 3;
constexpr uint64_t kDisksEach = 2;

/// In steps of the scheduler.
constexpr uint64_t kLease = 1500;
constexpr uint64_t kStepsPerSecond = 100;

/// A promise was broken, or the simulation is stuck.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Disk {
  using Cell = std::pair<uint32_t, uint32_t>;  // slot, cell
  DiskId id;
  uint64_t node = 0;
  uint64_t slots = 0;
  uint64_t life = 0;  ///< 0: not open
  bool failed = false;
  bool gone = false;  ///< taken out
  std::map<Cell, uint64_t> durable;
  std::map<Cell, uint64_t> cache;

  [[nodiscard]] uint64_t at(Cell cell) const;
  void flush();
};

/// One request to a disk, of this node or over the backplane.
struct Request {
  enum class Op : uint8_t { write, read, flush };
  Op op = Op::write;
  uint64_t from = 0;
  uint64_t from_life = 0;
  DiskId disk;
  uint64_t life = 0;
  uint32_t slot = 0;
  uint32_t cell = 0;
  std::vector<uint64_t> data;  ///< written, or read
  bool ok = false;
  bool ended = false;  ///< who sent it knows
  bool done = false;   ///< it will not reach the disk any more
  uint64_t since = 0;
};

/// A proposal on its way to a leader, and its answer on the way back.
struct Call {
  uint64_t from = 0;
  uint64_t to = 0;
  policy::Proposal proposal;
  bool answered = false;
  Result<replica::Served> served = Error{core::Code::unknown, ""};
};

/// What etcd is to the nodes: it orders, and knows who leads and who is alive.
struct Etcd {
  std::vector<journal::Entry> log;
  uint64_t leader = 0;
  uint64_t session = 0;  ///< of the leader's daemon
  uint64_t leader_until = 0;
  struct Alive {
    uint64_t life = 0;
    uint64_t revision = 0;
  };
  std::map<uint64_t, Alive> alive;
  std::set<std::pair<uint64_t, uint64_t>> dead;  ///< node, life
};

/// What was written where, and what a flush has promised.
class Oracle {
 public:
  struct Place {
    VsdId vsd;
    uint64_t chunk = 0;
    uint32_t cell = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
  };

  /// A write that may happen from now on; its value, which no other has. `zero`: a discard.
  uint64_t issue(const Place& place, bool zero, uint64_t epoch);
  void acknowledge(const Place& place, uint64_t value);
  /// What a flush that begins now promises when it ends.
  [[nodiscard]] std::map<Place, uint64_t> acknowledged(VsdId vsd, uint64_t epoch) const;
  void flushed(const std::map<Place, uint64_t>& promised);
  /// Throws where this may not be read now. `epoch`: of the reader, 0 for the end of all.
  void read(const Place& place, uint64_t value, uint64_t least, uint64_t epoch);
  /// The oldest that may be read from now on, by the owner in that epoch.
  [[nodiscard]] uint64_t least(const Place& place, uint64_t epoch) const;

  /// From here on a snapshot of that name may be taken of a VSD, which holds what is promised by
  /// now. Where the VSD stands still, nothing that is written later is in it.
  void begin_snapshot(const std::string& name, VsdId vsd, bool still);
  /// It was taken by now.
  void end_snapshot(const std::string& name);
  /// Throws where a snapshot may not hold this.
  void check_snapshot(const std::string& name, const Place& place, uint64_t value) const;

  uint64_t writes = 0;
  uint64_t reads = 0;
  uint64_t promises = 0;
  uint64_t snapshots = 0;

 private:
  struct Snapshot {
    std::map<Place, uint64_t> least;
    std::map<VsdId, uint64_t> most;
  };
  struct Cell {
    std::map<uint64_t, std::pair<bool, uint64_t>> issued;  // value -> zero, epoch
    uint64_t acknowledged = 0;
    uint64_t flushed = 0;
    uint64_t seen = 0;  // what somebody read whom a later owner succeeded
  };
  std::map<Place, Cell> cells_;
  std::map<std::string, Snapshot> snapshots_;
  uint64_t next_ = 1;
};

class Node;

/// What can be left out, to see that it is missed: rules of the module, and steps of the daemon.
enum class Rule : uint8_t {
  none,
  intent,        ///< R5: the metadata knows before a write in place
  stale_marks,   ///< R4: what a copy missed is committed with the batch
  settle,        ///< a write given up half done leaves one current copy
  dead_extents,  ///< nothing is mapped to an extent that a batch has freed
  deadline,      ///< nobody uses a VSD, or serves, past its deadline
  quarantine,    ///< a freed slot is free when the I/O under older maps has ended
  mover_freeze,  ///< an extent is not written while it is copied
  mover_flush,   ///< a copy is flushed before it counts
  leaf_epoch,    ///< a leaf is of the epoch in which it is used
  told_first,    ///< the module hears where data was gathered before it writes there again
};

/// Names and rules.
const std::map<std::string, Rule>& rules();

struct Options {
  uint64_t seed = 0;
  bool trace = false;
  Rule without = Rule::none;
  bool dense = false;  ///< short, with faults one upon another
};

class World {
 public:
  explicit World(const Options& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// One schedule: guests and faults, then an end to both, and a look at what is left. Throws
  /// Broken.
  void run();

  void say(const std::string& what);
  /// What is said only where somebody looks.
  [[nodiscard]] bool traced() const { return options_.trace; }
  void tell(const std::string& what) const;
  /// Whether a rule holds in this run.
  [[nodiscard]] bool holds(Rule rule) const { return options_.without != rule; }
  [[nodiscard]] const std::deque<std::string>& said() const { return said_; }

  Node& node(uint64_t id) { return *nodes_.at(id - 1); }
  Disk& disk(DiskId id);
  const std::map<uint64_t, std::unique_ptr<Disk>>& disks() const { return disks_; }

  [[nodiscard]] bool linked(uint64_t from, uint64_t to) const;
  /// Whether a node reaches most nodes, and so etcd.
  [[nodiscard]] bool quorum(uint64_t node) const;
  [[nodiscard]] int64_t seconds() const;

  void send(const std::shared_ptr<Request>& request);
  void send(const std::shared_ptr<Call>& call);
  void answer(const std::shared_ptr<Call>& call);
  /// What was on its way to a node's disks over connections that are closed has ended.
  void end_strays(uint64_t node);
  /// The same of one life of a sender.
  void end_from(uint64_t node, uint64_t from, uint64_t life);
  void reset(uint64_t node);

  Scheduler scheduler;
  Etcd etcd;
  Oracle oracle;
  bool faults = false;  ///< small ones too: lost answers, repeated calls
  bool guests = false;
  bool gathers = false;  ///< movers put together what is scattered
  uint64_t entries = 0;
  uint64_t injected = 0;
  uint64_t gathered = 0;
  uint64_t refused = 0;  ///< batches that would have left no good copy
  uint64_t dropped = 0;  ///< times that nothing could flush what was written
  std::vector<VsdId> vsds;

 private:
  struct Template;
  enum class Trouble : uint8_t { power, freeze, hang, cut, deaf, mute, shutdown, count };
  struct Message {
    std::shared_ptr<Call> call;
    bool back = false;
  };
  static const Template& initial();

  Co<Done> network();
  Co<Done> init();
  Co<Done> breaker();
  Co<Done> keeper();
  Co<Done> trouble(uint64_t node, Trouble what);
  Co<Done> fail_disk(DiskId id);
  void pass(Request& request);
  void deliver(Request& request);
  void power_cut(uint64_t node, uint64_t keep_percent);
  void cut_all(uint64_t spared = 0);
  [[nodiscard]] const Request* under_way() const;
  Disk& add_disk(DiskId id, uint64_t node, uint64_t slots);
  void order(json::object body);
  void administer();

  [[nodiscard]] meta::Database& newest();
  /// One more thing may break: nothing is away, and no copy lacks what the metadata does not know.
  [[nodiscard]] bool calm() const;
  [[nodiscard]] bool may_break() const;
  [[nodiscard]] bool all_whole();
  [[nodiscard]] bool settled();
  void calm_down();
  std::string unrest();
  void check_owners();
  void check_metadata();
  void check_end();
  void check_snapshots(meta::Database& database);

  const Options options_;
  std::deque<std::string> said_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::map<uint64_t, std::unique_ptr<Disk>> disks_;
  std::vector<std::shared_ptr<Request>> requests_;
  std::vector<Message> calls_;
  std::array<std::array<bool, kNodes + 1>, kNodes + 1> cut_{};
  uint64_t named_ = 0;  // snapshots
  uint64_t troubled_ = 0;
  uint64_t kept_off_ = 0;
};

}  // namespace sim
