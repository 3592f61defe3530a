// SPDX-License-Identifier: GPL-2.0
#include "show.h"

#include <ctime>
#include <iomanip>
#include <sstream>

#include "table.h"
#include "words.h"

namespace scalectl {

namespace {

std::string count(const json::object& object, const char* name) {
  return std::to_string(number(object, name));
}

std::string bytes(const json::object& object, const char* name) {
  return human_bytes(number(object, name));
}

const json::array& list(const json::object& object, const char* name) {
  return object.at(name).as_array();
}

}  // namespace

std::string nothing(const json::object&) { return "done\n"; }

std::string show_cluster(const json::object& o) {
  std::string out = "cluster " + text(o, "name") + " (" + text(o, "uuid") + ")\n" +
                    count(o, "nodes") + " nodes, " + count(o, "disks") + " disks, " +
                    bytes(o, "used_bytes") + " of " + bytes(o, "raw_bytes") + " raw used\n" +
                    (number(o, "leader") != 0 ? "node " + count(o, "leader") + " leads"
                                              : std::string("no leader: no quorum")) +
                    ", change " + count(o, "log_index") + "\n";
  const json::object& redundancy = o.at("redundancy").as_object();
  out += number(redundancy, "few_extents") == 0
             ? "all data has its copies"
             : count(redundancy, "few_extents") + " MiB have too few copies, which are being made";
  if (number(redundancy, "wanting_extents") != 0)
    out += ", " + count(redundancy, "wanting_extents") + " MiB get more copies, or lose some";
  if (number(redundancy, "leaving_copies") != 0)
    out += ", " + count(redundancy, "leaving_copies") + " MiB leave their disk";
  if (const uint64_t seconds = number(redundancy, "seconds_left"); seconds != 0)
    out += ", " + std::to_string(seconds / 60 + 1) + " min left";
  out += "\na node may be away for " + std::to_string(number(o, "grace_seconds") / 60) +
         " min before that" + (o.at("maintenance").as_bool() ? "; maintenance: for any time" : "") +
         "\n";
  if (const std::string watchdog = text(o, "watchdog"); !watchdog.empty())
    out += "node " + count(o, "node") + " is reset where it hangs, by its " + watchdog + "\n";
  const json::array& conditions = list(o, "conditions");
  if (conditions.empty()) out += "no conditions on node " + count(o, "node") + "\n";
  for (const json::value& c : conditions)
    out += "! " + text(c.as_object(), "subject") + ": " + text(c.as_object(), "text") + "\n";
  return out;
}

namespace {

// What nodes have for networks, as far as there is something to say of it.
std::string show_bonds(const json::array& nodes) {
  std::string out;
  for (const json::value& value : nodes) {
    const json::object& n = value.as_object();
    const json::object& networks = n.at("networks").as_object();
    for (const json::value& one : list(networks, "bonds")) {
      const json::object& bond = one.as_object();
      out += text(n, "name") + ": " + text(bond, "network") + " is";
      for (const json::value& port : list(bond, "ports"))
        out += " " + std::string(port.as_string()) +
               (port.as_string() == text(bond, "primary") ? " (primary)" : "");
      out += "\n";
    }
    if (!text(networks, "lan_problem").empty())
      out += text(n, "name") + ": guests on the LAN: " + text(networks, "lan_problem") + "\n";
  }
  return out;
}

}  // namespace

std::string show_nodes(const json::object& o) {
  Table table({"ID:", "NAME", "STATE", "LAN", "BACKPLANE", "VERSION", "LEADS"});
  for (const json::value& value : list(o, "nodes")) {
    const json::object& n = value.as_object();
    table.add({count(n, "id"), text(n, "name"),
               text(n, "state") + (n.at("leaving").as_bool() ? ", leaving" : "") +
                   (text(n, "drain").empty() ? "" : ", drained"),
               text(n, "lan"), text(n, "backplane"), text(n, "version"),
               n.at("leader").as_bool() ? "yes" : ""});
  }
  return table.text() + show_bonds(list(o, "nodes"));
}

std::string show_audit(const json::object& o) {
  Table table({"ID:", "NAME", "METADATA", "DIGEST"});
  for (const json::value& value : list(o, "nodes")) {
    const json::object& n = value.as_object();
    table.add({count(n, "id"), text(n, "name"), text(n, "state"), text(n, "digest")});
  }
  return "as of change " + count(o, "log_index") + ":\n" + table.text();
}

bool nothing_differs(const json::object& o) {
  const json::array& nodes = list(o, "nodes");
  return std::none_of(nodes.begin(), nodes.end(), [](const json::value& n) {
    return text(n.as_object(), "state") == "differs";
  });
}

std::string show_disks(const json::object& o) {
  Table table({"ID:", "NODE:", "TIER", "STATE", "SIZE:", "USED:", "SERIAL"});
  for (const json::value& value : list(o, "disks")) {
    const json::object& d = value.as_object();
    table.add({count(d, "id"), count(d, "node"), text(d, "tier"),
               text(d, "state") + (d.at("leaving").as_bool() ? ", leaving" : ""),
               bytes(d, "size_bytes"), bytes(d, "used_bytes"), text(d, "serial")});
  }
  return table.text();
}

std::string show_candidates(const json::object& o) {
  Table table({"PATH", "TIER", "SIZE:", "SERIAL", "MODEL", "HOLDS"});
  for (const json::value& value : list(o, "candidates")) {
    const json::object& d = value.as_object();
    table.add({text(d, "path"), text(d, "tier"), bytes(d, "size_bytes"), text(d, "serial"),
               text(d, "model"), text(d, "used_for")});
  }
  return table.text();
}

namespace {

std::string clock_time(const json::object& object, const char* name) {
  const auto at = static_cast<std::time_t>(number(object, name));
  if (at == 0) return "-";
  std::tm parts{};
  localtime_r(&at, &parts);
  std::ostringstream out;
  out << std::put_time(&parts, "%F %T");
  return out.str();
}

std::string task_table(const json::array& tasks) {
  Table table({"ID:", "WHAT", "NAME", "NODE:", "STATE", "BEGAN", "ENDED", "WHY"});
  for (const json::value& value : tasks) {
    const json::object& t = value.as_object();
    table.add({count(t, "id"), text(t, "what"), text(t, "name"),
               number(t, "node") != 0 ? count(t, "node") : "-", text(t, "state"),
               clock_time(t, "began"), clock_time(t, "ended"), text(t, "why")});
  }
  return table.text();
}

}  // namespace

std::string show_tasks(const json::object& o) { return task_table(list(o, "tasks")); }

std::string show_events(const json::object& o) {
  Table table({"WHEN", "WHO", "WHAT", "ABOUT", "DETAILS"});
  const json::array& events = list(o, "events");
  for (auto at = events.rbegin(); at != events.rend(); ++at) {
    const json::object& e = at->as_object();
    table.add({clock_time(e, "at"), text(e, "who"), text(e, "what"), text(e, "about"),
               text(e, "details")});
  }
  return table.text();
}

std::string show_task(const json::object& o) { return task_table({o}); }

std::string show_deletion(const json::object& o) {
  return "deleted; its space comes back in the background, see: scalectl task show " +
         count(o, "task") + "\n";
}

std::string show_added_disk(const json::object& o) {
  return "disk " + count(o, "disk") + " (" + text(o, "tier") + ", serial " + text(o, "serial") +
         ") is in the pool\n";
}

namespace {

std::string where_open(const json::object& vsd) {
  std::string out;
  for (const json::value& value : list(vsd, "open")) {
    const json::object& row = value.as_object();
    out += (out.empty() ? "" : " ") + count(row, "node");
    if (text(row, "state") != "open") out += "(" + text(row, "state") + ")";
  }
  return out;
}

}  // namespace

std::string show_vsds(const json::object& o) {
  Table table({"NAME", "SIZE:", "COPIES:", "WRITER:", "OPEN ON", "DEVICE"});
  for (const json::value& value : list(o, "vsds")) {
    const json::object& v = value.as_object();
    table.add({text(v, "name"), bytes(v, "size_bytes"), count(v, "copies"),
               number(v, "lease_node") != 0 ? count(v, "lease_node") : "-", where_open(v),
               text(v, "device")});
  }
  return table.text();
}

namespace {

// What a virtual disk or a snapshot needs.
std::string use_of(const json::object& o) {
  return "leads to " + bytes(o, "referenced_bytes") + ", of these " + bytes(o, "unique_bytes") +
         " for itself alone (each has copies)";
}

}  // namespace

std::string show_vsd(const json::object& o) {
  std::string out = "VSD " + text(o, "name") + ": " + bytes(o, "size_bytes") + ", " +
                    count(o, "copies") + " copies";
  if (o.contains("mapped_bytes"))
    out += ", " + bytes(o, "mapped_bytes") + " mapped in " + count(o, "pieces") + " pieces\n" +
           use_of(o);
  const uint64_t made = number(o, "made_permille");
  if (!text(o, "problem").empty())
    out += "\ncould not be made from its medium: " + text(o, "problem");
  else if (made < 1000)
    out += "\nis being made from a medium, " + std::to_string(made / 10) + " %";
  const std::string open = where_open(o);
  out += open.empty() ? "\nnot open\n" : "\nopen on node " + open + "\n";
  for (const json::value& value : list(o, "open"))
    if (const std::string error = text(value.as_object(), "error"); !error.empty())
      out += "! node " + count(value.as_object(), "node") + ": " + error + "\n";
  if (!open.empty()) out += "device " + text(o, "device") + "\n";
  if (o.contains("task") && number(o, "task") != 0) out += "task " + count(o, "task") + "\n";
  if (!o.contains("spread")) return out;
  if (number(o, "stale_copies") != 0)
    out += "! " + count(o, "stale_copies") + " copies miss data\n";
  Table table({"DISK:", "COPIES:", "STALE:"});
  for (const json::value& value : list(o, "spread")) {
    const json::object& d = value.as_object();
    table.add({count(d, "disk"), count(d, "copies"), count(d, "stale")});
  }
  return list(o, "spread").empty() ? out : out + table.text();
}

std::string show_clone(const json::object& o) {
  return show_vsd(o) + "writers waited for " + count(o, "paused_ms") + " ms\n";
}

namespace {

std::string snapshot_table(const json::array& snapshots) {
  Table table({"SNAPSHOT", "SIZE:", "TAKEN", "OPEN ON"});
  for (const json::value& value : snapshots) {
    const json::object& s = value.as_object();
    table.add({text(s, "vsd") + "@" + text(s, "name"), bytes(s, "size_bytes"),
               clock_time(s, "created"), where_open(s)});
  }
  return table.text();
}

}  // namespace

std::string show_schedule(const json::object& o) {
  std::string names;
  for (const json::value& one : list(o, "vsds"))
    names += (names.empty() ? "" : ", ") + std::string(one.as_string());
  for (const json::value& one : list(o, "vms"))
    names += (names.empty() ? "VM " : ", VM ") + std::string(one.as_string());
  const uint64_t days = number(o, "keep_seconds") / kDaySeconds;
  std::string out = "schedule " + text(o, "name") + ": " + text(o, "rule") + ", hours in " +
                    text(o, "zone") + "\nof " + (names.empty() ? "nothing any more" : names) +
                    "\nkept: ";
  out += number(o, "keep") == 0 ? "all" : "the newest " + count(o, "keep");
  if (days != 0) out += ", none older than " + std::to_string(days) + " days";
  return out + "\n" + count(o, "snapshots") + " there, the newest of " + clock_time(o, "newest") +
         "; next " + clock_time(o, "next") + "\n";
}

std::string show_schedules(const json::object& o) {
  Table table({"SCHEDULE", "DISKS:", "VMS:", "RULE", "ZONE", "KEEPS:", "DAYS:", "THERE:", "NEWEST",
               "NEXT"});
  for (const json::value& value : list(o, "schedules")) {
    const json::object& s = value.as_object();
    const uint64_t days = number(s, "keep_seconds") / kDaySeconds;
    table.add({text(s, "name"), std::to_string(list(s, "vsds").size()),
               std::to_string(list(s, "vms").size()), text(s, "rule"), text(s, "zone"),
               number(s, "keep") == 0 ? "all" : count(s, "keep"),
               days == 0 ? "-" : std::to_string(days), count(s, "snapshots"),
               clock_time(s, "newest"), clock_time(s, "next")});
  }
  return table.text();
}

std::string show_snapshots(const json::object& o) { return snapshot_table(list(o, "snapshots")); }

std::string show_opened_snapshot(const json::object& o) {
  std::string out = snapshot_table({o});
  if (!list(o, "open").empty()) out += "device " + text(o, "device") + ", to be read only\n";
  if (number(o, "task") != 0) out += "task " + count(o, "task") + "\n";
  return out;
}

std::string show_taken(const json::object& o) {
  return snapshot_table(list(o, "snapshots")) + "writers waited for " + count(o, "paused_ms") +
         " ms\n";
}

std::string show_snapshot(const json::object& o) {
  return snapshot_table({o}) + bytes(o, "mapped_bytes") + " mapped; " + use_of(o) + "\n";
}

std::string show_reverted(const json::object& o) {
  return "reverted; what it was before is kept:\n" + snapshot_table(list(o, "snapshots"));
}

std::string show_diff(const json::object& o) {
  Table table({"OFFSET:", "LENGTH:", "NOW"});
  for (const json::value& value : list(o, "changes")) {
    const json::object& c = value.as_object();
    table.add({count(c, "offset_bytes"), count(c, "length_bytes"),
               c.at("mapped").as_bool() ? "data" : "zeros"});
  }
  std::string out = list(o, "changes").empty() ? "nothing differs\n" : table.text();
  if (number(o, "next_chunk") != 0) out += "there is more: --from " + count(o, "next_chunk") + "\n";
  return out;
}

std::string show_weight(const json::object& o) {
  return "deleting them would free " + bytes(o, "freed_bytes") + " of data, times its copies\n";
}

std::string show_vms(const json::object& o) {
  Table table({"VM", "STATE", "NODE:", "VCPUS:", "MEMORY:", "TAGS"});
  std::string why;
  for (const json::value& value : list(o, "vms")) {
    const json::object& vm = value.as_object();
    std::string tags;
    for (const json::value& tag : list(vm, "tags"))
      tags += (tags.empty() ? "" : " ") + std::string(tag.as_string());
    table.add({text(vm, "name"),
               text(vm, "state") + (vm.at("template").as_bool() ? ", a template" : ""),
               number(vm, "node") == 0 ? "-" : count(vm, "node"), count(vm, "vcpus"),
               human_bytes(number(vm, "memory_mib") * kMib), tags});
    if (text(vm, "state") == "waiting")
      why += "! " + text(vm, "name") + ": " + text(vm, "reason") + "\n";
  }
  return table.text() + why;
}

std::string show_vm_stats(const json::object& o) {
  constexpr uint64_t kNsPerMs = 1'000'000;
  const auto mean = [](const json::object& of, const char* ns, const char* requests) {
    const uint64_t count = number(of, requests);
    std::ostringstream out;
    out << std::fixed << std::setprecision(2)
        << (count == 0 ? 0.0
                       : static_cast<double>(number(of, ns)) / static_cast<double>(count) /
                             static_cast<double>(kNsPerMs));
    return out.str() + " ms";
  };
  std::string out = "on node " + count(o, "node") + ": " +
                    std::to_string(number(o, "cpu_ns") / kNsPerMs) + " ms of CPU, " +
                    bytes(o, "memory_bytes") + " of its memory\n";
  Table disks(
      {"DISK:", "READS:", "READ:", "EACH:", "WRITES:", "WRITTEN:", "EACH:", "FLUSHES:", "EACH:"});
  for (const json::value& value : list(o, "disks")) {
    const json::object& d = value.as_object();
    disks.add({count(d, "disk"), count(d, "reads"), bytes(d, "reads_bytes"),
               mean(d, "reads_ns", "reads"), count(d, "writes"), bytes(d, "writes_bytes"),
               mean(d, "writes_ns", "writes"), count(d, "flushes"),
               mean(d, "flushes_ns", "flushes")});
  }
  if (!list(o, "disks").empty()) out += disks.text();
  Table nics({"NIC:", "RECEIVED:", "PACKETS:", "DROPPED:", "SENT:", "PACKETS:", "DROPPED:"});
  for (const json::value& value : list(o, "nics")) {
    const json::object& n = value.as_object();
    nics.add({count(n, "nic"), bytes(n, "received_bytes"), count(n, "received_packets"),
              count(n, "received_dropped"), bytes(n, "sent_bytes"), count(n, "sent_packets"),
              count(n, "sent_dropped")});
  }
  if (!list(o, "nics").empty()) out += nics.text();
  return out;
}

std::string show_vm(const json::object& o) {
  std::string out = show_vms({{"vms", json::array{o}}});
  if (text(o, "state") == "off" && !text(o, "reason").empty()) out += text(o, "reason") + "\n";
  if (o.contains("left_out"))
    for (const json::value& value : list(o, "left_out"))
      out += "not as in the XML: " + std::string(value.as_string()) + "\n";
  if (number(o, "to_node") != 0) {
    out += "moves to node " + count(o, "to_node");
    if (o.contains("moved_bytes"))
      out += "; " + bytes(o, "moved_bytes") + " are there, " + bytes(o, "left_bytes") + " are left";
    out += "\n";
  } else if (number(o, "paused_ms") != 0) {
    out += "stood still for " + count(o, "paused_ms") + " ms when it last moved\n";
  }
  if (!text(o, "description").empty()) out += text(o, "description") + "\n";
  Table table({"DISK:", "VSD", "SIZE:", "BUS", "AT MOST"});
  for (const json::value& value : list(o, "disks")) {
    const json::object& disk = value.as_object();
    std::string most;
    if (number(disk, "iops") != 0) most = count(disk, "iops") + " requests/s";
    if (number(disk, "bytes_per_s") != 0)
      most += (most.empty() ? "" : ", ") + bytes(disk, "bytes_per_s") + "/s";
    table.add({count(disk, "disk"), text(disk, "vsd"), bytes(disk, "size_bytes"),
               text(disk, "bus") + (disk.at("leaving").as_bool() ? ", is taken out" : ""), most});
  }
  if (!list(o, "disks").empty()) out += table.text();
  Table nics({"NIC:", "AT", "MODEL", "MAC", "CABLE"});
  for (const json::value& value : list(o, "nics")) {
    const json::object& nic = value.as_object();
    const std::string at = number(nic, "vlan") != 0      ? "vlan:" + count(nic, "vlan")
                           : text(nic, "bridge").empty() ? "lan"
                                                         : text(nic, "bridge");
    nics.add({count(nic, "nic"), at, text(nic, "model"), text(nic, "mac"),
              nic.at("connected").as_bool() ? "in" : "out"});
  }
  if (!list(o, "nics").empty()) out += nics.text();
  Table cdroms({"DRIVE:", "MEDIUM"});
  for (const json::value& value : list(o, "cdroms"))
    cdroms.add({count(value.as_object(), "cdrom"), text(value.as_object(), "medium")});
  if (!list(o, "cdroms").empty()) out += cdroms.text();
  if (number(o, "preferred_node") != 0) out += "prefers node " + count(o, "preferred_node") + "\n";
  for (const char* group : {"apart", "together"})
    if (!text(o, group).empty()) out += std::string(group) + ": " + text(o, group) + "\n";
  out += text(o, "machine") + ", " + text(o, "firmware") + (o.at("tpm").as_bool() ? ", TPM" : "") +
         (o.at("screen").as_bool() ? "" : ", no screen") +
         (o.at("cloud_init").as_bool() ? ", cloud-init" : "") + ", CPU " + text(o, "cpu") +
         (text(o, "cpu_model").empty() ? "" : " (" + text(o, "cpu_model") + ")") +
         (number(o, "max_memory_mib") == 0
              ? ""
              : ", memory up to " + human_bytes(number(o, "max_memory_mib") * kMib)) +
         ", priority " + count(o, "priority") + ", UUID " + text(o, "uuid") + "\n";
  if (o.contains("task") && number(o, "task") != 0) out += "task " + count(o, "task") + "\n";
  return out;
}

std::string show_media(const json::object& o) {
  Table table({"MEDIUM", "FORMAT", "SIZE:", "DISK:", "STATE"});
  for (const json::value& value : list(o, "media")) {
    const json::object& m = value.as_object();
    std::string state = text(m, "state");
    const uint64_t whole = number(m, "size_bytes");
    constexpr uint64_t kPercent = 100;
    if (state == "uploading")
      state += ", " + std::to_string(number(m, "received_bytes") * kPercent / whole) + " %";
    if (state == "making") state += ", " + std::to_string(number(m, "checked_bytes") / 10) + " %";
    if (state == "checking")
      state += ", " + std::to_string(number(m, "checked_bytes") * kPercent / whole) + " %";
    table.add({text(m, "name"), text(m, "format"), bytes(m, "size_bytes"),
               number(m, "disk_bytes") == 0 ? "" : bytes(m, "disk_bytes"), state});
  }
  return table.text();
}

std::string show_medium(const json::object& o) {
  std::string out = show_media({{"media", json::array{o}}});
  if (!text(o, "sha256").empty()) out += "SHA-256 " + text(o, "sha256") + "\n";
  if (!text(o, "problem").empty()) out += text(o, "problem") + "\n";
  return out;
}

std::string show_vm_snapshots(const json::object& o) {
  Table table({"SNAPSHOT", "TAKEN", "VCPUS:", "MEMORY:", "AT REST", "DISKS"});
  for (const json::value& value : list(o, "snapshots")) {
    const json::object& s = value.as_object();
    std::string disks;
    for (const json::value& disk : list(s, "disks"))
      disks += (disks.empty() ? "" : " ") + std::string(disk.as_string());
    table.add({text(s, "vm") + "@" + text(s, "name"), clock_time(s, "created"), count(s, "vcpus"),
               human_bytes(number(s, "memory_mib") * kMib),
               s.contains("at_rest") && s.at("at_rest").as_bool() ? "yes" : "-", disks});
  }
  std::string out = table.text();
  if (o.contains("paused_ms")) out += "writers waited for " + count(o, "paused_ms") + " ms\n";
  if (o.contains("frozen") && o.at("frozen").as_bool())
    out += "its guest's file systems were at rest\n";
  else if (o.contains("why_not_frozen") && !text(o, "why_not_frozen").empty())
    out += "as after a power cut: " + text(o, "why_not_frozen") + "\n";
  return out;
}

std::string show_drain(const json::object& o) {
  std::string out;
  for (const json::value& value : list(o, "stay"))
    out += "VM " + text(value.as_object(), "vm") + " stays: " + text(value.as_object(), "reason") +
           "\n";
  return out + show_begun(o);
}

std::string show_begun(const json::object& o) {
  if (number(o, "task") == 0) return "done\n";
  return "begun; wait for its end with: scalectl task wait " + count(o, "task") + "\n";
}

std::string show_pool(const json::object& o) {
  Table table({"VSD", "VERIFIED", "UNDER WAY"});
  for (const json::value& value : list(o, "vsds")) {
    const json::object& v = value.as_object();
    const uint64_t at = number(v, "under_way_bytes");
    table.add({text(v, "vsd"), clock_time(v, "verified"),
               at == 0 ? "-" : human_bytes(at) + " of " + bytes(v, "size_bytes")});
  }
  std::string out = table.text();
  out += number(o, "scrub_days") == 0
             ? "copies are compared when somebody asks for it\n"
             : "copies are compared every " + count(o, "scrub_days") + " days\n";
  out += "rebalancing: " + text(o, "rebalance") + "\n";
  if (number(o, "orphans") != 0)
    out += count(o, "orphans") + " MiB wait for nodes that are being fenced\n";
  for (const json::value& value : list(o, "damage")) {
    const json::object& d = value.as_object();
    out += "! extent " + count(d, "extent") + " of VSD " + text(d, "vsd") + ", the MiB at " +
           bytes(d, "offset_bytes") + ":";
    for (const json::value& copy : list(d, "copies"))
      out +=
          " disk " + count(copy.as_object(), "disk") + " slot " + count(copy.as_object(), "slot");
    out += number(d, "keep") != 0 ? "; the copy on disk " + count(d, "keep") + " is being taken\n"
                                  : "; none is known to be right: scalectl pool repair " +
                                        count(d, "extent") + " --keep DISK\n";
  }
  return out;
}

bool nothing_damaged(const json::object& o) { return list(o, "damage").empty(); }

std::string show_token(const json::object& o) {
  return "On the node that joins, within " + count(o, "hours") +
         " h and once:\n  scalectl cluster join " + text(o, "address") + " " + text(o, "token") +
         "\n";
}

}  // namespace scalectl
