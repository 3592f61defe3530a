// SPDX-License-Identifier: GPL-2.0
#include <algorithm>

#include "policy/handlers.h"

namespace policy {

namespace {

constexpr uint64_t kMaxDisk = 1023;
constexpr uint64_t kMaxSlots = uint64_t{1} << 32;

uint64_t node_of_disk(Context& c, uint64_t disk) {
  return ask(c, "SELECT node FROM disk WHERE id = ?", s64(disk));
}

uint64_t mapped_copies(Context& c, uint64_t disk) {
  return ask(c, "SELECT count(*) FROM copy c JOIN extent e ON e.id = c.extent WHERE c.disk = ?",
             s64(disk));
}

}  // namespace

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

// The superblock is written: from now on the disk is looked for.
Outcome disk_ready(Context& c, const json::object& args) {
  if (run(c, "UPDATE disk SET state = 'absent', since = ? WHERE id = ? AND state = 'new'", c.now,
          s64(number(args, "disk"))) != 1)
    return no_such("new disk", number(args, "disk"));
  return json::object{};
}

Outcome disk_up(Context& c, const json::object& args) {
  const uint64_t disk = number(args, "disk");
  if (ask(c, "SELECT slots FROM disk WHERE id = ?", s64(disk)) > number(args, "slots"))
    return Error{Code::conflict, "disk " + std::to_string(disk) + " is smaller than it was"};
  if (ask(c, "SELECT count(*) FROM disk WHERE id = ? AND state = 'lost'", s64(disk)) != 0)
    recount_copies(c);
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
    recount_copies(c);
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

}  // namespace policy
