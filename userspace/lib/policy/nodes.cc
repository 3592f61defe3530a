// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <map>
#include <set>

#include "policy/handlers.h"

namespace policy {

namespace {

constexpr uint64_t kMaxNode = 255;
// What each setting is at most; the least is 0.
const std::map<std::string, int64_t> kSettings = {
    {"grace_seconds", int64_t{7} * 86400}, {"maintenance", 1}, {"scrub_days", 365}};

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
  if (ask(c, "SELECT count(*) FROM node WHERE name = ? AND state = 'removed'", name) != 0)
    return Error{Code::conflict, "node " + name + " is being removed; try again in a minute"};
  if (ask(c, "SELECT count(*) FROM node WHERE name = ?", name) != 0)
    return Error{Code::conflict, "a node named " + name + " is in the cluster already"};
  const uint64_t id = next_id(c, "node");
  if (id > kMaxNode) return Error{Code::no_space, "all node numbers have been used"};
  run(c, "INSERT INTO node VALUES(?, ?, ?, ?, 'new', 0, '', 0, ?, 0, '')", s64(id), name,
      text(args, "lan"), text(args, "backplane"), c.now);
  const uint64_t task = c.tasks.begin("node join", id, name, id);
  return json::object{{"node", id}, {"task", task}};
}

// What speaks against a node's leaving.
Result<void> may_leave(Context& c, const meta::Node& node) {
  auto opened = c.cluster.opened();
  auto nodes = c.cluster.nodes();
  auto others = candidates(c);
  auto disks = c.cluster.disks();
  if (!opened || !nodes || !others || !disks)
    return Error{Code::storage, "the metadata is unreadable"};
  const auto vms = c.cluster.vms();
  if (!vms) return vms.error();
  const std::set<uint64_t> of_media = devices_for_media(c);
  // Disks of VMs leave with them: the leader moves those away. What is done with media ends, or is
  // done elsewhere.
  const auto is_a_vms = [&](VsdId vsd) {
    return std::any_of(vms->begin(), vms->end(), [&](const meta::Vm& vm) {
      return (vm.node == node.id || vm.to_node == node.id) &&
             std::any_of(vm.disks.begin(), vm.disks.end(),
                         [&](const meta::VmDisk& disk) { return disk.vsd == vsd; });
    });
  };
  for (const meta::Opened& row : *opened) {
    if (row.node != node.id || is_a_vms(row.vsd) || of_media.contains(row.vsd.value)) continue;
    const auto vsd = c.cluster.vsd(row.vsd);
    if (!vsd) return vsd.error();
    const std::string name = *vsd ? (*vsd)->name : std::to_string(row.vsd.value);
    std::string why = "VSD " + name;
    why += " is open on it; close it first: scalectl vsd close " + name;
    why += " --node " + node.name;
    return Error{Code::conflict, std::move(why)};
  }
  const auto stay = std::count_if(nodes->begin(), nodes->end(), [&](const meta::Node& other) {
    return other.id != node.id && !other.leaving && (other.state == "up" || other.state == "down");
  });
  if (stay < 2)
    return Error{Code::conflict, "two nodes at least must stay, for the copies of all data"};
  if (ask(c, "SELECT max(replicas) FROM vsd") > static_cast<uint64_t>(stay))
    return Error{Code::conflict,
                 "some VSDs want copies on more nodes than would stay: scalectl vsd set NAME "
                 "--copies 2"};
  std::set<DiskId> own;
  for (const meta::Disk& disk : *disks)
    if (disk.node == node.id) own.insert(disk.id);
  const auto copies = c.cluster.copies_on(node.id);
  if (!copies) return copies.error();
  uint64_t room = 0;
  for (const Candidate& other : *others)
    if (!own.contains(other.disk))
      room += other.free - std::min(other.free, other.total / kHealReserveDivisor);
  if (room < *copies)
    return Error{Code::no_space, "node " + node.name + " holds " + std::to_string(*copies) +
                                     " MiB, and the disks of the others have room for " +
                                     std::to_string(room) + " MiB: add disks first"};
  return {};
}

Result<meta::Node> node_of(Context& c, const json::object& args) {
  auto nodes = c.cluster.nodes();
  if (!nodes) return nodes.error();
  for (const meta::Node& node : *nodes)
    if (node.id.value == number(args, "node") && node.state != "removed") return node;
  return no_such("node", number(args, "node"));
}

}  // namespace

// Its disks are emptied; then it is removed. Or that is taken back.
Outcome node_leave(Context& c, const json::object& args) {
  const auto node = node_of(c, args);
  if (!node) return node.error();
  const bool leaving = args.at("leaving").as_bool();
  const int64_t id = s64(node->id.value);
  if (node->leaving == leaving) return json::object{{"task", 0}};
  if (!leaving) {
    run(c, "UPDATE node SET leaving = 0 WHERE id = ?", id);
    run(c, "UPDATE disk SET leaving = 0 WHERE node = ?", id);
    recount_copies(c);
    c.tasks.end("node remove", node->id.value, node->id.value, "it was taken back");
    return json::object{{"task", 0}};
  }
  CORE_TRY(may_leave(c, *node));
  run(c, "UPDATE node SET leaving = 1 WHERE id = ?", id);
  // Nobody waits any longer for what is away.
  run(c,
      "UPDATE disk SET state = 'lost', since = ?1 WHERE node = ?2 AND (state = 'absent' OR "
      "(state = 'ok' AND ?3))",
      c.now, id, node->state == "up" ? 0 : 1);
  run(c, "UPDATE disk SET leaving = 1 WHERE node = ? AND state = 'ok'", id);
  keep_media(c);
  return json::object{
      {"task", c.tasks.begin("node remove", node->id.value, node->name, node->id.value)}};
}

// Nothing is left on it. Its life is over from now on, and is fenced like that of one that died.
Outcome node_gone(Context& c, const json::object& args) {
  const auto node = node_of(c, args);
  if (!node) return node.error();
  const auto copies = c.cluster.copies_on(node->id);
  if (!copies) return copies.error();
  const int64_t id = s64(node->id.value);
  if (!node->leaving || *copies != 0 ||
      ask(c, "SELECT count(*) FROM opened WHERE node = ?", id) != 0 ||
      ask(c, "SELECT count(*) FROM vm WHERE node = ?1 OR to_node = ?1", id) != 0)
    return Error{Code::conflict,
                 "node " + node->name + " holds copies, runs a VM or has a VSD open"};
  run(c, "UPDATE disk SET state = 'removed', life = 0, leaving = 0, since = ? WHERE node = ?",
      c.now, id);
  forget_removed(c);
  run(c, "UPDATE node SET state = 'removed', since = ? WHERE id = ?", c.now, id);
  c.tasks.end("node remove", node->id.value, node->id.value, "");
  return json::object{};
}

// It is no member of etcd any more. Its row goes when its last life is fenced by all.
Outcome node_forget(Context& c, const json::object& args) {
  const uint64_t node = number(args, "node");
  const uint64_t life =
      ask(c, "SELECT life FROM node WHERE id = ? AND state = 'removed'", s64(node));
  if (ask(c, "SELECT count(*) FROM node WHERE id = ? AND state = 'removed'", s64(node)) == 0)
    return no_such("removed node", node);
  if (life != 0 && !is_fenced(c, node, life))
    return Error{Code::conflict, "node " + std::to_string(node) + " is being fenced"};
  free_reservations(c, node, life);
  // Rows of disks that others have reserved space on stay until that is given up.
  forget_removed(c);
  // What it held, others take; whether it had flushed is not known.
  run(c, "UPDATE vsd SET lease_node = 0 WHERE lease_node = ?", s64(node));
  run(c, "DELETE FROM fence WHERE node = ?", s64(node));
  run(c, "DELETE FROM bond WHERE node = ?", s64(node));
  run(c, "DELETE FROM capacity WHERE node = ?", s64(node));
  run(c, "DELETE FROM node WHERE id = ?", s64(node));
  return json::object{};
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
  if (!row.executeStep() || row.getColumn(0).getString() == "removed") return no_such("node", node);
  if (row.getColumn(0).getString() == "down" &&
      static_cast<uint64_t>(row.getColumn(1).getInt64()) == life)
    return Error{Code::stale, "node " + std::to_string(node) +
                                  " was declared down: it needs a new life (reload the module)"};
  row.reset();
  run(c,
      "UPDATE node SET state = 'up', drain = CASE WHEN drain = 'restart' AND life <> ?1 THEN '' "
      "ELSE drain END, life = ?1, version = ?2, seen = 0, since = ?3 WHERE id = ?4",
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
  if (is_fenced(c, node, life)) {
    free_reservations(c, node, life);
    forget_removed(c);
  }
  return json::object{};
}

Outcome seen(Context& c, const json::object& args) {
  run(c, "UPDATE node SET seen = max(seen, ?) WHERE id = ?", s64(number(args, "index")),
      s64(number(args, "node")));
  return json::object{};
}

Outcome set(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  const int64_t value = args.at("value").to_number<int64_t>();
  const auto limit = kSettings.find(name);
  if (limit == kSettings.end()) return Error{Code::invalid, "there is no setting '" + name + "'"};
  const int64_t most = limit->second;
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

// An entry at which every node compares its database with the others'.
Outcome audit(Context& c, const json::object&) {
  run(c,
      "INSERT INTO counter VALUES('audit', ?) ON CONFLICT(name) DO UPDATE SET value = "
      "excluded.value",
      s64(c.index));
  return json::object{{"index", c.index}};
}

}  // namespace policy
