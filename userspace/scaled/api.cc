// SPDX-License-Identifier: GPL-2.0
#include "api.h"

#include <algorithm>
#include <boost/json.hpp>
#include <ctime>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "daemon.h"
#include "etcd_service.h"
#include "host/disks.h"
#include "host/dm.h"
#include "meta/cluster.h"
#include "meta/map.h"
#include "openapi.h"
#include "policy/audit.h"

namespace scaled {

namespace json = boost::json;
using core::DiskId;
using core::NodeId;
using core::VsdId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using Outcome = Result<json::object>;

namespace {

constexpr seconds kProposeFor{30};
constexpr seconds kOpenFor{60};
constexpr seconds kAuditFor{240};
constexpr milliseconds kLook{200};
constexpr milliseconds kEtcdTimeout{10'000};
constexpr size_t kSecretBytes = 16;
constexpr uint64_t kTokenHours = 24;
constexpr uint64_t kMaxTokenHours = 720;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kSlotBytes = uint64_t{1} << 20;

unsigned status_of(Code code) {
  switch (code) {
    case Code::invalid:
      return 400;
    case Code::not_found:
      return 404;
    case Code::conflict:
    case Code::stale:
      return 409;
    case Code::no_space:
      return 507;
    case Code::unknown:
      return 503;
    default:
      return 500;
  }
}

http::Response respond(const Outcome& outcome) {
  if (outcome) return {200, json::serialize(*outcome) + "\n"};
  return {status_of(outcome.error().code),
          json::serialize(policy::to_answer(outcome.error())) + "\n"};
}

http::Response denied(const char* why) {
  return {403,
          json::serialize(json::object{{"error", {{"code", "denied"}, {"text", why}}}}) + "\n"};
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream in(path.substr(0, path.find('?')));
  for (std::string part; std::getline(in, part, '/');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

/// A request's fields, checked: each that is read must have its type, and none may be left over.
class Fields {
 public:
  explicit Fields(const json::object& object) : object_(object) {}

  std::string text(const char* name, std::optional<std::string> fallback = {}) {
    const json::value* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_string()) return fail<std::string>(name, "a text");
    return std::string(value->as_string());
  }
  uint64_t number(const char* name, std::optional<uint64_t> fallback = {}) {
    const json::value* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    boost::system::error_code err;
    const uint64_t out = value == nullptr ? 0 : value->to_number<uint64_t>(err);
    if (value == nullptr || err) return fail<uint64_t>(name, "a number, 0 or more");
    return out;
  }
  bool flag(const char* name, bool fallback) {
    const json::value* value = find(name);
    if (value == nullptr) return fallback;
    return value->is_bool() ? value->as_bool() : fail<bool>(name, "true or false");
  }
  /// After all fields were read: what was wrong, if anything.
  Result<void> check() const {
    if (!problem_.empty()) return Error{Code::invalid, problem_};
    for (const auto& item : object_)
      if (!known_.contains(item.key()))
        return Error{Code::invalid, "unknown field '" + std::string(item.key()) + "'"};
    return {};
  }

 private:
  const json::value* find(const char* name) {
    known_.insert(name);
    return object_.if_contains(name);
  }
  template <class T>
  T fail(const char* name, const char* what) {
    if (problem_.empty()) problem_ = std::string("field '") + name + "' must be " + what;
    return {};
  }

  const json::object& object_;
  std::set<std::string, std::less<>> known_;
  std::string problem_;
};

/// One request of a member, with its view of the metadata.
class Call {
 public:
  Call(Member& member, json::object body) : member_(member), body_(std::move(body)) {}

  Result<void> open() {
    auto reader = meta::Database::open_reader(member_.paths().database());
    if (!reader) return reader.error();
    database_ = std::move(*reader);
    return {};
  }

  Outcome propose(json::object proposal) {
    return member_.replica().propose(std::move(proposal), steady_clock::now() + kProposeFor);
  }
  meta::Cluster cluster() { return meta::Cluster(*database_); }
  Fields fields() const { return Fields(body_); }
  const json::object& body() const { return body_; }
  Member& member() { return member_; }
  meta::Database& database() { return *database_; }

  /// A VSD by name.
  Result<meta::Vsd> vsd(const std::string& name) {
    auto all = cluster().vsds();
    if (!all) return all.error();
    for (const meta::Vsd& one : *all)
      if (one.name == name) return one;
    return Error{Code::not_found, "no VSD named " + name};
  }
  /// A node by name or number; this one for "".
  Result<meta::Node> node(const std::string& name) {
    auto all = cluster().nodes();
    if (!all) return all.error();
    for (const meta::Node& one : *all)
      if (one.name == name || std::to_string(one.id.value) == name ||
          (name.empty() && one.id == member_.config().node))
        return one;
    return Error{Code::not_found, "no node named " + name};
  }

 private:
  Member& member_;
  json::object body_;
  std::unique_ptr<meta::Database> database_;
};

// Clusters and nodes

Outcome show_cluster(Call& call) {
  auto info = call.cluster().info();
  auto nodes = call.cluster().nodes();
  auto disks = call.cluster().disks();
  auto use = call.cluster().use();
  if (!info || !nodes || !disks || !use) return Error{Code::storage, "the metadata is unreadable"};
  uint64_t total = 0;
  uint64_t used = 0;
  std::erase_if(*disks, [](const meta::Disk& disk) { return disk.state == "removed"; });
  for (const meta::Disk& disk : *disks) total += disk.slots * kSlotBytes;
  for (const meta::DiskUse& one : *use) used += one.used * kSlotBytes;
  json::array conditions;
  for (const auto& [subject, text] : call.member().agent().conditions())
    conditions.push_back({{"subject", subject}, {"text", text}});
  auto& replica = call.member().replica();
  auto left = call.cluster().redundancy();
  auto grace = call.cluster().setting("grace_seconds", meta::kDefaultGraceSeconds);
  auto maintenance = call.cluster().setting("maintenance", 0);
  if (!left || !grace || !maintenance) return Error{Code::storage, "the metadata is unreadable"};
  const double rate = call.member().agent().progress().copies_per_second;
  const auto to_do = static_cast<double>(left->stale + left->lost + left->leaving + left->wanting);
  json::object redundancy{{"stale_copies", left->stale},
                          {"lost_copies", left->lost},
                          {"leaving_copies", left->leaving},
                          {"wanting_extents", left->wanting},
                          {"seconds_left", rate > 0 ? static_cast<uint64_t>(to_do / rate) : 0}};
  return json::object{{"name", *info ? (*info)->name : ""},
                      {"uuid", *info ? (*info)->uuid : ""},
                      {"nodes", nodes->size()},
                      {"disks", disks->size()},
                      {"raw_bytes", total},
                      {"used_bytes", used},
                      {"node", call.member().config().node.value},
                      {"leader", replica.leader().value},
                      {"log_index", replica.applied().index},
                      {"log_hash", replica.applied().hash},
                      {"grace_seconds", *grace},
                      {"maintenance", *maintenance != 0},
                      {"redundancy", std::move(redundancy)},
                      {"conditions", std::move(conditions)}};
}

Outcome set_cluster(Call& call) {
  Fields fields = call.fields();
  const uint64_t unset = UINT64_MAX;
  const uint64_t grace = fields.number("grace_seconds", unset);
  const uint64_t scrub_days = fields.number("scrub_days", unset);
  const bool maintenance = fields.flag("maintenance", false);
  CORE_TRY(fields.check());
  if (call.body().contains("maintenance"))
    if (auto done =
            call.propose({{"op", "set"}, {"name", "maintenance"}, {"value", maintenance ? 1 : 0}});
        !done)
      return done;
  for (const auto& [name, value] :
       {std::pair{"grace_seconds", grace}, std::pair{"scrub_days", scrub_days}})
    if (value != unset)
      if (auto done = call.propose(
              {{"op", "set"}, {"name", name}, {"value", std::min<uint64_t>(value, INT64_MAX)}});
          !done)
        return done;
  return show_cluster(call);
}

// Right after a node became one the answer would be "no quorum".
void wait_for_leader(Call& call) {
  const auto deadline = steady_clock::now() + kProposeFor;
  while (!call.member().replica().leader() && steady_clock::now() < deadline)
    std::this_thread::sleep_for(kLook);
}

Outcome list_nodes(Call& call) {
  auto nodes = call.cluster().nodes();
  if (!nodes) return nodes.error();
  json::array out;
  for (const meta::Node& node : *nodes)
    out.push_back({{"id", node.id.value},
                   {"name", node.name},
                   {"state", node.state},
                   {"leaving", node.leaving},
                   {"lan", node.lan_addr},
                   {"backplane", node.backplane_addr},
                   {"version", node.version},
                   {"leader", node.id == call.member().replica().leader()}});
  return json::object{{"nodes", std::move(out)}};
}

// A one-time token: what pins the cluster's CA, then what lets one node in.
Outcome make_token(Call& call) {
  Fields fields = call.fields();
  const uint64_t hours = fields.number("hours", kTokenHours);
  CORE_TRY(fields.check());
  if (hours == 0 || hours > kMaxTokenHours)
    return Error{Code::invalid, "a token is good for 1 to 720 hours"};
  if (call.member().config().single)
    return Error{Code::conflict, "this cluster was made with --single and takes no other nodes"};
  const std::string secret = tls::random_hex(kSecretBytes);
  auto print = tls::fingerprint(call.member().config().identity.ca_cert);
  if (!print) return print.error();
  const auto expires = std::time(nullptr) + static_cast<int64_t>(hours) * 3600;
  auto done =
      call.propose({{"op", "token_add"}, {"hash", tls::sha256(secret)}, {"expires", expires}});
  if (!done) return done;
  return json::object{
      {"token", *print + secret}, {"hours", hours}, {"address", call.member().config().backplane}};
}

// From a machine that has nothing but a token.
Outcome admit_node(Call& call) {
  Fields fields = call.fields();
  const std::string secret = fields.text("secret");
  const std::string name = fields.text("name");
  const std::string lan = fields.text("lan");
  const std::string backplane = fields.text("backplane");
  CORE_TRY(fields.check());
  const Config& config = call.member().config();
  auto added = call.propose({{"op", "node_add"},
                             {"name", name},
                             {"lan", lan},
                             {"backplane", backplane},
                             {"token", tls::sha256(secret)}});
  if (!added) return added;
  const NodeId node{added->at("node").to_number<uint64_t>()};
  auto nodes = call.cluster().nodes();
  auto tasks = call.cluster().tasks();
  if (!nodes || !tasks) return Error{Code::storage, "the metadata is unreadable"};
  auto pair = tls::issue(config.authority, node, backplane);
  if (!pair) return pair.error();
  journal::Etcd etcd(etcd_endpoints(config, call.member().peers()), kEtcdTimeout);
  auto initial = add_etcd_member(etcd, node, backplane, *nodes, *tasks);
  if (!initial) return initial.error();
  return json::object{{"node", node.value},
                      {"sponsor", config.node.value},
                      {"cluster", config.cluster},
                      {"uuid", host::to_string(config.uuid)},
                      {"lease_ms", config.lease.count()},
                      {"plain_backplane", config.plain_backplane},
                      {"cert", pair->cert},
                      {"key", pair->key},
                      {"ca_cert", config.identity.ca_cert},
                      {"ca_key", config.authority.key},
                      {"etcd_initial", *initial}};
}

Outcome remove_node(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const bool cancel = fields.flag("cancel", false);
  CORE_TRY(fields.check());
  auto node = call.node(name);
  if (!node) return node.error();
  return call.propose({{"op", "node_leave"}, {"node", node->id.value}, {"leaving", !cancel}});
}

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
  return call.member().peers().call(node->id, "/peer/disk", call.body(), kOpenFor);
}

Result<uint64_t> disk_number(const std::string& id) {
  uint64_t number = 0;
  for (const char c : id) {
    if (c < '0' || c > '9' || number > 1023)
      return Error{Code::invalid, "'" + id + "' is no disk number"};
    number = number * 10 + static_cast<uint64_t>(c - '0');
  }
  return number;
}

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

// Virtual disks

json::object vsd_json(const meta::Vsd& vsd, const std::vector<meta::Opened>& opened) {
  json::array open;
  for (const meta::Opened& row : opened)
    if (row.vsd == vsd.id)
      open.push_back({{"node", row.node.value}, {"state", row.state}, {"error", row.error}});
  return {{"id", vsd.id.value},
          {"name", vsd.name},
          {"size_bytes", vsd.sectors * kSectorBytes},
          {"copies", vsd.replicas},
          {"lease_node", vsd.lease_node.value},
          {"epoch", vsd.epoch},
          {"device", "/dev/mapper/" + host::device_name(vsd.name)},
          {"open", std::move(open)}};
}

Outcome list_vsds(Call& call) {
  auto vsds = call.cluster().vsds();
  auto opened = call.cluster().opened();
  if (!vsds || !opened) return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::Vsd& vsd : *vsds) out.push_back(vsd_json(vsd, *opened));
  return json::object{{"vsds", std::move(out)}};
}

// Without what only its map knows.
Outcome brief_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto opened = call.cluster().opened();
  if (!opened) return opened.error();
  return vsd_json(*vsd, *opened);
}

// With what it uses and where its copies lie. Walks the whole map.
Outcome show_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto opened = call.cluster().opened();
  if (!opened) return opened.error();
  json::object out = vsd_json(*vsd, *opened);
  auto spread = meta::Map(call.database()).spread(vsd->id);
  if (!spread) return spread.error();
  json::array disks;
  uint64_t stale = 0;
  for (const meta::DiskShare& share : spread->disks) {
    disks.push_back({{"disk", share.disk.value}, {"copies", share.copies}, {"stale", share.stale}});
    stale += share.stale;
  }
  out["mapped_bytes"] = spread->mapped_sectors * kSectorBytes;
  out["extents"] = spread->extents;
  out["stale_copies"] = stale;
  out["spread"] = std::move(disks);
  return out;
}

Outcome create_vsd(Call& call) {
  Fields fields = call.fields();
  const std::string name = fields.text("name");
  const uint64_t bytes = fields.number("size_bytes");
  const uint64_t copies = fields.number("copies", 2);
  CORE_TRY(fields.check());
  if (bytes == 0 || bytes % kSlotBytes != 0)
    return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB, at least 1 MiB"};
  auto made = call.propose({{"op", "vsd_create"},
                            {"name", name},
                            {"sectors", bytes / kSectorBytes},
                            {"replicas", copies}});
  if (!made) return made;
  return brief_vsd(call, name);
}

// Its size, or its number of copies.
Outcome change_vsd(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const uint64_t bytes = fields.number("size_bytes", 0);
  const uint64_t copies = fields.number("copies", 0);
  CORE_TRY(fields.check());
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  uint64_t task = 0;
  if (call.body().contains("size_bytes")) {
    if (bytes % kSlotBytes != 0)
      return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB"};
    auto done = call.propose(
        {{"op", "vsd_resize"}, {"vsd", vsd->id.value}, {"sectors", bytes / kSectorBytes}});
    if (!done) return done;
  }
  if (call.body().contains("copies")) {
    auto done = call.propose({{"op", "vsd_copies"}, {"vsd", vsd->id.value}, {"replicas", copies}});
    if (!done) return done;
    task = done->at("task").to_number<uint64_t>();
  }
  auto shown = brief_vsd(call, name);
  if (shown) (*shown)["task"] = task;
  return shown;
}

Outcome delete_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  return call.propose({{"op", "vsd_delete"}, {"vsd", vsd->id.value}});
}

// Waits until the node has said what became of an "opening" or "closing".
Outcome wait_for_device(Call& call, const meta::Vsd& vsd, const meta::Node& node, bool open,
                        uint64_t task) {
  const auto deadline = steady_clock::now() + kOpenFor;
  while (steady_clock::now() < deadline) {
    auto opened = call.cluster().opened();
    if (!opened) return opened.error();
    const meta::Opened* row = nullptr;
    for (const meta::Opened& one : *opened)
      if (one.vsd == vsd.id && one.node == node.id) row = &one;
    if (open ? row != nullptr && row->state == "open" : row == nullptr)
      return brief_vsd(call, vsd.name);
    if (row == nullptr) return Error{Code::conflict, "it was closed meanwhile"};
    if (!row->error.empty() && row->state != "closing" && row->state != "opening")
      return Error{Code::conflict, row->error};
    std::this_thread::sleep_for(kLook);
  }
  return Error{Code::unknown, "node " + node.name +
                                  " has not answered yet; it will when it can. See: scalectl task "
                                  "wait " +
                                  std::to_string(task)};
}

Outcome open_or_close(Call& call, const std::string& name, const char* op) {
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto node = call.node(where);
  if (!node) return node.error();
  auto done = call.propose({{"op", op}, {"vsd", vsd->id.value}, {"node", node->id.value}});
  if (!done) return done;
  const uint64_t task = done->at("task").to_number<uint64_t>();
  auto shown = wait ? wait_for_device(call, *vsd, *node, op == std::string("open"), task)
                    : brief_vsd(call, name);
  if (shown) (*shown)["task"] = task;
  return shown;
}

// Tasks

json::object task_json(const meta::Task& task) {
  return {{"id", task.id},           {"what", task.what},   {"name", task.name},
          {"node", task.node.value}, {"state", task.state}, {"why", task.error},
          {"began", task.began},     {"ended", task.ended}};
}

Outcome list_tasks(Call& call) {
  auto tasks = call.cluster().tasks();
  if (!tasks) return tasks.error();
  json::array out;
  for (const meta::Task& task : *tasks) out.push_back(task_json(task));
  return json::object{{"tasks", std::move(out)}};
}

Outcome show_task(Call& call, const std::string& id) {
  auto tasks = call.cluster().tasks();
  if (!tasks) return tasks.error();
  for (const meta::Task& task : *tasks)
    if (std::to_string(task.id) == id) return task_json(task);
  return Error{Code::not_found, "no task " + id + "; of those that ended only the last are kept"};
}

// Answers when the task has ended, as failed with its error, or after a time with what it is then.
Outcome wait_for_task(Call& call, const std::string& id) {
  Fields fields = call.fields();
  const uint64_t seconds_left = fields.number("seconds", kOpenFor.count());
  CORE_TRY(fields.check());
  if (seconds_left > static_cast<uint64_t>(kOpenFor.count()))
    return Error{Code::invalid, "a call waits for at most 60 seconds; ask again"};
  const auto deadline = steady_clock::now() + seconds(seconds_left);
  for (;;) {
    auto task = show_task(call, id);
    if (!task || task->at("state") == "done") return task;
    const std::string error = json::value_to<std::string>(task->at("why"));
    if (task->at("state") == "failed") return Error{Code::conflict, error};
    if (steady_clock::now() >= deadline)
      return Error{Code::unknown, "task " + id + " goes on; ask again"};
    std::this_thread::sleep_for(kLook);
  }
}

// Other nodes

Outcome serve_proposals(Call& call) {
  std::vector<policy::Proposal> proposals;
  for (const json::value& value : call.body().at("proposals").as_array()) {
    auto proposal = policy::proposal_from_json(value);
    if (!proposal) return proposal.error();
    proposals.push_back(std::move(*proposal));
  }
  auto served =
      call.member().replica().serve(std::move(proposals), steady_clock::now() + kProposeFor);
  if (!served) return served.error();
  json::array answers;
  for (auto& answer : served->answers) answers.push_back(std::move(answer));
  return json::object{{"index", served->index}, {"answers", std::move(answers)}};
}

Outcome serve_release(Call& call) {
  CORE_TRY(call.member().agent().release({call.body().at("vsd").to_number<uint64_t>()},
                                         call.body().at("epoch").to_number<uint64_t>()));
  return json::object{};
}

Outcome serve_backplane(Call& call, NodeId peer) {
  if (call.body().at("node").to_number<uint64_t>() != peer.value)
    return Error{Code::invalid, "a node asked in another's name"};
  if (call.body().at("peer_life").to_number<uint64_t>() != call.member().agent().life())
    return Error{Code::stale, "this node has another life"};
  return call.member().peers().admit(peer, call.body().at("life").to_number<uint64_t>());
}

Outcome serve_promote(Call& call, NodeId peer) {
  auto node = call.node(std::to_string(peer.value));
  if (!node) return node.error();
  journal::Etcd etcd(etcd_endpoints(call.member().config(), call.member().peers()), kEtcdTimeout);
  auto members = etcd.members();
  if (!members) return members.error();
  for (const auto& one : *members)
    if (one.peer_url == etcd_peer_url(node->backplane_addr) && one.learner)
      CORE_TRY(etcd.promote(one.id));
  return json::object{};
}

Outcome serve_status(Call& call) {
  const meta::Position at = call.member().replica().applied();
  json::object out = call.member().audit().status();
  out["applied"] = at.index;
  out["hash"] = at.hash;
  return out;
}

// All nodes' metadata at one entry, beside each other.
Outcome audit_cluster(Call& call) {
  CORE_TRY(call.fields().check());
  auto asked = call.propose({{"op", "audit"}});
  if (!asked) return asked;
  const uint64_t index = asked->at("index").to_number<uint64_t>();
  auto nodes = call.cluster().nodes();
  if (!nodes) return nodes.error();
  const auto digests =
      call.member().audit().collect(index, *nodes, steady_clock::now() + kAuditFor, {});
  std::map<NodeId, uint64_t> known;
  for (const auto& [node, digest] : digests)
    if (digest && digest->index == index && digest->value) known[node] = *digest->value;
  const auto right = policy::majority(known);
  json::array out;
  for (const meta::Node& node : *nodes) {
    const auto found = digests.find(node.id);
    const bool reached = found != digests.end() && found->second.has_value();
    const auto at = known.find(node.id);
    const char* state = reached ? "working" : node.state == "up" ? "unreachable" : "down";
    if (reached && found->second->index > index) state = "overtaken";
    if (at != known.end())
      state = !right.empty() && at->second == known.at(right.front()) ? "equal" : "differs";
    out.push_back({{"id", node.id.value},
                   {"name", node.name},
                   {"state", state},
                   {"digest", at != known.end() ? Audit::Digest{index, at->second}.hex() : ""}});
  }
  return json::object{{"log_index", index}, {"nodes", std::move(out)}};
}

http::Response serve_database(Call& call) {
  const std::filesystem::path copy =
      call.member().paths().state / ("copy-" + tls::random_hex(kSecretBytes));
  auto copied = call.database().copy_to(copy);
  auto data = copied ? read_file(copy) : Result<std::string>(copied.error());
  std::error_code err;
  std::filesystem::remove(copy, err);
  if (!data) return respond(data.error());
  return {200, std::move(*data), "application/octet-stream"};
}

Outcome serve_peer(Call& call, const std::vector<std::string>& path, NodeId peer) {
  const std::string what = path.size() == 2 ? path[1] : "";
  if (what == "propose") return serve_proposals(call);
  if (what == "release") return serve_release(call);
  if (what == "backplane") return serve_backplane(call, peer);
  if (what == "disk") return add_local_disk(call);
  if (what == "promote") return serve_promote(call, peer);
  if (what == "status") return serve_status(call);
  return Error{Code::not_found, "no such call"};
}

Outcome serve_rest(Call& call, const std::string& method, const std::vector<std::string>& path) {
  // rest v1 NOUN [NAME [VERB]]
  const std::string& noun = path[2];
  const std::string name = path.size() > 3 ? path[3] : "";
  const std::string verb = path.size() > 4 ? path[4] : "";
  const std::string key =
      method + " " + noun + (name.empty() ? "" : "/*") + (verb.empty() ? "" : "/" + verb);
  if (key == "GET cluster") return show_cluster(call);
  if (key == "PATCH cluster") return set_cluster(call);
  if (key == "POST cluster/*" && name == "token") return make_token(call);
  if (key == "POST cluster/*" && name == "audit") return audit_cluster(call);
  if (key == "GET node") return list_nodes(call);
  if (key == "POST node/*/remove") return remove_node(call, name);
  if (key == "GET disk") return list_disks(call);
  if (key == "GET disk/*" && name == "candidates") return list_candidates(call);
  if (key == "POST disk") return add_disk(call);
  if (key == "DELETE disk/*") return remove_disk(call, name);
  if (key == "POST disk/*/evacuate") return evacuate_disk(call, name);
  if (key == "GET pool") return show_pool(call);
  if (key == "POST pool/*" && name == "verify") return verify_pool(call);
  if (key == "POST pool/*" && name == "repair") return repair_pool(call);
  if (key == "POST pool/*" && name == "rebalance") return rebalance_pool(call);
  if (key == "GET vsd") return list_vsds(call);
  if (key == "POST vsd") return create_vsd(call);
  if (key == "GET vsd/*") return show_vsd(call, name);
  if (key == "PATCH vsd/*") return change_vsd(call, name);
  if (key == "DELETE vsd/*") return delete_vsd(call, name);
  if (key == "POST vsd/*/open") return open_or_close(call, name, "open");
  if (key == "POST vsd/*/close") return open_or_close(call, name, "close");
  if (key == "GET task") return list_tasks(call);
  if (key == "GET task/*") return show_task(call, name);
  if (key == "POST task/*/wait") return wait_for_task(call, name);
  return Error{Code::not_found, "no such call: " + key};
}

http::Response route(Daemon& daemon, const http::Request& request) {
  const std::vector<std::string> path = split(request.path);
  const bool rest = path.size() >= 3 && path[0] == "rest" && path[1] == "v1";
  const bool peer = !path.empty() && path[0] == "peer";
  if (!rest && !peer)
    return respond(Error{Code::not_found, "the API begins at /rest/v1/openapi.json"});
  if (rest && request.method == "GET" && path[2] == "openapi.json") return {200, kOpenApi};
  const bool asks_in = rest && request.method == "POST" && path.size() == 4 &&
                       path[2] == "cluster" && path[3] == "members";
  if (peer ? !request.peer : !request.local && !request.peer && !asks_in)
    return denied("not without a certificate of this cluster's nodes");
  json::object body;
  if (!request.body.empty()) {
    boost::system::error_code err;
    json::value parsed = json::parse(request.body, err);
    if (err || !parsed.is_object())
      return respond(Error{Code::invalid, "the request's body is no JSON object"});
    body = std::move(parsed.as_object());
  }
  if (rest && request.method == "POST" && path[2] == "cluster" && path.size() == 3) {
    if (auto created = daemon.create(body); !created) return respond(created.error());
    body.clear();
  }
  const bool joins = rest && request.method == "POST" && path.size() == 4 && path[2] == "cluster" &&
                     path[3] == "join";
  if (joins) {
    if (auto joined = daemon.join(body); !joined) return respond(joined.error());
    body.clear();
  }
  Member* member = daemon.member();
  if (member == nullptr)
    return respond(
        Error{Code::conflict, "this node is in no cluster: scalectl cluster create, or join"});
  if (peer && path.size() == 2 && path[1] == "hint") {
    member->replica().look_for(body.at("index").to_number<uint64_t>());
    return respond(json::object{});
  }
  Call call(*member, std::move(body));
  if (auto opened = call.open(); !opened) return respond(opened.error());
  if (peer && path.size() == 2 && path[1] == "database") return serve_database(call);
  if (peer) return respond(serve_peer(call, path, request.peer));
  if (asks_in) return respond(admit_node(call));
  if (joins || (request.method == "POST" && path[2] == "cluster" && path.size() == 3)) {
    wait_for_leader(call);
    return respond(show_cluster(call));
  }
  return respond(serve_rest(call, request.method, path));
}

}  // namespace

http::Response handle(Daemon& daemon, const http::Request& request) {
  try {
    return route(daemon, request);
  } catch (const std::exception& err) {
    // A field of the wrong type, as a rule.
    return respond(Error{Code::invalid, std::string("the request makes no sense: ") + err.what()});
  }
}

}  // namespace scaled
