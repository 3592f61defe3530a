// SPDX-License-Identifier: GPL-2.0
#include "api_vms.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <thread>

#include "host/disks.h"
#include "net/plan.h"
#include "vm/domain.h"
#include "vm/import.h"
#include "vm/search.h"
#include "vm_machine.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr seconds kWaitFor{60};
constexpr std::chrono::milliseconds kPeerTimeout{2'000};
constexpr std::chrono::milliseconds kRestartTimeout{15'000};
constexpr uint64_t kDefaultPriority = 4;
constexpr uint64_t kMaxPriority = 11;
// As they are shown.
const std::set<std::string> kStates = {"off",       "starting", "running", "paused",
                                       "migrating", "stopping", "waiting"};

Outcome progress_of(Call& call, const json::object& asked) {
  Vms* const vms = call.member().vms();
  if (vms == nullptr) return json::object{};
  const auto progress = vms->progress(json::value_to<std::string>(asked.at("uuid")));
  if (!progress) return json::object{};
  return json::object{{"moved_bytes", progress->bytes}, {"left_bytes", progress->remaining}};
}

json::object vm_json(const meta::Vm& vm, const std::vector<meta::Vsd>& vsds,
                     const std::vector<meta::Medium>& media) {
  json::array disks;
  for (const meta::VmDisk& disk : vm.disks)
    for (const meta::Vsd& vsd : vsds)
      if (disk.of_guest() && vsd.id == disk.vsd)
        disks.push_back(json::object{{"disk", disk.slot},
                                     {"vsd", vsd.name},
                                     {"size_bytes", vsd.sectors * kSectorBytes},
                                     {"bus", disk.bus},
                                     {"iops", disk.iops},
                                     {"bytes_per_s", disk.bytes_per_s},
                                     {"leaving", disk.leaving}});
  json::array nics;
  for (const meta::VmNic& nic : vm.nics)
    nics.push_back(json::object{{"nic", nic.slot},
                                {"bridge", nic.bridge},
                                {"vlan", nic.vlan},
                                {"model", nic.model},
                                {"mac", nic.mac},
                                {"connected", nic.connected}});
  json::array cdroms;
  for (const meta::VmCdrom& cdrom : vm.cdroms) {
    const auto medium = std::find_if(media.begin(), media.end(),
                                     [&](const auto& one) { return one.id == cdrom.medium; });
    cdroms.push_back(
        json::object{{"cdrom", cdrom.slot}, {"medium", medium == media.end() ? "" : medium->name}});
  }
  std::string state = vm.state;
  if (vm.to_node || vm.state == "arriving") state = "migrating";
  if (vm.wanted == "off" && vm.state != "off") state = "stopping";
  return {{"id", vm.id},
          {"name", vm.name},
          {"uuid", vm.uuid},
          {"description", vm.description},
          {"tags", json::value_from(vm.tags)},
          {"vcpus", vm.vcpus},
          {"memory_mib", vm.memory_mib},
          {"max_memory_mib", vm.max_memory_mib},
          {"machine", vm.machine},
          {"cpu", vm.cpu},
          {"cpu_model", vm.run_cpu},
          {"firmware", vm.firmware},
          {"tpm", vm.tpm},
          {"screen", vm.screen},
          {"cloud_init", std::any_of(vm.disks.begin(), vm.disks.end(),
                                     [](const auto& one) { return one.slot == meta::kSeedSlot; })},
          {"priority", vm.priority},
          {"preferred_node", vm.preferred.value},
          {"apart", vm.apart},
          {"together", vm.together},
          {"template", vm.is_template},
          {"state", state},
          {"reason", vm.reason},
          {"since", vm.since},
          {"node", vm.node.value},
          {"to_node", vm.to_node.value},
          {"paused_ms", vm.paused_ms},
          {"disks", std::move(disks)},
          {"nics", std::move(nics)},
          {"cdroms", std::move(cdroms)}};
}

// The node that it leaves knows how far it is; nothing is said where that does not answer.
void add_progress(Call& call, const meta::Vm& vm, json::object& shown) {
  const json::object asked{{"uuid", vm.uuid}};
  Outcome progress =
      vm.node == call.member().config().node
          ? progress_of(call, asked)
          : call.member().peers().call(vm.node, "/peer/progress", asked, kPeerTimeout);
  if (progress)
    for (auto& [name, value] : *progress) shown[name] = std::move(value);
}

// Those that a request names; the others stay as they are.
json::object take_fields(Call& call, Fields& fields, bool create) {
  json::object out;
  const json::object& body = call.body();
  for (const char* name : {"name", "description", "cpu", "apart", "together", "firmware",
                           "user_data", "network_config"})
    if (body.contains(name) || (create && std::string(name) == "name"))
      out[name] = fields.text(name);
  for (const char* name : {"vcpus", "memory_mib", "max_memory_mib", "priority"})
    if (body.contains(name) || (create && std::string(name) == "memory_mib"))
      out[name] = fields.number(name);
  // An empty list takes all away.
  const json::value* tags = body.if_contains("tags");
  if (tags != nullptr)
    out["tags"] = tags->is_array() && tags->as_array().empty()
                      ? (fields.skip("tags"), json::array{})
                      : json::value_from(fields.texts("tags")).as_array();
  for (const char* name : {"template", "tpm", "screen"})
    if (body.contains(name)) out[name] = fields.flag(name, false);
  return out;
}

// 0: any.
Result<uint64_t> node_named(Call& call, const std::string& name) {
  if (name.empty()) return uint64_t{0};
  const auto node = call.node(name);
  if (!node) return node.error();
  return node->id.value;
}

Result<void> take_preferred(Call& call, Fields& fields, json::object& out) {
  if (!call.body().contains("preferred_node")) return {};
  const auto node = node_named(call, fields.text("preferred_node", ""));
  if (!node) return node.error();
  out["preferred"] = *node;
  return {};
}

Result<void> check_priority(const json::object& body) {
  if (body.contains("priority") && body.at("priority").to_number<uint64_t>() > kMaxPriority)
    return Error{Code::invalid, "a priority is 0 to " + std::to_string(kMaxPriority)};
  return {};
}

// Until it is what was asked for, or is not any more.
Result<void> wait_for_task_of(Call& call, uint64_t task) {
  const auto deadline = steady_clock::now() + kWaitFor;
  while (task != 0 && steady_clock::now() < deadline) {
    const auto tasks = call.cluster().tasks();
    if (!tasks) return tasks.error();
    for (const meta::Task& one : *tasks) {
      if (one.id != task || one.state == "running") continue;
      if (one.state == "failed") return Error{Code::conflict, one.error};
      return {};
    }
    std::this_thread::sleep_for(kLook);
  }
  if (task == 0) return {};
  return Error{Code::unknown, "it takes its time; see: scalectl task wait " + std::to_string(task)};
}

}  // namespace

Outcome vm_fields(Call& call, Fields& fields, bool create) {
  json::object out = take_fields(call, fields, create);
  CORE_TRY(take_nics(call, fields, out));
  CORE_TRY(take_preferred(call, fields, out));
  CORE_TRY(check_priority(out));
  return out;
}

Result<meta::Vm> find_vm(Call& call, const std::string& name) {
  auto all = call.cluster().vms();
  if (!all) return all.error();
  for (meta::Vm& one : *all)
    if (one.name == name) return std::move(one);
  return Error{Code::not_found, "no VM named " + name};
}

Outcome vms_json(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  auto vsds = call.cluster().vsds();
  const auto media = call.cluster().media();
  if (!vm) return vm.error();
  if (!vsds) return vsds.error();
  if (!media) return media.error();
  json::object shown = vm_json(*vm, *vsds, *media);
  if (vm->to_node) add_progress(call, *vm, shown);
  return shown;
}

Outcome answer_vm(Call& call, const std::string& name, const Outcome& done, bool wait) {
  if (!done) return done;
  const uint64_t task = done->at("task").to_number<uint64_t>();
  if (wait) CORE_TRY(wait_for_task_of(call, task));
  auto shown = vms_json(call, name);
  if (shown) (*shown)["task"] = task;
  return shown;
}

// All, or those that are all of what is asked for.
Outcome list_vms(Call& call) {
  Fields fields = call.fields();
  vm::Search search;
  search.text = fields.text("text", "");
  std::istringstream tags(fields.text("tags", ""));
  for (std::string tag; std::getline(tags, tag, ',');) search.tags.push_back(tag);
  search.state = fields.text("state", "");
  const std::string where = fields.text("node", "");
  CORE_TRY(fields.check());
  if (!search.state.empty() && !kStates.contains(search.state))
    return Error{Code::invalid, "'" + search.state + "' is no state of a VM"};
  const auto node = node_named(call, where);
  if (!node) return node.error();
  search.node = {*node};
  const auto vms = call.cluster().vms();
  const auto vsds = call.cluster().vsds();
  const auto media = call.cluster().media();
  if (!vms || !vsds || !media) return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::Vm& one : *vms) {
    json::object shown = vm_json(one, *vsds, *media);
    if (vm::matches(one, json::value_to<std::string>(shown.at("state")), search))
      out.push_back(std::move(shown));
  }
  return json::object{{"vms", std::move(out)}};
}

Outcome show_vm(Call& call, const std::string& name) { return vms_json(call, name); }

Outcome create_vm(Call& call) {
  Fields fields = call.fields();
  auto said = vm_fields(call, fields, true);
  fields.skip("disks");
  fields.skip("cdroms");
  CORE_TRY(fields.check());
  if (!said) return said;
  json::object body = std::move(*said);
  CORE_TRY(take_cdroms(call, body));
  body["op"] = "vm_create";
  body["uuid"] = host::to_string(host::make_uuid());
  body["machine"] = vm::kMachine;
  if (!body.contains("vcpus")) body["vcpus"] = 1;
  if (!body.contains("priority")) body["priority"] = kDefaultPriority;
  json::array disks;
  if (const json::value* asked = call.body().if_contains("disks")) {
    if (!asked->is_array()) return Error{Code::invalid, "field 'disks' must be a list"};
    for (const json::value& one : asked->as_array()) {
      if (!one.is_object()) return Error{Code::invalid, "a disk is an object"};
      auto disk = disk_of(call, one.as_object());
      if (!disk) return disk;
      disks.push_back(std::move(*disk));
    }
  }
  body["disks"] = std::move(disks);
  const std::string name = json::value_to<std::string>(body.at("name"));
  auto made = call.propose(std::move(body));
  return made ? vms_json(call, name) : made;
}

Outcome export_vm(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  meta::Cluster cluster = call.cluster();
  const auto disks = domain_disks(cluster, *vm);
  const auto capacities = cluster.capacities();
  const auto cdroms = domain_cdroms(cluster, *vm);
  if (!disks) return disks.error();
  if (!cdroms) return cdroms.error();
  if (!capacities) return capacities.error();
  // As its node has it; where it does not run, as the cluster itself calls it.
  std::string lan_bridge = net::kLanBridge;
  for (const meta::Capacity& one : *capacities)
    if (one.node == vm->node && !one.lan_bridge.empty()) lan_bridge = one.lan_bridge;
  const auto machine = domain_machine(cluster, *vm);
  if (!machine) return machine.error();
  return json::object{{"xml", vm::domain_xml(*vm, *disks, lan_bridge, *cdroms, *machine)}};
}

// From a domain of libvirt's. Its UUID stays where that is free, so do the MACs.
Outcome import_vm(Call& call) {
  Fields fields = call.fields();
  const std::string xml = fields.text("xml");
  const std::string name = fields.text("name", "");
  CORE_TRY(fields.check());
  auto imported = vm::from_xml(xml);
  if (!imported) return imported.error();
  const meta::Vm& vm = imported->vm;
  json::array disks;
  for (const auto& disk : imported->disks) {
    const auto vsd = call.vsd(disk.vsd);
    if (!vsd) return vsd.error();
    disks.push_back(json::object{{"vsd", vsd->id.value},
                                 {"bus", disk.bus},
                                 {"iops", disk.iops},
                                 {"bytes_per_s", disk.bytes_per_s}});
  }
  const auto capacities = call.cluster().capacities();
  const auto all = call.cluster().vms();
  if (!capacities) return capacities.error();
  if (!all) return all.error();
  std::set<std::string> macs;
  for (const meta::Vm& one : *all)
    for (const meta::VmNic& nic : one.nics) macs.insert(nic.mac);
  json::array nics;
  for (const meta::VmNic& nic : vm.nics) {
    const bool lan = std::any_of(capacities->begin(), capacities->end(), [&](const auto& one) {
      return !nic.bridge.empty() && one.lan_bridge == nic.bridge;
    });
    const bool taken = macs.contains(nic.mac);
    if (taken) imported->left_out.push_back("the MAC " + nic.mac + ", which another VM has");
    nics.push_back(json::object{{"bridge", lan ? "" : nic.bridge},
                                {"vlan", nic.vlan},
                                {"model", nic.model},
                                {"mac", taken ? "" : nic.mac},
                                {"connected", nic.connected}});
  }
  json::array cdroms;
  for (size_t i = 0; i < vm.cdroms.size(); i++) cdroms.push_back(json::object{{"medium", 0}});
  const bool known = std::any_of(all->begin(), all->end(),
                                 [&](const meta::Vm& one) { return one.uuid == vm.uuid; });
  const auto uuid = host::parse_uuid(vm.uuid);
  json::object body{{"op", "vm_create"},
                    {"name", name.empty() ? vm.name : name},
                    {"uuid", host::to_string(uuid && !known ? *uuid : host::make_uuid())},
                    {"description", vm.description},
                    {"machine", vm.machine},
                    {"vcpus", vm.vcpus},
                    {"memory_mib", vm.memory_mib},
                    {"max_memory_mib", vm.max_memory_mib},
                    {"cpu", vm.cpu},
                    {"firmware", vm.firmware},
                    {"tpm", vm.tpm},
                    {"screen", vm.screen},
                    {"priority", kDefaultPriority},
                    {"disks", std::move(disks)},
                    {"nics", std::move(nics)},
                    {"cdroms", std::move(cdroms)}};
  const std::string made_name = json::value_to<std::string>(body.at("name"));
  auto made = call.propose(std::move(body));
  if (!made) return made;
  auto shown = vms_json(call, made_name);
  if (shown) (*shown)["left_out"] = json::value_from(imported->left_out);
  return shown;
}

Outcome change_vm(Call& call, const std::string& name) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  auto asked = vm_fields(call, fields, false);
  CORE_TRY(fields.check());
  if (!asked) return asked;
  json::object body = std::move(*asked);
  const std::string after =
      body.contains("name") ? json::value_to<std::string>(body.at("name")) : name;
  body["op"] = "vm_edit";
  body["vm"] = vm->id;
  auto done = call.propose(std::move(body));
  return done ? vms_json(call, after) : done;
}

Outcome delete_vm(Call& call, const std::string& name) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const bool keep = fields.flag("keep_disks", false);
  CORE_TRY(fields.check());
  return call.propose({{"op", "vm_delete"}, {"vm", vm->id}, {"keep_disks", keep}});
}

Outcome start_vm(Call& call, const std::string& name) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  const auto on = node_named(call, where);
  if (!on) return on.error();
  const auto until = std::chrono::steady_clock::now() + kCallProposesFor;
  for (;;) {
    Outcome begun = call.propose({{"op", "vm_start"}, {"vm", vm->id}, {"on", *on}});
    if (!begun || !begun->contains("again")) return answer_vm(call, name, begun, wait);
    if (std::chrono::steady_clock::now() > until)
      return Error{Code::conflict,
                   "no node has said yet which CPUs it can give to guests; try again"};
    std::this_thread::sleep_for(kLook);
  }
}

Outcome want_vm(Call& call, const std::string& name, const char* wanted, const char* how) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  return answer_vm(
      call, name,
      call.propose({{"op", "vm_want"}, {"vm", vm->id}, {"wanted", wanted}, {"how", how}}), wait);
}

namespace {

Result<void> restart_here(Call& call, const std::string& uuid, uint64_t run,
                          const std::string& how) {
  Vms* const vms = call.member().vms();
  if (vms == nullptr) return Error{Code::conflict, "its node's daemon has just begun; try again"};
  return vms->restart(uuid, run, how);
}

}  // namespace

Outcome serve_restart(Call& call) {
  const json::object& asked = call.body();
  CORE_TRY(restart_here(call, json::value_to<std::string>(asked.at("uuid")),
                        asked.at("run").to_number<uint64_t>(),
                        json::value_to<std::string>(asked.at("how"))));
  return json::object{};
}

// Who asks is another node, for somebody who is at its screen.
Outcome serve_screen(Call& call, core::NodeId peer) {
  const auto socket = screen_of(json::value_to<std::string>(call.body().at("uuid")),
                                call.body().at("run").to_number<uint64_t>());
  if (!socket) return socket.error();
  return call.member().peers().admit_to(peer, *socket);
}

// A local socket that leads to its node's libvirt, or to its screen, for whoever is at this node.
Outcome console_of_vm(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const std::string kind = fields.text("kind", "serial");
  CORE_TRY(fields.check());
  if (kind != "serial" && kind != "screen")
    return Error{Code::invalid, "'" + kind + "' is no kind of console: serial or screen"};
  if (vm->state != "running" && vm->state != "paused")
    return Error{Code::conflict, "VM " + name + " is " + vm->state + "; it has no console now"};
  if (kind == "screen" && !vm->screen)
    return Error{Code::conflict, "VM " + name + " has no screen: scalectl vm edit " + name +
                                     " --screen on, while it is off"};
  Vms* const vms = call.member().vms();
  if (vms == nullptr) return Error{Code::conflict, "this node's daemon has just begun; try again"};
  const auto path = vms->console(*vm, kind == "screen");
  if (!path) return path.error();
  return json::object{{"vm", name},
                      {"uuid", vm->uuid},
                      {"node", vm->node.value},
                      {"kind", kind},
                      {"socket", *path}};
}

// Of a VM that is to arrive here. What comes late must not end the TPM of one that has arrived.
Outcome serve_tpm(Call& call) {
  const auto all = call.cluster().vms();
  if (!all) return all.error();
  for (const meta::Vm& vm : *all) {
    if (vm.id != call.body().at("vm").to_number<uint64_t>() ||
        vm.runs != call.body().at("run").to_number<uint64_t>() ||
        vm.to_node != call.member().config().node)
      continue;
    meta::Cluster cluster = call.cluster();
    const auto tpm = tpm_of(cluster, vm);
    if (!tpm) return tpm.error();
    CORE_TRY(start_tpm(*tpm));
    return json::object{};
  }
  return Error{Code::stale, "that VM does not move here, or not any more"};
}

// By the node that runs it, and known to no other.
Outcome restart_vm(Call& call, const std::string& name, const char* how) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  CORE_TRY(call.fields().check());
  if (vm->state != "running" || vm->wanted != "running" || vm->to_node)
    return Error{Code::conflict, "VM " + name + " is " +
                                     (vm->to_node              ? "on its way to another node"
                                      : vm->state == "running" ? "being stopped or paused"
                                                               : vm->state)};
  if (vm->node == call.member().config().node) {
    CORE_TRY(restart_here(call, vm->uuid, vm->run, how));
  } else {
    auto done = call.member().peers().call(vm->node, "/peer/restart",
                                           {{"uuid", vm->uuid}, {"run", vm->run}, {"how", how}},
                                           kRestartTimeout);
    if (!done) return done;
  }
  return vms_json(call, name);
}

Outcome serve_progress(Call& call) { return progress_of(call, call.body()); }

Outcome migrate_vm(Call& call, const std::string& name) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  const auto on = node_named(call, where);
  if (!on) return on.error();
  return answer_vm(call, name, call.propose({{"op", "vm_migrate"}, {"vm", vm->id}, {"on", *on}}),
                   wait);
}

Outcome cancel_migration(Call& call, const std::string& name) {
  auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  auto done = call.propose({{"op", "vm_migrate_cancel"}, {"vm", vm->id}});
  return done ? vms_json(call, name) : done;
}

// Snapshots

}  // namespace scaled
