// SPDX-License-Identifier: GPL-2.0
#include <charconv>
#include <ctime>
#include <map>
#include <thread>

#include "api_call.h"
#include "etcd_service.h"
#include "policy/audit.h"
#include "policy/events.h"

namespace scaled {

namespace json = boost::json;
using core::NodeId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr seconds kAuditFor{240};
constexpr uint64_t kTokenHours = 24;
constexpr uint64_t kMaxTokenHours = 720;
constexpr uint64_t kEventsShown = 100;

}  // namespace

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
                          {"few_extents", left->few},
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
                      {"watchdog", call.member().watchdog().in_use()},
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
  const auto deadline = steady_clock::now() + kCallProposesFor;
  while (!call.member().replica().leader() && steady_clock::now() < deadline)
    std::this_thread::sleep_for(kLook);
}

// What a node has for networks: its ports, where those were named, and what guests are at.
json::object networks_of(const meta::Node& node, const std::vector<meta::Bond>& bonds,
                         const std::vector<meta::Capacity>& capacities) {
  json::array own;
  for (const meta::Bond& bond : bonds)
    if (bond.node == node.id)
      own.push_back(json::object{{"network", bond.network},
                                 {"ports", json::value_from(bond.ports)},
                                 {"primary", bond.preferred}});
  json::object out{
      {"bonds", std::move(own)}, {"lan_bridge", ""}, {"uplink", ""}, {"lan_problem", ""}};
  for (const meta::Capacity& one : capacities) {
    if (one.node != node.id || one.life != node.life) continue;
    out["lan_bridge"] = one.lan_bridge;
    out["uplink"] = one.uplink;
    out["lan_problem"] = one.lan_problem;
  }
  return out;
}

Outcome list_nodes(Call& call) {
  auto nodes = call.cluster().nodes();
  const auto bonds = call.cluster().bonds();
  const auto capacities = call.cluster().capacities();
  if (!nodes || !bonds || !capacities) return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::Node& node : *nodes)
    out.push_back({{"id", node.id.value},
                   {"name", node.name},
                   {"state", node.state},
                   {"leaving", node.leaving},
                   {"drain", node.drain},
                   {"lan", node.lan_addr},
                   {"backplane", node.backplane_addr},
                   {"version", node.version},
                   {"leader", node.id == call.member().replica().leader()},
                   {"networks", networks_of(node, *bonds, *capacities)}});
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

Outcome drain_node(Call& call) {
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool cancel = fields.flag("cancel", false);
  const bool restart = fields.flag("until_restart", false);
  CORE_TRY(fields.check());
  if (cancel && restart)
    return Error{Code::invalid, "'cancel' and 'until_restart' do not go together"};
  auto node = call.node(where);
  if (!node) return node.error();
  return call.propose({{"op", "node_drain"},
                       {"node", node->id.value},
                       {"drain", cancel    ? ""
                                 : restart ? "restart"
                                           : "on"}});
}

// What was done, by whom and when.
Outcome list_events(Call& call) {
  Fields fields = call.fields();
  const std::string about = fields.text("about", "");
  const std::string limit = fields.text("limit", std::to_string(kEventsShown));
  CORE_TRY(fields.check());
  uint64_t most = 0;
  const auto read = std::from_chars(limit.data(), limit.data() + limit.size(), most);
  if (read.ec != std::errc() || read.ptr != limit.data() + limit.size() || most == 0 ||
      most > policy::kEventsKept)
    return Error{Code::invalid,
                 "'limit' is a number from 1 to " + std::to_string(policy::kEventsKept)};
  const auto events = call.cluster().events(about, most);
  if (!events) return events.error();
  json::array out;
  for (const meta::Event& one : *events)
    out.push_back(json::object{{"id", one.id},
                               {"at", one.at},
                               {"who", one.who},
                               {"what", one.what},
                               {"about", one.object},
                               {"details", one.details}});
  return json::object{{"events", std::move(out)}};
}

// Which of its ports are its LAN, or its backplane.
Outcome bond_node(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string network = fields.text("network");
  const std::string primary = fields.text("primary", "");
  const json::value* asked = call.body().if_contains("ports");
  const bool none = asked != nullptr && asked->is_array() && asked->as_array().empty();
  json::array ports;
  if (none)
    fields.skip("ports");
  else
    ports = json::value_from(fields.texts("ports")).as_array();
  CORE_TRY(fields.check());
  auto node = call.node(name);
  if (!node) return node.error();
  auto done = call.propose({{"op", "node_bond"},
                            {"node", node->id.value},
                            {"network", network},
                            {"ports", std::move(ports)},
                            {"preferred", primary}});
  return done ? list_nodes(call) : done;
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

}  // namespace scaled
