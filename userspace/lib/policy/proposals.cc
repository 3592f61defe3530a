// SPDX-License-Identifier: GPL-2.0
#include "policy/proposals.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/healing.h"
#include "policy/placement.h"
#include "policy/rows.h"
#include "policy/tasks.h"

namespace policy {

namespace json = boost::json;

using core::Code;
using core::DiskId;
using core::Error;
using core::NodeId;
using core::Result;
using core::VsdId;
using Outcome = Result<json::object>;

namespace {

constexpr uint64_t kMaxDisk = 1023;
constexpr uint64_t kMaxNode = 255;
constexpr uint64_t kMaxReserve = 256;
constexpr uint64_t kCollectAtOnce = 4096;
// At most 64 extents in a chunk, each some 200 bytes of patch.
constexpr uint64_t kReapAtOnce = 128;
constexpr uint64_t kMaxSlots = uint64_t{1} << 32;
// Copies that are made anew leave so much of a disk to guests: one in 50 slots.
constexpr uint64_t kHealReserveDivisor = 50;
// So much of a VSD may be under way in place: 8 GiB. What lies there is looked at when its owner
// dies, some leaves in an entry, each with at most 1024 extents.
constexpr uint64_t kMaxIntents = 512;  // SCRIBE_INTENTS_MAX
constexpr uint64_t kRecoverAtOnce = 32;
constexpr int64_t kMaxGraceSeconds = int64_t{7} * 86400;

constexpr std::array<std::pair<Code, const char*>, 8> kCodes = {{{Code::invalid, "invalid"},
                                                                 {Code::not_found, "not_found"},
                                                                 {Code::conflict, "conflict"},
                                                                 {Code::stale, "stale"},
                                                                 {Code::no_space, "no_space"},
                                                                 {Code::corrupt, "corrupt"},
                                                                 {Code::storage, "storage"},
                                                                 {Code::unknown, "unknown"}}};

struct Context {
  meta::Database& database;
  Slots& slots;
  std::vector<std::pair<DiskId, uint32_t>>& freed;
  uint64_t index;
  int64_t now;
  SQLite::Database& sql = database.sql();
  meta::Map map{database};
  meta::Cluster cluster{database};
  Tasks tasks{database, now};

  operator meta::Database&() const { return database; }
};

uint64_t number(const json::object& args, const char* name) {
  return args.at(name).to_number<uint64_t>();
}

std::string text(const json::object& args, const char* name) {
  return json::value_to<std::string>(args.at(name));
}

int64_t s64(uint64_t value) { return static_cast<int64_t>(value); }

Error no_such(const char* what, uint64_t id) {
  return {Code::not_found, std::string("no ") + what + " " + std::to_string(id)};
}

bool is_live(Context& c, uint64_t node, uint64_t life) {
  return ask(c, "SELECT count(*) FROM node WHERE id = ? AND life = ? AND state = 'up'", s64(node),
             s64(life)) == 1;
}

Error not_live(uint64_t node) {
  return {Code::stale, "node " + std::to_string(node) + " is not up in that life"};
}

// Whether every live node said that it ended all I/O of a life.
bool is_fenced(Context& c, uint64_t node, uint64_t life) {
  if (is_live(c, node, life)) return false;
  return ask(c,
             "SELECT count(*) FROM node n WHERE n.state = 'up' AND n.id <> ?1 AND NOT EXISTS "
             "(SELECT 1 FROM fence WHERE node = ?1 AND life = ?2 AND witness = n.id)",
             s64(node), s64(life)) == 0;
}

// What a life that is over had reserved, and not mapped, is free for others after quarantine.
void free_reservations(Context& c, uint64_t node, uint64_t life) {
  run(c,
      "INSERT INTO quarantine SELECT disk, slot, ?3 FROM copy WHERE extent IN "
      "(SELECT extent FROM reservation WHERE node = ?1 AND life = ?2)",
      s64(node), s64(life), s64(c.index));
  run(c,
      "DELETE FROM copy WHERE extent IN "
      "(SELECT extent FROM reservation WHERE node = ?1 AND life = ?2)",
      s64(node), s64(life));
  run(c, "DELETE FROM reservation WHERE node = ?1 AND life = ?2", s64(node), s64(life));
}

Outcome add_node(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  if (name.empty() || name.size() > 63)
    return Error{Code::invalid, "a node's name has 1 to 63 characters"};
  // One that was let in and never came: its join failed on the way.
  if (const uint64_t never = ask(c,
                                 "SELECT id FROM node WHERE name = ? AND state = 'new' AND "
                                 "NOT EXISTS (SELECT 1 FROM disk WHERE node = node.id)",
                                 name)) {
    c.tasks.end("node join", never, never, "the node never came; it joins anew");
    run(c, "DELETE FROM node WHERE id = ?", s64(never));
  }
  if (ask(c, "SELECT count(*) FROM node WHERE name = ?", name) != 0)
    return Error{Code::conflict, "a node named " + name + " is in the cluster already"};
  const uint64_t id = next_id(c, "node");
  if (id > kMaxNode) return Error{Code::no_space, "all node numbers have been used"};
  run(c, "INSERT INTO node VALUES(?, ?, ?, ?, 'new', 0, '', 0, ?)", s64(id), name,
      text(args, "lan"), text(args, "backplane"), c.now);
  const uint64_t task = c.tasks.begin("node join", id, name, id);
  return json::object{{"node", id}, {"task", task}};
}

Outcome cluster_create(Context& c, const json::object& args) {
  if (ask(c, "SELECT count(*) FROM cluster") != 0)
    return Error{Code::conflict, "this node is in a cluster already"};
  run(c, "INSERT INTO cluster VALUES(?, ?)", text(args, "cluster"), text(args, "uuid"));
  return add_node(c, args);
}

Outcome node_add(Context& c, const json::object& args) {
  const std::string token = text(args, "token");
  meta::Query row(c.database, "SELECT expires FROM token WHERE hash = ?");
  row.bind(1, token);
  if (!row.executeStep())
    return Error{Code::invalid,
                 "the token is not known or was used already; make one with: scalectl cluster "
                 "token"};
  if (row.getColumn(0).getInt64() < c.now)
    return Error{Code::invalid, "the token has expired; make one with: scalectl cluster token"};
  row.reset();
  run(c, "DELETE FROM token WHERE hash = ?", token);
  return add_node(c, args);
}

Outcome node_up(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  meta::Query row(c.database, "SELECT state, life FROM node WHERE id = ?");
  row.bind(1, s64(node));
  if (!row.executeStep()) return no_such("node", node);
  if (row.getColumn(0).getString() == "down" &&
      static_cast<uint64_t>(row.getColumn(1).getInt64()) == life)
    return Error{Code::stale, "node " + std::to_string(node) +
                                  " was declared down: it needs a new life (reload the module)"};
  row.reset();
  run(c, "UPDATE node SET state = 'up', life = ?, version = ?, seen = 0, since = ? WHERE id = ?",
      s64(life), text(args, "version"), c.now, s64(node));
  c.tasks.end("node join", node, node, "");
  return json::object{};
}

Outcome node_down(Context& c, const json::object& args) {
  if (run(c, "UPDATE node SET state = 'down', since = ? WHERE id = ? AND life = ? AND state = 'up'",
          c.now, s64(number(args, "node")), s64(number(args, "life"))) != 1)
    return not_live(number(args, "node"));
  return json::object{};
}

Outcome fenced(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (is_live(c, node, life))
    return Error{Code::conflict, "node " + std::to_string(node) + " is up in that life"};
  run(c, "INSERT OR IGNORE INTO fence VALUES(?, ?, ?)", s64(node), s64(life),
      s64(number(args, "witness")));
  if (is_fenced(c, node, life)) free_reservations(c, node, life);
  return json::object{};
}

Outcome seen(Context& c, const json::object& args) {
  run(c, "UPDATE node SET seen = max(seen, ?) WHERE id = ?", s64(number(args, "index")),
      s64(number(args, "node")));
  return json::object{};
}

Outcome disk_add(Context& c, const json::object& args) {
  const std::string tier = text(args, "tier");
  const uint64_t slots = number(args, "slots");
  if (tier != "ssd" && tier != "hdd")
    return Error{Code::invalid, "'" + tier + "' is no tier: ssd or hdd"};
  if (slots == 0 || slots > kMaxSlots)
    return Error{Code::invalid, "the disk has no room for a slot"};
  if (ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(number(args, "node"))) == 0)
    return no_such("node", number(args, "node"));
  const uint64_t id = next_id(c, "disk");
  if (id > kMaxDisk) return Error{Code::no_space, "all disk numbers have been used"};
  run(c, "INSERT INTO disk VALUES(?, ?, ?, ?, ?, ?, 'new', 0, 0, ?)", s64(id),
      s64(number(args, "node")), text(args, "uuid"), text(args, "serial"), tier, s64(slots), c.now);
  const uint64_t task =
      c.tasks.begin("disk add", id, "disk " + std::to_string(id), number(args, "node"));
  return json::object{{"disk", id}, {"task", task}};
}

uint64_t node_of_disk(Context& c, uint64_t disk) {
  return ask(c, "SELECT node FROM disk WHERE id = ?", s64(disk));
}

// The superblock is written: from now on the disk is looked for.
Outcome disk_ready(Context& c, const json::object& args) {
  if (run(c, "UPDATE disk SET state = 'absent', since = ? WHERE id = ? AND state = 'new'", c.now,
          s64(number(args, "disk"))) != 1)
    return no_such("new disk", number(args, "disk"));
  return json::object{};
}

Outcome disk_up(Context& c, const json::object& args) {
  const uint64_t disk = number(args, "disk");
  if (run(c,
          "UPDATE disk SET state = 'ok', life = ?, slots = ?, since = ? WHERE id = ? AND state NOT "
          "IN "
          "('failed', 'removed')",
          s64(number(args, "life")), s64(number(args, "slots")), c.now, s64(disk)) != 1)
    return no_such("disk that may come up,", disk);
  c.tasks.end("disk add", disk, node_of_disk(c, disk), "");
  return json::object{};
}

Outcome disk_failed(Context& c, const json::object& args) {
  run(c,
      "UPDATE disk SET state = 'failed', since = ? WHERE id = ? AND life = ? AND state NOT IN "
      "('failed', 'removed')",
      c.now, s64(number(args, "disk")), s64(number(args, "life")));
  return json::object{};
}

// Its node is up and does not find it.
Outcome disk_absent(Context& c, const json::object& args) {
  run(c, "UPDATE disk SET state = 'absent', since = ? WHERE id = ? AND life = ? AND state = 'ok'",
      c.now, s64(number(args, "disk")), s64(number(args, "life")));
  return json::object{};
}

// It was away for longer than the grace time: from now on its copies are made anew elsewhere. It
// may still come back, with those that are left then.
Outcome disk_lost(Context& c, const json::object& args) {
  const uint64_t disk = number(args, "disk");
  const auto grace = c.cluster.setting("grace_seconds", meta::kDefaultGraceSeconds);
  const auto maintenance = c.cluster.setting("maintenance", 0);
  if (!grace || !maintenance) return Error{Code::storage, "the settings are unreadable"};
  if (*maintenance != 0)
    return Error{Code::conflict, "the cluster is under maintenance: nothing is given up"};
  if (run(c,
          "UPDATE disk SET state = 'lost', since = ?1 WHERE id = ?2 AND "
          "((state = 'absent' AND since <= ?3) OR (state IN ('ok', 'absent') AND EXISTS "
          "(SELECT 1 FROM node n WHERE n.id = disk.node AND n.state = 'down' AND n.since <= ?3)))",
          c.now, s64(disk), c.now - *grace) != 1)
    return Error{Code::conflict, "disk " + std::to_string(disk) + " is not away for so long"};
  return json::object{};
}

uint64_t mapped_copies(Context& c, uint64_t disk) {
  return ask(c, "SELECT count(*) FROM copy c JOIN extent e ON e.id = c.extent WHERE c.disk = ?",
             s64(disk));
}

// Tasks of disks that have become empty.
void end_evacuations(Context& c) {
  auto disks = c.cluster.disks();
  if (!disks) return;
  for (const meta::Disk& disk : *disks) {
    if (!disk.leaving ||
        ask(c,
            "SELECT EXISTS(SELECT 1 FROM copy c JOIN extent e ON e.id = c.extent WHERE c.disk = ?)",
            s64(disk.id.value)) != 0)
      continue;
    c.tasks.end("disk evacuate", disk.id.value, disk.node.value, "");
  }
}

// Until its node has let go of it, and what nodes had reserved on it is given up, its row stays.
void forget_removed(Context& c) {
  constexpr const char* kOver =
      "state = 'removed' AND life = 0 AND NOT EXISTS (SELECT 1 FROM copy WHERE disk = disk.id)";
  run(c, (std::string("DELETE FROM quarantine WHERE disk IN (SELECT id FROM disk WHERE ") + kOver +
          ")")
             .c_str());
  run(c, (std::string("DELETE FROM disk WHERE ") + kOver).c_str());
}

// Its node does not have it open any more.
Outcome disk_closed(Context& c, const json::object& args) {
  run(c, "UPDATE disk SET life = 0 WHERE id = ? AND state = 'removed'", s64(number(args, "disk")));
  forget_removed(c);
  return json::object{};
}

Outcome disk_remove(Context& c, const json::object& args) {
  const uint64_t disk = number(args, "disk");
  auto disks = c.cluster.disks();
  if (!disks) return disks.error();
  const auto at = std::find_if(disks->begin(), disks->end(),
                               [&](const meta::Disk& one) { return one.id.value == disk; });
  if (at == disks->end() || at->state == "removed") return no_such("disk", disk);
  if (const uint64_t copies = mapped_copies(c, disk); copies != 0) {
    const std::string what =
        "disk " + std::to_string(disk) + " holds " + std::to_string(copies) + " copies; ";
    if (at->state == "failed" || at->state == "lost")
      return Error{Code::conflict, what +
                                       "they are being made anew on other disks, try again when "
                                       "that is done (scalectl cluster status)"};
    return Error{Code::conflict,
                 what + "move them off first: scalectl disk evacuate " + std::to_string(disk)};
  }
  const uint64_t node = at->node.value;
  c.tasks.end("disk add", disk, node, "it was taken out before it was in use");
  c.tasks.end("disk evacuate", disk, node, "");
  run(c, "UPDATE disk SET state = 'removed', leaving = 0, since = ? WHERE id = ?", c.now,
      s64(disk));
  forget_removed(c);
  return json::object{};
}

Outcome set(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  const int64_t value = args.at("value").to_number<int64_t>();
  const int64_t most = name == "grace_seconds" ? kMaxGraceSeconds : name == "maintenance" ? 1 : -1;
  if (most < 0) return Error{Code::invalid, "there is no setting '" + name + "'"};
  if (value < 0 || value > most)
    return Error{Code::invalid,
                 name + " is 0 to " + std::to_string(most) + ", not " + std::to_string(value)};
  run(c, "INSERT INTO setting VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
      name, value);
  return json::object{};
}

Outcome token_add(Context& c, const json::object& args) {
  run(c, "DELETE FROM token WHERE expires < ?", c.now);
  run(c, "INSERT INTO token VALUES(?, ?)", text(args, "hash"), args.at("expires").as_int64());
  return json::object{};
}

Outcome vsd_create(Context& c, const json::object& args) {
  if (number(args, "replicas") != 2)
    return Error{Code::invalid, "this version makes VSDs with 2 copies only"};
  auto id = c.map.create_vsd(text(args, "name"), number(args, "sectors"), 2);
  if (!id) return id.error();
  return json::object{{"vsd", id->value}};
}

// Maps are taken apart together, so deletions end together.
void end_deletions(Context& c) {
  if (ask(c, "SELECT EXISTS(SELECT 1 FROM garbage)") == 0) c.tasks.end_all("vsd delete");
}

Outcome vsd_delete(Context& c, const json::object& args) {
  const uint64_t vsd = number(args, "vsd");
  if (ask(c, "SELECT count(*) FROM opened WHERE vsd = ?", s64(vsd)) != 0)
    return Error{Code::conflict, "the VSD is open; close it first"};
  const auto row = c.cluster.vsd({vsd});
  if (!row) return row.error();
  if (!*row) return no_such("VSD", vsd);
  // A live node that has no device of it only moves its copies, and looks before each.
  if ((*row)->lease_node && !is_live(c, (*row)->lease_node.value, (*row)->lease_life) &&
      !is_fenced(c, (*row)->lease_node.value, (*row)->lease_life))
    return Error{Code::conflict,
                 "node " + std::to_string((*row)->lease_node.value) + " holds its lease"};
  const uint64_t task = c.tasks.begin("vsd delete", vsd, (*row)->name, 0);
  CORE_TRY(c.map.delete_vsd({vsd}));
  run(c, "DELETE FROM intent WHERE vsd = ?", s64(vsd));
  end_deletions(c);
  return json::object{{"task", task}};
}

Outcome vsd_resize(Context& c, const json::object& args) {
  CORE_TRY(c.map.resize_vsd({number(args, "vsd")}, number(args, "sectors")));
  return json::object{};
}

Outcome open(Context& c, const json::object& args) {
  const uint64_t vsd = number(args, "vsd");
  const uint64_t node = number(args, "node");
  const auto row = c.cluster.vsd({vsd});
  if (!row) return row.error();
  if (!*row) return no_such("VSD", vsd);
  if (ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(node)) == 0)
    return no_such("node", node);
  if (run(c,
          "INSERT INTO opened VALUES(?, ?, 'opening', '') ON CONFLICT(vsd, node) DO UPDATE SET "
          "state = 'opening', error = '' WHERE state <> 'open'",
          s64(vsd), s64(node)) == 0)
    return json::object{{"task", 0}};
  c.tasks.end("vsd close", vsd, node, "it was opened again meanwhile");
  return json::object{{"task", c.tasks.begin("vsd open", vsd, (*row)->name, node)}};
}

// Only where the wish has not changed meanwhile: a device that came up after "close" was said
// stays "closing".
Outcome opened(Context& c, const json::object& args) {
  const uint64_t vsd = number(args, "vsd");
  const uint64_t node = number(args, "node");
  const std::string error = text(args, "error");
  if (run(c,
          "UPDATE opened SET state = ?, error = ? WHERE vsd = ? AND node = ? AND state <> "
          "'closing'",
          text(args, "state"), error, s64(vsd), s64(node)) != 0)
    c.tasks.end("vsd open", vsd, node, error);
  return json::object{};
}

Outcome close(Context& c, const json::object& args) {
  const uint64_t vsd = number(args, "vsd");
  const uint64_t node = number(args, "node");
  if (run(c, "UPDATE opened SET state = 'closing', error = '' WHERE vsd = ? AND node = ?", s64(vsd),
          s64(node)) != 1)
    return Error{Code::not_found, "the VSD is not open on node " + std::to_string(node)};
  const auto row = c.cluster.vsd({vsd});
  if (!row) return row.error();
  c.tasks.end("vsd open", vsd, node, "it was closed meanwhile");
  return json::object{{"task", c.tasks.begin("vsd close", vsd, (*row)->name, node)}};
}

// With an error the device is still there, and so the VSD is open again.
Outcome closed(Context& c, const json::object& args) {
  const auto vsd = s64(number(args, "vsd"));
  const auto node = s64(number(args, "node"));
  if (const std::string error = text(args, "error"); !error.empty())
    run(c, "UPDATE opened SET state = 'open', error = ? WHERE vsd = ? AND node = ?", error, vsd,
        node);
  else
    run(c, "DELETE FROM opened WHERE vsd = ? AND node = ? AND state = 'closing'", vsd, node);
  c.tasks.end("vsd close", number(args, "vsd"), number(args, "node"), text(args, "error"));
  return json::object{};
}

Result<Places> places(Context& c) {
  auto disks = c.cluster.disks();
  if (!disks) return disks.error();
  auto nodes = c.cluster.nodes();
  if (!nodes) return nodes.error();
  return places_of(*disks, *nodes);
}

// The copies of what lies in a leaf may differ: one of each stays current, so that all who read see
// the same, and the mover makes the others equal to it.
Result<void> choose_copies(Context& c, core::VsdId vsd, uint64_t leaf, const Places& homes) {
  auto found = c.map.leaf(vsd, leaf);
  if (!found) return found.error();
  for (const meta::MappedExtent& extent : found->extents) {
    if (!extent.exclusive) continue;  // what is shared was not written since
    const auto copies = c.cluster.copies(extent.id);
    if (!copies) return copies.error();
    const DiskId chosen = chosen_copy(*copies, homes);
    run(c, "UPDATE copy SET stale = ? WHERE extent = ? AND disk <> ? AND stale = 0", -s64(c.index),
        s64(extent.id.value), s64(chosen.value));
  }
  return {};
}

// What the last holder of a lease left undone; false where there is more than fits into an entry.
Result<bool> recover(Context& c, core::VsdId vsd) {
  const auto leaves = c.cluster.intents(vsd, kRecoverAtOnce);
  if (!leaves) return leaves.error();
  const auto homes = places(c);
  if (!homes) return homes.error();
  for (const uint64_t leaf : *leaves) {
    CORE_TRY(choose_copies(c, vsd, leaf, *homes));
    run(c, "DELETE FROM intent WHERE vsd = ? AND leaf = ?", s64(vsd.value), s64(leaf));
  }
  return leaves->size() < kRecoverAtOnce;
}

Outcome lease_take(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  const auto row = c.cluster.vsd({number(args, "vsd")});
  if (!row) return row.error();
  if (!*row) return no_such("VSD", number(args, "vsd"));
  if (!is_live(c, node, life)) return not_live(node);
  const meta::Vsd& vsd = **row;
  const bool mine = vsd.lease_node.value == node && vsd.lease_life == life;
  if (args.contains("free") && mine)
    return Error{Code::conflict, "node " + std::to_string(node) + " holds the lease already"};
  if (vsd.lease_node && !mine) {
    const std::string holder = "node " + std::to_string(vsd.lease_node.value);
    if (is_live(c, vsd.lease_node.value, vsd.lease_life))
      return Error{Code::conflict, holder + " holds the lease of VSD " + vsd.name};
    if (!is_fenced(c, vsd.lease_node.value, vsd.lease_life))
      return Error{Code::conflict, holder + " is being fenced; VSD " + vsd.name + " waits for it"};
  }
  const auto undone = c.cluster.intents(vsd.id, 1);
  if (!undone) return undone.error();
  const auto recovered = recover(c, vsd.id);
  if (!recovered) return recovered.error();
  // Asked again, it goes on.
  if (!*recovered) return json::object{{"epoch", 0}, {"recover", true}};
  auto epoch = c.map.grant_lease(vsd.id, {node}, life);
  if (!epoch) return epoch.error();
  // Data of a holder that did not flush may be in caches alone, also where it was not in place.
  return json::object{{"epoch", *epoch}, {"recover", vsd.lease_life != 0 || !undone->empty()}};
}

// Clean: everything was flushed. Else the life stays in the row, for whoever takes the lease next
// to know that it was not.
Outcome lease_drop(Context& c, const json::object& args) {
  const bool clean = args.at("clean").as_bool();
  const int dropped = run(c,
                          "UPDATE vsd SET lease_node = 0, lease_life = CASE WHEN ? THEN 0 ELSE "
                          "lease_life END WHERE id = ? AND lease_node = ? AND epoch = ?",
                          clean ? 1 : 0, s64(number(args, "vsd")), s64(number(args, "node")),
                          s64(number(args, "epoch")));
  if (dropped != 0 && clean) run(c, "DELETE FROM intent WHERE vsd = ?", s64(number(args, "vsd")));
  return json::object{};
}

Result<std::vector<Candidate>> candidates(Context& c) {
  auto disks = c.cluster.disks();
  if (!disks) return disks.error();
  std::vector<Candidate> out;
  for (const meta::Disk& disk : *disks) {
    if (disk.state != "ok" || disk.leaving ||
        ask(c, "SELECT count(*) FROM node WHERE id = ? AND state = 'up'", s64(disk.node.value)) ==
            0)
      continue;
    CORE_TRY(c.slots.load(c.database, disk.id, disk.slots));
    out.push_back({disk.id, disk.node, disk.tier == "ssd", c.slots.free(disk.id), disk.slots});
  }
  return out;
}

Outcome reserve(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (!is_live(c, node, life)) return not_live(node);
  auto disks = candidates(c);
  if (!disks) return disks.error();
  const bool one_node = ask(c, "SELECT count(*) FROM node") == 1;
  const uint64_t count = std::min(number(args, "count"), kMaxReserve);
  json::array extents;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t seed = c.index * kMaxReserve + i;
    const std::vector<DiskId> chosen = place(*disks, 2, one_node, seed);
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
  const auto row = c.cluster.vsd(batch.vsd);
  if (!row) return row.error();
  if (!*row) return no_such("VSD", batch.vsd.value);
  const uint64_t node = number(args, "node");
  if ((*row)->lease_node.value != node || (*row)->lease_life != number(args, "life"))
    return Error{Code::stale, "node " + std::to_string(node) + " does not hold the lease of VSD " +
                                  (*row)->name};
  auto u16 = [](const json::value& v) { return v.to_number<uint16_t>(); };
  for (const json::value& value : args.at("ops").as_array()) {
    const json::array& op = value.as_array();
    batch.ops.push_back(
        {op.at(0).to_number<uint64_t>(),
         {u16(op.at(1)), u16(op.at(2)), u16(op.at(3)), {op.at(4).to_number<uint64_t>()}}});
  }
  for (const json::value& value : args.at("stales").as_array())
    batch.stales.push_back({{value.as_array().at(0).to_number<uint64_t>()},
                            {value.as_array().at(1).to_number<uint64_t>()}});
  CORE_TRY(c.map.commit(batch, c.index));
  return json::object{};
}

// The VSD of a call that only the holder of its lease may make.
Result<meta::Vsd> leased_vsd(Context& c, const json::object& args) {
  const core::VsdId id{number(args, "vsd")};
  const uint64_t node = number(args, "node");
  auto row = c.cluster.vsd(id);
  if (!row) return row.error();
  if (!*row) return no_such("VSD", id.value);
  if ((*row)->lease_node.value != node || (*row)->lease_life != number(args, "life") ||
      (*row)->epoch != number(args, "epoch"))
    return Error{Code::stale, "node " + std::to_string(node) + " does not hold the lease of VSD " +
                                  (*row)->name + " in that epoch"};
  return **row;
}

bool is_filled_by(Context& c, uint64_t extent, core::VsdId vsd) {
  return ask(c, "SELECT count(*) FROM extent WHERE id = ? AND vsd = ?", s64(extent),
             s64(vsd.value)) == 1;
}

// Where another copy of an extent can lie: apart from those that stay.
std::vector<Candidate> apart_from(const std::vector<meta::CopyRow>& copies, const Places& homes,
                                  const std::vector<Candidate>& disks, bool one_node) {
  std::vector<Candidate> out;
  for (const Candidate& candidate : disks) {
    const bool near = std::any_of(copies.begin(), copies.end(), [&](const meta::CopyRow& copy) {
      if (copy.disk == candidate.disk) return true;
      const auto home = homes.find(copy.disk);
      return !one_node && home != homes.end() && copy.stale == 0 &&
             home->second.node == candidate.node &&
             (home->second.home == Home::good || home->second.home == Home::away);
    });
    if (!near && candidate.free > candidate.total / kHealReserveDivisor) out.push_back(candidate);
  }
  return out;
}

// Leaves that are to be written in place, and leaves that are not any more. Those that the VSD may
// have; the others wait until some are given up.
Outcome intent(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  for (const json::value& leaf : args.at("drop").as_array())
    run(c, "DELETE FROM intent WHERE vsd = ? AND leaf = ?", s64(vsd->id.value),
        s64(leaf.to_number<uint64_t>()));
  uint64_t count = ask(c, "SELECT count(*) FROM intent WHERE vsd = ?", s64(vsd->id.value));
  const uint64_t leaves =
      (vsd->sectors / core::kChunkSectors + core::kLeafChunks - 1) / core::kLeafChunks;
  json::array added;
  for (const json::value& value : args.at("add").as_array()) {
    const auto leaf = value.to_number<uint64_t>();
    if (leaf >= leaves)
      return Error{Code::invalid,
                   "leaf " + std::to_string(leaf) + " lies behind the end of VSD " + vsd->name};
    const bool known = ask(c, "SELECT count(*) FROM intent WHERE vsd = ? AND leaf = ?",
                           s64(vsd->id.value), s64(leaf)) != 0;
    if (!known && count >= kMaxIntents) continue;
    if (!known) {
      run(c, "INSERT INTO intent VALUES(?, ?)", s64(vsd->id.value), s64(leaf));
      count++;
    }
    added.push_back(leaf);
  }
  return json::object{{"added", std::move(added)}};
}

// Copies in the making for extents that need one; how many there was room for.
Outcome place(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  const auto homes = places(c);
  if (!homes) return homes.error();
  auto disks = candidates(c);
  if (!disks) return disks.error();
  const bool one_node = ask(c, "SELECT count(*) FROM node") == 1;
  uint64_t placed = 0;
  uint64_t seed = c.index * kMaxReserve;
  for (const json::value& value : args.at("extents").as_array()) {
    const auto extent = value.to_number<uint64_t>();
    const auto copies = c.cluster.copies({extent});
    if (!copies) return copies.error();
    if (!is_filled_by(c, extent, vsd->id) ||
        next_step(*copies, *homes, vsd->replicas).kind != Step::Kind::place)
      continue;
    const auto chosen =
        policy::place(apart_from(*copies, *homes, *disks, one_node), 1, true, seed++);
    if (chosen.empty()) continue;
    run(c, "INSERT INTO copy VALUES(?, ?, ?, ?)", s64(chosen.front().value),
        static_cast<int64_t>(c.slots.take(chosen.front())), s64(extent), s64(c.index));
    std::find_if(disks->begin(), disks->end(), [&](const Candidate& x) {
      return x.disk == chosen.front();
    })->free--;
    placed++;
  }
  return json::object{{"placed", placed}};
}

void drop_copy(Context& c, uint64_t extent, DiskId disk) {
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
  return true;
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
  }
  end_evacuations(c);
  return json::object{{"done", std::move(done)}};
}

// Takes nothing new from now on, and its copies move to other disks; or that is taken back.
Outcome disk_leave(Context& c, const json::object& args) {
  const DiskId id{number(args, "disk")};
  const bool leaving = args.at("leaving").as_bool();
  auto disks = c.cluster.disks();
  if (!disks) return disks.error();
  const auto at = std::find_if(disks->begin(), disks->end(),
                               [&](const meta::Disk& disk) { return disk.id == id; });
  const std::string name = "disk " + std::to_string(id.value);
  if (at == disks->end() || at->state == "removed") return no_such("disk", id.value);
  if (at->leaving == leaving) return json::object{{"task", 0}};
  if (!leaving) {
    run(c, "UPDATE disk SET leaving = 0 WHERE id = ?", s64(id.value));
    c.tasks.end("disk evacuate", id.value, at->node.value, "it was taken back");
    return json::object{{"task", 0}};
  }
  if (at->state != "ok")
    return Error{Code::conflict, name + " is " + at->state +
                                     ": what it holds is made anew on other disks by itself, or "
                                     "when it is given up"};
  const uint64_t copies = mapped_copies(c, id.value);
  auto others = candidates(c);
  if (!others) return others.error();
  uint64_t room = 0;
  for (const Candidate& other : *others)
    if (other.disk != id)
      room += other.free - std::min(other.free, other.total / kHealReserveDivisor);
  if (room < copies)
    return Error{Code::no_space, name + " holds " + std::to_string(copies) +
                                     " MiB, and the other disks have room for " +
                                     std::to_string(room) + " MiB: add disks first"};
  run(c, "UPDATE disk SET leaving = 1 WHERE id = ?", s64(id.value));
  const uint64_t task = c.tasks.begin("disk evacuate", id.value, name, at->node.value);
  end_evacuations(c);
  return json::object{{"task", task}};
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
  run(c,
      "DELETE FROM fence WHERE NOT EXISTS (SELECT 1 FROM vsd WHERE lease_node = fence.node AND "
      "lease_life = fence.life) AND NOT EXISTS (SELECT 1 FROM node WHERE id = fence.node AND "
      "life = fence.life)");
  c.freed.insert(c.freed.end(), found.begin(), found.end());
  forget_removed(c);
  return json::object{{"freed", found.size()}};
}

Outcome reap(Context& c, const json::object&) {
  auto done = c.map.reap(kReapAtOnce, c.index);
  if (!done) return done.error();
  end_deletions(c);
  end_evacuations(c);
  return json::object{{"rows", *done}};
}

// An entry at which every node compares its database with the others'.
Outcome audit(Context& c, const json::object&) {
  run(c,
      "INSERT INTO counter VALUES('audit', ?) ON CONFLICT(name) DO UPDATE SET value = "
      "excluded.value",
      s64(c.index));
  return json::object{{"index", c.index}};
}

using Handler = Outcome (*)(Context&, const json::object&);

const std::unordered_map<std::string_view, Handler>& handlers() {
  static const std::unordered_map<std::string_view, Handler> table = {
      {"cluster_create", cluster_create},
      {"node_add", node_add},
      {"node_up", node_up},
      {"node_down", node_down},
      {"fenced", fenced},
      {"seen", seen},
      {"disk_add", disk_add},
      {"disk_ready", disk_ready},
      {"disk_up", disk_up},
      {"disk_failed", disk_failed},
      {"disk_absent", disk_absent},
      {"disk_lost", disk_lost},
      {"disk_leave", disk_leave},
      {"disk_remove", disk_remove},
      {"disk_closed", disk_closed},
      {"set", set},
      {"token_add", token_add},
      {"vsd_create", vsd_create},
      {"vsd_delete", vsd_delete},
      {"vsd_resize", vsd_resize},
      {"open", open},
      {"opened", opened},
      {"close", close},
      {"closed", closed},
      {"lease_take", lease_take},
      {"lease_drop", lease_drop},
      {"reserve", reserve},
      {"unreserve", unreserve},
      {"intent", intent},
      {"place", place},
      {"moved", moved},
      {"commit", commit},
      {"collect", collect},
      {"reap", reap},
      {"audit", audit},
  };
  return table;
}

Outcome execute(Context& c, const json::object& body) {
  const json::value* op = body.if_contains("op");
  if (op == nullptr || !op->is_string()) return Error{Code::invalid, "a proposal without an op"};
  const auto at = handlers().find(std::string_view(op->as_string()));
  if (at == handlers().end())
    return Error{Code::invalid,
                 "no proposal " + json::serialize(*op) + "; is another node of a newer version?"};
  try {
    return at->second(c, body);
  } catch (const SQLite::Exception&) {
    throw;
  } catch (const std::exception& err) {
    return Error{Code::invalid, std::string(at->first) + ": " + err.what()};
  }
}

constexpr uint64_t kSessionOver = INT64_MAX;

// Notes that answers up to `done` arrived; gives how far that is, kSessionOver where a later run of
// the proposer's daemon has spoken. Row 0 of a session holds it, and stays when the session is
// over: a request that was lost on its way for long must not be executed then.
uint64_t note_done(Context& c, const Proposal& p) {
  meta::Query row(c.database, "SELECT answer FROM answer WHERE session = ? AND sequence = 0");
  row.bind(1, s64(p.session));
  if (!row.executeStep()) {
    run(c, "DELETE FROM answer WHERE node = ? AND sequence > 0", s64(p.node.value));
    run(c, "UPDATE answer SET answer = ? WHERE node = ?", std::to_string(kSessionOver),
        s64(p.node.value));
    run(c, "INSERT INTO answer VALUES(?, 0, ?, ?)", s64(p.session), s64(p.node.value),
        std::to_string(p.done));
    return p.done;
  }
  const uint64_t known = std::stoull(row.getColumn(0).getString());
  row.reset();
  if (p.done <= known) return known;
  run(c, "UPDATE answer SET answer = ? WHERE session = ? AND sequence = 0", std::to_string(p.done),
      s64(p.session));
  run(c, "DELETE FROM answer WHERE session = ? AND sequence BETWEEN 1 AND ?", s64(p.session),
      s64(p.done));
  return p.done;
}

// One proposal in a savepoint. A database error rolls back to it as well, so that one request that
// no constraint lets in does not hold up the others.
Answer answer_one(Context& c, const Proposal& proposal) {
  if (const uint64_t done = note_done(c, proposal); proposal.sequence <= done)
    return to_answer({Code::unknown, done == kSessionOver
                                         ? "a later run of this node's daemon has spoken"
                                         : "the proposal was given up before it arrived"});
  meta::Query known(c.database, "SELECT answer FROM answer WHERE session = ? AND sequence = ?");
  SQLite::bind(*known, s64(proposal.session), s64(proposal.sequence));
  if (known.executeStep()) return json::parse(known.getColumn(0).getString()).as_object();
  known.reset();
  c.sql.exec("SAVEPOINT proposal");
  const size_t freed = c.freed.size();
  Answer answer;
  try {
    Outcome done = execute(c, proposal.body);
    answer = done ? Answer{{"ok", std::move(*done)}} : to_answer(done.error());
  } catch (const SQLite::Exception& err) {
    if (meta::damaged(err)) throw;  // nothing that this node decides is worth anything
    answer = to_answer({Code::storage, std::string("metadata database: ") + err.what()});
  }
  if (!answer.contains("ok")) {
    c.sql.exec("ROLLBACK TO proposal");
    c.freed.resize(freed);
    c.slots.forget();
  }
  c.sql.exec("RELEASE proposal");
  run(c, "INSERT INTO answer VALUES(?, ?, ?, ?)", s64(proposal.session), s64(proposal.sequence),
      s64(proposal.node.value), json::serialize(answer));
  return answer;
}

}  // namespace

const char* code_name(Code code) {
  for (const auto& [value, name] : kCodes)
    if (value == code) return name;
  return "unknown";
}

Code code_from_name(std::string_view name) {
  for (const auto& [value, known] : kCodes)
    if (name == known) return value;
  return Code::unknown;
}

json::object to_json(const Proposal& p) {
  return {{"node", p.node.value},
          {"session", p.session},
          {"sequence", p.sequence},
          {"done", p.done},
          {"body", p.body}};
}

Result<Proposal> proposal_from_json(const json::value& value) {
  try {
    const json::object& o = value.as_object();
    return Proposal{{number(o, "node")},
                    number(o, "session"),
                    number(o, "sequence"),
                    number(o, "done"),
                    o.at("body").as_object()};
  } catch (const std::exception& err) {
    return Error{Code::invalid, std::string("no proposal: ") + err.what()};
  }
}

Answer to_answer(const Error& error) {
  return {{"error", {{"code", code_name(error.code)}, {"text", error.text}}}};
}

Outcome from_answer(const Answer& answer) {
  try {
    if (const json::value* ok = answer.if_contains("ok")) return ok->as_object();
    const json::object& error = answer.at("error").as_object();
    return Error{code_from_name(std::string_view(error.at("code").as_string())),
                 text(error, "text")};
  } catch (const std::exception& err) {
    return Error{Code::unknown, std::string("an answer that makes no sense: ") + err.what()};
  }
}

Result<meta::Patch> Proposals::prepare(std::span<const Proposal> proposals, uint64_t index,
                                       int64_t now, std::vector<Answer>& answers) {
  answers.clear();
  freed_.clear();
  auto patch = database_.prepare([&]() -> Result<void> {
    Context context{database_, slots_, freed_, index, now};
    for (const Proposal& proposal : proposals) answers.push_back(answer_one(context, proposal));
    return {};
  });
  if (!patch) forget();
  return patch;
}

void Proposals::committed() {
  for (const auto& [disk, slot] : freed_) slots_.give_back(disk, slot);
  freed_.clear();
}

void Proposals::forget() {
  slots_.forget();
  freed_.clear();
}

}  // namespace policy
