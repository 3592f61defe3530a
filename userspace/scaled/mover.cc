// SPDX-License-Identifier: GPL-2.0
#include "mover.h"

#include <scribe_netlink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "agent.h"
#include "core/rest.h"
#include "meta/map.h"
#include "policy/capacity.h"

namespace scaled {

namespace json = boost::json;
using control::ExtentState;
using control::Kernel;
using core::Code;
using core::DiskId;
using core::Error;
using core::ExtentId;
using core::NodeId;
using core::Result;
using core::VsdId;
using policy::Step;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kRest{2'000};       // between two looks
constexpr milliseconds kLongRest{60'000};  // where nothing that is missing could be made
constexpr uint64_t kPage = 256;
constexpr size_t kMibAtOnce = 16;  // MiB that are frozen at a time
static_assert(kMibAtOnce <= control::kMaxSlotCopies);
constexpr seconds kCountAgain{2};
constexpr seconds kCountEvery{60};  // it counts all copies

policy::Load since(const host::DeviceLoad& before, const host::DeviceLoad& now) {
  // Less where a device is gone meanwhile.
  if (now.count < before.count || now.waited_ms < before.waited_ms) return {};
  return {now.count - before.count, now.waited_ms - before.waited_ms};
}

bool drops(const Step& step) { return static_cast<bool>(step.drop); }

// Without its copy on that disk.
meta::MappedExtent without(meta::MappedExtent extent, DiskId disk) {
  std::erase_if(extent.copies, [&](const meta::Copy& copy) { return copy.disk == disk; });
  return extent;
}

const meta::CopyRow* row_of(const std::vector<meta::CopyRow>& rows, DiskId disk) {
  const auto at = std::find_if(rows.begin(), rows.end(),
                               [&](const meta::CopyRow& row) { return row.disk == disk; });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace

Mover::Mover(const Paths& paths, const Config& config, replica::Replica& replica, Agent& agent)
    : paths_(paths), config_(config), replica_(replica), agent_(agent) {}

Mover::Progress Mover::progress() const {
  const std::lock_guard lock(progress_mutex_);
  return progress_;
}

Mover::Paused Mover::pause(VsdId vsd) {
  Paused out{std::unique_lock(moving_), 0};
  out.minded = stop_minding(out, vsd);
  return out;
}

uint64_t Mover::stop_minding(const Paused&, VsdId vsd) {
  const auto at = minded_.find(vsd);
  return at == minded_.end() ? 0 : minded_.extract(at).mapped();
}

bool Mover::minds(VsdId vsd) {
  const std::unique_lock lock(moving_, std::try_to_lock);
  return !lock || minded_.contains(vsd);
}

Result<json::object> Mover::propose(json::object body) {
  return replica_.propose(std::move(body), Clock::now() + kProposeFor);
}

json::object Mover::about(const char* op, VsdId vsd, uint64_t epoch) const {
  return {{"op", op},
          {"vsd", vsd.value},
          {"node", config_.node.value},
          {"life", agent_.life()},
          {"epoch", epoch}};
}

void Mover::run(const std::stop_token& stop) {
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<meta::Database> database;
  bool recovered = false;
  milliseconds rest = kRest;
  std::optional<policy::Places> before;
  while (!stop.stop_requested()) {
    core::rest_until(stop, Clock::now() + kRest);
    if (agent_.life() == 0 || stop.stop_requested()) continue;
    if (!kernel || !database) {
      auto opened = Kernel::open();
      auto reader = meta::Database::open_reader(paths_.database());
      if (!opened || !reader) continue;
      kernel = std::move(*opened);
      database = std::move(*reader);
    }
    recovered = recovered || recover(*kernel, *database);
    settle(*kernel, *database);
    meta::Cluster cluster(*database);
    give_up_disks(cluster);
    guard_capacity(cluster);
    widen(cluster);
    balance(cluster);
    // What could not be made is looked at again soon when something has changed, else seldom.
    const auto disks = cluster.disks();
    const auto nodes = cluster.nodes();
    if (!disks || !nodes) continue;
    auto places = policy::places_of(*disks, *nodes);
    const bool changed =
        !before || !std::equal(places.begin(), places.end(), before->begin(), before->end(),
                               [](const auto& a, const auto& b) {
                                 return a.first == b.first && a.second.home == b.second.home;
                               });
    before = std::move(places);
    if (!changed && rest > kRest) {
      rest -= kRest;
      continue;
    }
    const Round done = round(*kernel, *database, stop);
    report(cluster, done);
    rest = done.waiting != 0 && done.moved == 0 ? kLongRest : kRest;
    if (done.moved == 0) scrub(*kernel, *database, stop);
    if (done.moved == 0) gather(*kernel, *database, stop);
  }
  const std::lock_guard lock(moving_);
  give_back_leases();
}

// What an earlier run of this daemon froze: whether it came to an end is in the metadata, for the
// daemon's first proposal made an end of all that were under way.
bool Mover::recover(Kernel& kernel, meta::Database& database) {
  auto work = kernel.work();
  if (!work) return false;
  std::map<VsdId, std::vector<Item>> frozen;
  for (const control::Work& item : *work)
    if (item.type == SCRIBE_WORK_FROZEN)
      frozen[{item.vsd}].push_back({{{item.arg}, false, {}}, {}, {}});
  for (const auto& [vsd, items] : frozen) {
    auto row = meta::Cluster(database).vsd(vsd);
    if (row && *row) thaw(kernel, database, vsd, (*row)->epoch, items);
  }
  return true;
}

// Disks that are away for longer than the grace time. The leader's, for it has the clock.
void Mover::give_up_disks(meta::Cluster& cluster) {
  if (!replica_.leading()) return;
  auto disks = cluster.disks();
  auto nodes = cluster.nodes();
  auto grace = cluster.setting("grace_seconds", meta::kDefaultGraceSeconds);
  auto maintenance = cluster.setting("maintenance", 0);
  if (!disks || !nodes || !grace || !maintenance || *maintenance != 0) return;
  const int64_t now =
      std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  for (const meta::Disk& disk : *disks) {
    if (disk.state != "ok" && disk.state != "absent") continue;
    const bool gone = std::any_of(nodes->begin(), nodes->end(), [&](const meta::Node& node) {
      return node.id == disk.node && node.state == "down" && now - node.since > *grace;
    });
    if (!gone && (disk.state != "absent" || now - disk.since <= *grace)) continue;
    if (auto done = propose({{"op", "disk_lost"}, {"disk", disk.id.value}}); done)
      spdlog::warn("disk {}: away for {} s, its copies are made anew on other disks", disk.id.value,
                   *grace);
  }
}

// The leader's: where a disk is fuller than others of its tier, some of its copies are marked to
// go.
void Mover::balance(meta::Cluster& cluster) {
  auto mode = cluster.setting("rebalance", 0);
  auto pending = cluster.rebalancing();
  if (!replica_.leading() || !mode || *mode == 0 || !pending || *pending) return;
  const auto now = Clock::now();
  if (*mode != 1 && now - balanced_ < kCountEvery) return;
  balanced_ = now;
  auto left = cluster.redundancy();
  // What is missing comes first.
  if (!left || left->stale + left->lost != 0) return;
  if (auto done = propose({{"op", "rebalance_some"}}); done && done->at("marked").as_int64() != 0)
    balanced_ = {};
}

// The leader's: VSDs whose number of copies was changed are walked through, some extents a second.
void Mover::widen(meta::Cluster& cluster) {
  if (!replica_.leading()) return;
  const auto until = Clock::now() + kRest;
  auto left = cluster.widening();
  while (left && !left->empty() && Clock::now() < until) {
    if (!propose({{"op", "widen"}})) return;
    left = cluster.widening();
  }
}

// Whether the largest node could be lost and all that it holds be made anew on the others.
void Mover::guard_capacity(meta::Cluster& cluster) {
  const auto now = Clock::now();
  if (now - guarded_ < kCountEvery) return;
  guarded_ = now;
  std::string text;
  auto disks = cluster.disks();
  auto use = cluster.use();
  if (replica_.leading() && disks && use)
    if (const auto node = policy::too_big_to_lose(*disks, *use); node)
      text = "were node " + std::to_string(node->value) +
             " lost, the others would have no room for second copies of what it holds: add disks "
             "or delete virtual disks";
  agent_.set_condition("capacity", text);
}

Mover::Round Mover::round(Kernel& kernel, meta::Database& database, const std::stop_token& stop) {
  Round out;
  meta::Cluster cluster(database);
  for (meta::AilingAt at; !at.end && !stop.stop_requested();) {
    auto found = cluster.ailing(at, kPage);
    if (!found) break;
    std::map<VsdId, std::set<ExtentId>> by_vsd;
    for (const meta::Owned& one : *found) by_vsd[one.vsd].insert(one.extent);
    for (const auto& [vsd, extents] : by_vsd) {
      // For all of them in one entry of the log; a piece looks again at what changed meanwhile.
      if (const std::lock_guard moving(moving_); const auto lease = hold(kernel, cluster, vsd))
        find_places(database, vsd, lease->epoch, {extents.begin(), extents.end()});
      for (auto from = extents.begin(); from != extents.end() && !stop.stop_requested();) {
        std::vector<ExtentId> some;
        const size_t most = pace_.piece(kMibAtOnce);
        while (from != extents.end() && some.size() < most) some.push_back(*from++);
        const Piece piece;
        const Round done = move_some(kernel, database, vsd, some);
        out.moved += done.moved;
        out.waiting += done.waiting;
        if (done.moved == 0) continue;
        report(cluster, {});
        rest_behind(piece, progress().left.few != 0 ? policy::Haste::urgent : policy::Haste::none,
                    stop);
      }
    }
  }
  const std::lock_guard lock(moving_);
  give_back_leases();
  return out;
}

void Mover::rest_behind(const Piece& piece, policy::Haste haste, const std::stop_token& stop) {
  const auto now = Clock::now();
  const host::DeviceLoad after = host::device_load();
  const auto worked = std::chrono::duration_cast<milliseconds>(now - piece.began);
  core::rest_until(stop, now + pace_.rest_after(worked, since(piece.before, after), haste));
  pace_.rested(since(after, host::device_load()));
}

// Under moving_.
void Mover::give_back_leases() {
  std::erase_if(minded_, [&](const auto& one) {
    const auto& [vsd, epoch] = one;
    auto done = propose({{"op", "lease_drop"},
                         {"vsd", vsd.value},
                         {"node", config_.node.value},
                         {"epoch", epoch},
                         {"clean", true}});
    if (!done) spdlog::info("VSD {}: {}", vsd.value, done.error().text);
    return done || done.error().code != Code::unknown;
  });
}

// Takes a lease for itself.
std::optional<Mover::Lease> Mover::mind(Kernel& kernel, VsdId vsd) {
  if (agent_.retiring()) return std::nullopt;
  auto taken = propose({{"op", "lease_take"},
                        {"vsd", vsd.value},
                        {"node", config_.node.value},
                        {"life", agent_.life()},
                        {"free", true}});
  if (!taken) return std::nullopt;
  const auto epoch = taken->at("epoch").to_number<uint64_t>();
  if (epoch == 0) return std::nullopt;  // more was left undone than fits into one entry: later
  // What this node gives back counts as flushed.
  if (taken->at("recover").as_bool() && !kernel.flush_disks()) {
    auto dropped = propose({{"op", "lease_drop"},
                            {"vsd", vsd.value},
                            {"node", config_.node.value},
                            {"epoch", epoch},
                            {"clean", false}});
    if (!dropped) spdlog::info("VSD {}: {}", vsd.value, dropped.error().text);
    return std::nullopt;
  }
  minded_[vsd] = epoch;
  return Lease{epoch, true};
}

// Whose work a VSD is: of the node that has its lease, else of one of those that are up.
NodeId Mover::worker_of(const meta::Vsd& vsd, const std::vector<meta::Node>& nodes) {
  std::vector<NodeId> up;
  for (const meta::Node& node : nodes) {
    if (node.state != "up") continue;
    if (node.id == vsd.lease_node && node.life == vsd.lease_life) return node.id;
    up.push_back(node.id);
  }
  return up.empty() ? NodeId{} : up[vsd.id.value % up.size()];
}

// The lease under which this node moves extents of a VSD; none where that is another's work.
std::optional<Mover::Lease> Mover::hold(Kernel& kernel, meta::Cluster& cluster, VsdId vsd) {
  auto row = cluster.vsd(vsd);
  auto nodes = cluster.nodes();
  if (!row || !*row || !nodes) return std::nullopt;
  if ((*row)->lease_node == config_.node && (*row)->lease_life == agent_.life()) {
    const auto at = minded_.find(vsd);
    if (at != minded_.end() && at->second == (*row)->epoch) return Lease{at->second, true};
    return Lease{(*row)->epoch, false};
  }
  if (worker_of(**row, *nodes) != config_.node) return std::nullopt;
  return mind(kernel, vsd);
}

Result<std::vector<Mover::Item>> Mover::plan(meta::Database& database, VsdId vsd,
                                             const std::vector<ExtentId>& extents) {
  return meta::guarded([&]() -> Result<std::vector<Item>> {
    const SQLite::Transaction snapshot(database.sql());
    meta::Cluster cluster(database);
    meta::Map map(database);
    const auto disks = cluster.disks();
    const auto nodes = cluster.nodes();
    const auto row = cluster.vsd(vsd);
    if (!disks || !nodes || !row) return Error{Code::storage, "the metadata is unreadable"};
    if (!*row) return std::vector<Item>{};
    const policy::Places places = policy::places_of(*disks, *nodes);
    std::vector<Item> out;
    for (const ExtentId id : extents) {
      auto extent = map.extent(id, vsd);
      auto rows = cluster.copies(id);
      if (!extent || !rows) continue;  // freed meanwhile
      Step step = policy::next_step(*rows, places, (*row)->replicas);
      out.push_back({std::move(*extent), std::move(*rows), step});
    }
    return out;
  });
}

// Steps 1 and 2 of kernel/freeze.c.
Result<void> Mover::freeze(Kernel& kernel, VsdId vsd, uint64_t epoch,
                           const std::vector<Item>& items) {
  std::vector<ExtentState> states;
  states.reserve(items.size());
  for (const Item& item : items) states.push_back({item.extent, true, false, {}});
  CORE_TRY(kernel.set_extents(vsd, epoch, states));
  CORE_TRY(kernel.barrier());
  return kernel.flush_vsd(vsd, epoch);
}

// Step 3; what is left is what was copied, or needs no copying. What cannot be read from one copy
// is tried from another.
std::vector<Mover::Item> Mover::copy(Kernel& kernel, meta::Cluster& cluster,
                                     std::vector<Item> items) {
  auto disks = cluster.disks();
  if (!disks) return {};
  std::map<DiskId, uint64_t> lives;
  for (const meta::Disk& disk : *disks) lives[disk.id] = disk.life;
  std::vector<Item> out;
  std::map<ExtentId, std::set<DiskId>> tried;
  while (!items.empty()) {
    std::vector<control::SlotCopy> slots;
    std::vector<Item> sent;
    for (Item& item : items) {
      const meta::CopyRow* from = row_of(item.rows, item.step.from);
      const meta::CopyRow* to = row_of(item.rows, item.step.to);
      if (to == nullptr || !item.step.from) {
        out.push_back(std::move(item));
      } else if (from != nullptr) {
        slots.push_back(
            {from->disk, from->slot, lives[from->disk], to->disk, to->slot, lives[to->disk]});
        sent.push_back(std::move(item));
      }
    }
    items.clear();
    if (slots.empty()) break;
    const auto done = kernel.copy_slots(slots);
    if (!done) {
      spdlog::warn("mover: {}", done.error().text);
      break;
    }
    for (size_t i = 0; i < sent.size(); i++) {
      Item& item = sent[i];
      if ((*done >> i & 1) != 0) {
        out.push_back(std::move(item));
        continue;
      }
      auto& sources = tried[item.extent.id];
      sources.insert(item.step.from);
      const auto other = std::find_if(
          item.rows.begin(), item.rows.end(),
          [&](const meta::CopyRow& row) { return row.stale == 0 && !sources.contains(row.disk); });
      if (other == item.rows.end()) continue;
      item.step.from = other->disk;
      items.push_back(std::move(item));
    }
  }
  return out;
}

// Step 4; what is left is what may be proposed.
std::vector<Mover::Item> Mover::let_go(Kernel& kernel, VsdId vsd, uint64_t epoch,
                                       std::vector<Item> items) {
  std::vector<Item> out;
  for (Item& item : items) {
    const ExtentState state{without(item.extent, item.step.drop), true, true, {}};
    if (drops(item.step) && !kernel.set_extents(vsd, epoch, std::span(&state, 1))) continue;
    out.push_back(std::move(item));
  }
  return out;
}

// Step 6: as the metadata says by now. What was gathered elsewhere first: what is written in place
// from now on must not go to where it was.
bool Mover::try_thaw(Kernel& kernel, meta::Database& database, VsdId vsd, uint64_t epoch,
                     const std::vector<Item>& items) {
  std::vector<ExtentState> states;
  const std::lock_guard telling(agent_.telling());
  auto read = meta::guarded([&]() -> Result<void> {
    const SQLite::Transaction snapshot(database.sql());
    meta::Map map(database);
    CORE_TRY(agent_.tell_gathered(kernel, database));
    for (const Item& item : items) {
      auto extent = map.extent(item.extent.id, vsd);
      // Freed meanwhile: nothing uses it, whatever its copies were.
      const auto& now = extent && !extent->copies.empty() ? *extent : item.extent;
      const bool copied = std::any_of(now.copies.begin(), now.copies.end(), [&](const auto& copy) {
        return copy.disk == item.step.to && !copy.stale;
      });
      if (!now.copies.empty())
        states.push_back({now, false, false, copied ? item.step.to : DiskId{}});
    }
    return {};
  });
  if (read) read = kernel.set_extents(vsd, epoch, states);
  // Without a device, or in another epoch, nothing is frozen any more.
  if (read || read.error().code == Code::not_found || read.error().code == Code::stale) return true;
  spdlog::error("VSD {}: {}", vsd.value, read.error().text);
  return false;
}

// Again later where that cannot be said now: until then nothing there is written in place.
void Mover::thaw(Kernel& kernel, meta::Database& database, VsdId vsd, uint64_t epoch,
                 const std::vector<Item>& items) {
  if (!try_thaw(kernel, database, vsd, epoch, items)) unsettled_.push_back({vsd, epoch, items});
}

// An outcome that was not known is settled once a later proposal has been answered.
void Mover::settle(Kernel& kernel, meta::Database& database) {
  if (unsettled_.empty()) return;
  const auto answer =
      propose({{"op", "seen"}, {"node", config_.node.value}, {"index", uint64_t{0}}});
  if (!answer) return;
  std::erase_if(unsettled_, [&](const Unsettled& one) {
    return try_thaw(kernel, database, one.vsd, one.epoch, one.items);
  });
}

// Under moving_, with the lease.
void Mover::find_places(meta::Database& database, VsdId vsd, uint64_t epoch,
                        const std::vector<ExtentId>& extents) {
  auto needing = plan(database, vsd, extents);
  if (!needing) return;
  json::array homeless;
  for (const Item& item : *needing)
    // One that has all it wants may be noted as wanting still.
    if (item.step.kind == Step::Kind::place || item.step.kind == Step::Kind::none)
      homeless.push_back(item.extent.id.value);
  if (homeless.empty()) return;
  json::object body = about("place", vsd, epoch);
  body["extents"] = std::move(homeless);
  if (auto placed = propose(std::move(body)); !placed)
    spdlog::info("VSD {}: {}", vsd.value, placed.error().text);
}

Mover::Round Mover::move_some(Kernel& kernel, meta::Database& database, VsdId vsd,
                              const std::vector<ExtentId>& extents) {
  meta::Cluster cluster(database);
  const std::lock_guard moving(moving_);
  const auto lease = hold(kernel, cluster, vsd);
  if (!lease) return {};
  find_places(database, vsd, lease->epoch, extents);

  // From here to the end of the copying no slot that it reads of may come to be another's.
  std::unique_lock looking(agent_.looking());
  auto planned = plan(database, vsd, extents);
  if (!planned) return {};
  Round out;
  std::vector<Item> items;
  for (Item& item : *planned) {
    if (item.step.kind == Step::Kind::move)
      items.push_back(std::move(item));
    else if (item.step.kind != Step::Kind::none)
      out.waiting++;
  }
  if (items.empty()) return out;
  const std::vector<Item> all = items;
  if (!lease->minded) {
    if (auto frozen = freeze(kernel, vsd, lease->epoch, all); !frozen) {
      spdlog::info("VSD {}: {}", vsd.value, frozen.error().text);
      thaw(kernel, database, vsd, lease->epoch, all);
      out.waiting += all.size();
      return out;
    }
  }
  items = copy(kernel, cluster, std::move(items));
  looking.unlock();
  if (!lease->minded) items = let_go(kernel, vsd, lease->epoch, std::move(items));
  out.waiting += all.size() - items.size();

  Result<json::object> answer = json::object{};
  if (!items.empty()) {
    json::array list;
    for (const Item& item : items) {
      const meta::CopyRow* to = row_of(item.rows, item.step.to);
      list.push_back(json::array{item.extent.id.value, item.step.from.value, item.step.to.value,
                                 to != nullptr ? to->stale : 0, item.step.drop.value});
    }
    json::object body = about("moved", vsd, lease->epoch);
    body["items"] = std::move(list);
    answer = propose(std::move(body));
  }
  if (answer) out.moved = items.size();
  if (!answer) spdlog::info("VSD {}: {}", vsd.value, answer.error().text);
  if (lease->minded) return out;
  // A copy that may yet be dropped must not be used again.
  if (!answer && answer.error().code == Code::unknown)
    unsettled_.push_back({vsd, lease->epoch, all});
  else
    thaw(kernel, database, vsd, lease->epoch, all);
  return out;
}

void Mover::report(meta::Cluster& cluster, const Round& round) {
  const auto now = Clock::now();
  const bool stuck = round.waiting != 0 && round.moved == 0;
  if (now < count_again_ && !stuck) return;
  auto left = cluster.redundancy();
  if (!left) return;
  // It walks through all that is to be done.
  count_again_ = Clock::now() + std::max<Clock::duration>(kCountAgain, (Clock::now() - now) * 20);
  {
    const std::lock_guard lock(progress_mutex_);
    const uint64_t before = progress_.left.stale + progress_.left.lost + progress_.left.leaving +
                            progress_.left.wanting;
    const uint64_t after = left->stale + left->lost + left->leaving + left->wanting;
    const double elapsed = std::chrono::duration<double>(now - counted_).count();
    const double rate = before > after ? static_cast<double>(before - after) / elapsed : 0;
    progress_.copies_per_second =
        after == 0 ? 0 : (progress_.copies_per_second + rate) / (before == 0 ? 1 : 2);
    counted_ = now;
    progress_.left = *left;
  }
  if (!replica_.leading()) {
    agent_.set_condition("redundancy", "");
    return;
  }
  std::string text;
  if (left->few != 0)
    text = stuck ? "some data has too few copies, and they cannot be made now: disks with room on "
                   "other nodes, or the only good copies, are missing (scalectl disk list)"
                 : "some data has too few copies; they are being made (scalectl cluster status)";
  agent_.set_condition("redundancy", text);
}

}  // namespace scaled
