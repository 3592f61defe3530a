// SPDX-License-Identifier: GPL-2.0
#include "commands.h"

#include <algorithm>
#include <ctime>
#include <sstream>

#include "device_commands.h"
#include "media_commands.h"
#include "show.h"
#include "table.h"
#include "words.h"

namespace scalectl {

namespace {

constexpr uint64_t kMostDays = 36'500;

// "2026-12-01T02:00:00", in UTC.
int64_t time_of(const std::string& word, const char* option) {
  std::tm parts{};
  const char* end = strptime(word.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr || *end != '\0')
    throw UsageError{std::string(option) + " takes a time in UTC, as 2026-12-01T02:00:00"};
  return timegm(&parts);
}

std::vector<Option> schedule_options(bool create) {
  return {{"vsds", "VSD[,VSD...]", "of these virtual disks, all at one instant"},
          {"vms", "VM[,VM...]", "of these virtual machines, each with all of its disks"},
          {"rule", "RULE", "when, as RFC 5545 writes it", create},
          {"zone", "ZONE", "time zone of the rule's hours; default: UTC"},
          {"starts", "TIME", "not before; minutes that the rule does not name are as in this"},
          {"keep", "N", "the newest N of each; default: all"},
          {"keep-days", "N", "none that is older, but the newest; default: of any age"}};
}

json::object schedule_body(const Words& w) {
  json::object body;
  take(body, w, {"rule", "zone"});
  for (const char* field : {"vsds", "vms"}) {
    if (!w.has(field)) continue;
    json::array names;
    for (const std::string& one : split_at_commas(w.options.at(field)))
      names.push_back(json::value(path_word(one)));
    body[field] = std::move(names);
  }
  if (w.has("starts")) body["starts"] = time_of(w.options.at("starts"), "--starts");
  if (w.has("keep")) body["keep"] = count_of(w.options.at("keep"), "--keep");
  if (w.has("keep-days")) {
    const uint64_t days = count_of(w.options.at("keep-days"), "--keep-days");
    if (days > kMostDays) throw UsageError{"--keep-days is at most " + std::to_string(kMostDays)};
    body["keep_seconds"] = days * kDaySeconds;
  }
  return body;
}

Call device_call(const std::string& path, const Words& w) {
  Call call{"POST", kRoot + path, {}};
  take(call.body, w, {"node"});
  if (w.has("no-wait")) call.body["wait"] = false;
  return call;
}

std::vector<Command> make_commands() {
  const Option copies{"copies", "2|3", "on as many nodes; default: 2"};
  const Option node{"node", "NODE", "name or number of a node; default: this one"};
  const Option no_wait{"no-wait", "", "do not wait for the node; see: scalectl task list"};
  return {
      {"cluster",
       "create",
       {"NAME"},
       {{"single", "", "one node, which keeps two copies on two of its disks"},
        {"node", "NAME", "this node's name; default: the host name"},
        {"lan", "ADDRESS", "IPv4 address of this node for people and programs"},
        {"backplane", "ADDRESS", "IPv4 address of this node for the other nodes"},
        {"lease", "SECONDS", "a node that is silent for so long is down; default 10"},
        {"plain-backplane", "", "data between nodes unencrypted: for an isolated network"}},
       "found a cluster with this node as its first",
       "scalectl cluster create office --single",
       [](const Words& w) {
         Call call{"POST", std::string(kRoot) + "cluster", {{"name", w.arguments[0]}}};
         if (w.has("single")) call.body["single"] = true;
         if (w.has("plain-backplane")) call.body["plain_backplane"] = true;
         if (w.has("lease")) call.body["lease_s"] = count_of(w.options.at("lease"), "--lease");
         take(call.body, w, {"node", "lan", "backplane"});
         return call;
       },
       show_cluster},
      {"cluster",
       "status",
       {},
       {},
       "what the cluster is and what is wrong with it",
       "scalectl cluster status",
       [](const Words&) { return get("cluster"); },
       show_cluster},
      {"cluster",
       "set",
       {},
       {{"grace", "MINUTES", "a node or disk that is away for longer is given up; default 15"},
        {"maintenance", "on|off", "on: nothing is given up, however long it is away"},
        {"scrub", "DAYS", "compare all copies that often; default 14, 0: only when asked"}},
       "change what holds for the whole cluster",
       "scalectl cluster set --maintenance on",
       [](const Words& w) {
         Call call{"PATCH", std::string(kRoot) + "cluster", {}};
         if (w.has("grace"))
           call.body["grace_seconds"] = count_of(w.options.at("grace"), "--grace") * 60;
         if (w.has("scrub")) call.body["scrub_days"] = count_of(w.options.at("scrub"), "--scrub");
         if (w.has("maintenance")) {
           const std::string& word = w.options.at("maintenance");
           if (word != "on" && word != "off")
             throw UsageError{"--maintenance is on or off, not '" + word + "'"};
           call.body["maintenance"] = word == "on";
         }
         return call;
       },
       show_cluster},
      {"cluster",
       "token",
       {},
       {{"hours", "N", "how long it may be used; default 24"}},
       "make a one-time token for a node that joins",
       "scalectl cluster token",
       [](const Words& w) {
         Call call{"POST", std::string(kRoot) + "cluster/token", {}};
         if (w.has("hours")) {
           call.body["hours"] = count_of(w.options.at("hours"), "--hours");
         }
         return call;
       },
       show_token},
      {"cluster",
       "audit",
       {},
       {},
       "compare the metadata of all nodes that are up; fails where it differs",
       "scalectl cluster audit",
       [](const Words&) {
         return Call{"POST", std::string(kRoot) + "cluster/audit", {}};
       },
       show_audit,
       nothing_differs},
      {"cluster",
       "join",
       {"ADDRESS", "TOKEN"},
       {{"node", "NAME", "this node's name; default: the host name"},
        {"lan", "ADDRESS", "IPv4 address of this node for people and programs"},
        {"backplane", "ADDRESS", "IPv4 address of this node for the other nodes"}},
       "make this node one of a cluster; ADDRESS is the backplane address of any of its nodes",
       "scalectl cluster join 10.12.0.1 8a1f...",
       [](const Words& w) {
         Call call{"POST",
                   std::string(kRoot) + "cluster/join",
                   {{"address", w.arguments[0]}, {"token", w.arguments[1]}}};
         take(call.body, w, {"node", "lan", "backplane"});
         return call;
       },
       show_cluster},
      {"node",
       "list",
       {},
       {},
       "all nodes",
       "scalectl node list",
       [](const Words&) { return get("node"); },
       show_nodes},
      {"node",
       "remove",
       {"NAME"},
       {{"cancel", "", "let it stay after all"}},
       "empty a node's disks, also of one that is gone for good, and take it out of the cluster",
       "scalectl node remove n3",
       [](const Words& w) {
         Call call{"POST", kRoot + ("node/" + path_word(w.arguments[0]) + "/remove"), {}};
         if (w.has("cancel")) call.body["cancel"] = true;
         return call;
       },
       show_begun},
      {"node",
       "drain",
       {},
       {node,
        {"until-restart", "", "only until the node has been restarted"},
        {"cancel", "", "it may run virtual machines again"}},
       "move all virtual machines of a node away while they run; it gets no others",
       "scalectl node drain --node n3",
       [](const Words& w) {
         Call call{"POST", std::string(kRoot) + "node/drain", {}};
         take(call.body, w, {"node"});
         if (w.has("cancel")) call.body["cancel"] = true;
         if (w.has("until-restart")) call.body["until_restart"] = true;
         return call;
       },
       show_drain},
      {"disk",
       "list",
       {},
       {},
       "all disks of the pool",
       "scalectl disk list",
       [](const Words&) { return get("disk"); },
       show_disks},
      {"disk",
       "candidates",
       {},
       {},
       "disks of this node, with what is on them",
       "scalectl disk candidates",
       [](const Words&) { return get("disk/candidates"); },
       show_candidates},
      {"disk",
       "add",
       {"PATH"},
       {node,
        {"tier", "ssd|hdd", "default: what the disk says"},
        {"wipe", "SERIAL", "lose what is on the disk with this serial number"}},
       "format a disk and take it into the pool",
       "scalectl disk add /dev/sdb",
       [](const Words& w) {
         Call call{"POST", std::string(kRoot) + "disk", {{"path", w.arguments[0]}}};
         take(call.body, w, {"node", "tier", "wipe"});
         return call;
       },
       show_added_disk},
      {"disk",
       "evacuate",
       {"ID"},
       {{"cancel", "", "let it stay after all"}},
       "move all copies off a disk, while everything goes on",
       "scalectl disk evacuate 4",
       [](const Words& w) {
         Call call{"POST", kRoot + ("disk/" + path_word(w.arguments[0]) + "/evacuate"), {}};
         if (w.has("cancel")) call.body["cancel"] = true;
         return call;
       },
       show_begun},
      {"disk",
       "remove",
       {"ID"},
       {},
       "drop a disk that holds no copies",
       "scalectl disk remove 4",
       [](const Words& w) {
         return Call{"DELETE", kRoot + ("disk/" + path_word(w.arguments[0])), {}};
       },
       nothing},
      {"pool",
       "status",
       {},
       {},
       "whether all copies are as they should be",
       "scalectl pool status",
       [](const Words&) { return get("pool"); },
       show_pool,
       nothing_damaged},
      {"pool",
       "verify",
       {},
       {},
       "compare all copies of everything, and recount the metadata",
       "scalectl pool verify",
       [](const Words&) {
         return Call{"POST", std::string(kRoot) + "pool/verify", {}};
       },
       show_begun},
      {"pool",
       "rebalance",
       {},
       {{"automatic", "", "from now on, whenever it is needed"}, {"stop", "", "no more of it"}},
       "move copies from full disks to emptier ones of their tier",
       "scalectl pool rebalance",
       [](const Words& w) {
         Call call{"POST", std::string(kRoot) + "pool/rebalance", {}};
         if (w.has("automatic") && w.has("stop"))
           throw UsageError{"--automatic or --stop, not both"};
         if (w.has("automatic")) call.body["how"] = "automatic";
         if (w.has("stop")) call.body["how"] = "stop";
         return call;
       },
       show_begun},
      {"pool",
       "repair",
       {"EXTENT"},
       {{"keep", "DISK", "the copy that is right; the others are made anew from it", true}},
       "settle which copy of a damaged extent is right",
       "scalectl pool repair 1234 --keep 3",
       [](const Words& w) {
         if (!w.has("keep")) throw UsageError{"say which copy is right: --keep DISK"};
         return Call{"POST",
                     std::string(kRoot) + "pool/repair",
                     {{"extent", count_of(w.arguments[0], "EXTENT")},
                      {"keep", count_of(w.options.at("keep"), "--keep")}}};
       },
       nothing},
      {"vsd",
       "create",
       {"NAME", "SIZE"},
       {copies},
       "make a thin virtual disk",
       "scalectl vsd create mail 100GiB --copies 3",
       [](const Words& w) {
         Call call{"POST",
                   std::string(kRoot) + "vsd",
                   {{"name", w.arguments[0]}, {"size_bytes", size_of(w.arguments[1])}}};
         if (w.has("copies")) call.body["copies"] = count_of(w.options.at("copies"), "--copies");
         return call;
       },
       show_vsd},
      {"vsd",
       "list",
       {},
       {},
       "all virtual disks",
       "scalectl vsd list",
       [](const Words&) { return get("vsd"); },
       show_vsds},
      {"vsd",
       "show",
       {"NAME"},
       {},
       "size, use, and where the copies lie",
       "scalectl vsd show mail",
       [](const Words& w) { return get("vsd/" + path_word(w.arguments[0])); },
       show_vsd},
      {"vsd",
       "resize",
       {"NAME", "SIZE"},
       {},
       "grow a virtual disk, also while it is in use",
       "scalectl vsd resize mail 200GiB",
       [](const Words& w) {
         return Call{"PATCH",
                     kRoot + ("vsd/" + path_word(w.arguments[0])),
                     {{"size_bytes", size_of(w.arguments[1])}}};
       },
       show_vsd},
      {"vsd",
       "clone",
       {"NAME", "NEW"},
       {},
       "make another virtual disk of what one is now, also while it is in use",
       "scalectl vsd clone mail mail-test",
       [](const Words& w) {
         return Call{"POST",
                     kRoot + ("vsd/" + path_word(w.arguments[0]) + "/clone"),
                     {{"name", path_word(w.arguments[1])}}};
       },
       show_clone},
      {"vsd",
       "set",
       {"NAME"},
       {{"copies", "2|3", "on as many nodes", true}},
       "change how many copies its data has, also while it is in use",
       "scalectl vsd set mail --copies 3",
       [](const Words& w) {
         if (!w.has("copies")) throw UsageError{"say how many: --copies 2 or 3"};
         return Call{"PATCH",
                     kRoot + ("vsd/" + path_word(w.arguments[0])),
                     {{"copies", count_of(w.options.at("copies"), "--copies")}}};
       },
       show_vsd},
      {"vsd",
       "open",
       {"NAME"},
       {node, no_wait},
       "make its block device on a node",
       "scalectl vsd open mail --node n2",
       [](const Words& w) { return device_call("vsd/" + path_word(w.arguments[0]) + "/open", w); },
       show_vsd},
      {"vsd",
       "close",
       {"NAME"},
       {node, no_wait},
       "remove its block device from a node",
       "scalectl vsd close mail",
       [](const Words& w) { return device_call("vsd/" + path_word(w.arguments[0]) + "/close", w); },
       show_vsd},
      {"vsd",
       "delete",
       {"NAME"},
       {{"yes", "", "yes, its data shall be gone", true}},
       "delete a virtual disk that is open nowhere; its snapshots and clones stay",
       "scalectl vsd delete mail --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"all data of " + w.arguments[0] + " would be lost; say --yes"};
         return Call{"DELETE", kRoot + ("vsd/" + path_word(w.arguments[0])), {}};
       },
       show_deletion},
      {"snapshot",
       "create",
       {"VSD[,VSD...]@NAME"},
       {},
       "keep virtual disks as they are at one instant, also while they are in use",
       "scalectl snapshot create mail,db@nightly",
       [](const Words& w) {
         const std::string& word = w.arguments[0];
         const size_t at = word.find('@');
         if (at == std::string::npos)
           throw UsageError{"'" + word + "' is no snapshot; write VSD@NAME"};
         json::array vsds;
         for (const std::string& vsd : split_at_commas(word.substr(0, at)))
           vsds.push_back(json::value(path_word(vsd)));
         if (vsds.empty()) throw UsageError{"a snapshot of what? write VSD@NAME"};
         return Call{"POST",
                     std::string(kRoot) + "snapshot",
                     {{"vsds", std::move(vsds)}, {"name", path_word(word.substr(at + 1))}}};
       },
       show_taken},
      {"snapshot",
       "list",
       {},
       {},
       "all snapshots",
       "scalectl snapshot list",
       [](const Words&) { return get("snapshot"); },
       show_snapshots},
      {"snapshot",
       "show",
       {"VSD@NAME"},
       {},
       "what a snapshot uses",
       "scalectl snapshot show mail@nightly",
       [](const Words& w) { return get("snapshot/" + snapshot_word(w.arguments[0])); },
       show_snapshot},
      {"snapshot",
       "diff",
       {"VSD@NAME"},
       {{"to", "VSD@NAME", "another snapshot of it; default: what is flushed now"},
        {"from", "CHUNK", "go on from there"},
        {"most", "N", "so many changes at once; default 1000, at most 10000"}},
       "what was changed since a snapshot",
       "scalectl snapshot diff mail@monday --to mail@tuesday",
       [](const Words& w) {
         Call call{"POST", kRoot + ("snapshot/" + snapshot_word(w.arguments[0]) + "/diff"), {}};
         if (w.has("to")) call.body["to"] = snapshot_word(w.options.at("to"));
         if (w.has("from")) call.body["from_chunk"] = count_of(w.options.at("from"), "--from");
         if (w.has("most")) call.body["most"] = count_of(w.options.at("most"), "--most");
         return call;
       },
       show_diff},
      {"snapshot",
       "space",
       {"VSD@NAME[,VSD@NAME...]"},
       {},
       "what deleting snapshots would free",
       "scalectl snapshot space mail@monday,mail@tuesday",
       [](const Words& w) {
         json::array snapshots;
         for (const std::string& one : split_at_commas(w.arguments[0]))
           snapshots.push_back(json::value(snapshot_word(one)));
         return Call{
             "POST", std::string(kRoot) + "snapshot/space", {{"snapshots", std::move(snapshots)}}};
       },
       show_weight},
      {"snapshot",
       "open",
       {"VSD@NAME"},
       {node, no_wait},
       "make a block device on a node to read a snapshot from",
       "scalectl snapshot open mail@nightly --node n2",
       [](const Words& w) {
         return device_call("snapshot/" + snapshot_word(w.arguments[0]) + "/open", w);
       },
       show_opened_snapshot},
      {"snapshot",
       "close",
       {"VSD@NAME"},
       {node, no_wait},
       "remove that block device",
       "scalectl snapshot close mail@nightly --node n2",
       [](const Words& w) {
         return device_call("snapshot/" + snapshot_word(w.arguments[0]) + "/close", w);
       },
       show_opened_snapshot},
      {"snapshot",
       "clone",
       {"VSD@NAME", "NEW"},
       {},
       "make a virtual disk that begins as a snapshot is",
       "scalectl snapshot clone mail@nightly mail-test",
       [](const Words& w) {
         return Call{"POST",
                     kRoot + ("snapshot/" + snapshot_word(w.arguments[0]) + "/clone"),
                     {{"name", path_word(w.arguments[1])}}};
       },
       show_vsd},
      {"snapshot",
       "revert",
       {"VSD@NAME"},
       {{"keep", "NAME", "of the snapshot that is made of what it is now; default: by the time"},
        {"yes", "", "yes, it shall be as it was then", true}},
       "make a virtual disk that is open nowhere what it was, in size as well",
       "scalectl snapshot revert mail@nightly --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"it would be as it was at " + w.arguments[0] + "; say --yes"};
         Call call{"POST", kRoot + ("snapshot/" + snapshot_word(w.arguments[0]) + "/revert"), {}};
         if (w.has("keep")) call.body["keep"] = path_word(w.options.at("keep"));
         return call;
       },
       show_reverted},
      {"snapshot",
       "delete",
       {"VSD@NAME"},
       {{"yes", "", "yes, it shall be gone", true}},
       "delete a snapshot",
       "scalectl snapshot delete mail@nightly --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"snapshot " + w.arguments[0] + " would be lost; say --yes"};
         return Call{"DELETE", kRoot + ("snapshot/" + snapshot_word(w.arguments[0])), {}};
       },
       show_deletion},
      {"schedule",
       "create",
       {"NAME"},
       schedule_options(true),
       "have snapshots taken by a rule, of virtual machines, or disks that belong together",
       "scalectl schedule create nightly --vsds mail,db --rule "
       "'FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0' --zone Europe/Berlin --keep 14",
       [](const Words& w) {
         if (!w.has("rule")) throw UsageError{"when? say --rule"};
         Call call{"POST", std::string(kRoot) + "schedule", schedule_body(w)};
         call.body["name"] = path_word(w.arguments[0]);
         return call;
       },
       show_schedule},
      {"schedule",
       "list",
       {},
       {},
       "all schedules",
       "scalectl schedule list",
       [](const Words&) { return get("schedule"); },
       show_schedules},
      {"schedule",
       "show",
       {"NAME"},
       {},
       "a schedule",
       "scalectl schedule show nightly",
       [](const Words& w) { return get("schedule/" + path_word(w.arguments[0])); },
       show_schedule},
      {"schedule",
       "set",
       {"NAME"},
       schedule_options(false),
       "change a schedule from now on",
       "scalectl schedule set nightly --keep 30",
       [](const Words& w) {
         return Call{"PATCH", kRoot + ("schedule/" + path_word(w.arguments[0])), schedule_body(w)};
       },
       show_schedule},
      {"schedule",
       "delete",
       {"NAME"},
       {},
       "delete a schedule; the snapshots that it took stay",
       "scalectl schedule delete nightly",
       [](const Words& w) {
         return Call{"DELETE", kRoot + ("schedule/" + path_word(w.arguments[0])), {}};
       },
       nothing},
      {"event",
       "list",
       {},
       {{"about", "NAME", "of a VM, a virtual disk, a node, ..."},
        {"limit", "N", "so many of the newest; default: 100, of 10000 that are kept"}},
       "what was done, by whom, to what, and what became of it; the newest last",
       "scalectl event list --about mail",
       [](const Words& w) {
         return with_query(get("event"), w, {"about", "limit"});
       },
       show_events},
      {"task",
       "list",
       {},
       {},
       "what goes on, and what ended last",
       "scalectl task list",
       [](const Words&) { return get("task"); },
       show_tasks},
      {"task",
       "show",
       {"ID"},
       {},
       "one task",
       "scalectl task show 17",
       [](const Words& w) { return get("task/" + path_word(w.arguments[0])); },
       show_task},
      {"task",
       "wait",
       {"ID"},
       {{"seconds", "N", "for at most so long; default and most: 60"}},
       "wait for the end of a task; fails where that failed",
       "scalectl task wait 17",
       [](const Words& w) {
         Call call{"POST", kRoot + ("task/" + path_word(w.arguments[0]) + "/wait"), {}};
         if (w.has("seconds"))
           call.body["seconds"] = count_of(w.options.at("seconds"), "--seconds");
         return call;
       },
       show_task},
  };
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> all = [] {
    std::vector<Command> out = make_commands();
    for (Command& one : vm_commands()) out.push_back(std::move(one));
    for (Command& one : device_commands()) out.push_back(std::move(one));
    for (Command& one : media_commands()) out.push_back(std::move(one));
    return out;
  }();
  return all;
}

}  // namespace scalectl
