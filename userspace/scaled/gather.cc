// SPDX-License-Identifier: GPL-2.0
// The mover's third duty: chunks whose data small writes have scattered over many extents get one
// of their own, when nobody writes to them any more. kernel/pieces.c has the steps.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent.h"
#include "meta/map.h"
#include "mover.h"
#include "policy/capacity.h"
#include "policy/gathering.h"

namespace scaled {

namespace json = boost::json;
using control::ExtentState;
using control::Kernel;
using control::SlotRange;
using core::Code;
using core::Error;
using core::ExtentId;
using core::Result;
using core::VsdId;
using std::chrono::seconds;

namespace {

constexpr seconds kGatherTurn{5};  // then it is looked whether something must be healed
constexpr seconds kCold{60};       // without a change of the map, or a write
constexpr int kWarmTimes = 10;
constexpr seconds kBetweenLooks{60};
constexpr seconds kLookAnyway{3600};  // deleted snapshots leave chunks that could take less space
constexpr seconds kMeasureEvery{60};  // it counts all copies
constexpr size_t kLeavesAtOnce = 64;
constexpr size_t kMostExtents = 1024;  // extents to fill, that are remembered
constexpr uint64_t kSpareDivisor = 4;

}  // namespace

/// Where the data is read, and where it is to lie.
struct Mover::Gathering {
  std::vector<meta::Piece> pieces;
  std::vector<SlotRange> from;
  std::vector<SlotRange> targets;
  std::vector<Item> writable;  // extents that the VSD may write in place
  json::array sources;

  /// Whether the same is to be read.
  [[nodiscard]] bool reads_as(const Gathering& other) const {
    return pieces == other.pieces && from == other.from && sources == other.sources &&
           writable.size() == other.writable.size();
  }
};

void Mover::gather(Kernel& kernel, meta::Database& database, const std::stop_token& stop) {
  look_for_scattered(database);
  meta::Cluster cluster(database);
  const auto until = Clock::now() + kGatherTurn;
  size_t done = 0;
  while (!scattered_.empty() && !stop.stop_requested() && Clock::now() < until &&
         Clock::now() - scattered_.front().since >= kCold) {
    Scattered one = std::move(scattered_.front());
    scattered_.erase(scattered_.begin());
    if (is_warm(cluster, one)) {
      // What stays so is looked for again much later, and makes room for others.
      one.since = Clock::now();
      if (++one.warm < kWarmTimes) scattered_.push_back(std::move(one));
      continue;
    }
    const Piece piece;
    done += gather_pieces(kernel, database, one);
    rest_behind(piece, policy::Haste::none, stop);
  }
  if (done != 0) spdlog::info("scattered data was put together in {} extents", done);
  give_back_room();
  const std::lock_guard lock(moving_);
  give_back_leases();
}

void Mover::look_for_scattered(meta::Database& database) {
  meta::Cluster cluster(database);
  auto vsds = cluster.vsds();
  auto nodes = cluster.nodes();
  if (!vsds || !nodes) return;
  std::erase_if(looks_, [&](const auto& look) {
    return std::none_of(vsds->begin(), vsds->end(),
                        [&](const meta::Vsd& vsd) { return vsd.id == look.first; });
  });
  size_t leaves = 0;
  for (const meta::Vsd& vsd : *vsds)
    if (vsd.is_listed() && worker_of(vsd, *nodes) == config_.node)
      look_at(database, vsd.id, looks_[vsd.id], leaves);
}

// Some leaves more of one VSD and its snapshots.
void Mover::look_at(meta::Database& database, VsdId vsd, Look& look, size_t& leaves) {
  auto looked = meta::guarded([&]() -> Result<void> {
    const SQLite::Transaction snapshot(database.sql());
    meta::Cluster cluster(database);
    meta::Map map(database);
    if (!look.under_way) {
      const auto newest = cluster.newest_extent(vsd);
      if (!newest) return newest.error();
      if (look.ended) {
        const auto since = Clock::now() - *look.ended;
        if (since < (*newest == look.newest ? kLookAnyway : kBetweenLooks)) return {};
      }
      look = {0, *newest, true, look.ended, {}};
    }
    const bool spare = can_spare(cluster);
    while (leaves < kLeavesAtOnce && scattered_.size() < kMostExtents) {
      const auto leaf = map.next_leaf(vsd, look.next);
      if (!leaf) return leaf.error();
      if (!*leaf) {
        look.under_way = false;
        look.ended = Clock::now();
        for (auto& pieces : look.sparse.pack())
          scattered_.push_back({vsd, std::move(pieces), Clock::now(), 0});
        return {};
      }
      leaves++;
      look.next = **leaf + 1;
      auto history = map.history(vsd, **leaf);
      if (!history) return history.error();
      std::set<ExtentId> named;
      for (const meta::MappedExtent& extent : history->extents) named.insert(extent.id);
      const auto refs = map.references(named);
      if (!refs) return refs.error();
      for (const meta::History::Chunk& chunk : history->chunks) {
        if (!policy::is_scattered(chunk.segments, *refs, chunk.live, spare)) {
          look.sparse.add(chunk, *refs);
          continue;
        }
        std::vector<meta::Piece> pieces;
        for (const core::Segment& seg : chunk.segments)
          pieces.push_back({chunk.row, chunk.chunk, seg, seg.start});
        scattered_.push_back({vsd, std::move(pieces), Clock::now(), 0});
      }
    }
    return {};
  });
  if (!looked) spdlog::info("VSD {}: {}", vsd.value, looked.error().text);
}

// Whether so much is free that some of it may go for faster reading.
bool Mover::can_spare(meta::Cluster& cluster) {
  if (measured_ && Clock::now() - *measured_ < kMeasureEvery) return can_spare_;
  measured_ = Clock::now();
  can_spare_ = false;
  auto disks = cluster.disks();
  auto use = cluster.use();
  if (!disks || !use || policy::too_big_to_lose(*disks, *use)) return false;
  uint64_t slots = 0;
  uint64_t used = 0;
  for (const meta::Disk& disk : *disks) {
    if (disk.state != "ok") continue;
    slots += disk.slots;
    for (const meta::DiskUse& one : *use)
      if (one.disk == disk.id) used += one.used + one.quarantined;
  }
  can_spare_ = slots - std::min(slots, used) > slots / kSpareDivisor;
  return can_spare_;
}

// Whether somebody writes there in place.
bool Mover::is_warm(meta::Cluster& cluster, const Scattered& one) {
  const auto leaves = cluster.intents(one.vsd, UINT32_MAX);
  return leaves && std::any_of(leaves->begin(), leaves->end(), [&](uint64_t leaf) {
           return std::any_of(one.pieces.begin(), one.pieces.end(), [&](const meta::Piece& piece) {
             return piece.chunk / core::kLeafChunks == leaf;
           });
         });
}

bool Mover::find_room(uint64_t copies) {
  if (room_ && room_->copies.size() == copies) return true;
  give_back_room();
  auto got = propose({{"op", "reserve"},
                      {"node", config_.node.value},
                      {"life", agent_.life()},
                      {"count", 1},
                      {"copies", copies}});
  if (!got || got->at("extents").as_array().empty()) return false;
  const json::array& extent = got->at("extents").as_array().front().as_array();
  room_.emplace();
  room_->id = {extent.at(0).to_number<uint64_t>()};
  for (const json::value& place : extent.at(1).as_array())
    room_->copies.push_back(
        {{place.at(0).to_number<uint64_t>()}, place.at(1).to_number<uint32_t>(), false});
  return true;
}

// What was proposed with it may have come to pass: then it is no reservation any more, and stays.
void Mover::give_back_room() {
  if (room_) unused_.insert(room_->id);
  room_.reset();
  if (unused_.empty()) return;
  json::array extents;
  for (const ExtentId id : unused_) extents.push_back(id.value);
  json::object body{{"op", "unreserve"}, {"node", config_.node.value}, {"life", agent_.life()}};
  body["extents"] = std::move(extents);
  if (propose(std::move(body))) unused_.clear();
}

// Where all of it can be read now, if it still is as it was.
Result<Mover::Gathering> Mover::plan_gathering(meta::Database& database, const Scattered& one,
                                               const meta::MappedExtent& to) {
  return meta::guarded([&]() -> Result<Gathering> {
    const SQLite::Transaction snapshot(database.sql());
    meta::Cluster cluster(database);
    meta::Map map(database);
    const auto lives = reachable(cluster);
    const auto disks = cluster.disks();
    const auto damage = cluster.damage();
    if (!disks || !damage) return Error{Code::storage, "the metadata is unreadable"};
    auto is_here = [&](const meta::CopyRow& copy) {
      return std::any_of(disks->begin(), disks->end(), [&](const meta::Disk& disk) {
        return disk.id == copy.disk && disk.node == config_.node;
      });
    };
    Gathering out;
    out.pieces = one.pieces;
    std::map<ExtentId, meta::CopyRow> sources;
    for (const meta::Piece& piece : one.pieces) {
      const auto same = map.has(piece);
      if (!same) return same.error();
      if (!*same) return Error{Code::conflict, "it changed meanwhile"};
      const ExtentId id = piece.from.extent;
      auto [source, fresh] = sources.try_emplace(id);
      if (fresh) {
        auto extent = map.extent(id, one.vsd);
        auto copies = cluster.copies(id);
        if (!extent) return extent.error();
        if (!copies) return copies.error();
        if (std::any_of(damage->begin(), damage->end(),
                        [&](const meta::Damage& bad) { return bad.extent == id; }))
          return Error{Code::conflict, "copies of it differ"};
        std::erase_if(*copies, [&](const meta::CopyRow& copy) {
          return copy.stale != 0 || !lives.contains(copy.disk);
        });
        if (copies->empty()) return Error{Code::conflict, "it cannot be read now"};
        const auto near = std::find_if(copies->begin(), copies->end(), is_here);
        source->second = near != copies->end() ? *near : copies->front();
        out.sources.push_back(json::array{id.value, source->second.disk.value});
        if (extent->exclusive) out.writable.push_back({std::move(*extent), {}, {}});
      }
      const meta::CopyRow& copy = source->second;
      out.from.push_back(
          {copy.disk, lives.at(copy.disk), copy.slot, piece.from.off, piece.from.len, piece.to});
    }
    uint16_t first = core::kChunkSectors;
    uint16_t end = 0;
    for (const meta::Piece& piece : one.pieces) {
      first = std::min(first, piece.to);
      end = std::max(end, static_cast<uint16_t>(piece.to + piece.from.len));
    }
    for (const meta::Copy& copy : to.copies) {
      if (!lives.contains(copy.disk)) return Error{Code::conflict, "it cannot be written now"};
      out.targets.push_back(
          {copy.disk, lives.at(copy.disk), copy.slot, first, static_cast<uint16_t>(end - first)});
    }
    return out;
  });
}

// The data lies in both places then, and nothing is written where it was.
Result<Mover::Gathering> Mover::hold_and_copy(Kernel& kernel, meta::Database& database,
                                              const Scattered& one, const Lease& lease,
                                              const meta::MappedExtent& to) {
  // From here to the end of the copying no slot that it reads of may come to be another's.
  const std::unique_lock looking(agent_.looking());
  auto plan = plan_gathering(database, one, to);
  if (!plan) return plan;
  if (!lease.minded && !plan->writable.empty()) {
    auto held = freeze(kernel, one.vsd, lease.epoch, plan->writable);
    // The flush has committed what was written before, and marked what missed it.
    auto again = held ? plan_gathering(database, one, to) : Result<Gathering>(held.error());
    if (again && !again->reads_as(*plan)) again = Error{Code::conflict, "it changed meanwhile"};
    if (!again) {
      thaw(kernel, database, one.vsd, lease.epoch, plan->writable);
      return again;
    }
  }
  auto copied = kernel.gather(plan->from, plan->targets);
  if (copied && !lease.minded) {
    std::vector<ExtentState> states;
    for (const Item& item : plan->writable) states.push_back({item.extent, true, true, {}});
    if (!states.empty()) copied = kernel.set_extents(one.vsd, lease.epoch, states);
  }
  if (copied) return plan;
  if (!lease.minded) thaw(kernel, database, one.vsd, lease.epoch, plan->writable);
  return copied.error();
}

bool Mover::gather_pieces(Kernel& kernel, meta::Database& database, const Scattered& one) {
  meta::Cluster cluster(database);
  const auto vsd = cluster.vsd(one.vsd);
  if (!vsd || !*vsd || !find_room((*vsd)->replicas)) return false;
  const std::lock_guard moving(moving_);
  const auto lease = hold(kernel, cluster, one.vsd);
  if (!lease) return false;
  const meta::MappedExtent to = *room_;
  auto plan = hold_and_copy(kernel, database, one, *lease, to);
  // Whatever becomes of what was begun: nothing else is written there.
  unused_.insert(to.id);
  room_.reset();
  if (!plan) {
    spdlog::info("VSD {}: pieces at {} MiB stay: {}", one.vsd.value, one.pieces.front().chunk,
                 plan.error().text);
    return false;
  }
  json::array pieces;
  for (const meta::Piece& piece : plan->pieces)
    pieces.push_back(json::array{piece.row, piece.chunk, piece.from.start, piece.from.len,
                                 piece.from.off, piece.from.extent.value, piece.to});
  json::object body = about("gathered", one.vsd, lease->epoch);
  body["extent"] = to.id.value;
  body["pieces"] = std::move(pieces);
  body["sources"] = std::move(plan->sources);
  const auto answer = propose(std::move(body));
  if (answer)
    unused_.erase(to.id);
  else
    spdlog::info("VSD {}: pieces at {} MiB stay: {}", one.vsd.value, one.pieces.front().chunk,
                 answer.error().text);
  if (lease->minded) return static_cast<bool>(answer);
  if (!answer && answer.error().code == Code::unknown)
    unsettled_.push_back({one.vsd, lease->epoch, plan->writable});
  else
    thaw(kernel, database, one.vsd, lease->epoch, plan->writable);
  return static_cast<bool>(answer);
}

}  // namespace scaled
