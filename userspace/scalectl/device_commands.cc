// SPDX-License-Identifier: GPL-2.0
#include "device_commands.h"

#include "show.h"
#include "words.h"

namespace scalectl {

namespace {

json::object numbered(const char* name, const Words& w) {
  return {{name, count_of(w.arguments[1], name)}};
}

Call nic_call(const char* method, const Words& w) {
  Call call{method, kRoot + ("vm/" + path_word(w.arguments[0]) + "/nic"), {}};
  if (w.arguments.size() > 1) call.body = numbered("nic", w);
  if (w.has("at")) call.body = joined(std::move(call.body), place_of(w.options.at("at")));
  take(call.body, w, {"model", "mac"});
  if (w.has("cable")) {
    const std::string& cable = w.options.at("cable");
    if (cable != "in" && cable != "out") throw UsageError{"--cable is in or out"};
    call.body["connected"] = cable == "in";
  }
  return call;
}

// A size, for a new one, or vsd:NAME.
json::object disk_call_body(const Words& w) {
  json::object body = disk_of(w.arguments[1]);
  if (w.has("copies")) body["copies"] = count_of(w.options.at("copies"), "--copies");
  take(body, w, {"bus"});
  return body;
}

Call disk_call(const char* method, const Words& w, json::object body) {
  Call call{method, kRoot + ("vm/" + path_word(w.arguments[0]) + "/disk"), std::move(body)};
  if (w.has("iops")) call.body["iops"] = count_of(w.options.at("iops"), "--iops");
  if (w.has("bandwidth")) {
    const std::string& most = w.options.at("bandwidth");
    call.body["bytes_per_s"] = most == "0" ? 0 : size_of(most);
  }
  return call;
}

const Option kIops{"iops", "N", "reads and writes a second at most; 0: no limit"};
const Option kBandwidth{"bandwidth", "SIZE", "read and written a second at most; 0: no limit"};
const Option kAt{"at", "PLACE", "lan, vlan:NUMBER, or the name of a bridge of the nodes"};
const Option kCable{"cable", "in|out", "out: as with the cable pulled"};

}  // namespace

json::object place_of(const std::string& word) {
  constexpr std::string_view kVlan = "vlan:";
  if (word == "lan") return {{"bridge", ""}};
  if (!word.starts_with(kVlan)) return {{"bridge", word}};
  return {{"vlan", count_of(word.substr(kVlan.size()), "vlan:")}};
}

json::object disk_of(const std::string& word) {
  constexpr std::string_view kVsd = "vsd:";
  if (word.starts_with(kVsd)) return {{"vsd", path_word(word.substr(kVsd.size()))}};
  return {{"size_bytes", size_of(word)}};
}

json::object joined(json::object out, const json::object& more) {
  for (const auto& [name, value] : more) out[name] = value;
  return out;
}

std::vector<Command> device_commands() {
  Option at = kAt;
  at.help += "; default: lan";
  return {
      {"vm",
       "nic-add",
       {"NAME"},
       {at,
        {"model", "virtio|e1000e", "default: virtio"},
        {"mac", "MAC", "that the guest sees; default: one of its own"},
        kCable},
       "another network interface, also while the guest runs",
       "scalectl vm nic-add mail --at vlan:7",
       [](const Words& w) { return nic_call("POST", w); },
       show_vm},
      {"vm",
       "nic-edit",
       {"NAME", "NIC"},
       {kAt, kCable},
       "put a network interface, by its number, elsewhere, or pull its cable; also while it runs",
       "scalectl vm nic-edit mail 0 --cable out",
       [](const Words& w) { return nic_call("PATCH", w); },
       show_vm},
      {"vm",
       "nic-remove",
       {"NAME", "NIC"},
       {},
       "take a network interface out, also while the guest runs and lets go of it",
       "scalectl vm nic-remove mail 1",
       [](const Words& w) { return nic_call("DELETE", w); },
       show_vm},
      {"vm",
       "disk-add",
       {"NAME", "SIZE"},
       {{"bus", "virtio|scsi|sata", "default: virtio; sata only while the VM is off"},
        {"copies", "2|3", "of a new one, on as many nodes; default: 2"},
        kIops,
        kBandwidth},
       "another disk, of a size, or vsd:NAME; also while the guest runs",
       "scalectl vm disk-add mail 100GiB --iops 500",
       [](const Words& w) { return disk_call("POST", w, disk_call_body(w)); },
       show_vm},
      {"vm",
       "disk-edit",
       {"NAME", "N"},
       {kIops, kBandwidth},
       "limit what a disk, by its number, does; also while the guest runs",
       "scalectl vm disk-edit mail 1 --bandwidth 50MiB",
       [](const Words& w) { return disk_call("PATCH", w, numbered("disk", w)); },
       show_vm},
      {"vm",
       "disk-remove",
       {"NAME", "N"},
       {},
       "take a disk out, also while the guest runs and lets go of it; it stays, as a virtual disk",
       "scalectl vm disk-remove mail 1",
       [](const Words& w) { return disk_call("DELETE", w, numbered("disk", w)); },
       show_vm},
      {"node",
       "bond",
       {"NODE", "lan|backplane"},
       {{"ports", "PORT[,PORT...]", "its network cards there; '': they are the administrator's",
         true},
        {"primary", "PORT", "the one that is used while it can be; default: whichever was last"}},
       "have several ports be one, of which one is used at a time; for the LAN, with a bridge for "
       "guests",
       "scalectl node bond n1 lan --ports eth0,eth1 --primary eth0",
       [](const Words& w) {
         if (!w.has("ports")) throw UsageError{"which ports? say --ports"};
         Call call{"POST", kRoot + ("node/" + path_word(w.arguments[0]) + "/bond"), {}};
         call.body["network"] = w.arguments[1];
         json::array ports;
         for (const std::string& port : split_at_commas(w.options.at("ports")))
           ports.push_back(json::value(port));
         call.body["ports"] = std::move(ports);
         take(call.body, w, {"primary"});
         return call;
       },
       show_nodes},
  };
}

}  // namespace scalectl
