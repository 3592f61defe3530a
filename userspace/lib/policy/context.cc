// SPDX-License-Identifier: GPL-2.0
#include "policy/context.h"

namespace policy {

uint64_t number(const json::object& args, const char* name) {
  return args.at(name).to_number<uint64_t>();
}

std::string text(const json::object& args, const char* name) {
  return json::value_to<std::string>(args.at(name));
}

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

bool one_node(Context& c) {
  return ask(c, "SELECT count(*) FROM node WHERE state <> 'removed'") == 1;
}

Result<Places> places(Context& c) {
  auto disks = c.cluster.disks();
  if (!disks) return disks.error();
  auto nodes = c.cluster.nodes();
  if (!nodes) return nodes.error();
  return places_of(*disks, *nodes);
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
  // Its reservations are gone, and others may have heard that it does nothing any more.
  if (!is_live(c, node, (*row)->lease_life)) return not_live(node);
  return **row;
}

bool is_filled_by(Context& c, uint64_t extent, core::VsdId vsd) {
  return ask(c, "SELECT count(*) FROM extent WHERE id = ? AND vsd = ?", s64(extent),
             s64(vsd.value)) == 1;
}

bool is_shared(Context& c, uint64_t extent) {
  return ask(c,
             "SELECT count(*) FROM extent e LEFT JOIN vsd v ON v.id = e.vsd WHERE e.id = ? AND "
             "(v.id IS NULL OR e.born <= v.last_snapshot)",
             s64(extent)) == 1;
}

void note_relocated(Context& c, uint64_t extent) {
  if (is_shared(c, extent))
    run(c, "INSERT INTO relocated VALUES(?1, ?2) ON CONFLICT(extent) DO UPDATE SET at = ?2",
        s64(extent), s64(c.index));
}

Result<meta::Vsd> living_vsd(Context& c, const json::object& args) {
  auto row = c.cluster.vsd({number(args, "vsd")});
  if (!row) return row.error();
  if (!*row || !(*row)->is_listed()) return no_such("VSD", number(args, "vsd"));
  return **row;
}

}  // namespace policy
