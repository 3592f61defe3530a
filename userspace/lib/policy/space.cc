// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <set>

#include "policy/balance.h"
#include "policy/handlers.h"

namespace policy {

namespace {

constexpr uint64_t kCollectAtOnce = 4096;
// At most 64 extents in a chunk, each some 200 bytes of patch.
constexpr uint64_t kReapAtOnce = 128;
constexpr uint64_t kRebalanceAtOnce = 64;
constexpr uint64_t kRebalanceAlways = 2;
constexpr int64_t kIdleRounds = 8;

// Where another copy of an extent can lie: apart from those that stay.
std::vector<Candidate> apart_from(const std::vector<meta::CopyRow>& copies, const Places& homes,
                                  const std::vector<Candidate>& disks, bool one_node) {
  std::vector<Candidate> out;
  for (const Candidate& candidate : disks) {
    const bool near = std::any_of(copies.begin(), copies.end(), [&](const meta::CopyRow& copy) {
      if (copy.disk == candidate.disk) return true;
      if (copy.leaving) return false;
      const auto home = homes.find(copy.disk);
      return !one_node && home != homes.end() && copy.stale == 0 &&
             home->second.node == candidate.node &&
             (home->second.home == Home::good || home->second.home == Home::away);
    });
    if (!near && candidate.free > candidate.total / kHealReserveDivisor) out.push_back(candidate);
  }
  return out;
}

// Where a copy is to go to a disk that is less full, only such disks.
void keep_emptier(const std::vector<meta::CopyRow>& copies, std::vector<Candidate>& disks) {
  for (const meta::CopyRow& copy : copies) {
    if (!copy.leaving) continue;
    const auto from = std::find_if(disks.begin(), disks.end(),
                                   [&](const Candidate& one) { return one.disk == copy.disk; });
    // Its disk is to be empty altogether: that is another matter.
    if (from == disks.end()) continue;
    const Candidate source = *from;
    std::erase_if(disks, [&](const Candidate& one) { return !evens_out(source, one); });
  }
}

// A disk that was flushed may have failed since: where the batch gives up another copy because that
// one had all, none would be left. It is flushed again then, and finds out.
Result<void> keep_good_copies(Context& c, const meta::Batch& batch) {
  std::set<core::ExtentId> looked;
  for (const meta::Stale& stale : batch.stales) {
    if (!looked.insert(stale.extent).second) continue;
    if (ask(c,
            "SELECT EXISTS(SELECT 1 FROM extent WHERE id = ?1) AND NOT EXISTS (SELECT 1 FROM copy "
            "c JOIN disk d ON d.id = c.disk WHERE c.extent = ?1 AND c.stale <= 0 AND d.state NOT "
            "IN ('failed', 'removed'))",
            s64(stale.extent.value)) != 0)
      return Error{Code::conflict, "extent " + std::to_string(stale.extent.value) +
                                       " would have no good copy left: flush again"};
  }
  return {};
}

// What was written while there was no space for all copies gets the others later; what was reserved
// when more were wanted loses some.
void note_wanting(Context& c, const meta::Batch& batch, uint32_t replicas) {
  std::set<core::ExtentId> looked;
  for (const meta::Op& op : batch.ops) {
    const core::ExtentId extent = op.segment.extent;
    if (!extent || !looked.insert(extent).second) continue;
    const auto count = ask(c, "SELECT count(*) FROM copy WHERE extent = ?", s64(extent.value));
    if (count != 0 && count != replicas)
      run(c, "INSERT OR IGNORE INTO wanting VALUES(?)", s64(extent.value));
  }
}

// Whether the extent has what it should; then nobody need look at it again.
void note_settled(Context& c, uint64_t extent, const Places& homes, uint32_t replicas) {
  const auto copies = c.cluster.copies({extent});
  if (copies && next_step(*copies, homes, replicas).kind == Step::Kind::none)
    run(c, "DELETE FROM wanting WHERE extent = ?", s64(extent));
}

void keep_setting(Context& c, const char* name, int64_t value) {
  run(c, "INSERT INTO setting VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
      name, value);
}

void drop_copy(Context& c, uint64_t extent, DiskId disk) {
  if (run(c, "DELETE FROM rebalancing WHERE extent = ? AND disk = ?", s64(extent),
          s64(disk.value)) != 0)
    keep_setting(c, "rebalance_idle", 0);
  run(c, "INSERT INTO quarantine SELECT disk, slot, ? FROM copy WHERE extent = ? AND disk = ?",
      s64(c.index), s64(extent), s64(disk.value));
  run(c, "DELETE FROM copy WHERE extent = ? AND disk = ?", s64(extent), s64(disk.value));
}

// One copy of an extent was made anew from another, or one too many is not used any more. Whether
// that holds: it does not where the copy was marked stale again meanwhile, or the source was.
Result<bool> move_one(Context& c, const meta::Vsd& vsd, const Places& homes,
                      const json::array& item) {
  const auto extent = item.at(0).to_number<uint64_t>();
  const DiskId from{item.at(1).to_number<uint64_t>()};
  const DiskId to{item.at(2).to_number<uint64_t>()};
  const auto since = item.at(3).to_number<uint64_t>();
  const DiskId drop{item.at(4).to_number<uint64_t>()};
  auto copies = c.cluster.copies({extent});
  if (!copies) return copies.error();
  if (!is_filled_by(c, extent, vsd.id)) return false;
  if (to && !from) {
    // Only where no other is left that could be chosen.
    const Step step = next_step(*copies, homes, vsd.replicas);
    if (step.kind != Step::Kind::move || step.from || step.to != to) return false;
    // The one that was chosen before may come back, and is not equal to this one.
    run(c, "UPDATE copy SET stale = ? WHERE extent = ? AND stale = 0", -s64(c.index), s64(extent));
    run(c, "UPDATE copy SET stale = 0 WHERE extent = ? AND disk = ?", s64(extent), s64(to.value));
  } else if (to) {
    bool source = false;
    bool target = false;
    for (meta::CopyRow& copy : *copies) {
      source = source || (copy.disk == from && copy.stale == 0);
      if (copy.disk != to || copy.stale == 0 || copy.stale != since) continue;
      target = true;
      copy.stale = 0;
    }
    if (!source || !target) return false;
    run(c, "UPDATE copy SET stale = 0 WHERE extent = ? AND disk = ?", s64(extent), s64(to.value));
  }
  if (drop && may_drop(*copies, homes, vsd.replicas, drop)) drop_copy(c, extent, drop);
  note_relocated(c, extent);
  return true;
}

}  // namespace

Outcome reserve(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (!is_live(c, node, life)) return not_live(node);
  auto disks = candidates(c);
  if (!disks) return disks.error();
  const bool alone = one_node(c);
  const uint64_t count = std::min(number(args, "count"), kMaxReserve);
  const auto replicas = static_cast<uint32_t>(args.contains("copies") ? number(args, "copies") : 2);
  if (replicas < 2 || replicas > 3) return Error{Code::invalid, "extents have 2 or 3 copies"};
  json::array extents;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t seed = c.index * kMaxReserve + i;
    const std::vector<DiskId> chosen = place(*disks, replicas, alone, seed);
    if (chosen.empty()) break;
    std::vector<meta::Copy> copies;
    json::array places;
    for (DiskId disk : chosen) {
      copies.push_back({disk, c.slots.take(disk), false});
      places.push_back({disk.value, copies.back().slot});
      std::find_if(disks->begin(), disks->end(), [&](const Candidate& x) {
        return x.disk == disk;
      })->free--;
    }
    auto id = c.map.reserve(copies, {node}, life);
    if (!id) return id.error();
    extents.push_back({id->value, std::move(places)});
  }
  return json::object{{"extents", std::move(extents)}};
}

// What a node had reserved and has no use for.
Outcome unreserve(Context& c, const json::object& args) {
  uint64_t freed = 0;
  for (const json::value& value : args.at("extents").as_array()) {
    const int64_t extent = s64(value.to_number<uint64_t>());
    if (run(c, "DELETE FROM reservation WHERE extent = ? AND node = ? AND life = ?", extent,
            s64(number(args, "node")), s64(number(args, "life"))) == 0)
      continue;
    run(c, "INSERT INTO quarantine SELECT disk, slot, ? FROM copy WHERE extent = ?", s64(c.index),
        extent);
    run(c, "DELETE FROM copy WHERE extent = ?", extent);
    freed++;
  }
  forget_removed(c);
  return json::object{{"freed", freed}};
}

Outcome commit(Context& c, const json::object& args) {
  meta::Batch batch{{number(args, "vsd")}, number(args, "epoch"), {}, {}};
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  auto u16 = [](const json::value& v) { return v.to_number<uint16_t>(); };
  for (const json::value& value : args.at("ops").as_array()) {
    const json::array& op = value.as_array();
    batch.ops.push_back(
        {op.at(0).to_number<uint64_t>(),
         {u16(op.at(1)), u16(op.at(2)), u16(op.at(3)), {op.at(4).to_number<uint64_t>()}}});
  }
  for (const json::value& value : args.at("stales").as_array()) {
    const json::array& stale = value.as_array();
    batch.stales.push_back({{stale.at(0).to_number<uint64_t>()},
                            {stale.at(1).to_number<uint64_t>()},
                            stale.size() > 2 && stale.at(2).as_bool()});
  }
  CORE_TRY(c.map.commit(batch, c.index));
  CORE_TRY(keep_good_copies(c, batch));
  note_wanting(c, batch, vsd->replicas);
  return json::object{};
}

// Copies in the making for extents that need one; how many there was room for.
Outcome place(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  const auto homes = places(c);
  if (!homes) return homes.error();
  auto disks = candidates(c);
  if (!disks) return disks.error();
  const bool alone = one_node(c);
  uint64_t placed = 0;
  uint64_t seed = c.index * kMaxReserve;
  for (const json::value& value : args.at("extents").as_array()) {
    const auto extent = value.to_number<uint64_t>();
    const auto copies = c.cluster.copies({extent});
    if (!copies) return copies.error();
    if (!is_filled_by(c, extent, vsd->id)) continue;
    if (next_step(*copies, *homes, vsd->replicas).kind != Step::Kind::place) {
      note_settled(c, extent, *homes, vsd->replicas);
      continue;
    }
    std::vector<Candidate> eligible = *disks;
    keep_emptier(*copies, eligible);
    const auto chosen =
        policy::place(apart_from(*copies, *homes, eligible, alone), 1, true, seed++);
    if (chosen.empty()) {
      // It may stay where it is, then.
      if (run(c, "DELETE FROM rebalancing WHERE extent = ?", s64(extent)) != 0)
        note_settled(c, extent, *homes, vsd->replicas);
      continue;
    }
    run(c, "INSERT INTO copy VALUES(?, ?, ?, ?)", s64(chosen.front().value),
        static_cast<int64_t>(c.slots.take(chosen.front())), s64(extent), s64(c.index));
    std::find_if(disks->begin(), disks->end(), [&](const Candidate& x) {
      return x.disk == chosen.front();
    })->free--;
    placed++;
  }
  end_widening(c);
  return json::object{{"placed", placed}};
}

Outcome moved(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  const auto homes = places(c);
  if (!homes) return homes.error();
  json::array done;
  for (const json::value& item : args.at("items").as_array()) {
    const auto moved = move_one(c, *vsd, *homes, item.as_array());
    if (!moved) return moved.error();
    done.push_back(*moved);
    note_settled(c, item.as_array().at(0).to_number<uint64_t>(), *homes, vsd->replicas);
  }
  end_evacuations(c);
  end_widening(c);
  return json::object{{"done", std::move(done)}};
}

// Off, once, or whenever it is needed.
Outcome rebalance(Context& c, const json::object& args) {
  const uint64_t mode = number(args, "mode");
  if (mode > kRebalanceAlways) return Error{Code::invalid, "no way to rebalance"};
  keep_setting(c, "rebalance", s64(mode));
  keep_setting(c, "rebalance_idle", 0);
  if (mode == 0) {
    run(c, "DELETE FROM rebalancing");
    c.tasks.end("pool rebalance", 0, 0, "it was stopped");
  }
  return json::object{{"task", mode == 1 ? c.tasks.begin("pool rebalance", 0, "pool", 0) : 0}};
}

// Some copies of the disk that is fullest are to go to others.
Outcome rebalance_some(Context& c, const json::object&) {
  const auto mode = c.cluster.setting("rebalance", 0);
  const auto idle = c.cluster.setting("rebalance_idle", 0);
  const auto pending = c.cluster.rebalancing();
  auto disks = candidates(c);
  if (!mode || !idle || !pending || !disks)
    return Error{Code::storage, "the metadata is unreadable"};
  if (*mode == 0 || *pending) return json::object{{"marked", 0}};
  const auto from = overfull(*disks);
  // Several times nothing could be moved: what is left has nowhere to go, so this is balanced.
  if (!from || *idle > kIdleRounds) {
    c.tasks.end("pool rebalance", 0, 0, "");
    if (*mode == 1) keep_setting(c, "rebalance", 0);
    return json::object{{"marked", 0}};
  }
  keep_setting(c, "rebalance_idle", *idle + 1);
  // From another place each time, so that what cannot move does not hold up the rest.
  const uint64_t start = c.index * kRebalanceAtOnce % from->total;
  int marked = 0;
  for (const uint64_t slot : {start, uint64_t{0}}) {
    marked += run(c,
                  "INSERT OR IGNORE INTO rebalancing SELECT c.extent, c.disk FROM copy c JOIN "
                  "extent e ON e.id = c.extent WHERE c.disk = ? AND c.stale = 0 AND c.slot >= ? "
                  "ORDER BY c.slot LIMIT ?",
                  s64(from->disk.value), s64(slot), s64(kRebalanceAtOnce));
    if (marked != 0) break;
  }
  run(c, "INSERT OR IGNORE INTO wanting SELECT extent FROM rebalancing");
  return json::object{{"marked", marked}};
}

// Frees slots whose quarantine is over: every live node ended the I/O that it had planned under
// maps that led there, and the lives that are over are fenced.
Outcome collect(Context& c, const json::object&) {
  json::object none{{"freed", 0}};
  {
    meta::Query lives(c.database,
                      "SELECT lease_node, lease_life FROM vsd WHERE lease_node <> 0 "
                      "UNION SELECT node, life FROM reservation");
    while (lives.executeStep()) {
      const auto node = static_cast<uint64_t>(lives.getColumn(0).getInt64());
      const auto life = static_cast<uint64_t>(lives.getColumn(1).getInt64());
      if (!is_live(c, node, life) && !is_fenced(c, node, life)) return none;
    }
  }
  const uint64_t horizon = ask(c, "SELECT min(seen) FROM node WHERE state = 'up'");
  meta::Query rows(c.database, "SELECT disk, slot FROM quarantine WHERE freed_at <= ? LIMIT ?");
  SQLite::bind(*rows, s64(horizon), s64(kCollectAtOnce));
  std::vector<std::pair<DiskId, uint32_t>> found;
  while (rows.executeStep())
    found.emplace_back(DiskId{static_cast<uint64_t>(rows.getColumn(0).getInt64())},
                       static_cast<uint32_t>(rows.getColumn(1).getInt64()));
  rows.reset();
  for (const auto& [disk, slot] : found)
    run(c, "DELETE FROM quarantine WHERE disk = ? AND slot = ?", s64(disk.value),
        static_cast<int64_t>(slot));
  run(c, "DELETE FROM relocated WHERE at <= ?", s64(horizon));
  run(c, "DELETE FROM gathered WHERE at <= ?", s64(horizon));
  run(c,
      "DELETE FROM fence WHERE NOT EXISTS (SELECT 1 FROM vsd WHERE lease_node = fence.node AND "
      "lease_life = fence.life) AND NOT EXISTS (SELECT 1 FROM node WHERE id = fence.node AND "
      "life = fence.life)");
  run(c, "DELETE FROM wanting WHERE extent NOT IN (SELECT id FROM extent)");
  run(c, "DELETE FROM rebalancing WHERE extent NOT IN (SELECT id FROM extent)");
  c.freed.insert(c.freed.end(), found.begin(), found.end());
  forget_removed(c);
  CORE_TRY(c.map.forget_deleted());
  // Perhaps what they waited for was deleted.
  end_evacuations(c);
  end_widening(c);
  return json::object{{"freed", found.size()}};
}

Outcome reap(Context& c, const json::object&) {
  auto done = c.map.reap(kReapAtOnce, c.index);
  if (!done) return done.error();
  CORE_TRY(c.map.forget_deleted());
  end_deletions(c);
  end_evacuations(c);
  return json::object{{"rows", *done}};
}

}  // namespace policy
