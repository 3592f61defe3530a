// SPDX-License-Identifier: GPL-2.0
// The agent's threads that bring this node to what the metadata says, whenever that changes.
#include <scribe_netlink.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent.h"
#include "host/disks.h"
#include "host/dm.h"
#include "meta/map.h"
#include "refetch.h"

namespace scaled {

namespace json = boost::json;
using control::Kernel;
using control::Work;
using core::NodeId;
using core::VsdId;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kHouseTick{2'000};
constexpr seconds kUnclaimedFor{60};
constexpr size_t kMaxUnreserve = 256;  // in one entry

uint8_t tier_number(const std::string& tier) {
  return tier == "ssd" ? SCRIBE_TIER_SSD : SCRIBE_TIER_HDD;
}

}  // namespace

void Agent::keep_house(const std::stop_token& stop) {
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<meta::Database> database;
  uint64_t seen = 0;
  while (!stop.stop_requested()) {
    wait(stop, seen, kHouseTick);
    if (life_ == 0 || stop.stop_requested()) continue;
    if (!kernel || !database) {
      auto opened = Kernel::open();
      auto reader = meta::Database::open_reader(paths_.database());
      if (!opened || !reader) continue;
      kernel = std::move(*opened);
      database = std::move(*reader);
    }
    meta::Cluster cluster(*database);
    keep_peers(*kernel, cluster);
    keep_disks(*kernel, cluster);
    keep_stock(*kernel, cluster);
    keep_copies(*kernel, cluster);
    keep_leases(*kernel, cluster);
    end_stale_leases(*kernel, cluster);
    keep_fences(*kernel, cluster);
    keep_holds();
    keep_quarantine(*kernel, *database);
    std::this_thread::sleep_for(kCalm);
  }
}

void Agent::keep_disks(Kernel& kernel, meta::Cluster& cluster) {
  auto disks = cluster.disks();
  auto nodes = cluster.nodes();
  if (!disks || !nodes) return;
  auto is_up = [&](NodeId id) {
    return std::any_of(nodes->begin(), nodes->end(),
                       [&](const meta::Node& n) { return n.id == id && n.state == "up"; });
  };
  for (const meta::Disk& disk : *disks) {
    // After a restart the module may still have a route: it is said anew, or deleted.
    const bool known = routed_.contains(disk.id);
    uint64_t& routed = routed_[disk.id];
    if (disk.node == config_.node) {
      if (routed == 0 && (disk.state == "ok" || disk.state == "absent" || disk.state == "lost"))
        open_disk(kernel, disk);
      // It is not opened again: what it missed since it failed is not marked on all of its copies.
      if (disk.state == "failed" || disk.state == "removed") {
        set_condition("disk " + std::to_string(disk.id.value),
                      disk.state == "removed"
                          ? ""
                          : "failed (serial " + disk.serial + "): replace it, then say: scalectl " +
                                "disk remove " + std::to_string(disk.id.value));
        const auto closed = kernel.close_disk(disk.id);
        if (closed) routed = 0;
        if (disk.state == "removed" && disk.life != 0 &&
            (closed || closed.error().code == Code::not_found)) {
          if (auto said = propose({{"op", "disk_closed"}, {"disk", disk.id.value}}); !said)
            spdlog::warn("disk {}: {}", disk.id.value, said.error().text);
        }
      }
      continue;
    }
    const uint64_t wanted = disk.state == "ok" && is_up(disk.node) ? disk.life : 0;
    if (known && routed == wanted) continue;
    auto done = wanted != 0 ? kernel.set_route(disk.id, disk.node, wanted, tier_number(disk.tier))
                            : kernel.delete_route(disk.id);
    if (!done && done.error().code != Code::not_found) {
      spdlog::warn("disk {}: {}", disk.id.value, done.error().text);
      continue;
    }
    routed = wanted;
  }
}

// Finds a disk of this node by what is written on it, whatever its name is today.
void Agent::open_disk(Kernel& kernel, const meta::Disk& disk) {
  const std::string subject = "disk " + std::to_string(disk.id.value);
  auto uuid = host::parse_uuid(disk.uuid);
  if (!uuid) return;
  for (const host::BlockDevice& device : host::list_disks()) {
    auto label = host::read_label(device.path);
    if (!label || !*label || (*label)->disk != disk.id || (*label)->uuid != *uuid) continue;
    auto opened = kernel.open_disk(disk.id, *uuid, device.path, tier_number(disk.tier));
    if (!opened) {
      set_condition(subject, opened.error().text);
      return;
    }
    if (opened->life != disk.life || disk.state != "ok") {
      auto up = propose({{"op", "disk_up"},
                         {"disk", disk.id.value},
                         {"life", opened->life},
                         {"slots", opened->slots}});
      if (!up) return;
    }
    routed_[disk.id] = opened->life;
    set_condition(subject, "");
    return;
  }
  set_condition(subject, "not found on this node (serial " + disk.serial + ")");
  if (disk.state == "ok") {
    if (auto said = propose({{"op", "disk_absent"}, {"disk", disk.id.value}, {"life", disk.life}});
        !said)
      spdlog::warn("{}: {}", subject, said.error().text);
  }
}

// How many copies new data has, of VSDs that this node writes.
void Agent::keep_copies(Kernel& kernel, meta::Cluster& cluster) {
  auto vsds = cluster.vsds();
  if (!vsds) return;
  for (const meta::Vsd& vsd : *vsds) {
    if (vsd.lease_node != config_.node || vsd.lease_life != life_) continue;
    {
      const std::lock_guard lock(mutex_);
      const auto at = granted_.find(vsd.id);
      if (at == granted_.end() || at->second.epoch != vsd.epoch ||
          at->second.copies == vsd.replicas)
        continue;
    }
    // A release that is quicker has ended the epoch: then there is nothing to say.
    auto told = kernel.grant_lease(vsd.id, vsd.epoch, vsd.replicas);
    if (told || told.error().code == Code::stale) note_granted(vsd.id, vsd.epoch, vsd.replicas);
  }
}

// Leases of this life that neither the kernel nor the mover knows of: the answer that gave them
// never came. Without I/O here nobody would take them anew, and nobody else gets what we do not
// have.
void Agent::keep_leases(Kernel& kernel, meta::Cluster& cluster) {
  auto vsds = cluster.vsds();
  if (!vsds) return;
  std::map<VsdId, Granted> unclaimed;
  for (const meta::Vsd& vsd : *vsds) {
    if (vsd.lease_node != config_.node || vsd.lease_life != life_) continue;
    const auto before = unclaimed_.find(vsd.id);
    const bool same = before != unclaimed_.end() && before->second.epoch == vsd.epoch;
    // Whoever tries to hold it, again and again, does not make it claimed.
    if (changes_hands(vsd.id)) {
      if (same) unclaimed[vsd.id] = before->second;
      continue;
    }
    if (mover_.minds(vsd.id) || kernel.set_extents(vsd.id, vsd.epoch, {})) continue;
    const Granted since = same ? before->second : Granted{Clock::now(), vsd.epoch, 0};
    unclaimed[vsd.id] = since;
    // By then whoever asked for it has given up.
    if (Clock::now() - since.since < kUnclaimedFor) continue;
    auto done = propose({{"op", "lease_drop"},
                         {"vsd", vsd.id.value},
                         {"node", config_.node.value},
                         {"epoch", vsd.epoch},
                         {"clean", false}});
    if (!done) spdlog::info("VSD {}: {}", vsd.name, done.error().text);
  }
  unclaimed_ = std::move(unclaimed);
}

// A lease that the kernel has in an epoch that is over for the metadata: its users would wait for
// leaves that nobody gives, and what they write would be nobody's. This must not happen, for a
// lease is given back only when the kernel has it no more.
void Agent::end_stale_leases(Kernel& kernel, meta::Cluster& cluster) {
  std::map<VsdId, Granted> granted;
  const Moment read = moment();
  {
    const std::lock_guard lock(mutex_);
    granted = granted_;
  }
  // Behind that, so that the rows are not older than what was granted.
  for (const auto& [vsd, last] : granted) {
    const auto row = cluster.vsd(vsd);
    if (!row || !*row || last.epoch == 0 || (*row)->epoch < last.epoch) continue;
    const bool ours = (*row)->lease_node == config_.node && (*row)->lease_life == life_;
    if ((ours && (*row)->epoch == last.epoch) || !calm_since(vsd, read)) continue;
    // It never gets one twice.
    if (ended_[vsd] == last.epoch) continue;
    const auto known = kernel.set_extents(vsd, last.epoch, {});
    if (known)
      relet(vsd, last.epoch, "the kernel has it in an epoch that is over");
    else if (known.error().code == Code::stale || known.error().code == Code::not_found)
      ended_[vsd] = last.epoch;
  }
}

// Reservations on disks that take nothing new are given up, with the slots beside them.
void Agent::keep_stock(Kernel& kernel, meta::Cluster& cluster) {
  auto disks = cluster.disks();
  if (!disks) return;
  for (const meta::Disk& disk : *disks) {
    if (!disk.leaving && disk.state != "failed" && disk.state != "lost" && disk.state != "removed")
      continue;
    for (;;) {
      auto ids = kernel.take_back_reservations(disk.id);
      if (!ids || ids->empty()) break;
      unused_.insert(ids->begin(), ids->end());
    }
  }
  while (!unused_.empty()) {
    json::array extents;
    for (const core::ExtentId id : unused_)
      if (extents.size() < kMaxUnreserve) extents.push_back(id.value);
    json::object body{{"op", "unreserve"}, {"node", config_.node.value}, {"life", life_.load()}};
    body["extents"] = extents;
    if (auto done = propose(std::move(body)); !done) {
      spdlog::info("reservations: {}", done.error().text);
      return;
    }
    for (const json::value& id : extents) unused_.erase({id.to_number<uint64_t>()});
  }
}

void Agent::keep_peers(Kernel& kernel, meta::Cluster& cluster) {
  auto nodes = cluster.nodes();
  if (!nodes) return;
  peers_.set_nodes(*nodes);
  if (auto addresses = peers_.addresses(); addresses != remembered_) {
    if (auto done = remember_addresses(paths_, addresses); !done)
      spdlog::warn("{}", done.error().text);
    else
      remembered_ = std::move(addresses);
  }
  for (const meta::Node& node : *nodes) {
    if (node.id == config_.node || node.state != "up" || introduced_[node.id] == node.life)
      continue;
    if (kernel.set_peer(node.id, node.life)) introduced_[node.id] = node.life;
  }
  if (std::none_of(nodes->begin(), nodes->end(), [&](const meta::Node& node) {
        return node.id == config_.node && node.state != "removed";
      }))
    removed_();
  auto work = kernel.work();
  if (!work) return;
  for (const Work& item : *work) {
    if (item.type != SCRIBE_WORK_PEER_LOST) continue;
    const NodeId peer{item.id};
    const auto node = std::find_if(nodes->begin(), nodes->end(),
                                   [&](const meta::Node& n) { return n.id == peer; });
    if (node == nodes->end() || node->state != "up" || node->life != item.arg) continue;
    auto done = peers_.connect(kernel, peer, life_, node->life);
    set_condition("node " + std::to_string(peer.value), done ? "" : done.error().text);
  }
}

void Agent::keep_fences(Kernel& kernel, meta::Cluster& cluster) {
  auto lives = cluster.unfenced(config_.node);
  if (!lives) return;
  for (const meta::Life& over : *lives) {
    if (over.node == config_.node && over.life == life_) continue;  // declared down, not yet aware
    if (over.node != config_.node) {
      auto done = kernel.fence_peer(over.node, over.life);
      if (!done) {
        spdlog::error("fencing node {}: {}", over.node.value, done.error().text);
        continue;
      }
    }
    auto done = propose({{"op", "fenced"},
                         {"node", over.node.value},
                         {"life", over.life},
                         {"witness", config_.node.value}});
    if (done)
      spdlog::info("node {}: life {:016x} is fenced here", over.node.value, over.life);
    else
      spdlog::warn("node {}: {}", over.node.value, done.error().text);
  }
}

// Whoever here only reads from extents whose copies moved, or from pieces that were gathered
// elsewhere, reads from where they are now.
bool Agent::tell_moved(Kernel& kernel, meta::Database& database) {
  const std::lock_guard telling(telling_);
  auto told = meta::guarded([&]() -> Result<void> {
    const SQLite::Transaction snapshot(database.sql());
    auto moved = meta::Cluster(database).relocated(barrier_);
    if (!moved) return moved.error();
    CORE_TRY(kernel.move_extents(*moved));
    return tell_gathered(kernel, database);
  });
  if (!told) spdlog::error("data that moved: {}", told.error().text);
  return static_cast<bool>(told);
}

Result<void> Agent::tell_gathered(Kernel& kernel, meta::Database& database) {
  const auto now = database.applied();
  if (!now) return now.error();
  // Whatever the module was given to read by since is newer than what it was told of.
  auto gathered = meta::Map(database).gathered(told_, config_.node, life_);
  if (!gathered) return gathered.error();
  for (const meta::Moved& moved : *gathered) {
    auto told = kernel.move_pieces(moved);
    // Without a device, or in another epoch, nothing older is known there.
    if (!told && told.error().code != Code::not_found && told.error().code != Code::stale)
      return told;
  }
  told_ = now->index;
  return {};
}

void Agent::keep_quarantine(Kernel& kernel, meta::Database& database) {
  meta::Cluster cluster(database);
  uint64_t index = 0;
  // Later, where the mover is at it: it works half of the time only.
  if (const std::unique_lock looking(looking_, std::try_to_lock); looking)
    index = replica_.applied().index;
  auto behind = cluster.quarantine_behind(barrier_);
  if (index != 0 && behind && *behind && tell_moved(kernel, database) && kernel.barrier()) {
    if (propose({{"op", "seen"}, {"node", config_.node.value}, {"index", index}})) barrier_ = index;
  }
  auto garbage = cluster.has_garbage();
  if (replica_.leading() && garbage && *garbage) {
    if (auto done = propose({{"op", "reap"}}); !done)
      spdlog::warn("deletion: {}", done.error().text);
  }
  auto over = cluster.quarantine_over();
  if (replica_.leading() && over && *over) {
    if (auto done = propose({{"op", "collect"}}); !done)
      spdlog::warn("quarantine: {}", done.error().text);
  }
}

// Devices

void Agent::keep_devices(const std::stop_token& stop) {
  std::unique_ptr<meta::Database> database;
  uint64_t seen = 0;
  while (!stop.stop_requested()) {
    wait(stop, seen, kHouseTick);
    if (life_ == 0 || stop.stop_requested()) continue;
    if (!database) {
      auto reader = meta::Database::open_reader(paths_.database());
      if (!reader) continue;
      database = std::move(*reader);
    }
    meta::Cluster cluster(*database);
    auto opened = cluster.opened();
    if (!opened) continue;
    for (const meta::Opened& row : *opened)
      if (row.node == config_.node) keep_device(cluster, row);
    std::this_thread::sleep_for(kCalm);
  }
}

void Agent::keep_device(meta::Cluster& cluster, const meta::Opened& row) {
  auto vsd = cluster.vsd(row.vsd);
  auto device = host::find_device(row.vsd);
  if (!vsd || !*vsd || !device) return;
  const json::object about{{"vsd", row.vsd.value}, {"node", config_.node.value}};
  if (row.state == "closing") {
    // First, so that it is known that all was flushed. It is taken anew where the device is in use.
    if ((*vsd)->lease_node == config_.node && (*vsd)->lease_life == life_) {
      if (auto done = release(row.vsd, (*vsd)->epoch); !done)
        spdlog::info("VSD {}: {}", (*vsd)->name, done.error().text);
      vsd = cluster.vsd(row.vsd);
      if (!vsd || !*vsd) return;
    }
    auto gone = host::remove_device(row.vsd);
    json::object body = about;
    body["op"] = "closed";
    body["error"] = gone ? "" : gone.error().text;
    if (gone && (*vsd)->lease_node == config_.node && (*vsd)->lease_life == life_) {
      json::object drop = about;
      drop["op"] = "lease_drop";
      drop["epoch"] = (*vsd)->epoch;
      drop["clean"] = false;
      const auto paused = mover_.pause(row.vsd);
      if (!propose(std::move(drop))) return;
    }
    if (auto done = propose(std::move(body)); !done)
      spdlog::warn("VSD {}: {}", (*vsd)->name, done.error().text);
    return;
  }
  Result<void> done;
  const auto label = cluster.device_label(**vsd);
  const auto sectors = cluster.device_sectors(**vsd);
  if (!label || !sectors) return;
  if (!*device)
    done = host::create_device(row.vsd, *label, *sectors, static_cast<bool>((*vsd)->view));
  else if ((*device)->sectors < *sectors)
    done = host::resize_device(row.vsd, *sectors);
  const std::string state = done ? "open" : "failed";
  const std::string error = done ? "" : done.error().text;
  // An error of "open" is why it could not be closed; it stays for whoever asked.
  if (row.state == state && (done || row.error == error)) return;
  json::object body = about;
  body["op"] = "opened";
  body["state"] = state;
  body["error"] = error;
  if (auto said = propose(std::move(body)); !said)
    spdlog::warn("VSD {}: {}", (*vsd)->name, said.error().text);
}

}  // namespace scaled
