// SPDX-License-Identifier: GPL-2.0
// Media: images that are uploaded, checked, read and made into disks. Which devices that needs on
// which nodes follows from the rows alone: keep_media() opens and closes them.
#include <algorithm>
#include <set>

#include "policy/handlers.h"
#include "policy/vm_rows.h"

namespace policy {

namespace {

constexpr size_t kLongestMedium = 128;
constexpr size_t kDigest = 64;  // SHA-256 in hexadecimal digits
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kSlotBytes = uint64_t{1} << 20;
constexpr uint64_t kMostBytes = uint64_t{1} << 50;
constexpr uint64_t kCopies = 2;
constexpr const char* kSnapshot = "whole";
constexpr const char* kImport = "vsd import";

uint64_t sectors_for(uint64_t bytes) {
  return (bytes + kSlotBytes - 1) / kSlotBytes * (kSlotBytes / kSectorBytes);
}

// More than qcow2 ever needs for a disk of that size.
uint64_t qcow2_bytes(uint64_t disk) {
  constexpr uint64_t kShare = 1024;
  constexpr uint64_t kHeaders = uint64_t{8} << 20;
  return disk + disk / kShare + kHeaders;
}

bool is_digest(const std::string& text) {
  return text.size() == kDigest && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// A medium of a call that only the node that has it may make.
Result<meta::Medium> owned(Context& c, const json::object& args, const std::string& state) {
  auto medium = medium_of(c, args);
  if (!medium) return medium;
  if (medium->node.value != number(args, "node") || medium->life != number(args, "life"))
    return Error{Code::stale, "medium " + medium->name + " is node " +
                                  std::to_string(medium->node.value) + "'s now"};
  if (medium->state != state)
    return Error{Code::conflict, "medium " + medium->name + " is " + medium->state};
  return medium;
}

Result<meta::Filling> filling_of(Context& c, const json::object& args) {
  const auto all = c.cluster.fillings();
  if (!all) return all.error();
  for (const meta::Filling& one : *all)
    if (one.vsd.value == number(args, "vsd")) return one;
  return Error{Code::not_found,
               "no VSD with id " + std::to_string(number(args, "vsd")) + " is made from a medium"};
}

Result<meta::Filling> owned_filling(Context& c, const json::object& args) {
  auto filling = filling_of(c, args);
  if (!filling) return filling;
  if (filling->node.value != number(args, "node") || filling->life != number(args, "life") ||
      !filling->problem.empty())
    return Error{Code::stale, "another node does that, or nobody any more"};
  return filling;
}

void end_filling(Context& c, const meta::Filling& filling, const std::string& problem) {
  const int64_t vsd = s64(filling.vsd.value);
  if (problem.empty()) {
    run(c, "DELETE FROM filling WHERE vsd = ?", vsd);
    (void)close_device(c, filling.vsd, "a new disk", filling.node.value);
  } else {
    run(c, "UPDATE filling SET problem = ? WHERE vsd = ?", problem, vsd);
  }
  keep_media(c);
  // A disk that is whole can be used when its device is closed: closed() ends the task then.
  if (!problem.empty()) c.tasks.end(kImport, filling.vsd.value, 0, problem);
}

using Devices = std::set<std::pair<uint64_t, uint64_t>>;  // VSDs, or media, and nodes

// Media that are read, and where.
Devices read_where(Context& c, const std::vector<meta::Medium>& media,
                   const std::vector<meta::Filling>& fillings) {
  Devices out;
  if (const auto vms = c.cluster.vms())
    for (const meta::Vm& vm : *vms)
      for (const meta::VmCdrom& cdrom : vm.cdroms)
        for (const uint64_t medium : {cdrom.medium, cdrom.held})
          for (const NodeId node : {vm.node, vm.to_node})
            if (medium != 0 && node) out.insert({medium, node.value});
  for (const meta::Medium& medium : media)
    if (medium.state == "making" && is_live(c, medium.node.value, medium.life))
      out.insert({medium.source, medium.node.value});
  for (const meta::Medium& medium : media)
    if (medium.state == "checking" && is_live(c, medium.node.value, medium.life))
      out.insert({medium.id, medium.node.value});
  for (const meta::Filling& one : fillings)
    if (one.problem.empty() && is_live(c, one.node.value, one.life))
      out.insert({one.medium, one.node.value});
  meta::Query readers(c.database, "SELECT medium, node FROM medium_reader");
  while (readers.executeStep())
    out.insert({static_cast<uint64_t>(readers.getColumn(0).getInt64()),
                static_cast<uint64_t>(readers.getColumn(1).getInt64())});
  return out;
}

bool is_leaving(Context& c, NodeId node) {
  return ask(c, "SELECT leaving FROM node WHERE id = ?", s64(node.value)) != 0;
}

// A device of a life that is over, and fenced, is none any more.
bool is_gone(Context& c, NodeId node) {
  const uint64_t life = ask(c, "SELECT life FROM node WHERE id = ?", s64(node.value));
  return ask(c, "SELECT count(*) FROM node WHERE id = ? AND state IN ('down', 'removed')",
             s64(node.value)) != 0 &&
         is_fenced(c, node.value, life);
}

// Where nothing of it is open any more.
void end_deletion(Context& c, const meta::Medium& medium) {
  if (ask(c,
          "SELECT count(*) FROM opened WHERE vsd = ?1 OR vsd IN (SELECT id FROM vsd WHERE view = "
          "?2 AND ?2 <> 0)",
          s64(medium.vsd.value), s64(medium.snapshot.value)) != 0)
    return;
  if (!forget_views(c)) return;
  if (medium.snapshot && !c.map.delete_snapshot(medium.snapshot)) return;
  if (!c.map.delete_vsd(medium.vsd)) return;
  for (const char* table : {"intent", "damage", "widening", "filling"})
    run(c, (std::string("DELETE FROM ") + table + " WHERE vsd = ?").c_str(), s64(medium.vsd.value));
  (void)c.map.forget_deleted();
  run(c, "DELETE FROM medium WHERE id = ?", s64(medium.id));
}

}  // namespace

Result<meta::Medium> medium_of(Context& c, const json::object& args) {
  const auto all = c.cluster.media();
  if (!all) return all.error();
  for (const meta::Medium& one : *all)
    if (one.id == number(args, "medium")) return one;
  return no_such("medium", number(args, "medium"));
}

std::set<uint64_t> devices_for_media(Context& c) {
  std::set<uint64_t> out;
  meta::Query rows(
      c.database,
      "SELECT vsd FROM medium UNION SELECT vsd FROM filling UNION SELECT v.id FROM "
      "vsd v JOIN medium m ON m.snapshot = v.view WHERE v.view <> 0 AND NOT v.deleted");
  while (rows.executeStep()) out.insert(static_cast<uint64_t>(rows.getColumn(0).getInt64()));
  return out;
}

Result<void> is_whole(Context& c, const meta::Vsd& vsd) {
  const auto all = c.cluster.fillings();
  if (!all) return all.error();
  for (const meta::Filling& one : *all)
    if (one.vsd == vsd.id)
      return Error{Code::conflict,
                   "VSD " + vsd.name +
                       (one.problem.empty()
                            ? " is being made from a medium"
                            : " could not be made from its medium; delete it: " + one.problem)};
  return {};
}

void keep_media(Context& c) {
  const auto media = c.cluster.media();
  const auto fillings = c.cluster.fillings();
  const auto opened = c.cluster.opened();
  if (!media || !fillings || !opened || (media->empty() && fillings->empty())) return;
  Devices wanted;
  const Devices reads = read_where(c, *media, *fillings);
  for (const meta::Medium& medium : *media) {
    const bool lives = is_live(c, medium.node.value, medium.life);
    if ((medium.state == "making" && lives) ||
        (medium.state == "uploading" && lives && !is_leaving(c, medium.node)))
      wanted.insert({medium.vsd.value, medium.node.value});
    for (const auto& [id, node] : reads) {
      if (id != medium.id || !medium.snapshot || medium.state == "deleting") continue;
      if (const auto view = view_on(c, medium.snapshot, node)) wanted.insert({view->value, node});
    }
  }
  for (const meta::Filling& one : *fillings)
    if (one.problem.empty() && is_live(c, one.node.value, one.life))
      wanted.insert({one.vsd.value, one.node.value});
  const std::set<uint64_t> devices = devices_for_media(c);
  for (const meta::Opened& row : *opened) {
    const bool needed = wanted.contains({row.vsd.value, row.node.value});
    if (needed && row.state != "closing") wanted.erase({row.vsd.value, row.node.value});
    // It is not to be closed any more.
    if (needed && row.state == "open" && !row.error.empty())
      run(c, "UPDATE opened SET error = '' WHERE vsd = ? AND node = ?", s64(row.vsd.value),
          s64(row.node.value));
    if (needed || !devices.contains(row.vsd.value)) continue;
    if (is_gone(c, row.node))
      run(c, "DELETE FROM opened WHERE vsd = ? AND node = ?", s64(row.vsd.value),
          s64(row.node.value));
    else if (row.state != "closing")
      (void)close_device(c, row.vsd, "a medium", row.node.value);
  }
  for (const auto& [vsd, node] : wanted) (void)open_device(c, {vsd}, "a medium", node);
  for (const meta::Medium& medium : *media)
    if (medium.state == "deleting") end_deletion(c, medium);
}

namespace {

Result<void> may_be_called(Context& c, const std::string& name) {
  if (!meta::valid_name(name) || name.size() > kLongestMedium)
    return Error{Code::invalid, "'" + name + "' is no name for a medium: 1 to " +
                                    std::to_string(kLongestMedium) +
                                    " letters, digits, '-', '_' and '.', and no path"};
  if (ask(c, "SELECT count(*) FROM medium WHERE name = ?", name) != 0)
    return Error{Code::conflict, "a medium named " + name + " exists"};
  return {};
}

void put_medium(Context& c, const meta::Medium& medium) {
  run(c, "INSERT INTO medium VALUES(?, ?, ?, ?, ?, ?, 0, ?, '', ?, 0, '', ?, ?, 0, ?, ?)",
      s64(medium.id), medium.name, s64(medium.vsd.value), s64(medium.snapshot.value), medium.state,
      s64(medium.bytes), medium.wanted_sha256, medium.format, s64(medium.node.value),
      s64(medium.life), c.now, s64(medium.source));
}

// What a snapshot holds, as a medium of as many bytes; nobody has written to it since.
Result<meta::Medium> clone_of(Context& c, const json::object& args) {
  const auto snapshot = c.cluster.snapshot({number(args, "snapshot")});
  if (!snapshot) return snapshot.error();
  if (!*snapshot) return no_such("snapshot", number(args, "snapshot"));
  meta::Medium out;
  out.id = next_id(c, "medium");
  out.bytes = (*snapshot)->sectors * kSectorBytes;
  out.node = {number(args, "node")};
  out.life = number(args, "life");
  const auto vsd = c.map.clone_medium((*snapshot)->id, out.id, kCopies);
  if (!vsd) return vsd.error();
  CORE_TRY(made(c, *vsd));
  const auto whole = c.map.snapshot(*vsd, kSnapshot, c.index, c.now);
  if (!whole) return whole.error();
  out.vsd = *vsd;
  out.snapshot = *whole;
  return out;
}

}  // namespace

Outcome medium_create(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  const std::string digest = text(args, "sha256");
  const uint64_t bytes = number(args, "bytes");
  CORE_TRY(may_be_called(c, name));
  if (bytes == 0 || bytes > kMostBytes) return Error{Code::invalid, "a medium has 1 byte to 1 PiB"};
  if (!digest.empty() && !is_digest(digest))
    return Error{Code::invalid, "'" + digest + "' is no SHA-256: 64 hexadecimal digits"};
  CORE_TRY(may_begin(c, kCopies));
  meta::Medium medium;
  medium.id = next_id(c, "medium");
  const auto vsd = c.map.create_medium(medium.id, sectors_for(bytes), kCopies);
  if (!vsd) return vsd.error();
  CORE_TRY(made(c, *vsd));
  medium.name = name;
  medium.vsd = *vsd;
  medium.state = "uploading";
  medium.bytes = bytes;
  medium.wanted_sha256 = digest;
  put_medium(c, medium);
  return json::object{{"medium", medium.id}};
}

// What a snapshot holds, as an image: raw at once, but for its checksum; else a node makes it.
// `drop`: the snapshot was taken for this alone.
Outcome medium_make(Context& c, const json::object& args) {
  const std::string name = text(args, "name");
  const std::string format = text(args, "format");
  const uint64_t life = number(args, "life");
  CORE_TRY(may_be_called(c, name));
  if (format != "raw" && format != "qcow2")
    return Error{Code::invalid, "'" + format + "' is no form of an export: raw or qcow2"};
  if (!is_live(c, number(args, "node"), life)) return not_live(number(args, "node"));
  CORE_TRY(may_begin(c, kCopies));
  auto source = clone_of(c, args);
  if (!source) return source.error();
  meta::Medium medium = *source;
  medium.name = name;
  medium.state = "checking";
  if (format != "raw") {
    source->name = "source:" + std::to_string(source->id);
    source->state = "ready";
    source->format = "raw";
    put_medium(c, *source);
    medium.id = next_id(c, "medium");
    medium.source = source->id;
    medium.snapshot = {};
    medium.state = "making";
    const auto vsd =
        c.map.create_medium(medium.id, sectors_for(qcow2_bytes(source->bytes)), kCopies);
    if (!vsd) return vsd.error();
    CORE_TRY(made(c, *vsd));
    medium.vsd = *vsd;
  }
  put_medium(c, medium);
  if (args.at("drop").as_bool()) {
    const auto dropped = snapshot_delete(c, {{"snapshot", args.at("snapshot")}});
    if (!dropped) return dropped.error();
  }
  keep_media(c);
  return json::object{{"medium", medium.id}};
}

// It has that many bytes, or could not be made.
Outcome medium_made(Context& c, const json::object& args) {
  const auto medium = owned(c, args, "making");
  if (!medium) return medium.error();
  const std::string problem = text(args, "problem");
  const uint64_t bytes = number(args, "bytes");
  run(c,
      "UPDATE medium SET state = ?, bytes = ?, received = ?, problem = ?, done = 0, source = 0 "
      "WHERE id = ?",
      problem.empty() ? "sealing" : "refused", s64(bytes), s64(bytes), problem, s64(medium->id));
  run(c, "UPDATE medium SET state = 'deleting' WHERE id = ?", s64(medium->source));
  keep_media(c);
  return json::object{};
}

// A node that gets pieces of it from now on, or goes on where the one before is gone.
Outcome medium_take(Context& c, const json::object& args) {
  const auto medium = medium_of(c, args);
  if (!medium) return medium.error();
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (!is_live(c, node, life)) return not_live(node);
  if (is_leaving(c, {node}))
    return Error{Code::conflict, "this node is being removed from the cluster; ask another one"};
  const bool work =
      medium->state == "sealing" || medium->state == "checking" || medium->state == "making";
  if (medium->state != "uploading" && !work)
    return Error{Code::conflict, "medium " + medium->name + " is " + medium->state};
  if (work && is_live(c, medium->node.value, medium->life))
    return Error{Code::conflict,
                 "node " + std::to_string(medium->node.value) + " sees to medium " + medium->name};
  run(c, "UPDATE medium SET node = ?, life = ? WHERE id = ?", s64(node), s64(life),
      s64(medium->id));
  keep_media(c);
  return json::object{};
}

// A piece is on stable storage. With the last one, nobody writes to it any more.
Outcome medium_received(Context& c, const json::object& args) {
  const auto medium = owned(c, args, "uploading");
  if (!medium) return medium.error();
  const uint64_t bytes = number(args, "bytes");
  if (number(args, "offset") != medium->received || bytes > medium->bytes - medium->received)
    return Error{Code::conflict, "medium " + medium->name + " has its first " +
                                     std::to_string(medium->received) + " bytes"};
  const bool whole = medium->received + bytes == medium->bytes;
  run(c, "UPDATE medium SET received = received + ?, state = ? WHERE id = ?", s64(bytes),
      whole ? "sealing" : "uploading", s64(medium->id));
  keep_media(c);
  return json::object{};
}

// Its device is closed: what it is now it is for ever.
Outcome medium_sealed(Context& c, const json::object& args) {
  const auto medium = owned(c, args, "sealing");
  if (!medium) return medium.error();
  if (ask(c, "SELECT count(*) FROM opened WHERE vsd = ?", s64(medium->vsd.value)) != 0)
    return Error{Code::conflict, "medium " + medium->name + " is still open"};
  const auto vsd = c.cluster.vsd(medium->vsd);
  if (!vsd) return vsd.error();
  if (!*vsd) return no_such("VSD", medium->vsd.value);
  const auto still = rests(c, **vsd);
  if (!still) return still.error();
  if (!*still) return json::object{{"again", true}};
  const auto taken = c.map.snapshot(medium->vsd, kSnapshot, c.index, c.now);
  if (!taken) return taken.error();
  run(c, "UPDATE medium SET state = 'checking', snapshot = ? WHERE id = ?", s64(taken->value),
      s64(medium->id));
  keep_media(c);
  return json::object{};
}

Outcome medium_progress(Context& c, const json::object& args) {
  auto medium = owned(c, args, "checking");
  if (!medium && medium.error().code == Code::conflict) medium = owned(c, args, "making");
  if (!medium) return medium.error();
  run(c, "UPDATE medium SET done = ? WHERE id = ?", s64(number(args, "done")), s64(medium->id));
  return json::object{};
}

// What it is, and its checksum; or why it is not taken.
Outcome medium_checked(Context& c, const json::object& args) {
  const auto medium = owned(c, args, "checking");
  if (!medium) return medium.error();
  const std::string digest = text(args, "sha256");
  std::string problem = text(args, "problem");
  if (!medium->wanted_sha256.empty() && medium->wanted_sha256 != digest)
    problem = "its SHA-256 is " + digest + ", not " + medium->wanted_sha256;
  run(c,
      "UPDATE medium SET state = ?, sha256 = ?, format = ?, disk_bytes = ?, problem = ?, done = "
      "bytes WHERE id = ?",
      problem.empty() ? "ready" : "refused", digest, text(args, "format"),
      s64(number(args, "disk_bytes")), problem, s64(medium->id));
  keep_media(c);
  return json::object{};
}

Outcome medium_delete(Context& c, const json::object& args) {
  const auto medium = medium_of(c, args);
  if (!medium) return medium.error();
  const auto vms = c.cluster.vms();
  if (!vms) return vms.error();
  for (const meta::Vm& vm : *vms)
    for (const meta::VmCdrom& cdrom : vm.cdroms)
      if (cdrom.medium == medium->id || cdrom.held == medium->id)
        return Error{Code::conflict, "medium " + medium->name + " is in drive " +
                                         std::to_string(cdrom.slot) + " of VM " + vm.name +
                                         "; see: scalectl vm cdrom-edit --help"};
  if (ask(c, "SELECT count(*) FROM filling WHERE medium = ? AND problem = ''", s64(medium->id)) !=
      0)
    return Error{Code::conflict, "a disk is being made from medium " + medium->name};
  run(c, "UPDATE vm_snapshot_cdrom SET medium = 0 WHERE medium = ?", s64(medium->id));
  run(c, "DELETE FROM medium_reader WHERE medium = ?", s64(medium->id));
  run(c, "UPDATE medium SET state = 'deleting' WHERE id = ?", s64(medium->source));
  // Another can have its name at once.
  run(c,
      "UPDATE medium SET state = 'deleting', name = 'deleted:' || id || ':' || name WHERE id = ? "
      "AND state <> 'deleting'",
      s64(medium->id));
  keep_media(c);
  return json::object{};
}

// It is read on a node for so many seconds, for whoever downloads it there.
Outcome medium_read(Context& c, const json::object& args) {
  const auto medium = medium_of(c, args);
  if (!medium) return medium.error();
  if (medium->state != "ready")
    return Error{Code::conflict, "medium " + medium->name + " is " + medium->state};
  run(c,
      "INSERT INTO medium_reader VALUES(?1, ?2, ?3) ON CONFLICT(medium, node) DO UPDATE SET until "
      "= ?3",
      s64(medium->id), s64(number(args, "node")), c.now + s64(number(args, "seconds")));
  keep_media(c);
  return json::object{};
}

Outcome media_tidy(Context& c, const json::object&) {
  run(c, "DELETE FROM medium_reader WHERE until < ?", c.now);
  keep_media(c);
  return json::object{};
}

// A disk from a medium: at once where that is one byte by byte, else a node makes it.
Outcome vsd_fill(Context& c, const json::object& args) {
  const auto medium = medium_of(c, args);
  if (!medium) return medium.error();
  if (medium->state != "ready")
    return Error{Code::conflict, "medium " + medium->name + " is " + medium->state};
  if (medium->format == "raw" || medium->format == "iso") {
    auto cloned =
        vsd_clone(c, {{"snapshot", medium->snapshot.value}, {"name", text(args, "name")}});
    if (cloned) (*cloned)["task"] = 0;
    return cloned;
  }
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (!is_live(c, node, life)) return not_live(node);
  auto out = vsd_create(c, {{"name", text(args, "name")},
                            {"sectors", sectors_for(medium->disk_bytes)},
                            {"replicas", args.at("replicas")}});
  if (!out) return out;
  const uint64_t vsd = number(*out, "vsd");
  run(c, "INSERT INTO filling VALUES(?, ?, ?, ?, 0, '')", s64(vsd), s64(medium->id), s64(node),
      s64(life));
  keep_media(c);
  (*out)["task"] = c.tasks.begin(kImport, vsd, text(args, "name"), 0);
  return out;
}

// Another node begins anew, where the one that did it is gone.
Outcome filling_take(Context& c, const json::object& args) {
  const auto filling = filling_of(c, args);
  if (!filling) return filling.error();
  const uint64_t node = number(args, "node");
  const uint64_t life = number(args, "life");
  if (!is_live(c, node, life)) return not_live(node);
  if (is_live(c, filling->node.value, filling->life) || !filling->problem.empty())
    return Error{Code::conflict, "node " + std::to_string(filling->node.value) + " does that"};
  run(c, "UPDATE filling SET node = ?, life = ?, done = 0 WHERE vsd = ?", s64(node), s64(life),
      s64(filling->vsd.value));
  keep_media(c);
  return json::object{};
}

Outcome filling_progress(Context& c, const json::object& args) {
  const auto filling = owned_filling(c, args);
  if (!filling) return filling.error();
  run(c, "UPDATE filling SET done = ? WHERE vsd = ?", s64(number(args, "done")),
      s64(filling->vsd.value));
  return json::object{};
}

// One that did not go well stays, for nobody to take it for the whole disk.
Outcome filled(Context& c, const json::object& args) {
  const auto filling = owned_filling(c, args);
  if (!filling) return filling.error();
  end_filling(c, *filling, text(args, "problem"));
  return json::object{};
}

Outcome vsd_fill_cancel(Context& c, const json::object& args) {
  const auto filling = filling_of(c, args);
  if (!filling) return filling.error();
  if (!filling->problem.empty())
    return Error{Code::conflict, "that has ended: " + filling->problem};
  end_filling(c, *filling, "it was cancelled");
  return json::object{};
}

}  // namespace policy
