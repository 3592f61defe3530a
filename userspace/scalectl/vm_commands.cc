// SPDX-License-Identifier: GPL-2.0
#include <fstream>

#include "console.h"
#include "device_commands.h"
#include "show.h"
#include "table.h"
#include "words.h"

namespace scalectl {

namespace {

uint64_t memory_of(const Words& w, const std::string& option) {
  const std::string& word = w.options.at(option);
  if (word == "0" && option == "max-memory") return 0;
  const uint64_t bytes = size_of(word);
  if (bytes % kMib != 0) throw UsageError{"--" + option + " is a multiple of 1 MiB"};
  return bytes / kMib;
}

// A text that is never as large as that.
std::string file_of(const std::string& path, const char* what) {
  constexpr size_t kMost = size_t{1} << 20;
  std::ifstream in(path, std::ios::binary);
  std::string out(kMost, '\0');
  in.read(out.data(), static_cast<std::streamsize>(out.size()));
  out.resize(static_cast<size_t>(in.gcount()));
  if (!in.eof() || out.empty()) throw UsageError{path + " cannot be read, or is no " + what};
  return out;
}

std::vector<Option> fields(bool create) {
  std::vector<Option> out = {
      {"memory", "SIZE", "that the guest has, as 4GiB; more of it also while it runs", create},
      {"max-memory", "SIZE", "as far as that goes; default: 0, it changes only while it is off"},
      {"vcpus", "N", "default: 1; more of them also while it runs"},
      {"cpu", "host|baseline", "all that the node's has, or what every node's has; default: host"},
      {"priority", "0-11", "which are restarted first when a node is lost; default: 4"},
      {"prefer", "NODE", "where it runs if that can be; '': anywhere"},
      {"apart", "GROUP", "not on one node with others of that group, if that can be; '': none"},
      {"together", "GROUP", "on one node with others of that group, if that can be; '': none"},
      {"description", "TEXT", "for people"},
      {"tags", "TAG[,TAG...]", "for people, to find it by"},
      {"nics", "PLACE[,PLACE...]",
       "network interfaces, each at lan, vlan:NUMBER or a bridge of the nodes; '': none"},
      {"nic-model", "virtio|e1000e", "of these; default: virtio"},
      {"firmware", "bios|uefi|uefi-secure", "uefi-secure: with Secure Boot; default: bios"},
      {"tpm", "on|off", "a TPM 2.0 of its own; default: off"},
      {"screen", "on|off", "off: it has a serial console alone; default: on"},
      {"user-data", "FILE", "what cloud-init is given in the guest; '': nothing"},
      {"network-config", "FILE", "the network's part of that; '': the guest's own way"}};
  if (!create) out.insert(out.begin(), {"name", "NAME", "another name"});
  out.push_back({"template", "on|off", "on: it is not started, others are cloned from it"});
  return out;
}

std::vector<Option> edit_fields() {
  std::vector<Option> out = fields(false);
  out.push_back({"yes", "", "yes, what its TPM, or another firmware, keeps shall be gone"});
  return out;
}

json::object fields_body(const Words& w) {
  json::object body;
  take(body, w, {"name", "cpu", "description", "apart", "together", "firmware"});
  for (const char* name : {"template", "tpm", "screen"}) {
    if (!w.has(name)) continue;
    const std::string& is = w.options.at(name);
    if (is != "on" && is != "off") throw UsageError{"--" + std::string(name) + " is on or off"};
    body[name] = is == "on";
  }
  for (const auto& [option, field] :
       {std::pair{"user-data", "user_data"}, std::pair{"network-config", "network_config"}}) {
    if (!w.has(option)) continue;
    const std::string& path = w.options.at(option);
    body[field] = path.empty() ? "" : file_of(path, "text");
  }
  if (w.has("prefer")) body["preferred_node"] = w.options.at("prefer");
  if (w.has("memory")) body["memory_mib"] = memory_of(w, "memory");
  if (w.has("max-memory")) body["max_memory_mib"] = memory_of(w, "max-memory");
  if (w.has("vcpus")) body["vcpus"] = count_of(w.options.at("vcpus"), "--vcpus");
  if (w.has("priority")) body["priority"] = count_of(w.options.at("priority"), "--priority");
  if (w.has("tags")) {
    json::array tags;
    for (const std::string& tag : split_at_commas(w.options.at("tags")))
      tags.push_back(json::value(tag));
    body["tags"] = std::move(tags);
  }
  if (w.has("nic-model") && !w.has("nics"))
    throw UsageError{"--nic-model is of network interfaces; say --nics, too"};
  if (w.has("nics")) {
    json::array nics;
    for (const std::string& place : split_at_commas(w.options.at("nics"))) {
      json::object nic = place_of(place);
      if (w.has("nic-model")) nic["model"] = w.options.at("nic-model");
      nics.push_back(std::move(nic));
    }
    body["nics"] = std::move(nics);
  }
  return body;
}

// "20GiB,vsd:data": new ones by their size, others by their name.
json::array disks_of(const Words& w) {
  json::array out;
  if (!w.has("disks") && (w.has("copies") || w.has("bus")))
    throw UsageError{"--copies and --bus are of disks; say --disks, too"};
  if (!w.has("disks")) return out;
  for (const std::string& word : split_at_commas(w.options.at("disks"))) {
    json::object disk = disk_of(word);
    if (w.has("copies") && !disk.contains("vsd"))
      disk["copies"] = count_of(w.options.at("copies"), "--copies");
    if (w.has("bus")) disk["bus"] = w.options.at("bus");
    out.push_back(std::move(disk));
  }
  return out;
}

json::array drives_of(const std::string& words) {
  json::array out;
  for (const std::string& medium : split_at_commas(words))
    out.push_back(json::object{{"medium", medium}});
  if (out.empty()) out.push_back(json::object{});
  return out;
}

Call action(const char* verb, const Words& w) {
  Call call{"POST", kRoot + ("vm/" + path_word(w.arguments[0]) + "/" + verb), {}};
  take(call.body, w, {"node"});
  if (w.has("no-wait")) call.body["wait"] = false;
  return call;
}

}  // namespace

std::vector<Command> vm_commands() {
  const Option no_wait{"no-wait", "", "do not wait until it is so; see: scalectl task list"};
  std::vector<Option> create = fields(true);
  create.push_back({"disks", "DISK[,DISK...]", "each a size, for a new one, or vsd:NAME"});
  create.push_back({"copies", "2|3", "of new disks, on as many nodes; default: 2"});
  create.push_back({"bus", "virtio|scsi|sata", "of its disks; default: virtio"});
  create.push_back({"cdroms", "MEDIUM[,MEDIUM...]", "drives with these in them; '': an empty one"});
  std::vector<Option> clone = fields(false);
  clone.erase(clone.begin());  // its name is an argument
  return {
      {"vm",
       "create",
       {"NAME"},
       std::move(create),
       "make a virtual machine; it is off",
       "scalectl vm create mail --memory 4GiB --vcpus 2 --disks 20GiB,100GiB",
       [](const Words& w) {
         if (!w.has("memory")) throw UsageError{"with how much memory? say --memory"};
         Call call{"POST", std::string(kRoot) + "vm", fields_body(w)};
         call.body["name"] = path_word(w.arguments[0]);
         call.body["disks"] = disks_of(w);
         if (w.has("cdroms")) call.body["cdroms"] = drives_of(w.options.at("cdroms"));
         return call;
       },
       show_vm},
      {"vm",
       "list",
       {},
       {{"text", "TEXT", "those with that in their name or description"},
        {"tags", "TAG[,TAG...]", "those with all of these"},
        {"state", "STATE", "those that are running, off, ..."},
        {"node", "NODE", "those that run there"}},
       "all virtual machines, or some, and where they run",
       "scalectl vm list --text mail --tags web",
       [](const Words& w) {
         return with_query(get("vm"), w, {"text", "tags", "state", "node"});
       },
       show_vms},
      {"vm",
       "show",
       {"NAME"},
       {},
       "a virtual machine",
       "scalectl vm show mail",
       [](const Words& w) { return get("vm/" + path_word(w.arguments[0])); },
       show_vm},
      {"vm",
       "edit",
       {"NAME"},
       edit_fields(),
       "change a virtual machine; description, tags and priority also while it runs",
       "scalectl vm edit mail --memory 8GiB",
       [](const Words& w) {
         const bool forgets = w.has("firmware") || (w.has("tpm") && w.options.at("tpm") == "off");
         if (forgets && !w.has("yes"))
           throw UsageError{"what the TPM or the firmware of " + w.arguments[0] +
                            " keeps would be lost, keys of its disks among it; say --yes"};
         return Call{"PATCH", kRoot + ("vm/" + path_word(w.arguments[0])), fields_body(w)};
       },
       show_vm},
      {"vm",
       "start",
       {"NAME"},
       {{"node", "NODE", "name or number of a node; default: the one with most free memory"},
        no_wait},
       "run a virtual machine",
       "scalectl vm start mail",
       [](const Words& w) { return action("start", w); },
       show_vm},
      {"vm",
       "shutdown",
       {"NAME"},
       {no_wait},
       "ask the guest to power off",
       "scalectl vm shutdown mail",
       [](const Words& w) { return action("shutdown", w); },
       show_vm},
      {"vm",
       "stop",
       {"NAME"},
       {no_wait},
       "cut the guest's power",
       "scalectl vm stop mail",
       [](const Words& w) { return action("stop", w); },
       show_vm},
      {"vm",
       "reboot",
       {"NAME"},
       {},
       "ask the guest to begin anew",
       "scalectl vm reboot mail",
       [](const Words& w) { return action("reboot", w); },
       show_vm},
      {"vm",
       "reset",
       {"NAME"},
       {},
       "have the guest begin anew at once, as the button of a machine",
       "scalectl vm reset mail",
       [](const Words& w) { return action("reset", w); },
       show_vm},
      {"vm",
       "pause",
       {"NAME"},
       {no_wait},
       "hold the guest where it is",
       "scalectl vm pause mail",
       [](const Words& w) { return action("pause", w); },
       show_vm},
      {"vm",
       "resume",
       {"NAME"},
       {no_wait},
       "let a guest that was paused go on",
       "scalectl vm resume mail",
       [](const Words& w) { return action("resume", w); },
       show_vm},
      {"vm",
       "console",
       {"NAME"},
       {},
       "the guest's serial console; ^] ends it",
       "scalectl vm console mail",
       {},
       [](const json::object&) { return std::string(); },
       {},
       serial_console},
      {"vm",
       "screen",
       {"NAME"},
       {},
       "where a VNC viewer finds the guest's screen, with its keyboard and mouse",
       "scalectl vm screen mail",
       [](const Words& w) {
         return Call{"POST",
                     kRoot + ("vm/" + path_word(w.arguments[0]) + "/console"),
                     {{"kind", "screen"}}};
       },
       show_screen},
      {"vm",
       "stats",
       {"NAME"},
       {},
       "what a virtual machine has used since it began where it is",
       "scalectl vm stats mail",
       [](const Words& w) { return get("vm/" + path_word(w.arguments[0]) + "/stats"); },
       show_vm_stats},
      {"vm",
       "export-xml",
       {"NAME"},
       {},
       "what libvirt runs: a domain's XML",
       "scalectl vm export-xml mail",
       [](const Words& w) { return get("vm/" + path_word(w.arguments[0]) + "/xml"); },
       [](const json::object& o) { return json::value_to<std::string>(o.at("xml")); }},
      {"vm",
       "import-xml",
       {"FILE"},
       {{"name", "NAME", "default: what the domain is called"}},
       "make a virtual machine of a libvirt domain, whose disks are virtual disks by their devices",
       "scalectl vm import-xml mail.xml",
       [](const Words& w) {
         Call call{"POST",
                   std::string(kRoot) + "vm_import",
                   {{"xml", file_of(w.arguments[0], "domain's XML")}}};
         take(call.body, w, {"name"});
         return call;
       },
       show_vm},
      {"vm",
       "migrate",
       {"NAME"},
       {{"node", "NODE", "name or number of a node; default: the one with most free memory"},
        {"cancel", "", "do not: it stays where it is"},
        no_wait},
       "move a virtual machine to another node while it runs",
       "scalectl vm migrate mail --node n2",
       [](const Words& w) {
         if (!w.has("cancel")) return action("migrate", w);
         if (w.has("node") || w.has("no-wait"))
           throw UsageError{"--cancel goes with no other option"};
         return Call{"DELETE", kRoot + ("vm/" + path_word(w.arguments[0]) + "/migrate"), {}};
       },
       show_vm},
      {"vm",
       "clone",
       {"VM[@SNAPSHOT]", "NAME"},
       std::move(clone),
       "another virtual machine that begins as this one is, also while it runs, or was, but for "
       "what is said of it",
       "scalectl vm clone mail mail-test --memory 1GiB --nics vlan:7",
       [](const Words& w) {
         const bool now = w.arguments[0].find('@') == std::string::npos;
         Call call{"POST",
                   kRoot +
                       (now ? "vm/" + path_word(w.arguments[0])
                            : "vm_snapshot/" + snapshot_word(w.arguments[0])) +
                       "/clone",
                   fields_body(w)};
         call.body["name"] = path_word(w.arguments[1]);
         return call;
       },
       show_vm},
      {"vm",
       "snapshot",
       {"VM@SNAPSHOT"},
       {},
       "keep all disks as they are at this instant, with what the machine is made of",
       "scalectl vm snapshot mail@monday",
       [](const Words& w) {
         const std::string word = snapshot_word(w.arguments[0]);
         const size_t at = word.find('@');
         return Call{"POST",
                     std::string(kRoot) + "vm_snapshot",
                     {{"vm", word.substr(0, at)}, {"name", word.substr(at + 1)}}};
       },
       show_vm_snapshots},
      {"vm",
       "snapshots",
       {},
       {},
       "all snapshots of virtual machines",
       "scalectl vm snapshots",
       [](const Words&) { return get("vm_snapshot"); },
       show_vm_snapshots},
      {"vm",
       "revert",
       {"VM@SNAPSHOT"},
       {{"keep", "NAME", "what to call the snapshot of what it was before", true},
        {"yes", "", "yes, it becomes what it was then", true}},
       "make a virtual machine that is off what it was",
       "scalectl vm revert mail@monday --keep before --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"what " + w.arguments[0] + " is of is reverted; say --yes"};
         if (!w.has("keep")) throw UsageError{"what is it now to be called? say --keep"};
         Call call{
             "POST", kRoot + ("vm_snapshot/" + snapshot_word(w.arguments[0]) + "/revert"), {}};
         call.body["keep"] = path_word(w.options.at("keep"));
         return call;
       },
       show_vm_snapshots},
      {"vm",
       "forget",
       {"VM@SNAPSHOT"},
       {{"yes", "", "yes", true}},
       "delete a snapshot of a virtual machine",
       "scalectl vm forget mail@monday --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"snapshot " + w.arguments[0] + " would be lost; say --yes"};
         return Call{"DELETE", kRoot + ("vm_snapshot/" + snapshot_word(w.arguments[0])), {}};
       },
       nothing},
      {"vm",
       "delete",
       {"NAME"},
       {{"yes", "", "yes, with all that is on its disks", true},
        {"keep-disks", "", "they stay, as virtual disks of no machine"}},
       "delete a virtual machine that is off, with its disks",
       "scalectl vm delete mail --yes",
       [](const Words& w) {
         if (!w.has("yes")) throw UsageError{"VM " + w.arguments[0] + " would be lost; say --yes"};
         Call call{"DELETE", kRoot + ("vm/" + path_word(w.arguments[0])), {}};
         if (w.has("keep-disks")) call.body["keep_disks"] = true;
         return call;
       },
       nothing},
  };
}

}  // namespace scalectl
