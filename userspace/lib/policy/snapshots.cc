// SPDX-License-Identifier: GPL-2.0
#include <map>

#include "policy/handlers.h"

namespace policy {

namespace {

constexpr size_t kVsdsAtOnce = 64;

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

Result<meta::Vsd> vsd_of(Context& c, const json::object& args) {
  auto row = c.cluster.vsd({number(args, "vsd")});
  if (!row) return row.error();
  if (!*row) return no_such("VSD", number(args, "vsd"));
  return **row;
}

}  // namespace

// All at one instant, or none. Who holds a lease has it in a new epoch from then on, in which what
// was written before is shared.
Outcome snapshot(Context& c, const json::object& args) {
  const json::array& items = args.at("vsds").as_array();
  if (items.empty() || items.size() > kVsdsAtOnce)
    return Error{Code::invalid,
                 "1 to " + std::to_string(kVsdsAtOnce) + " VSDs can be taken at one instant"};
  std::map<core::VsdId, const json::object*> vsds;
  for (const json::value& item : items) {
    const auto vsd = vsd_of(c, item.as_object());
    if (!vsd) return vsd.error();
    if (!vsds.emplace(vsd->id, &item.as_object()).second)
      return Error{Code::invalid, "VSD " + vsd->name + " is named twice"};
    const auto rests = come_to_rest(c, *vsd, item.as_object());
    if (!rests) return rests.error();
    // Asked again, it goes on.
    if (!*rests) return json::object{{"again", true}};
  }
  json::array taken;
  for (const auto& [vsd, item] : vsds) {
    auto id = c.map.snapshot(vsd, text(args, "name"), c.index, c.now);
    if (!id) return id.error();
    json::object one{{"vsd", vsd.value}, {"snapshot", id->value}, {"epoch", 0}};
    if (item->contains("epoch")) {
      auto epoch = c.map.grant_lease(vsd, {number(*item, "node")}, number(*item, "life"));
      if (!epoch) return epoch.error();
      one["epoch"] = *epoch;
    }
    taken.push_back(std::move(one));
  }
  return json::object{{"taken", std::move(taken)}};
}

Outcome snapshot_delete(Context& c, const json::object& args) {
  const uint64_t id = number(args, "snapshot");
  const auto row = c.cluster.snapshot({id});
  if (!row) return row.error();
  if (!*row) return no_snapshot(id);
  const uint64_t task = c.tasks.begin("snapshot delete", id, (*row)->name, 0);
  CORE_TRY(c.map.delete_snapshot({id}));
  end_deletions(c);
  return json::object{{"task", task}};
}

// What it was before is kept as another snapshot.
Outcome vsd_revert(Context& c, const json::object& args) {
  const auto vsd = vsd_of(c, args);
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
