// SPDX-License-Identifier: GPL-2.0
// The mover's second duty: it compares the copies of all data, leaf after leaf.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "agent.h"
#include "meta/map.h"
#include "mover.h"
#include "policy/verdict.h"

namespace scaled {

namespace json = boost::json;
using control::Kernel;
using control::SlotRange;
using core::DiskId;
using core::ExtentId;
using core::VsdId;
using std::chrono::seconds;

namespace {

constexpr seconds kScrubTurn{5};  // then it is looked whether something must be healed
constexpr int64_t kDay = 86400;
constexpr size_t kNamed = 3;  // damaged extents in one condition

int64_t now_seconds() {
  return std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool is_current_on(const std::map<DiskId, uint64_t>& lives, const meta::CopyRow& copy) {
  return copy.stale == 0 && lives.contains(copy.disk);
}

}  // namespace

/// An extent of a leaf, with what of it is mapped there, now or in a snapshot.
struct Mover::Subject {
  meta::MappedExtent extent;
  uint64_t chunk = 0;
  std::vector<meta::CopyRow> copies;  // current, on disks that can be reached
  std::vector<core::Segment> parts;
};

/// What became of comparing some extents.
struct Mover::Findings {
  json::array wrong;
  json::array damaged;
  json::array good;
};

// VSDs whose copies are to be compared, those that wait for longest first.
std::vector<Mover::Pass> Mover::due_passes(meta::Cluster& cluster) {
  std::vector<Pass> out;
  auto scrubs = cluster.scrubs();
  auto days = cluster.setting("scrub_days", meta::kDefaultScrubDays);
  auto tasks = cluster.tasks();
  if (!scrubs || !days || !tasks) return out;
  int64_t asked = 0;
  for (const meta::Task& task : *tasks)
    if (task.what == "pool verify" && task.state == "running") asked = task.began;
  const int64_t now = now_seconds();
  std::sort(scrubs->begin(), scrubs->end(),
            [](const auto& a, const auto& b) { return a.done < b.done; });
  for (const meta::Scrub& one : *scrubs) {
    if (one.done >= asked && (*days == 0 || now - one.done < *days * kDay)) continue;
    const bool goes_on = one.next != 0 && one.began >= asked;
    out.push_back({one.vsd, goes_on ? one.began : std::max(now, asked), goes_on ? one.next : 0});
  }
  return out;
}

void Mover::scrub(Kernel& kernel, meta::Database& database, const std::stop_token& stop) {
  meta::Cluster cluster(database);
  settle_damage(kernel, database);
  const auto until = Clock::now() + kScrubTurn;
  for (Pass& pass : due_passes(cluster)) {
    const uint64_t before = pass.next;
    bool goes_on = true;
    while (goes_on && !stop.stop_requested() && Clock::now() < until) {
      const Piece piece;
      goes_on = scrub_leaf(kernel, database, pass);
      rest_behind(piece, policy::Haste::none, stop);
    }
    if (pass.next != before || pass.end) {
      const std::lock_guard lock(moving_);
      if (const auto lease = hold(kernel, cluster, pass.vsd)) report_scrub(pass, lease->epoch, {});
    }
    if (stop.stop_requested() || Clock::now() >= until) break;
  }
  conclude_verify(database);
  const std::lock_guard lock(moving_);
  give_back_leases();
}

bool Mover::report_scrub(const Pass& pass, uint64_t epoch, Findings found) {
  json::object body = about("scrubbed", pass.vsd, epoch);
  body["began"] = pass.began;
  body["next"] = pass.next;
  body["end"] = pass.end;
  body["wrong"] = std::move(found.wrong);
  body["damaged"] = std::move(found.damaged);
  body["good"] = std::move(found.good);
  auto done = propose(std::move(body));
  if (!done) spdlog::info("VSD {}: comparing copies: {}", pass.vsd.value, done.error().text);
  return static_cast<bool>(done);
}

core::Result<std::vector<Mover::Subject>> Mover::subjects(meta::Database& database, VsdId vsd,
                                                          uint64_t leaf) {
  return meta::guarded([&]() -> core::Result<std::vector<Subject>> {
    const SQLite::Transaction snapshot(database.sql());
    meta::Cluster cluster(database);
    const auto lives = reachable(cluster);
    auto found = meta::Map(database).history(vsd, leaf);
    if (!found) return found.error();
    std::map<ExtentId, Subject> by_id;
    std::map<ExtentId, std::set<std::pair<uint16_t, uint16_t>>> known;
    for (const meta::History::Chunk& version : found->chunks)
      for (const core::Segment& part : version.segments) {
        Subject& one = by_id[part.extent];
        if (one.parts.empty()) one.chunk = version.chunk;
        // What several versions have is read once, as a rule.
        if (known[part.extent].emplace(part.off, part.len).second) one.parts.push_back(part);
      }
    std::vector<Subject> out;
    for (meta::MappedExtent& extent : found->extents) {
      Subject& one = by_id[extent.id];
      auto rows = cluster.copies(extent.id);
      if (!rows) return rows.error();
      std::copy_if(rows->begin(), rows->end(), std::back_inserter(one.copies),
                   [&](const meta::CopyRow& copy) { return is_current_on(lives, copy); });
      one.extent = std::move(extent);
      out.push_back(std::move(one));
    }
    return out;
  });
}

// Disks that can be asked, and their lives.
std::map<DiskId, uint64_t> Mover::reachable(meta::Cluster& cluster) {
  std::map<DiskId, uint64_t> out;
  auto disks = cluster.disks();
  auto nodes = cluster.nodes();
  if (!disks || !nodes) return out;
  const policy::Places places = policy::places_of(*disks, *nodes);
  for (const meta::Disk& disk : *disks) {
    const auto at = places.find(disk.id);
    if (at != places.end() &&
        (at->second.home == policy::Home::good || at->second.home == policy::Home::leaving))
      out[disk.id] = disk.life;
  }
  return out;
}

core::Result<std::vector<policy::Verdict>> Mover::compare(Kernel& kernel, meta::Cluster& cluster,
                                                          const std::vector<Subject>& subjects) {
  const auto lives = reachable(cluster);
  std::vector<SlotRange> ranges;
  for (const Subject& one : subjects)
    for (const meta::CopyRow& copy : one.copies)
      for (const core::Segment& part : one.parts)
        ranges.push_back({copy.disk, lives.contains(copy.disk) ? lives.at(copy.disk) : 0, copy.slot,
                          part.off, part.len});
  auto read = kernel.digests(ranges);
  if (!read) return read.error();
  std::vector<policy::Verdict> out;
  size_t at = 0;
  for (const Subject& one : subjects) {
    std::vector<policy::Reading> readings;
    for (const meta::CopyRow& copy : one.copies) {
      std::optional<uint64_t> sum = 0;
      for (size_t i = 0; i < one.parts.size(); i++, at++) {
        const auto& digest = (*read)[at];
        if (!digest) sum.reset();
        // In order: the same parts exchanged would be another sum.
        if (sum) sum = *sum * 0x9e3779b97f4a7c15 + *digest;
      }
      readings.push_back({copy.disk, sum});
    }
    out.push_back(policy::judge(readings));
  }
  return out;
}

// One leaf; false where that cannot be done now, or was the last.
bool Mover::scrub_leaf(Kernel& kernel, meta::Database& database, Pass& pass) {
  meta::Cluster cluster(database);
  const std::lock_guard moving(moving_);
  const auto lease = hold(kernel, cluster, pass.vsd);
  if (!lease) return false;
  const auto leaf = meta::Map(database).next_leaf(pass.vsd, pass.next);
  if (!leaf) return false;
  if (!*leaf) {
    pass.end = true;
    return false;
  }
  // No slot that is read may come to be another's meanwhile.
  const std::unique_lock looking(agent_.looking());
  auto first = subjects(database, pass.vsd, **leaf);
  auto verdicts = first ? compare(kernel, cluster, *first) : first.error();
  if (!verdicts) {
    spdlog::info("VSD {}: leaf {}: {}", pass.vsd.value, **leaf, verdicts.error().text);
    return false;
  }
  std::set<ExtentId> doubtful;
  std::set<ExtentId> same;
  for (size_t i = 0; i < first->size(); i++)
    ((*verdicts)[i] == policy::Verdict{} ? same : doubtful).insert((*first)[i].extent.id);
  Findings found;
  auto known = cluster.damage();
  for (size_t i = 0; known && i < known->size(); i++)
    if (same.contains((*known)[i].extent)) found.good.push_back((*known)[i].extent.value);
  bool done = true;
  if (!doubtful.empty())
    done = confirm(kernel, database, pass, *lease, **leaf, doubtful, std::move(found));
  else if (!found.good.empty())
    done = report_scrub(pass, lease->epoch, std::move(found));
  if (done) pass.next = **leaf + 1;
  return done;
}

// Copies of what is being written may differ for a moment: they are compared again while nobody
// writes there.
bool Mover::confirm(Kernel& kernel, meta::Database& database, const Pass& pass, const Lease& lease,
                    uint64_t leaf, const std::set<ExtentId>& doubtful, Findings found) {
  meta::Cluster cluster(database);
  std::vector<Item> items;
  auto before = subjects(database, pass.vsd, leaf);
  if (!before) return false;
  for (Subject& one : *before)
    if (doubtful.contains(one.extent.id)) items.push_back({std::move(one.extent), {}, {}});
  if (!lease.minded) {
    if (auto frozen = freeze(kernel, pass.vsd, lease.epoch, items); !frozen) {
      spdlog::info("VSD {}: {}", pass.vsd.value, frozen.error().text);
      thaw(kernel, database, pass.vsd, lease.epoch, items);
      return false;
    }
  }
  // What the flush has marked as stale does not count any more.
  auto again = subjects(database, pass.vsd, leaf);
  if (again)
    std::erase_if(*again, [&](const Subject& one) { return !doubtful.contains(one.extent.id); });
  auto verdicts = again ? compare(kernel, cluster, *again) : again.error();
  bool done = static_cast<bool>(verdicts);
  if (verdicts) {
    for (size_t i = 0; i < again->size(); i++) {
      const Subject& one = (*again)[i];
      for (const DiskId disk : (*verdicts)[i].wrong) {
        spdlog::warn("VSD {}: chunk {}: the copy of extent {} on disk {} is wrong, it is made anew",
                     pass.vsd.value, one.chunk, one.extent.id.value, disk.value);
        found.wrong.push_back(json::array{one.extent.id.value, disk.value});
      }
      if ((*verdicts)[i].damaged)
        found.damaged.push_back(json::array{one.extent.id.value, one.chunk});
    }
    done = report_scrub(pass, lease.epoch, std::move(found));
  }
  if (!lease.minded) thaw(kernel, database, pass.vsd, lease.epoch, items);
  return done;
}

// Where somebody chose a copy, the others become stale and are made anew from it.
void Mover::settle_damage(Kernel& kernel, meta::Database& database) {
  meta::Cluster cluster(database);
  auto damage = cluster.damage();
  if (!damage) return;
  for (const meta::Damage& one : *damage) {
    if (!one.keep) continue;
    const std::lock_guard moving(moving_);
    const auto lease = hold(kernel, cluster, one.vsd);
    auto extent = meta::Map(database).extent(one.extent, one.vsd);
    auto rows = cluster.copies(one.extent);
    if (!lease || !extent || !rows) continue;
    const std::vector<Item> items = {{*extent, {}, {}}};
    Findings found;
    for (const meta::CopyRow& copy : *rows)
      if (copy.stale == 0 && copy.disk != one.keep)
        found.wrong.push_back(json::array{one.extent.value, copy.disk.value});
    found.good.push_back(one.extent.value);
    const auto frozen =
        lease->minded ? core::Result<void>() : freeze(kernel, one.vsd, lease->epoch, items);
    // As a pass that has got nowhere.
    if (frozen) report_scrub({one.vsd, 0, 0}, lease->epoch, std::move(found));
    if (!lease->minded) thaw(kernel, database, one.vsd, lease->epoch, items);
  }
}

// The leader says what is damaged, and ends a verification that somebody asked for.
void Mover::conclude_verify(meta::Database& database) {
  meta::Cluster cluster(database);
  auto damage = cluster.damage();
  if (!damage) return;
  std::string text;
  if (replica_.leading() && !damage->empty()) {
    text = std::to_string(damage->size()) + " extents are damaged:";
    for (size_t i = 0; i < std::min(kNamed, damage->size()); i++)
      text += " " + place_of(cluster, (*damage)[i]);
    text += "; see: scalectl pool status";
  }
  agent_.set_condition("damage", text);
  auto tasks = cluster.tasks();
  auto scrubs = cluster.scrubs();
  if (!replica_.leading() || !tasks || !scrubs) return;
  const auto task = std::find_if(tasks->begin(), tasks->end(), [](const meta::Task& one) {
    return one.what == "pool verify" && one.state == "running";
  });
  if (task == tasks->end()) return;
  if (checked_ != task->id) {
    auto wrong = meta::guarded([&]() -> core::Result<std::vector<std::string>> {
      const SQLite::Transaction snapshot(database.sql());
      return meta::Map(database).verify();
    });
    if (!wrong) return;
    checked_ = task->id;
    contradiction_ = wrong->empty()
                         ? ""
                         : "the metadata contradicts itself in " + std::to_string(wrong->size()) +
                               " places, first: " + wrong->front();
    if (!contradiction_.empty()) spdlog::critical("{}", contradiction_);
  }
  if (std::any_of(scrubs->begin(), scrubs->end(),
                  [&](const meta::Scrub& one) { return one.done < task->began; }))
    return;
  std::string error = contradiction_;
  if (!damage->empty()) error += (error.empty() ? "" : "; ") + text;
  if (auto done = propose({{"op", "verified"}, {"error", error}}); !done)
    spdlog::warn("pool verify: {}", done.error().text);
}

std::string Mover::place_of(meta::Cluster& cluster, const meta::Damage& damage) {
  auto vsd = cluster.vsd(damage.vsd);
  auto rows = cluster.copies(damage.extent);
  std::string out = "extent " + std::to_string(damage.extent.value) + " of VSD " +
                    (vsd && *vsd ? (*vsd)->name : std::to_string(damage.vsd.value)) + " at " +
                    std::to_string(damage.chunk) + " MiB (";
  for (size_t i = 0; rows && i < rows->size(); i++)
    out += (i == 0 ? "disk " : ", disk ") + std::to_string((*rows)[i].disk.value) + " slot " +
           std::to_string((*rows)[i].slot);
  return out + ")";
}

}  // namespace scaled
