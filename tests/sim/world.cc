// SPDX-License-Identifier: GPL-2.0
#include "world.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "journal/record.h"
#include "node.h"

namespace sim {

using core::Code;

namespace {

constexpr uint64_t kSteps = 60'000;  // with guests and faults
constexpr uint64_t kDenseSteps = 6000;
constexpr uint64_t kSettleSteps = 400'000;  // until all is well again
constexpr uint64_t kSlots = 64;
constexpr uint64_t kPeerTimeout = 500;
constexpr size_t kRemembered = 400;
constexpr uint64_t kBetweenFaults = 6000;
constexpr uint64_t kBetweenDenseFaults = 1500;
constexpr uint64_t kTroubled = 9000;
constexpr uint64_t kAll = 100;  // percent
constexpr int64_t kGraceSeconds = 60;
constexpr uint64_t kGarbage = uint64_t{1} << 40;  // values that nobody has written
constexpr uint64_t kLookEvery = 64;
constexpr size_t kSnapshots = 4;  // they take space
constexpr uint64_t kBetweenSnapshots = 3000;

std::string name_of(const Oracle::Place& place) {
  return "VSD " + std::to_string(place.vsd.value) + " chunk " + std::to_string(place.chunk) +
         " cell " + std::to_string(place.cell);
}

}  // namespace

const std::map<std::string, Rule>& rules() {
  static const std::map<std::string, Rule> all = {
      {"intent", Rule::intent},
      {"stale-marks", Rule::stale_marks},
      {"settle", Rule::settle},
      {"dead-extents", Rule::dead_extents},
      {"deadline", Rule::deadline},
      {"quarantine", Rule::quarantine},
      {"mover-freeze", Rule::mover_freeze},
      {"mover-flush", Rule::mover_flush},
      {"leaf-epoch", Rule::leaf_epoch},
      {"told-first", Rule::told_first},
  };
  return all;
}

// Disk

uint64_t Disk::at(Cell cell) const {
  if (const auto found = cache.find(cell); found != cache.end()) return found->second;
  const auto found = durable.find(cell);
  return found == durable.end() ? 0 : found->second;
}

void Disk::flush() {
  for (const auto& [cell, value] : cache) durable[cell] = value;
  cache.clear();
}

// Oracle

uint64_t Oracle::issue(const Place& place, bool zero, uint64_t epoch) {
  cells_[place].issued[next_] = {zero, epoch};
  writes++;
  return next_++;
}

void Oracle::acknowledge(const Place& place, uint64_t value) {
  Cell& cell = cells_[place];
  cell.acknowledged = std::max(cell.acknowledged, value);
}

std::map<Oracle::Place, uint64_t> Oracle::acknowledged(VsdId vsd, uint64_t epoch) const {
  std::map<Place, uint64_t> out;
  for (const auto& [place, cell] : cells_) {
    const auto at = cell.issued.find(cell.acknowledged);
    if (place.vsd == vsd && at != cell.issued.end() && at->second.second == epoch)
      out[place] = cell.acknowledged;
  }
  return out;
}

void Oracle::flushed(const std::map<Place, uint64_t>& promised) {
  for (const auto& [place, value] : promised)
    cells_[place].flushed = std::max(cells_[place].flushed, value);
  promises++;
}

uint64_t Oracle::least(const Place& place, uint64_t epoch) const {
  const auto at = cells_.find(place);
  if (at == cells_.end()) return 0;
  const Cell& cell = at->second;
  uint64_t out = std::max(cell.flushed, cell.seen);
  const auto last = cell.issued.find(cell.acknowledged);
  if (last != cell.issued.end() && last->second.second == epoch)
    out = std::max(out, cell.acknowledged);
  return out;
}

void Oracle::read(const Place& place, uint64_t value, uint64_t least, uint64_t epoch) {
  reads++;
  Cell& cell = cells_[place];
  const std::string what = name_of(place) + ": ";
  if (value == 0) {
    const bool zeroed = std::any_of(cell.issued.begin(), cell.issued.end(), [&](const auto& one) {
      return one.second.first && one.first >= least;
    });
    if (least != 0 && !zeroed)
      throw Broken(what + "nothing is there, though " + std::to_string(least) + " was promised");
    return;
  }
  const auto at = cell.issued.find(value);
  if (at == cell.issued.end() || at->second.first)
    throw Broken(what + "data of another place or time: " + std::to_string(value));
  if (value < least)
    throw Broken(what + "old data: " + std::to_string(value) + ", though " + std::to_string(least) +
                 " was promised");
  if (at->second.second != epoch) cell.seen = std::max(cell.seen, value);
}

void Oracle::begin_snapshot(const std::string& name, VsdId vsd, bool still) {
  Snapshot& snapshot = snapshots_[name];
  for (const auto& [place, cell] : cells_)
    if (place.vsd == vsd) snapshot.least[place] = least(place, 0);
  snapshot.most[vsd] = still ? next_ : UINT64_MAX;
}

void Oracle::end_snapshot(const std::string& name) {
  for (auto& [vsd, most] : snapshots_[name].most) most = std::min(most, next_);
  snapshots++;
}

void Oracle::check_snapshot(const std::string& name, const Place& place, uint64_t value) const {
  const Snapshot& snapshot = snapshots_.at(name);
  const auto at = snapshot.least.find(place);
  const uint64_t least = at == snapshot.least.end() ? 0 : at->second;
  const uint64_t most = snapshot.most.at(place.vsd);
  const auto cell = cells_.find(place);
  const std::string what = "snapshot " + name + ", " + name_of(place) + ": ";
  auto there = [&](bool zero) {
    return cell != cells_.end() && std::any_of(cell->second.issued.begin(),
                                               cell->second.issued.end(), [&](const auto& one) {
                                                 return one.second.first == zero &&
                                                        one.first >= least && one.first < most &&
                                                        (zero || one.first == value);
                                               });
  };
  if (value == 0 ? least == 0 || there(true) : there(false)) return;
  throw Broken(what + std::to_string(value) + ", though it should be from " +
               std::to_string(least) + " to " + std::to_string(most));
}

std::string describe(const Request& request) {
  static constexpr std::array kOps{"writes", "reads", "flushes"};
  std::string out = "n" + std::to_string(request.from) + " " +
                    kOps.at(static_cast<size_t>(request.op)) + " disk " +
                    std::to_string(request.disk.value);
  if (request.op == Request::Op::flush) return out;
  out += " slot " + std::to_string(request.slot) + " cell " + std::to_string(request.cell) + ":";
  if (request.op == Request::Op::read) return out + " " + std::to_string(request.data.size());
  for (const uint64_t value : request.data) out += " " + std::to_string(value);
  return out;
}

// World

/// A cluster that has been formed: the entries of its log, made once.
struct World::Template {
  std::vector<journal::Entry> log;
  std::vector<VsdId> vsds;
  std::vector<std::pair<DiskId, uint64_t>> disks;
};

const World::Template& World::initial() {
  static const Template made = [] {
    Template out;
    auto database = meta::Database::open(":memory:").value();
    policy::Proposals proposals(*database);
    meta::Position at;
    uint64_t sequence = 1;
    auto decide = [&](json::object body) {
      std::vector<policy::Answer> answers;
      const policy::Proposal one{{1}, 1, sequence++, 0, std::move(body)};
      auto patch = proposals.prepare(std::span(&one, 1), at.index + 1, 1'000'000, answers).value();
      const std::string record = journal::encode_record(at.index + 1, at.hash, patch);
      const uint64_t hash = journal::decode_record(record, 0)->hash;
      out.log.push_back({at.index + 1, at.hash, hash, patch});
      at = {at.index + 1, hash};
      database->commit(at).value();
      proposals.committed();
      return policy::from_answer(answers.at(0)).value();
    };
    for (uint64_t node = 1; node <= kNodes; node++) {
      const std::string number = std::to_string(node);
      json::object body{{"op", node == 1 ? "cluster_create" : "node_add"},
                        {"name", "n" + number},
                        {"lan", "10.0.0." + number},
                        {"backplane", "10.1.0." + number}};
      if (node == 1) {
        body["cluster"] = "simulated";
        body["uuid"] = "00112233445566778899aabbccddeeff";
      } else {
        decide({{"op", "token_add"}, {"hash", number}, {"expires", int64_t{2'000'000}}});
        body["token"] = number;
      }
      decide(std::move(body));
      for (uint64_t i = 0; i < kDisksEach; i++) {
        const auto disk = decide({{"op", "disk_add"},
                                  {"node", node},
                                  {"uuid", number + "-" + std::to_string(i)},
                                  {"serial", number + "-" + std::to_string(i)},
                                  {"tier", i == 0 ? "ssd" : "hdd"},
                                  {"slots", kSlots}});
        const uint64_t id = disk.at("disk").to_number<uint64_t>();
        decide({{"op", "disk_ready"}, {"disk", id}});
        out.disks.emplace_back(DiskId{id}, node);
      }
    }
    decide({{"op", "set"}, {"name", "grace_seconds"}, {"value", kGraceSeconds}});
    for (const char* name : {"a", "b"}) {
      const auto vsd = decide({{"op", "vsd_create"},
                               {"name", name},
                               {"sectors", kChunks * core::kChunkSectors},
                               {"replicas", uint64_t{2}}});
      out.vsds.push_back({vsd.at("vsd").to_number<uint64_t>()});
    }
    return out;
  }();
  return made;
}

World::World(const Options& options) : scheduler(options.seed), options_(options) {
  const Template& made = initial();
  etcd.log = made.log;
  vsds = made.vsds;
  for (const auto& [disk, node] : made.disks) add_disk(disk, node, kSlots);
  for (uint64_t id = 1; id <= kNodes; id++) {
    auto database = meta::Database::open(":memory:").value();
    for (const journal::Entry& entry : etcd.log)
      database->apply({entry.index, entry.hash}, entry.payload).value();
    nodes_.push_back(std::make_unique<Node>(*this, id, std::move(database)));
  }
}

World::~World() {
  scheduler.kill(this);
  for (auto& node : nodes_)
    if (node->powered) node->halt();
}

Disk& World::add_disk(DiskId id, uint64_t node, uint64_t slots) {
  auto disk = std::make_unique<Disk>();
  disk->id = id;
  disk->node = node;
  disk->slots = slots;
  // What was on it before.
  for (uint32_t slot = 0; slot < slots; slot++)
    for (uint32_t cell = 0; cell < kCells; cell++)
      disk->durable[{slot, cell}] = kGarbage + slot * kCells + cell;
  return *(disks_[id.value] = std::move(disk));
}

void World::say(const std::string& what) {
  const std::string line = std::to_string(scheduler.now()) + " " + what;
  if (options_.trace) std::fprintf(stderr, "%s\n", line.c_str());
  said_.push_back(line);
  if (said_.size() > kRemembered) said_.pop_front();
}

void World::tell(const std::string& what) const {
  std::fprintf(stderr, "%" PRIu64 "   %s\n", scheduler.now(), what.c_str());
}

Disk& World::disk(DiskId id) {
  const auto at = disks_.find(id.value);
  if (at != disks_.end()) return *at->second;
  // One that the metadata has just learnt of.
  meta::Cluster cluster(newest());
  const auto rows = cluster.disks().value();
  for (const meta::Disk& row : rows) {
    if (row.id != id) continue;
    Disk& made = add_disk(id, row.node.value, row.slots);
    if (nodes_[made.node - 1]->powered) made.life = scheduler.draw(uint64_t{1} << 60) + 1;
    return made;
  }
  throw Broken("disk " + std::to_string(id.value) + " is not known");
}

int64_t World::seconds() const {
  return 1'000'000 + static_cast<int64_t>(scheduler.now() / kStepsPerSecond);
}

bool World::linked(uint64_t from, uint64_t to) const {
  return from == to || (!cut_[from][to] && nodes_[to - 1]->powered);
}

bool World::quorum(uint64_t node) const {
  uint64_t reached = 0;
  for (uint64_t other = 1; other <= kNodes; other++)
    reached += linked(node, other) && linked(other, node) && !nodes_[other - 1]->frozen;
  return reached > kNodes / 2;
}

// Network

void World::send(const std::shared_ptr<Request>& request) {
  request->since = scheduler.now();
  requests_.push_back(request);
}

void World::send(const std::shared_ptr<Call>& call) { calls_.push_back({call, false}); }

void World::answer(const std::shared_ptr<Call>& call) { calls_.push_back({call, true}); }

void World::deliver(Request& request) {
  request.done = true;
  Disk& disk = this->disk(request.disk);
  const Node& node = *nodes_[disk.node - 1];
  const bool remote = request.from != disk.node;
  // Whoever is past its deadline serves nobody.
  if (disk.life == 0 || disk.life != request.life || disk.failed || disk.gone || !node.powered ||
      (remote &&
       (node.kernel->expired() || node.kernel->fenced.contains({request.from, request.from_life}))))
    return;
  request.ok = true;
  if (options_.trace) tell(describe(request) + (request.ended ? ", which was given up" : ""));
  if (request.op == Request::Op::flush) disk.flush();
  for (size_t i = 0; i < request.data.size(); i++) {
    const Disk::Cell cell{request.slot, request.cell + static_cast<uint32_t>(i)};
    if (request.op == Request::Op::read)
      request.data[i] = disk.at(cell);
    else
      disk.cache[cell] = request.data[i];
  }
}

// A write, from one node to another.
const Request* World::under_way() const {
  const auto at = std::find_if(requests_.begin(), requests_.end(), [this](const auto& request) {
    const Disk& to = *disks_.at(request->disk.value);
    return !request->ended && request->op == Request::Op::write && request->from != to.node;
  });
  return at == requests_.end() ? nullptr : at->get();
}

// One request goes on by one step. One whose sender was told that it failed may still be in the
// hands of the other side: a stray, until that side closes the connection.
void World::pass(Request& request) {
  const uint64_t to = disk(request.disk).node;
  if (request.from == to) {
    deliver(request);
    request.ended = true;
    return;
  }
  const Node& node = *nodes_[to - 1];
  if (request.ended) {
    // It may take its time.
    if (!node.frozen && scheduler.one_in(1000)) deliver(request);
    request.ok = false;
    return;
  }
  const bool reached = linked(request.from, to) && linked(to, request.from);
  if (reached && !node.frozen) {
    deliver(request);
    request.ended = true;
    if (faults && scheduler.one_in(200)) request.ok = false;  // the answer was lost
    return;
  }
  if (reached && scheduler.now() < request.since + kPeerTimeout) return;
  request.ended = true;
  request.ok = false;
  request.done = !node.powered || scheduler.one_in(2);
}

void World::end_strays(uint64_t node) {
  for (const auto& request : requests_) {
    if (!request->ended || request->done || disk(request->disk).node != node) continue;
    if (scheduler.one_in(2)) deliver(*request);
    request->ok = false;
    request->done = true;
  }
}

void World::end_from(uint64_t node, uint64_t from, uint64_t life) {
  for (const auto& request : requests_) {
    if (disk(request->disk).node != node || request->from != from || request->from_life != life)
      continue;
    request->done = true;
    request->ended = true;
  }
}

Co<Done> World::network() {
  for (;;) {
    co_await scheduler.until([this] { return !requests_.empty() || !calls_.empty(); });
    for (uint64_t i = 1 + scheduler.draw(4); i > 0 && !requests_.empty(); i--) {
      const size_t at = scheduler.draw(requests_.size());
      const auto request = requests_[at];
      pass(*request);
      if (request->done && request->ended)
        requests_.erase(requests_.begin() + static_cast<ptrdiff_t>(at));
    }
    for (uint64_t i = 1 + scheduler.draw(16); i > 0 && !calls_.empty(); i--) {
      const size_t at = scheduler.draw(calls_.size());
      const auto [call, back] = calls_[at];
      // A repeated one comes late.
      if (!faults || !scheduler.one_in(50))
        calls_.erase(calls_.begin() + static_cast<ptrdiff_t>(at));
      const uint64_t to = back ? call->from : call->to;
      const bool lost = !linked(back ? call->to : call->from, to) || nodes_[to - 1]->frozen ||
                        (faults && scheduler.one_in(50));
      if (!lost && back)
        call->answered = true;
      else if (!lost && nodes_[to - 1]->daemon && !nodes_[to - 1]->daemon_frozen)
        nodes_[to - 1]->daemon->serve(call);
    }
  }
}

// Faults

void World::power_cut(uint64_t node, uint64_t keep_percent) {
  say("n" + std::to_string(node) + " loses power, its caches keep " + std::to_string(keep_percent) +
      " %");
  end_strays(node);
  nodes_[node - 1]->halt();
  for (auto& [id, disk] : disks_) {
    if (disk->node != node) continue;
    std::erase_if(disk->cache, [&](const auto&) { return scheduler.draw(100) >= keep_percent; });
    disk->flush();
  }
  for (const auto& request : requests_) {
    if (request->from != node) continue;
    // Some had arrived.
    request->ended = true;
    request->ok = false;
    request->done = request->done || disk(request->disk).node == node || scheduler.one_in(2);
  }
}

void World::cut_all(uint64_t spared) {
  const uint64_t keep = scheduler.draw(3) * 50;
  for (uint64_t node = 1; node <= kNodes; node++)
    if (nodes_[node - 1]->powered && node != spared) power_cut(node, keep);
}

// A reset does not take the drives' power.
void World::reset(uint64_t node) { power_cut(node, 100); }

bool World::calm() const {
  if (troubled_ != 0) return false;
  return std::all_of(nodes_.begin(), nodes_.end(), [](const auto& node) {
    if (!node->powered || !node->daemon || !node->daemon->up() || node->kernel->expired())
      return false;
    const auto& open = node->kernel->vsds();
    return std::all_of(open.begin(), open.end(), [](const auto& one) {
      const Vsd& vsd = one.second;
      auto clean = [](const Batch& batch) {
        return std::none_of(batch.disks.begin(), batch.disks.end(),
                            [](const auto& disk) { return disk.second.failed; });
      };
      return clean(vsd.open) && clean(vsd.closed) &&
             std::none_of(vsd.extents.begin(), vsd.extents.end(), [](const auto& extent) {
               return !extent.second->open.failed.empty() ||
                      !extent.second->closed.failed.empty() ||
                      !extent.second->open.skipped.empty() ||
                      !extent.second->closed.skipped.empty();
             });
    });
  });
}

// Dense: also where what an earlier fault left is not over. A disk's failure waits for that: what
// was flushed while another copy was out of reach is in one place, until the mover was there.
bool World::may_break() const { return options_.dense ? troubled_ == 0 : calm(); }

meta::Database& World::newest() {
  auto& first = *std::max_element(nodes_.begin(), nodes_.end(), [](const auto& a, const auto& b) {
    return a->database->applied().value().index < b->database->applied().value().index;
  });
  return *first->database;
}

bool World::all_whole() {
  meta::Database& database = newest();
  if (database.applied().value().index != etcd.log.size()) return false;
  meta::Cluster cluster(database);
  const auto left = cluster.redundancy().value();
  const auto nodes = cluster.nodes().value();
  // Nor is there a VSD whose copies may differ since its owner died.
  meta::Query open(database,
                   "SELECT count(*) FROM intent i JOIN vsd v ON v.id = i.vsd WHERE NOT EXISTS "
                   "(SELECT 1 FROM node n WHERE n.id = v.lease_node AND n.life = v.lease_life)");
  open.executeStep();
  return left.stale + left.lost == 0 && open.getColumn(0).getInt64() == 0 &&
         std::all_of(nodes.begin(), nodes.end(), [](const auto& n) { return n.state == "up"; });
}

Co<Done> World::init() {
  for (;;) {
    co_await scheduler.pause(300);
    for (auto& node : nodes_) {
      if (!node->powered && node->id != kept_off_ && scheduler.one_in(3)) node->boot();
      if (node->powered && !node->daemon && !node->frozen) node->start_daemon();
    }
  }
}

// Whatever it is, it passes.
Co<Done> World::trouble(uint64_t node, Trouble what) {
  const std::string name = "n" + std::to_string(node);
  troubled_ = node;
  injected++;
  if (what == Trouble::shutdown && nodes_[node - 1]->daemon) {
    say(name + " is shut down");
    Daemon* daemon = nodes_[node - 1]->daemon.get();
    scheduler.spawn(daemon, daemon->retire());
    // Perhaps before it has given all back: systemd does not wait for ever.
    co_await scheduler.pause(2 * kLease);
    kept_off_ = node;
    power_cut(node, kAll);
  } else if (what == Trouble::power || what == Trouble::shutdown) {
    kept_off_ = node;
    power_cut(node, scheduler.draw(3) * 50);
  } else if (what == Trouble::freeze || what == Trouble::hang) {
    say(name + (what == Trouble::hang ? "'s daemon hangs" : " stands still"));
    nodes_[node - 1]->freeze(what == Trouble::hang);
  } else {
    say(name + " is cut off");
    for (uint64_t other = 1; other <= kNodes; other++) {
      if (other == node) continue;
      if (what != Trouble::deaf) cut_[node][other] = true;
      if (what != Trouble::mute) cut_[other][node] = true;
    }
  }
  co_await scheduler.pause(kTroubled);
  // Others may have taken over meanwhile, and not yet have flushed anything of their own.
  if (scheduler.one_in(4)) cut_all();
  kept_off_ = 0;
  for (auto& row : cut_) row.fill(false);
  // New connections: the old ones' requests have ended by then.
  for (uint64_t other = 1; other <= kNodes; other++)
    if (!nodes_[other - 1]->frozen) end_strays(other);
  nodes_[node - 1]->resume();
  say(name + " is well");
  troubled_ = 0;
  co_return Done{};
}

Co<Done> World::fail_disk(DiskId id) {
  Disk& disk = this->disk(id);
  const uint64_t node = disk.node;
  say("disk " + std::to_string(id.value) + " of n" + std::to_string(node) + " fails");
  injected++;
  troubled_ = node;
  disk.failed = true;
  // In its place another, when nothing is left on it.
  co_await scheduler.until([this, id] {
    meta::Cluster cluster(newest());
    auto disks = cluster.disks().value();
    return all_whole() && std::any_of(disks.begin(), disks.end(), [&](const meta::Disk& one) {
             return one.id == id && one.state == "failed";
           });
  });
  say("all is whole without disk " + std::to_string(id.value));
  order({{"op", "disk_remove"}, {"disk", id.value}});
  order({{"op", "disk_add"},
         {"node", node},
         {"uuid", "new-" + std::to_string(scheduler.now())},
         {"serial", "new"},
         {"tier", "ssd"},
         {"slots", kSlots}});
  troubled_ = 0;
  co_return Done{};
}

// An administrator's wish, through whatever node answers.
void World::order(json::object body) {
  for (auto& node : nodes_) {
    if (!node->daemon || !node->daemon->up()) continue;
    scheduler.spawn(node->daemon.get(), node->daemon->order(std::move(body)));
    return;
  }
}

void World::administer() {
  const uint64_t what = scheduler.draw(5);
  meta::Cluster cluster(newest());
  if (what < 2) {
    const auto disks = cluster.disks().value();
    const meta::Disk& disk = disks[scheduler.draw(disks.size())];
    if (disk.state != "ok") return;
    say("disk " + std::to_string(disk.id.value) + (disk.leaving ? " stays" : " leaves"));
    order({{"op", "disk_leave"}, {"disk", disk.id.value}, {"leaving", !disk.leaving}});
  } else if (what < 4) {
    const VsdId vsd = vsds[scheduler.draw(vsds.size())];
    const uint64_t copies = 2 + scheduler.draw(2);
    say("VSD " + std::to_string(vsd.value) + " wants " + std::to_string(copies) + " copies");
    order({{"op", "vsd_copies"}, {"vsd", vsd.value}, {"replicas", copies}});
  } else {
    say("rebalance");
    order({{"op", "rebalance"}, {"mode", scheduler.draw(3)}});
  }
}

// Somebody's who keeps a few snapshots, of one VSD or of all.
Co<Done> World::keeper() {
  for (;;) {
    co_await scheduler.pause(kBetweenSnapshots);
    if (!guests) continue;
    const auto snapshots = meta::Cluster(newest()).snapshots().value();
    if (snapshots.size() >= kSnapshots) {
      const meta::Snapshot& one = snapshots[scheduler.draw(snapshots.size())];
      say("snapshot " + one.name + " of VSD " + std::to_string(one.vsd.value) + " is deleted");
      order({{"op", "snapshot_delete"}, {"snapshot", one.id.value}});
    }
    Node& node = *nodes_[scheduler.draw(kNodes)];
    if (!node.daemon || !node.daemon->up() || node.daemon_frozen) continue;
    std::vector<VsdId> of{vsds[scheduler.draw(vsds.size())]};
    if (scheduler.one_in(3)) of = vsds;
    scheduler.spawn(node.daemon.get(),
                    node.daemon->snapshot(std::move(of), "s" + std::to_string(++named_)));
  }
}

Co<Done> World::breaker() {
  for (;;) {
    co_await scheduler.pause(options_.dense ? kBetweenDenseFaults : kBetweenFaults);
    if (!faults) continue;
    uint64_t node = 1 + scheduler.draw(kNodes);
    const uint64_t what = scheduler.draw(16);
    // Half of them where it hurts: something is under way to another node.
    if (scheduler.one_in(2)) {
      co_await scheduler.until([this] { return under_way() != nullptr; });
      if (!faults) continue;
      node = under_way()->from;
    }
    if (what == 5 || (options_.dense && what != 0 && what < 3)) {
      injected++;
      // All that had it may be gone, and who wrote it not.
      cut_all(options_.dense && !scheduler.one_in(3) ? node : 0);
    } else if (what < 3) {
      injected++;
      if (nodes_[node - 1]->daemon && !nodes_[node - 1]->daemon_frozen) {
        say("n" + std::to_string(node) + "'s daemon is killed");
        nodes_[node - 1]->kill_daemon();
      }
    } else if (what < 5) {
      administer();
    } else if (what < 8) {
      std::vector<DiskId> some;
      for (const auto& [id, disk] : disks_)
        if (disk->node == node && disk->life != 0 && !disk->failed && !disk->gone)
          some.push_back({id});
      if (some.size() < kDisksEach || !calm() || !all_whole()) continue;
      scheduler.spawn(this, fail_disk(some[scheduler.draw(some.size())]));
    } else if (may_break()) {
      scheduler.spawn(this, trouble(node, static_cast<Trouble>(scheduler.draw(
                                              static_cast<uint64_t>(Trouble::count)))));
    }
  }
}

// Checks

// Nobody else writes a VSD that somebody has the lease of.
void World::check_owners() {
  for (const VsdId vsd : vsds) {
    uint64_t owner = 0;
    for (auto& node : nodes_) {
      if (!node->powered || node->kernel->expired()) continue;
      if (node->kernel->vsd(vsd).lease != Vsd::Lease::owned) continue;
      if (owner != 0)
        throw Broken("VSD " + std::to_string(vsd.value) + " is owned by n" + std::to_string(owner) +
                     " and n" + std::to_string(node->id));
      owner = node->id;
    }
  }
}

void World::check_metadata() {
  meta::Database& database = newest();
  const auto wrong = meta::Map(database).verify().value();
  if (!wrong.empty()) throw Broken("metadata: " + wrong.front());
  meta::Query lost(database,
                   "SELECT e.id FROM extent e WHERE NOT EXISTS (SELECT 1 FROM copy c JOIN disk d "
                   "ON d.id = c.disk WHERE c.extent = e.id AND c.stale <= 0 AND d.state NOT IN "
                   "('failed', 'removed')) LIMIT 1");
  if (!lost.executeStep()) return;
  const ExtentId extent{static_cast<uint64_t>(lost.getColumn(0).getInt64())};
  std::string copies;
  meta::Cluster cluster(database);
  const auto rows = cluster.copies(extent).value();
  for (const meta::CopyRow& copy : rows)
    copies += ", disk " + std::to_string(copy.disk.value) + " slot " + std::to_string(copy.slot) +
              (copy.suspect ? " suspect" : " stale") + " since " + std::to_string(copy.stale);
  throw Broken("extent " + std::to_string(extent.value) + " has no good copy" + copies);
}

// Every copy of everything that is mapped: as was promised, and equal.
void World::check_end() {
  check_metadata();
  const uint64_t digest = nodes_[0]->database->digest().value();
  for (auto& node : nodes_)
    if (node->database->digest().value() != digest) throw Broken("the nodes' databases differ");
  meta::Database& database = newest();
  check_snapshots(database);
  meta::Map map(database);
  meta::Cluster cluster(database);
  for (const VsdId vsd : vsds) {
    const auto row = cluster.vsd(vsd).value();
    const auto leaf = map.leaf(vsd, 0).value();
    for (uint64_t chunk = 0; chunk < kChunks; chunk++) {
      for (uint32_t cell = 0; cell < kCells; cell++) {
        const Oracle::Place place{vsd, chunk, cell};
        const core::Segment* found = nullptr;
        for (const core::Segment& one : leaf.chunks.at(chunk))
          if (one.start <= cell * kCellSectors && one.start + one.len > cell * kCellSectors)
            found = &one;
        if (found == nullptr) {
          oracle.read(place, 0, oracle.least(place, 0), 0);
          continue;
        }
        const auto extent = std::find_if(leaf.extents.begin(), leaf.extents.end(),
                                         [&](const auto& one) { return one.id == found->extent; });
        const uint32_t at = (found->off + cell * kCellSectors - found->start) / kCellSectors;
        std::set<uint64_t> values;
        std::set<uint64_t> on;
        for (const meta::Copy& copy : extent->copies) {
          values.insert(disk(copy.disk).at({copy.slot, at}));
          on.insert(disk(copy.disk).node);
        }
        const std::string what = name_of(place) + ", extent " + std::to_string(extent->id.value);
        if (values.size() != 1) throw Broken(what + ": copies differ");
        if (extent->copies.size() != row->replicas || on.size() != row->replicas) {
          std::string disks;
          for (const meta::Copy& copy : extent->copies)
            disks += " " + std::to_string(copy.disk.value) + " of n" +
                     std::to_string(disk(copy.disk).node);
          throw Broken(what + ": wants " + std::to_string(row->replicas) +
                       " copies on as many nodes, has them on disks" + disks);
        }
        oracle.read(place, *values.begin(), oracle.least(place, 0), 0);
      }
    }
  }
}

// What each holds, in each of its copies.
void World::check_snapshots(meta::Database& database) {
  meta::Map map(database);
  meta::Cluster cluster(database);
  const auto snapshots = cluster.snapshots().value();
  for (const meta::Snapshot& snapshot : snapshots) {
    for (uint64_t chunk = 0; chunk < kChunks; chunk++) {
      const core::Segments segments = map.snapshot_chunk(snapshot.id, chunk).value();
      for (uint32_t cell = 0; cell < kCells; cell++) {
        const Oracle::Place place{snapshot.vsd, chunk, cell};
        std::set<uint64_t> values;
        for (const core::Segment& one : segments) {
          if (one.start > cell * kCellSectors || one.start + one.len <= cell * kCellSectors)
            continue;
          const uint32_t at = (one.off + cell * kCellSectors - one.start) / kCellSectors;
          const auto copies = cluster.copies(one.extent).value();
          for (const meta::CopyRow& copy : copies)
            values.insert(disk(copy.disk).at({copy.slot, at}));
        }
        if (values.size() > 1)
          throw Broken("snapshot " + snapshot.name + ", " + name_of(place) + ": copies differ");
        oracle.check_snapshot(snapshot.name, place, values.empty() ? 0 : *values.begin());
      }
    }
  }
}

bool World::settled() {
  if (!calm() || !all_whole()) return false;
  meta::Database& database = newest();
  meta::Cluster cluster(database);
  const auto left = cluster.redundancy().value();
  if (left.wanting + left.leaving != 0) return false;
  auto none = [&](const char* query) {
    meta::Query rows(database, query);
    rows.executeStep();
    return rows.getColumn(0).getInt64() == 0;
  };
  return none("SELECT count(*) FROM quarantine") && none("SELECT count(*) FROM widening") &&
         none("SELECT count(*) FROM garbage") && none("SELECT count(*) FROM intent") &&
         none("SELECT count(*) FROM task WHERE state = 'running' AND what <> 'pool rebalance'") &&
         std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& node) {
           if (node->database->applied().value().index != etcd.log.size()) return false;
           const auto& open = node->kernel->vsds();
           return std::all_of(open.begin(), open.end(), [](const auto& one) {
             return one.second.active == 0 && one.second.open.ops.empty() &&
                    one.second.open.disks.empty() && one.second.closed.ops.empty();
           });
         });
}

void World::run() {
  scheduler.spawn(this, network());
  scheduler.spawn(this, init());
  scheduler.spawn(this, breaker());
  // Rules that snapshots have no part in are missed sooner where there are none; as with what is
  // gathered.
  if (options_.without == Rule::none || options_.without == Rule::leaf_epoch)
    scheduler.spawn(this, keeper());
  gathers = options_.without == Rule::none || options_.without == Rule::told_first;
  guests = true;
  faults = true;
  uint64_t looked = 0;
  auto step = [&] {
    scheduler.step();
    check_owners();
    if (entries < looked + kLookEvery) return;
    looked = entries;
    check_metadata();
  };
  while (scheduler.now() < (options_.dense ? kDenseSteps : kSteps)) step();
  say("no more faults");
  faults = false;
  guests = false;
  // Nobody is left who could not be reached, or wants something else.
  const uint64_t until = scheduler.now() + kSettleSteps;
  uint64_t next = 0;
  for (;;) {
    step();
    if (scheduler.now() < next) continue;
    next = scheduler.now() + kLookEvery;
    calm_down();
    if (settled()) break;
    if (scheduler.now() > until) throw Broken("it does not come to rest: " + unrest());
  }
  check_end();
}

// Disks that leave stay after all: else small pools have no way out. Said until it is so.
void World::calm_down() {
  meta::Cluster cluster(newest());
  const auto disks = cluster.disks().value();
  for (const meta::Disk& disk : disks)
    if (disk.leaving && scheduler.one_in(8))
      order({{"op", "disk_leave"}, {"disk", disk.id.value}, {"leaving", false}});
  Node& any = *nodes_[scheduler.draw(kNodes)];
  if (any.powered && scheduler.one_in(64))
    scheduler.spawn(&any, any.touch(vsds[scheduler.draw(vsds.size())]));
  if (cluster.setting("rebalance", 0).value() != 0 && scheduler.one_in(8))
    order({{"op", "rebalance"}, {"mode", uint64_t{0}}});
}

std::string World::unrest() {
  std::string out;
  meta::Database& database = newest();
  for (const char* query :
       {"SELECT 'node ' || id || ' ' || state FROM node WHERE state <> 'up'",
        "SELECT 'disk ' || id || ' ' || state || ' leaving ' || leaving FROM disk",
        "SELECT 'task ' || what || ' ' || name FROM task WHERE state = 'running'",
        "SELECT 'copy of ' || extent || ' on ' || disk || ' stale ' || stale FROM copy WHERE stale "
        "<> 0",
        "SELECT 'wanting ' || extent FROM wanting", "SELECT 'widening ' || vsd FROM widening",
        "SELECT 'intent ' || vsd FROM intent", "SELECT 'quarantine ' || count(*) FROM quarantine",
        "SELECT 'lease of ' || id || ' ' || lease_node || ' epoch ' || epoch FROM vsd"}) {
    meta::Query rows(database, query);
    while (rows.executeStep()) out += "\n  " + rows.getColumn(0).getString();
  }
  out += "\n  troubled " + std::to_string(troubled_) + ", calm " + std::to_string(calm()) +
         ", whole " + std::to_string(all_whole()) + ", entries " + std::to_string(etcd.log.size());
  for (auto& node : nodes_) {
    out += "\n  n" + std::to_string(node->id) + " powered " + std::to_string(node->powered) +
           " daemon " + std::to_string(node->daemon != nullptr) + " up " +
           std::to_string(node->daemon && node->daemon->up());
    if (node->daemon) out += node->daemon->describe();
    if (!node->powered) continue;
    for (const auto& [id, vsd] : node->kernel->vsds())
      out += ", VSD " + std::to_string(id.value) + " lease " +
             std::to_string(static_cast<int>(vsd.lease)) + " active " + std::to_string(vsd.active) +
             " ops " + std::to_string(vsd.open.ops.size()) + "/" +
             std::to_string(vsd.closed.ops.size()) + " intent " + std::to_string(vsd.intent);
  }
  return out;
}

}  // namespace sim
