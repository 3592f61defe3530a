// SPDX-License-Identifier: GPL-2.0
#include <algorithm>

#include "policy/handlers.h"

namespace policy {

namespace {

// So much of a VSD may be under way in place: 8 GiB. What lies there is looked at when its owner
// dies, some leaves in an entry, each with at most 1024 extents.
constexpr uint64_t kMaxIntents = 512;  // SCRIBE_INTENTS_MAX
constexpr uint64_t kRecoverAtOnce = 32;
constexpr uint64_t kWidenAtOnce = 2048;
constexpr uint64_t kFullDivisor = 20;

// Whether there are nodes for so many copies.
Result<void> may_have(Context& c, uint64_t replicas) {
  if (replicas < 2 || replicas > 3) return Error{Code::invalid, "a VSD has 2 or 3 copies"};
  if (replicas == 3 && ask(c, "SELECT count(*) FROM node WHERE state IN ('up', 'down')") < 3)
    return Error{Code::conflict, "three copies need three nodes"};
  return {};
}

// Below a twentieth of free space nobody begins something new: what is there needs the rest, and so
// does healing.
Result<void> has_room(Context& c) {
  const auto disks = candidates(c);
  if (!disks) return disks.error();
  uint64_t free = 0;
  uint64_t total = 0;
  for (const Candidate& disk : *disks) {
    free += disk.free;
    total += disk.total;
  }
  if (free >= total / kFullDivisor) return {};
  return Error{Code::no_space, "the pool is nearly full, " + std::to_string(free) + " of " +
                                   std::to_string(total) +
                                   " MiB are free: add disks or delete virtual disks"};
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

}  // namespace

Result<bool> recover(Context& c, VsdId vsd) {
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

Result<void> may_begin(Context& c, uint64_t replicas) {
  CORE_TRY(may_have(c, replicas));
  return has_room(c);
}

Outcome vsd_create(Context& c, const json::object& args) {
  const uint64_t replicas = number(args, "replicas");
  CORE_TRY(may_begin(c, replicas));
  auto id = c.map.create_vsd(text(args, "name"), number(args, "sectors"),
                             static_cast<uint32_t>(replicas));
  if (!id) return id.error();
  return made(c, *id);
}

Outcome made(Context& c, VsdId vsd) {
  run(c, "INSERT INTO scrub VALUES(?, 0, 0, ?)", s64(vsd.value), c.now);
  return json::object{{"vsd", vsd.value}};
}

// Maps are taken apart together, so deletions end together.
void end_deletions(Context& c) {
  if (ask(c, "SELECT EXISTS(SELECT 1 FROM garbage)") == 0) {
    c.tasks.end_all("vsd delete");
    c.tasks.end_all("snapshot delete");
  }
}

Outcome vsd_delete(Context& c, const json::object& args) {
  const uint64_t vsd = number(args, "vsd");
  const auto row = living_vsd(c, args);
  if (!row) return row.error();
  CORE_TRY(may_delete(c, *row));
  if (ask(c, "SELECT count(*) FROM opened WHERE vsd = ?", s64(vsd)) != 0)
    return Error{Code::conflict, "the VSD is open; close it first"};
  // Its device would have another name after a restart of the node.
  if (ask(c,
          "SELECT count(*) FROM vsd v JOIN snapshot s ON s.id = v.view WHERE s.vsd = ? AND NOT "
          "v.deleted",
          s64(vsd)) != 0)
    return Error{Code::conflict,
                 "a snapshot of the VSD is open; close it first: scalectl snapshot list"};
  // A live node that has no device of it only moves its copies, and looks before each.
  if (row->lease_node && !is_live(c, row->lease_node.value, row->lease_life)) {
    if (!is_fenced(c, row->lease_node.value, row->lease_life))
      return Error{Code::conflict,
                   "node " + std::to_string(row->lease_node.value) + " holds its lease"};
    run(c, "UPDATE vsd SET lease_node = 0, lease_life = 0 WHERE id = ?", s64(vsd));
  }
  const uint64_t task = c.tasks.begin("vsd delete", vsd, row->name, 0);
  CORE_TRY(c.map.delete_vsd({vsd}));
  for (const char* table : {"intent", "damage", "widening", "scheduled", "filling"})
    run(c, (std::string("DELETE FROM ") + table + " WHERE vsd = ?").c_str(), s64(vsd));
  CORE_TRY(c.map.forget_deleted());
  end_deletions(c);
  return json::object{{"task", task}};
}

// What lies there already gets copies, or loses some, one after the other.
Outcome vsd_copies(Context& c, const json::object& args) {
  const auto row = living_vsd(c, args);
  if (!row) return row.error();
  const uint64_t replicas = number(args, "replicas");
  CORE_TRY(may_have(c, replicas));
  if (row->replicas == replicas) return json::object{{"task", 0}};
  const int64_t vsd = s64(row->id.value);
  run(c, "UPDATE vsd SET replicas = ? WHERE id = ?", s64(replicas), vsd);
  run(c, "INSERT INTO widening VALUES(?, 0) ON CONFLICT(vsd) DO UPDATE SET next = 0", vsd);
  return json::object{{"task", c.tasks.begin("vsd set", row->id.value, row->name, 0)}};
}

// All extents are looked at whether they have as many copies as they should.
void recount_copies(Context& c) {
  run(c,
      "INSERT INTO widening SELECT id, 0 FROM vsd WHERE true ON CONFLICT(vsd) DO UPDATE SET "
      "next = 0");
}

// Some extents of the first VSD whose copies changed in number are looked at; those with more or
// fewer than it wants, or with two on one node, are the mover's.
Outcome widen(Context& c, const json::object&) {
  const auto vsds = c.cluster.widening();
  if (!vsds) return vsds.error();
  if (vsds->empty()) return json::object{{"left", false}};
  const int64_t vsd = s64(vsds->front().value);
  const uint64_t from = ask(c, "SELECT next FROM widening WHERE vsd = ?", vsd);
  std::vector<int64_t> found;
  {
    meta::Query rows(c.database,
                     "SELECT id FROM extent WHERE vsd = ? AND id >= ? ORDER BY id LIMIT ?");
    SQLite::bind(*rows, vsd, s64(from), s64(kWidenAtOnce));
    while (rows.executeStep()) found.push_back(rows.getColumn(0).getInt64());
  }
  for (const int64_t extent : found)
    run(c,
        "INSERT OR IGNORE INTO wanting SELECT ?1 FROM vsd v WHERE v.id = ?2 AND (v.replicas <> "
        "(SELECT count(*) FROM copy WHERE extent = ?1) OR v.replicas <> (SELECT count(DISTINCT "
        "d.node) FROM copy c JOIN disk d ON d.id = c.disk WHERE c.extent = ?1))",
        extent, vsd);
  if (found.size() < kWidenAtOnce)
    run(c, "DELETE FROM widening WHERE vsd = ?", vsd);
  else
    run(c, "UPDATE widening SET next = ? WHERE vsd = ?", found.back() + 1, vsd);
  end_widening(c);
  return json::object{{"left", true}};
}

// Tasks of VSDs all of whose extents have as many copies as they should.
void end_widening(Context& c) {
  auto tasks = c.cluster.tasks();
  if (!tasks) return;
  for (const meta::Task& task : *tasks)
    if (task.what == "vsd set" && task.state == "running" &&
        ask(c, "SELECT EXISTS(SELECT 1 FROM widening WHERE vsd = ?)", s64(task.object)) == 0 &&
        ask(c,
            "SELECT EXISTS(SELECT 1 FROM wanting w JOIN extent e ON e.id = w.extent WHERE e.vsd = "
            "?)",
            s64(task.object)) == 0)
      c.tasks.end("vsd set", task.object, 0, "");
}

Outcome vsd_resize(Context& c, const json::object& args) {
  const auto row = living_vsd(c, args);
  if (!row) return row.error();
  if (ask(c, "SELECT count(*) FROM vm_disk WHERE vsd = ? AND slot >= ?", s64(row->id.value),
          s64(meta::kMachineSlots)) != 0)
    return Error{Code::conflict,
                 "VSD " + row->name + " is what a VM's machine keeps, and has the size for that"};
  CORE_TRY(c.map.resize_vsd(row->id, number(args, "sectors")));
  return json::object{};
}

Outcome open(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const auto row = living_vsd(c, args);
  if (!row) return row.error();
  CORE_TRY(is_whole(c, *row));
  return open_device(c, row->id, row->name, node);
}

Outcome open_device(Context& c, VsdId id, const std::string& name, uint64_t node) {
  const uint64_t vsd = id.value;
  if (ask(c, "SELECT count(*) FROM node WHERE id = ?", s64(node)) == 0)
    return no_such("node", node);
  if (run(c,
          "INSERT INTO opened VALUES(?, ?, 'opening', '') ON CONFLICT(vsd, node) DO UPDATE SET "
          "state = 'opening', error = '' WHERE state <> 'open'",
          s64(vsd), s64(node)) == 0)
    return json::object{{"task", 0}};
  c.tasks.end("vsd close", vsd, node, "it was opened again meanwhile");
  return json::object{{"task", c.tasks.begin("vsd open", vsd, name, node)}};
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
  const uint64_t node = number(args, "node");
  const auto row = living_vsd(c, args);
  if (!row) return row.error();
  CORE_TRY(may_close(c, *row, node));
  CORE_TRY(is_whole(c, *row));
  return close_device(c, row->id, row->name, node);
}

Outcome close_device(Context& c, VsdId id, const std::string& name, uint64_t node) {
  const uint64_t vsd = id.value;
  if (run(c, "UPDATE opened SET state = 'closing', error = '' WHERE vsd = ? AND node = ?", s64(vsd),
          s64(node)) != 1)
    return Error{Code::not_found, name + " is not open on node " + std::to_string(node)};
  c.tasks.end("vsd open", vsd, node, "it was closed meanwhile");
  return json::object{{"task", c.tasks.begin("vsd close", vsd, name, node)}};
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
  if (ask(c, "SELECT count(*) FROM filling WHERE vsd = ?", vsd) == 0)
    c.tasks.end("vsd import", number(args, "vsd"), 0, "");
  CORE_TRY(forget_views(c));
  // What is in use is tried again after a while: see media_tidy.
  if (text(args, "error").empty()) keep_media(c);
  return json::object{};
}

Outcome lease_take(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  const auto row = c.cluster.vsd({number(args, "vsd")});
  if (!row) return row.error();
  if (!*row) return no_such("VSD", number(args, "vsd"));
  if (!is_live(c, node, life)) return not_live(node);
  const meta::Vsd& vsd = **row;
  // Copies of what it left are moved as ever.
  if (vsd.deleted && !args.contains("free")) return no_such("VSD", vsd.id.value);
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
  return json::object{{"epoch", *epoch},
                      {"recover", vsd.lease_life != 0 || !undone->empty()},
                      {"copies", vsd.replicas}};
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

}  // namespace policy
