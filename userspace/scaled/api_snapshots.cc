// SPDX-License-Identifier: GPL-2.0
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>
#include <thread>

#include "api_call.h"
#include "host/dm.h"
#include "meta/map.h"

namespace scaled {

namespace json = boost::json;
using core::NodeId;
using core::SnapshotId;
using core::VsdId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

// Longer than it takes until a lease is free that its node's kernel has not (housekeeping): an
// answer that came too late leaves such.
constexpr seconds kTakeFor{90};
constexpr milliseconds kHoldTimeout{60'000};
constexpr int kGoOnTries = 3;
constexpr uint64_t kMostChanges = 10'000;
constexpr size_t kMostVsds = 64;

json::object snapshot_json(const meta::Snapshot& snapshot, const std::vector<meta::Vsd>& vsds,
                           const std::vector<meta::Opened>& opened,
                           const std::vector<meta::Schedule>& schedules) {
  std::string vsd;
  std::string schedule;
  for (const meta::Schedule& one : schedules)
    if (one.id == snapshot.schedule) schedule = one.name;
  json::array open;
  for (const meta::Vsd& one : vsds) {
    if (one.id == snapshot.vsd) vsd = one.name;
    if (one.view != snapshot.id) continue;
    for (const meta::Opened& row : opened)
      if (row.vsd == one.id)
        open.push_back({{"node", row.node.value}, {"state", row.state}, {"error", row.error}});
  }
  const std::string label = vsd + "@" + snapshot.name;
  return {{"id", snapshot.id.value},
          {"vsd", vsd},
          {"name", snapshot.name},
          {"size_bytes", snapshot.sectors * kSectorBytes},
          {"created", snapshot.created},
          {"schedule", schedule},
          {"device", "/dev/mapper/" + host::device_name(label)},
          {"open", std::move(open)}};
}

Outcome snapshots_json(Call& call, const std::vector<SnapshotId>* only) {
  auto all = call.cluster().snapshots();
  auto vsds = call.cluster().vsds();
  auto opened = call.cluster().opened();
  auto schedules = call.cluster().schedules();
  if (!all || !vsds || !opened || !schedules)
    return Error{Code::storage, "the metadata is unreadable"};
  std::erase_if(*all, [&](const meta::Snapshot& one) {
    return std::any_of(vsds->begin(), vsds->end(),
                       [&](const meta::Vsd& vsd) { return vsd.id == one.vsd && vsd.is_medium(); });
  });
  json::array out;
  for (const meta::Snapshot& one : *all)
    if (only == nullptr || std::find(only->begin(), only->end(), one.id) != only->end())
      out.push_back(snapshot_json(one, *vsds, *opened, *schedules));
  return json::object{{"snapshots", std::move(out)}};
}

std::string taken_text(const std::string& vsd, const std::string& name) {
  std::string out = "there is a snapshot " + vsd;
  out += "@" + name;
  out += " already";
  return out;
}

struct Subjects {
  std::vector<meta::Vsd> vsds;
  std::vector<NodeId> holders;  // of the lease of each; 0: nobody, or one that died
};

Result<Subjects> find_subjects(Call& call, const std::vector<std::string>& names,
                               const std::string& name) {
  Subjects out;
  auto nodes = call.cluster().nodes();
  auto taken = call.cluster().snapshots();
  if (!nodes || !taken) return Error{Code::storage, "the metadata is unreadable"};
  for (const std::string& one : names) {
    auto vsd = call.vsd(one);
    if (!vsd) return vsd.error();
    for (const meta::Snapshot& other : *taken)
      if (other.vsd == vsd->id && other.name == name)
        return Error{Code::conflict, taken_text(one, name)};
    const bool held = std::any_of(nodes->begin(), nodes->end(), [&](const meta::Node& node) {
      return node.id == vsd->lease_node && node.life == vsd->lease_life && node.state == "up";
    });
    out.holders.push_back(held ? vsd->lease_node : NodeId{});
    out.vsds.push_back(std::move(*vsd));
  }
  return out;
}

Result<void> ask_for_release(Call& call, const meta::Vsd& vsd) {
  if (!vsd.lease_node) return {};
  if (vsd.lease_node == call.member().config().node)
    return call.member().agent().release(vsd.id, vsd.epoch);
  auto done = call.member().peers().call(
      vsd.lease_node, "/peer/release", {{"vsd", vsd.id.value}, {"epoch", vsd.epoch}}, kHoldTimeout);
  if (!done) return done.error();
  return {};
}

// A node, and those of the VSDs that nobody but it may write now.
struct Group {
  NodeId node;
  std::vector<VsdId> vsds;
  Result<json::array> items = json::array{};
};

std::vector<Group> group(const Subjects& subjects, NodeId self) {
  std::map<NodeId, Group> groups;
  for (size_t i = 0; i < subjects.vsds.size(); i++) {
    const NodeId node = subjects.holders[i] ? subjects.holders[i] : self;
    groups[node].node = node;
    groups[node].vsds.push_back(subjects.vsds[i].id);
  }
  std::vector<Group> out;
  out.reserve(groups.size());
  for (auto& [node, one] : groups) out.push_back(std::move(one));
  return out;
}

// On all nodes at the same time.
template <class Function>
void everywhere(std::vector<Group>& groups, const Function& function) {
  std::vector<std::jthread> threads;
  threads.reserve(groups.size());
  for (Group& one : groups) threads.emplace_back([&function, &one] { function(one); });
}

void hold(Member& member, Group& one) {
  if (one.node == member.config().node) {
    one.items = member.agent().hold(one.vsds);
    return;
  }
  json::array ids;
  for (const VsdId vsd : one.vsds) ids.push_back(vsd.value);
  auto held = member.peers().call(one.node, "/peer/hold", {{"vsds", std::move(ids)}}, kHoldTimeout);
  const json::value* items = held ? held->if_contains("items") : nullptr;
  if (items != nullptr && items->is_array())
    one.items = items->as_array();
  else
    one.items = held ? Error{Code::unknown, "a node's answer is incomplete"} : held.error();
}

void go_on(Member& member, const Group& one, const std::map<VsdId, uint64_t>& epochs) {
  std::vector<std::pair<VsdId, uint64_t>> list;
  json::array said;
  for (const VsdId vsd : one.vsds) {
    const auto at = epochs.find(vsd);
    list.emplace_back(vsd, at == epochs.end() ? 0 : at->second);
    said.push_back(json::array{list.back().first.value, list.back().second});
  }
  if (one.node == member.config().node) {
    member.agent().go_on(list);
    return;
  }
  // It goes on by itself where this does not get there, in a while; said twice, it is as once.
  for (int tries = 0; tries < kGoOnTries; tries++) {
    auto told = member.peers().call(one.node, "/peer/go_on", {{"vsds", said}}, kHoldTimeout);
    if (told) return;
    spdlog::info("node {}: {}", one.node.value, told.error().text);
  }
}

// All hold still; one entry takes them; all go on.
Outcome take_still(Call& call, const Subjects& subjects, const json::object& what) {
  Member& member = call.member();
  std::vector<Group> groups = group(subjects, member.config().node);
  const auto began = steady_clock::now();
  everywhere(groups, [&](Group& one) { hold(member, one); });
  json::array items;
  Outcome taken = json::object{{"again", true}};
  for (const Group& one : groups) {
    if (!one.items) taken = one.items.error();
    if (one.items) items.insert(items.end(), one.items->begin(), one.items->end());
  }
  while (taken && taken->contains("again")) {
    json::object body = what;
    body["op"] = "snapshot";
    body["vsds"] = items;
    taken = call.propose(std::move(body));
  }
  std::map<VsdId, uint64_t> epochs;
  if (taken)
    for (const json::value& one : taken->at("taken").as_array())
      epochs[{one.at("vsd").to_number<uint64_t>()}] = one.at("epoch").to_number<uint64_t>();
  everywhere(groups, [&](Group& one) { go_on(member, one, epochs); });
  if (taken)
    (*taken)["paused_ms"] =
        std::chrono::duration_cast<milliseconds>(steady_clock::now() - began).count();
  return taken;
}

// Before anybody has to wait for it.
Result<void> may_be_named(Call& call, const std::string& name) {
  if (!meta::valid_name(name)) return Error{Code::invalid, "'" + name + "' is no name for a VSD"};
  if (call.vsd(name)) return Error{Code::conflict, "a VSD named " + name + " exists"};
  return {};
}

// Snapshots, or a clone. A lease may change hands meanwhile: then anew.
Outcome take(Call& call, const std::vector<std::string>& names, const json::object& what) {
  const auto deadline = steady_clock::now() + kTakeFor;
  for (;;) {
    if (const json::value* clone = what.if_contains("clone"); clone != nullptr)
      CORE_TRY(may_be_named(call, std::string(clone->as_string())));
    const json::value* name = what.if_contains("name");
    auto subjects =
        find_subjects(call, names, name == nullptr ? "" : std::string(name->as_string()));
    if (!subjects) return subjects.error();
    auto taken = take_still(call, *subjects, what);
    const Code code = taken ? Code::unknown : taken.error().code;
    if ((code != Code::conflict && code != Code::stale) || steady_clock::now() >= deadline)
      return taken;
    std::this_thread::sleep_for(kLook);
  }
}

std::string name_of_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "reverted-%Y%m%d-%H%M%S", &parts);
  return text.data();
}

}  // namespace

// VSD@NAME; neither may have an '@'.
Result<meta::Snapshot> find_snapshot(Call& call, const std::string& what) {
  const size_t at = what.find('@');
  if (at == std::string::npos)
    return Error{Code::invalid, "'" + what + "' is no snapshot; write VSD@NAME"};
  auto vsd = call.vsd_or_deleted(what.substr(0, at));
  if (!vsd) return vsd.error();
  auto all = call.cluster().snapshots();
  if (!all) return all.error();
  for (const meta::Snapshot& one : *all)
    if (one.vsd == vsd->id && one.name == what.substr(at + 1)) return one;
  return Error{Code::not_found, "no snapshot named " + what};
}

Outcome serve_hold(Call& call) {
  std::vector<VsdId> vsds;
  for (const json::value& id : call.body().at("vsds").as_array())
    vsds.push_back({id.to_number<uint64_t>()});
  auto items = call.member().agent().hold(vsds);
  if (!items) return items.error();
  return json::object{{"items", std::move(*items)}};
}

Outcome serve_go_on(Call& call) {
  std::vector<std::pair<VsdId, uint64_t>> epochs;
  for (const json::value& one : call.body().at("vsds").as_array())
    epochs.emplace_back(VsdId{one.as_array().at(0).to_number<uint64_t>()},
                        one.as_array().at(1).to_number<uint64_t>());
  call.member().agent().go_on(epochs);
  return json::object{};
}

Outcome take_snapshots(Call& call, const std::vector<std::string>& names,
                       const json::object& what) {
  return take(call, names, what);
}

Outcome create_snapshot(Call& call) {
  Fields fields = call.fields();
  const std::string name = fields.text("name");
  const std::vector<std::string> names = fields.texts("vsds");
  CORE_TRY(fields.check());
  // Before anybody has to wait for it.
  if (!meta::valid_name(name)) return Error{Code::invalid, "'" + name + "' is no name"};
  if (names.size() > kMostVsds || std::set(names.begin(), names.end()).size() != names.size())
    return Error{Code::invalid, "1 to " + std::to_string(kMostVsds) + " VSDs, each named once"};
  auto taken = take(call, names, {{"name", name}});
  if (!taken) return taken;
  std::vector<SnapshotId> ids;
  for (const json::value& one : taken->at("taken").as_array())
    ids.push_back({one.at("snapshot").to_number<uint64_t>()});
  auto out = snapshots_json(call, &ids);
  if (out) (*out)["paused_ms"] = taken->at("paused_ms");
  return out;
}

Outcome clone_vsd(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string clone = fields.text("name");
  CORE_TRY(fields.check());
  if (clone.empty()) return Error{Code::invalid, "the new VSD needs a name"};
  auto taken = take(call, {name}, {{"clone", clone}});
  auto out = taken ? brief_vsd(call, clone) : taken;
  if (out && taken) (*out)["paused_ms"] = taken->at("paused_ms");
  return out;
}

Outcome clone_snapshot(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string clone = fields.text("name");
  CORE_TRY(fields.check());
  CORE_TRY(may_be_named(call, clone));
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  auto made =
      call.propose({{"op", "vsd_clone"}, {"snapshot", snapshot->id.value}, {"name", clone}});
  return made ? brief_vsd(call, clone) : made;
}

Outcome list_snapshots(Call& call) { return snapshots_json(call, nullptr); }

// With what it uses. Walks the whole map.
Outcome show_snapshot(Call& call, const std::string& name) {
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  auto vsds = call.cluster().vsds();
  auto opened = call.cluster().opened();
  auto schedules = call.cluster().schedules();
  if (!vsds || !opened || !schedules) return Error{Code::storage, "the metadata is unreadable"};
  meta::Map map(call.database());
  auto version = map.version(snapshot->id);
  auto usage = version ? map.usage(*version) : Result<meta::Usage>(version.error());
  if (!usage) return usage.error();
  json::object out = snapshot_json(*snapshot, *vsds, *opened, *schedules);
  out["mapped_bytes"] = usage->logical_sectors * kSectorBytes;
  out["referenced_bytes"] = usage->referenced * kSlotBytes;
  out["unique_bytes"] = usage->unique * kSlotBytes;
  return out;
}

Outcome delete_snapshot(Call& call, const std::string& name) {
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  return call.propose({{"op", "snapshot_delete"}, {"snapshot", snapshot->id.value}});
}

// Its device on a node, for reading.
Outcome open_or_close_snapshot(Call& call, const std::string& name, const char* op) {
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  auto node = call.node(where);
  if (!node) return node.error();
  auto done =
      call.propose({{"op", op}, {"snapshot", snapshot->id.value}, {"node", node->id.value}});
  if (!done) return done;
  const uint64_t task = done->at("task").to_number<uint64_t>();
  const VsdId view{done->at("view").to_number<uint64_t>()};
  if (wait) CORE_TRY(wait_for_device(call, view, *node, op == std::string("snapshot_open"), task));
  const std::vector<SnapshotId> ids{snapshot->id};
  auto shown = snapshots_json(call, &ids);
  if (!shown) return shown;
  json::object out = shown->at("snapshots").at(0).as_object();
  out["task"] = task;
  return out;
}

Outcome revert_snapshot(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string keep = fields.text("keep", name_of_now());
  CORE_TRY(fields.check());
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  const auto deadline = steady_clock::now() + kTakeFor;
  for (;;) {
    auto vsd = call.cluster().vsd(snapshot->vsd);
    auto opened = call.cluster().opened();
    if (!vsd || !*vsd || !opened) return Error{Code::storage, "the metadata is unreadable"};
    if ((*vsd)->deleted)
      return Error{Code::conflict, "the VSD of " + name +
                                       " is deleted; clone the snapshot: scalectl snapshot clone"};
    for (const meta::Opened& one : *opened)
      if (one.vsd == snapshot->vsd)
        return Error{Code::conflict, "VSD " + (*vsd)->name + " is open on node " +
                                         std::to_string(one.node.value) + "; close it first"};
    // Somebody who moves its copies may have the lease.
    auto done = ask_for_release(call, **vsd)
                    ? call.propose({{"op", "vsd_revert"},
                                    {"vsd", snapshot->vsd.value},
                                    {"snapshot", snapshot->id.value},
                                    {"keep", keep}})
                    : Outcome(Error{Code::conflict, "the lease of VSD " + (*vsd)->name +
                                                        " is not given up; try again"});
    if (done && !done->contains("again")) {
      const std::vector<SnapshotId> ids{{done->at("kept").to_number<uint64_t>()}};
      return snapshots_json(call, &ids);
    }
    if (!done && (done.error().code != Code::conflict || steady_clock::now() >= deadline))
      return done;
    std::this_thread::sleep_for(kLook);
  }
}

// Between a snapshot and a later one, or what its VSD is now, as far as that is flushed.
Outcome diff_snapshot(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string other = fields.text("to", "");
  const uint64_t from_chunk = fields.number("from_chunk", 0);
  const uint64_t most = fields.number("most", 1000);
  CORE_TRY(fields.check());
  if (most == 0 || most > kMostChanges)
    return Error{Code::invalid, "1 to " + std::to_string(kMostChanges) + " changes at once"};
  auto snapshot = find_snapshot(call, name);
  if (!snapshot) return snapshot.error();
  meta::Map map(call.database());
  auto to = map.version(snapshot->vsd);
  if (other.empty()) {
    auto vsd = call.cluster().vsd(snapshot->vsd);
    if (!vsd || !*vsd || (*vsd)->deleted)
      return Error{Code::conflict, "the VSD of " + name + " is deleted; name another snapshot"};
  } else {
    auto second = find_snapshot(call, other);
    if (!second) return second.error();
    if (second->vsd != snapshot->vsd)
      return Error{Code::invalid, name + " and " + other + " are of different VSDs"};
    to = map.version(second->id);
  }
  auto from = map.version(snapshot->id);
  if (!from || !to) return from ? to.error() : from.error();
  auto diff = map.diff(*from, *to, from_chunk, most);
  if (!diff) return diff.error();
  json::array changes;
  for (const meta::Change& one : diff->changes)
    changes.push_back({{"offset_bytes", one.sector * kSectorBytes},
                       {"length_bytes", one.sectors * kSectorBytes},
                       {"mapped", one.mapped}});
  return json::object{{"changes", std::move(changes)}, {"next_chunk", diff->next.value_or(0)}};
}

Outcome weigh_snapshots(Call& call) {
  Fields fields = call.fields();
  const std::vector<std::string> names = fields.texts("snapshots");
  CORE_TRY(fields.check());
  meta::Map map(call.database());
  std::vector<meta::Version> versions;
  std::set<SnapshotId> seen;
  for (const std::string& name : names) {
    auto snapshot = find_snapshot(call, name);
    if (!snapshot) return snapshot.error();
    if (!seen.insert(snapshot->id).second)
      return Error{Code::invalid, "snapshot " + name + " is named twice"};
    auto version = map.version(snapshot->id);
    if (!version) return version.error();
    versions.push_back(*version);
  }
  auto freed = map.freed_by(versions);
  if (!freed) return freed.error();
  return json::object{{"freed_bytes", *freed * kSlotBytes}};
}

}  // namespace scaled
