// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <mutex>
#include <set>

#include "api_call.h"
#include "host/disks.h"
#include "meta/map.h"

namespace scaled {

namespace json = boost::json;
using core::DiskId;
using core::NodeId;

namespace {

constexpr std::chrono::seconds kAddFor{60};

}  // namespace

// Disks

Outcome list_disks(Call& call) {
  auto disks = call.cluster().disks();
  auto use = call.cluster().use();
  if (!disks || !use) return Error{Code::storage, "the metadata is unreadable"};
  std::map<DiskId, meta::DiskUse> by_disk;
  for (const meta::DiskUse& one : *use) by_disk[one.disk] = one;
  json::array out;
  for (const meta::Disk& disk : *disks) {
    if (disk.state == "removed") continue;
    out.push_back({{"id", disk.id.value},
                   {"node", disk.node.value},
                   {"serial", disk.serial},
                   {"tier", disk.tier},
                   {"state", disk.state},
                   {"leaving", disk.leaving},
                   {"size_bytes", disk.slots * kSlotBytes},
                   {"used_bytes", by_disk[disk.id].used * kSlotBytes},
                   {"quarantined_bytes", by_disk[disk.id].quarantined * kSlotBytes}});
  }
  return json::object{{"disks", std::move(out)}};
}

// Disks of this machine that are not in the pool, with what speaks against them.
Outcome list_candidates(Call&) {
  json::array out;
  for (const host::BlockDevice& disk : host::list_disks())
    out.push_back({{"path", disk.path},
                   {"serial", disk.serial},
                   {"model", disk.model},
                   {"size_bytes", disk.sectors * kSectorBytes},
                   {"tier", disk.rotational ? "hdd" : "ssd"},
                   {"used_for", disk.used_for}});
  return json::object{{"candidates", std::move(out)}};
}

namespace {

// Disks that are being added on this node. A disk that hangs while it is formatted holds up itself
// alone.
class InProgress {
 public:
  explicit InProgress(std::string path) : path_(std::move(path)) {
    const std::lock_guard lock(mutex());
    mine_ = paths().insert(path_).second;
  }
  ~InProgress() {
    const std::lock_guard lock(mutex());
    if (mine_) paths().erase(path_);
  }
  InProgress(const InProgress&) = delete;
  InProgress& operator=(const InProgress&) = delete;

  explicit operator bool() const { return mine_; }

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  static std::set<std::string>& paths() {
    static std::set<std::string> all;
    return all;
  }

  std::string path_;
  bool mine_ = false;
};

// A disk of this pool, also one that is not in use at the moment: it may hold copies.
Result<void> no_member(Call& call, const std::string& path) {
  auto label = host::read_label(path);
  if (!label) return label.error();
  if (!*label || (*label)->cluster != call.member().config().uuid) return {};
  auto disks = call.cluster().disks();
  if (!disks) return disks.error();
  const std::string uuid = host::to_string((*label)->uuid);
  for (const meta::Disk& disk : *disks)
    if (disk.uuid == uuid && disk.state != "removed")
      return Error{Code::conflict, path + " is disk " + std::to_string(disk.id.value) +
                                       " of this pool (" + disk.state +
                                       "); it is not touched before 'scalectl disk remove'"};
  return {};
}

}  // namespace

Outcome add_local_disk(Call& call) {
  Fields fields = call.fields();
  const std::string path = fields.text("path");
  const std::string wanted_tier = fields.text("tier", "");
  const std::string wipe = fields.text("wipe", "");
  fields.text("node", "");
  CORE_TRY(fields.check());
  auto device = host::inspect_disk(path);
  if (!device) return device.error();
  const uint64_t slots = host::slots_for(device->sectors);
  if (slots == 0)
    return Error{Code::invalid, path + " has " + std::to_string(device->sectors * kSectorBytes) +
                                    " bytes; a data disk has at least 64 MiB"};
  if (device->used_for.starts_with("mounted") || device->used_for.starts_with("in use"))
    return Error{Code::conflict, path + " is " + device->used_for + "; it is not touched"};
  const InProgress mine(device->path);
  if (!mine) return Error{Code::conflict, path + " is being taken into the pool by another call"};
  CORE_TRY(no_member(call, path));
  // Before it gets a number, none of which is given twice.
  CORE_TRY(host::check_free(device->path));
  if (!device->used_for.empty() && wipe.empty())
    return Error{Code::conflict, path + " holds " + device->used_for +
                                     "; to lose that, say --wipe with its serial number " +
                                     device->serial};
  if (!wipe.empty() && (device->serial.empty() || wipe != device->serial))
    return Error{Code::invalid, "--wipe " + wipe + " is not the serial number of " + path +
                                    (device->serial.empty() ? ", which has none"
                                                            : ", which is " + device->serial)};
  const std::string tier = wanted_tier.empty() ? (device->rotational ? "hdd" : "ssd") : wanted_tier;
  const host::Uuid uuid = host::make_uuid();
  auto added = call.propose({{"op", "disk_add"},
                             {"node", call.member().config().node.value},
                             {"uuid", host::to_string(uuid)},
                             {"serial", device->serial},
                             {"tier", tier},
                             {"slots", slots}});
  if (!added) return added;
  const DiskId disk{added->at("disk").to_number<uint64_t>()};
  auto formatted = host::format_disk(device->path, {disk, call.member().config().uuid, uuid},
                                     !device->used_for.empty());
  if (!formatted) {
    auto undone = call.propose({{"op", "disk_remove"}, {"disk", disk.value}});
    return formatted.error();
  }
  // From here on the agent finds it by its label, also after a crash.
  auto ready = call.propose({{"op", "disk_ready"}, {"disk", disk.value}});
  if (!ready) return ready;
  call.member().agent().poke();
  return json::object{{"disk", disk.value},
                      {"serial", device->serial},
                      {"tier", tier},
                      {"task", added->at("task").to_number<uint64_t>()}};
}

Outcome add_disk(Call& call) {
  Fields fields = call.fields();
  auto node = call.node(fields.text("node", ""));
  if (!node) return node.error();
  if (node->id == call.member().config().node) return add_local_disk(call);
  return call.member().peers().call(node->id, "/peer/disk", call.body(), kAddFor);
}

namespace {

Result<uint64_t> disk_number(const std::string& id) {
  uint64_t number = 0;
  for (const char c : id) {
    if (c < '0' || c > '9' || number > 1023)
      return Error{Code::invalid, "'" + id + "' is no disk number"};
    number = number * 10 + static_cast<uint64_t>(c - '0');
  }
  return number;
}

}  // namespace

Outcome remove_disk(Call& call, const std::string& id) {
  const auto number = disk_number(id);
  if (!number) return number.error();
  return call.propose({{"op", "disk_remove"}, {"disk", *number}});
}

Outcome evacuate_disk(Call& call, const std::string& id) {
  Fields fields = call.fields();
  const bool cancel = fields.flag("cancel", false);
  CORE_TRY(fields.check());
  const auto number = disk_number(id);
  if (!number) return number.error();
  return call.propose({{"op", "disk_leave"}, {"disk", *number}, {"leaving", !cancel}});
}

namespace {

// The pool: whether all copies are as they should be

json::array damage_json(Call& call, const std::vector<meta::Damage>& damage) {
  json::array out;
  for (const meta::Damage& one : damage) {
    json::array copies;
    auto rows = call.cluster().copies(one.extent);
    for (size_t i = 0; rows && i < rows->size(); i++)
      copies.push_back({{"disk", (*rows)[i].disk.value},
                        {"slot", (*rows)[i].slot},
                        {"current", (*rows)[i].stale == 0}});
    auto vsd = call.cluster().vsd(one.vsd);
    out.push_back({{"extent", one.extent.value},
                   {"vsd", vsd && *vsd ? (*vsd)->name : ""},
                   {"offset_bytes", one.chunk * kSlotBytes},
                   {"found", one.found},
                   {"keep", one.keep.value},
                   {"copies", std::move(copies)}});
  }
  return out;
}

}  // namespace

Outcome show_pool(Call& call) {
  auto scrubs = call.cluster().scrubs();
  auto vsds = call.cluster().vsds();
  auto damage = call.cluster().damage();
  auto orphans = call.cluster().orphans();
  auto days = call.cluster().setting("scrub_days", meta::kDefaultScrubDays);
  auto mode = call.cluster().setting("rebalance", 0);
  if (!scrubs || !vsds || !damage || !orphans || !days || !mode)
    return Error{Code::storage, "the metadata is unreadable"};
  json::array verified;
  for (const meta::Scrub& one : *scrubs) {
    const auto vsd = std::find_if(vsds->begin(), vsds->end(),
                                  [&](const meta::Vsd& row) { return row.id == one.vsd; });
    if (vsd == vsds->end()) continue;
    verified.push_back({{"vsd", vsd->name},
                        {"verified", one.done},
                        {"under_way_bytes", one.next * core::kLeafChunks * kSlotBytes},
                        {"size_bytes", vsd->sectors * kSectorBytes}});
  }
  return json::object{{"scrub_days", *days},
                      {"rebalance", *mode == 0   ? "off"
                                    : *mode == 1 ? "running"
                                                 : "automatic"},
                      {"orphans", *orphans},
                      {"vsds", std::move(verified)},
                      {"damage", damage_json(call, *damage)}};
}

Outcome verify_pool(Call& call) {
  CORE_TRY(call.fields().check());
  return call.propose({{"op", "verify"}});
}

Outcome rebalance_pool(Call& call) {
  Fields fields = call.fields();
  const std::string how = fields.text("how", "once");
  CORE_TRY(fields.check());
  const std::map<std::string, int> modes = {{"stop", 0}, {"once", 1}, {"automatic", 2}};
  const auto mode = modes.find(how);
  if (mode == modes.end())
    return Error{Code::invalid, "how: 'once', 'automatic' or 'stop', not '" + how + "'"};
  return call.propose({{"op", "rebalance"}, {"mode", mode->second}});
}

Outcome repair_pool(Call& call) {
  Fields fields = call.fields();
  const uint64_t extent = fields.number("extent");
  const uint64_t disk = fields.number("keep");
  CORE_TRY(fields.check());
  return call.propose({{"op", "repair"}, {"extent", extent}, {"disk", disk}});
}

}  // namespace scaled
