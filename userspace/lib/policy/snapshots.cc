// SPDX-License-Identifier: GPL-2.0
#include <map>

#include "policy/handlers.h"

namespace policy {

namespace {

Error no_snapshot(uint64_t id) {
  return {Code::not_found, "no snapshot with id " + std::to_string(id)};
}

// What is written to it is in the metadata, and the same in each copy: nobody has the lease, or its
// holder says that its kernel has flushed, and lets nobody write. False where more was left undone
// than fits into one entry.
Result<bool> come_to_rest(Context& c, const meta::Vsd& vsd, const json::object& item) {
  if (item.contains("epoch")) {
    if (const auto held = leased_vsd(c, item); !held) return held.error();
    run(c, "DELETE FROM intent WHERE vsd = ?", s64(vsd.id.value));
    return true;
  }
  if (vsd.lease_node) {
    const std::string holder = "node " + std::to_string(vsd.lease_node.value);
    if (is_live(c, vsd.lease_node.value, vsd.lease_life))
      return Error{Code::conflict, holder + " holds the lease of VSD " + vsd.name};
    if (!is_fenced(c, vsd.lease_node.value, vsd.lease_life))
      return Error{Code::conflict,
                   holder + " is being fenced; VSD " + vsd.name + " waits for that"};
  }
  return recover(c, vsd.id);
}

// What is taken of a VSD that is at rest: a snapshot, or a VSD that begins as this one is.
Result<json::object> take(Context& c, const meta::Vsd& vsd, const json::object& args) {
  if (!args.contains("clone")) {
    auto id = c.map.snapshot(vsd.id, text(args, "name"), c.index, c.now);
    if (!id) return id.error();
    return json::object{{"vsd", vsd.id.value}, {"snapshot", id->value}};
  }
  CORE_TRY(may_begin(c, vsd.replicas));
  auto id = c.map.clone(vsd.id, text(args, "clone"), vsd.replicas, c.index);
  if (!id) return id.error();
  CORE_TRY(made(c, *id));
  return json::object{{"vsd", vsd.id.value}, {"clone", id->value}};
}

}  // namespace

// All at one instant, or none. Who holds a lease has it in a new epoch from then on, in which what
// was written before is shared.
Outcome snapshot(Context& c, const json::object& args) {
  const json::array& items = args.at("vsds").as_array();
  if (items.empty() || items.size() > kVsdsAtOnce)
    return Error{Code::invalid,
                 "1 to " + std::to_string(kVsdsAtOnce) + " VSDs can be taken at one instant"};
  if (items.size() > 1 && args.contains("clone"))
    return Error{Code::invalid, "one VSD can be cloned at a time"};
  CORE_TRY(may_take(c, args));
  CORE_TRY(are_all_disks(c, args));
  std::map<core::VsdId, std::pair<meta::Vsd, const json::object*>> vsds;
  for (const json::value& item : items) {
    const auto vsd = living_vsd(c, item.as_object());
    if (!vsd) return vsd.error();
    CORE_TRY(is_whole(c, *vsd));
    if (!vsds.try_emplace(vsd->id, *vsd, &item.as_object()).second)
      return Error{Code::invalid, "VSD " + vsd->name + " is named twice"};
    const auto rests = come_to_rest(c, *vsd, item.as_object());
    if (!rests) return rests.error();
    // Asked again, it goes on.
    if (!*rests) return json::object{{"again", true}};
  }
  json::array taken;
  for (const auto& [id, of] : vsds) {
    const auto& [vsd, item] = of;
    auto one = take(c, vsd, args);
    if (!one) return one.error();
    (*one)["epoch"] = 0;
    if (item->contains("epoch")) {
      auto epoch = c.map.grant_lease(id, {number(*item, "node")}, number(*item, "life"));
      if (!epoch) return epoch.error();
      (*one)["epoch"] = *epoch;
    }
    taken.push_back(std::move(*one));
  }
  note_taken(c, args, taken);
  CORE_TRY(note_vm_snapshot(c, args, taken));
  return json::object{{"taken", std::move(taken)}};
}

Result<bool> rests(Context& c, const meta::Vsd& vsd) { return come_to_rest(c, vsd, {}); }

Outcome snapshot_delete(Context& c, const json::object& args) {
  const uint64_t id = number(args, "snapshot");
  const auto row = c.cluster.snapshot({id});
  if (!row) return row.error();
  if (!*row) return no_snapshot(id);
  const uint64_t nodes = ask(c, "SELECT count(*) FROM vsd WHERE view = ? AND NOT deleted", s64(id));
  if (nodes != 0)
    return Error{Code::conflict, "the snapshot is open on " + std::to_string(nodes) +
                                     " nodes; close it first: scalectl snapshot list"};
  if (ask(c, "SELECT count(*) FROM vm_snapshot_disk WHERE snapshot = ?", s64(id)) != 0)
    return Error{Code::conflict, "the snapshot is part of one of a VM; see: scalectl vm snapshots"};
  const uint64_t task = c.tasks.begin("snapshot delete", id, (*row)->name, 0);
  CORE_TRY(c.map.delete_snapshot({id}));
  CORE_TRY(c.map.forget_deleted());
  end_deletions(c);
  return json::object{{"task", task}};
}

// Of a snapshot, whose VSD may be deleted.
Outcome vsd_clone(Context& c, const json::object& args) {
  const uint64_t id = number(args, "snapshot");
  const auto row = c.cluster.snapshot({id});
  if (!row) return row.error();
  if (!*row) return no_snapshot(id);
  const auto origin = c.cluster.vsd((*row)->vsd);
  if (!origin) return origin.error();
  if (!*origin) return no_such("VSD", (*row)->vsd.value);
  CORE_TRY(may_begin(c, (*origin)->replicas));
  auto clone = c.map.clone(core::SnapshotId{id}, text(args, "name"), (*origin)->replicas);
  if (!clone) return clone.error();
  return made(c, *clone);
}

namespace {

// The one by which a node reads a snapshot; 0: it does not.
uint64_t view_of(Context& c, uint64_t snapshot, uint64_t node) {
  return ask(c, "SELECT max(id) FROM vsd WHERE view = ? AND name = ?", s64(snapshot),
             "view:" + std::to_string(snapshot) + ":" + std::to_string(node));
}

}  // namespace

Result<VsdId> view_on(Context& c, core::SnapshotId snapshot, uint64_t node) {
  const VsdId view{view_of(c, snapshot.value, node)};
  if (view) return view;
  return c.map.view(snapshot, {node});
}

// A node reads by a clone of its own, under a lease of its own.
Outcome snapshot_open(Context& c, const json::object& args) {
  const uint64_t id = number(args, "snapshot");
  const uint64_t node = number(args, "node");
  const auto label = c.cluster.label({id});
  if (!label) return label.error();
  const auto view = view_on(c, {id}, node);
  if (!view) return view.error();
  auto out = open_device(c, *view, *label, node);
  if (out) (*out)["view"] = view->value;
  return out;
}

Outcome snapshot_close(Context& c, const json::object& args) {
  const uint64_t id = number(args, "snapshot");
  const uint64_t node = number(args, "node");
  const core::VsdId view{view_of(c, id, node)};
  const auto label = c.cluster.label({id});
  if (!label) return label.error();
  auto out = close_device(c, view, *label, node);
  if (out) (*out)["view"] = view.value;
  return out;
}

Result<void> forget_views(Context& c) {
  meta::Query closed(c.database,
                     "SELECT id FROM vsd WHERE view <> 0 AND NOT deleted AND NOT EXISTS (SELECT 1 "
                     "FROM opened WHERE vsd = vsd.id)");
  std::vector<core::VsdId> views;
  while (closed.executeStep())
    views.push_back({static_cast<uint64_t>(closed.getColumn(0).getInt64())});
  for (const core::VsdId view : views) CORE_TRY(c.map.delete_vsd(view));
  return c.map.forget_deleted();
}

// What it was before is kept as another snapshot.
Outcome vsd_revert(Context& c, const json::object& args) {
  const auto vsd = living_vsd(c, args);
  if (!vsd) return vsd.error();
  if (ask(c, "SELECT count(*) FROM opened WHERE vsd = ?", s64(vsd->id.value)) != 0)
    return Error{Code::conflict, "VSD " + vsd->name + " is open; close it first"};
  const auto rests = come_to_rest(c, *vsd, {});
  if (!rests) return rests.error();
  if (!*rests) return json::object{{"again", true}};
  auto kept = c.map.snapshot(vsd->id, text(args, "keep"), c.index, c.now);
  if (!kept) return kept.error();
  CORE_TRY(c.map.revert(vsd->id, {number(args, "snapshot")}));
  return json::object{{"kept", kept->value}};
}

}  // namespace policy
