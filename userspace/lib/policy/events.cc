// SPDX-License-Identifier: GPL-2.0
#include "policy/events.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

namespace policy {

namespace {

constexpr size_t kLongestText = 300;

// Proposals that are told of, and as what. What nodes say of their I/O all the time is not.
const std::map<std::string, std::string, std::less<>>& told() {
  static const std::map<std::string, std::string, std::less<>> table = {
      {"cluster_create", "cluster create"},
      {"set", "cluster set"},
      {"token_add", "cluster token"},
      {"node_add", "node join"},
      {"node_up", "node is up"},
      {"node_down", "node is down"},
      {"node_leave", "node remove"},
      {"node_gone", "node is removed"},
      {"node_drain", "node drain"},
      {"node_bond", "node bond"},
      {"disk_add", "disk add"},
      {"disk_failed", "disk failed"},
      {"disk_absent", "disk is absent"},
      {"disk_lost", "disk is lost"},
      {"disk_leave", "disk evacuate"},
      {"disk_remove", "disk remove"},
      {"vsd_create", "vsd create"},
      {"vsd_delete", "vsd delete"},
      {"vsd_resize", "vsd resize"},
      {"vsd_copies", "vsd copies"},
      {"vsd_clone", "snapshot clone"},
      {"vsd_revert", "snapshot revert"},
      {"open", "vsd open"},
      {"close", "vsd close"},
      {"snapshot", "snapshot create"},
      {"snapshot_delete", "snapshot delete"},
      {"schedule_create", "schedule create"},
      {"schedule_set", "schedule set"},
      {"schedule_delete", "schedule delete"},
      {"vm_create", "vm create"},
      {"vm_edit", "vm edit"},
      {"vm_delete", "vm delete"},
      {"vm_start", "vm start"},
      {"vm_want", "vm wanted"},
      {"vm_state", "vm is"},
      {"vm_ended", "vm ended"},
      {"vm_recover", "vm begins anew"},
      {"vm_migrate", "vm migrate"},
      {"vm_migrate_cancel", "vm migrate cancel"},
      {"vm_moved", "vm has moved"},
      {"vm_stays", "vm stays"},
      {"vm_nic_add", "vm nic-add"},
      {"vm_nic_change", "vm nic-edit"},
      {"vm_nic_remove", "vm nic-remove"},
      {"vm_disk_add", "vm disk-add"},
      {"vm_disk_change", "vm disk-edit"},
      {"vm_disk_remove", "vm disk-remove"},
      {"vm_disk_gone", "vm disk is gone"},
      {"vm_cdrom_add", "vm cdrom-add"},
      {"vm_cdrom_change", "vm cdrom-edit"},
      {"vm_cdrom_remove", "vm cdrom-remove"},
      {"medium_create", "medium upload"},
      {"medium_make", "vsd export"},
      {"medium_checked", "medium is checked"},
      {"medium_delete", "medium delete"},
      {"vsd_fill", "vsd import"},
      {"vsd_fill_cancel", "vsd import-cancel"},
      {"filled", "vsd is imported"},
      {"vm_snapshot_delete", "vm forget"},
      {"vm_revert", "vm revert"},
      {"vm_clone", "vm clone"},
      {"rebalance", "pool rebalance"},
      {"verify", "pool verify"},
      {"repair", "pool repair"},
  };
  return table;
}

// Numbers that lead to the object, what is no business of a reader's, and what is secret.
const std::set<std::string_view> kLeftOut = {
    "op",          "by",       "vm",       "vsd",  "node",  "disk",    "life",
    "run",         "uuid",     "machine",  "hash", "token", "expires", "epoch",
    "vm_snapshot", "snapshot", "schedule", "vsds", "medium"};

std::string name_by(Context& c, const char* query, uint64_t id) {
  meta::Query row(c.database, query);
  row.bind(1, s64(id));
  return row.executeStep() ? row.getColumn(0).getString() : std::to_string(id);
}

std::string short_of(const json::value& value) {
  return value.is_string() ? std::string(value.as_string()) : json::serialize(value);
}

// "VSD a@s", or the first of several; what is cloned at once gets no name.
std::string snapshots_of(Context& c, const json::object& body) {
  const json::array& vsds = body.at("vsds").as_array();
  if (vsds.empty()) return "";
  std::string out = "VSD " + name_by(c, "SELECT name FROM vsd WHERE id = ?",
                                     number(vsds.at(0).as_object(), "vsd"));
  if (body.contains("name")) out += "@" + text(body, "name");
  if (vsds.size() > 1) out += " and " + std::to_string(vsds.size() - 1) + " more";
  return out;
}

// "wanted=off how=stop"
std::string details_of(const json::object& body, const json::object& answer) {
  std::string out;
  const auto add = [&](std::string_view name, const json::value& value) {
    if (value.is_string() && value.as_string().empty()) return;
    out += (out.empty() ? "" : " ") + std::string(name) + "=" + short_of(value);
  };
  for (const auto& item : body) {
    if (kLeftOut.contains(item.key())) continue;
    // What a guest is given may have passwords in it.
    const bool secret = item.key() == "user_data" || item.key() == "network_config";
    if (secret && item.value().is_string() && !item.value().as_string().empty())
      add(item.key(),
          json::value("(" + std::to_string(item.value().as_string().size()) + " bytes)"));
    else
      add(item.key(), item.value());
  }
  if (const std::string op = text(body, "op"); op == "open" || op == "close")
    add("node", body.at("node"));
  for (const char* name : {"node", "disk", "nic"})
    if (answer.contains(name)) add(name, answer.at(name));
  // In one line, and cut between characters: half of one is no text, and no JSON.
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < ' '; }, ' ');
  if (out.size() <= kLongestText) return out;
  size_t end = kLongestText;
  while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xc0) == 0x80) end--;
  return out.substr(0, end) + "...";
}

}  // namespace

std::string event_object(Context& c, const json::object& body) {
  const json::value* op = body.if_contains("op");
  if (op == nullptr || !op->is_string() || !told().contains(std::string_view(op->as_string())))
    return "";
  // What schedules take and delete is much, and listed as what it is.
  if (op->as_string() == "snapshot" && body.contains("schedule")) return "";
  // Nor what the leader tries again and again, and schedules delete.
  if ((op->as_string() == "snapshot_delete" || op->as_string() == "vm_snapshot_delete" ||
       op->as_string() == "close") &&
      !body.contains("by"))
    return "";
  struct By {
    const char* field;
    const char* kind;
    const char* query;
  };
  static constexpr std::array<By, 8> kBy = {{
      {"vm_snapshot", "VM",
       "SELECT vm.name || '@' || vm_snapshot.name FROM vm_snapshot JOIN vm ON vm.id = "
       "vm_snapshot.vm WHERE vm_snapshot.id = ?"},
      {"vm", "VM", "SELECT name FROM vm WHERE id = ?"},
      {"snapshot", "VSD",
       "SELECT vsd.name || '@' || snapshot.name FROM snapshot JOIN vsd ON vsd.id = snapshot.vsd "
       "WHERE snapshot.id = ?"},
      {"vsd", "VSD", "SELECT name FROM vsd WHERE id = ?"},
      {"medium", "medium", "SELECT name FROM medium WHERE id = ?"},
      {"disk", "disk", "SELECT id FROM disk WHERE id = ?"},
      {"schedule", "schedule", "SELECT name FROM schedule WHERE id = ?"},
      {"node", "node", "SELECT name FROM node WHERE id = ?"},
  }};
  for (const By& by : kBy)
    if (const json::value* id = body.if_contains(by.field); id != nullptr && id->is_number())
      return by.kind + (" " + name_by(c, by.query, number(body, by.field)));
  // What comes to be has a name alone.
  static const std::map<std::string, std::string, std::less<>> kKinds = {
      {"vm_create", "VM"},  {"vsd_create", "VSD"}, {"medium_create", "medium"},
      {"node_add", "node"}, {"set", "setting"},    {"schedule_create", "schedule"}};
  const auto kind = kKinds.find(std::string_view(op->as_string()));
  if (op->as_string() == "snapshot") return snapshots_of(c, body);
  if (kind == kKinds.end()) return "the cluster";
  return kind->second + " " + text(body, "name");
}

void note_event(Context& c, NodeId node, const json::object& body, const std::string& object,
                const json::object& answer) {
  // Asked again, it goes on.
  if (object.empty() || answer.contains("again")) return;
  // It found no node, and is tried every few seconds.
  if (text(body, "op") == "vm_recover" && answer.contains("node") && number(answer, "node") == 0)
    return;
  const std::string who =
      body.contains("by") ? text(body, "by")
                          : "node " + name_by(c, "SELECT name FROM node WHERE id = ?", node.value);
  const uint64_t id = next_id(c, "event");
  run(c, "INSERT INTO event VALUES(?, ?, ?, ?, ?, ?)", s64(id), c.now, who,
      told().find(text(body, "op"))->second, object, details_of(body, answer));
  if (id > kEventsKept) run(c, "DELETE FROM event WHERE id <= ?", s64(id - kEventsKept));
}

}  // namespace policy
