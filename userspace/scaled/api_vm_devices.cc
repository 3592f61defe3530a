// SPDX-License-Identifier: GPL-2.0
// Disks and network interfaces of virtual machines.
#include "api_vms.h"

namespace scaled {

namespace json = boost::json;

namespace {

void take_limits(Fields& fields, const json::object& asked, json::object& out) {
  for (const char* name : {"iops", "bytes_per_s"})
    if (asked.contains(name)) out[name] = fields.number(name);
}

// What a request says of a network interface; "lan" is where it says nothing of that.
Outcome nic_of(Fields& fields, const json::object& asked) {
  json::object out;
  for (const char* name : {"mac", "model", "bridge"})
    if (asked.contains(name)) out[name] = fields.text(name, "");
  if (asked.contains("vlan")) out["vlan"] = fields.number("vlan");
  if (asked.contains("connected")) out["connected"] = fields.flag("connected", true);
  CORE_TRY(fields.check());
  if (out.contains("vlan") && !out.contains("bridge")) out["bridge"] = "";
  return out;
}

}  // namespace

Outcome disk_of(Call& call, const json::object& asked) {
  Fields fields(asked);
  const std::string bus = fields.text("bus", "virtio");
  json::object out{{"bus", bus}};
  take_limits(fields, asked, out);
  if (asked.contains("vsd")) {
    const std::string name = fields.text("vsd");
    CORE_TRY(fields.check());
    const auto vsd = call.vsd(name);
    if (!vsd) return vsd.error();
    out["vsd"] = vsd->id.value;
    return out;
  }
  const uint64_t bytes = fields.number("size_bytes");
  out["replicas"] = fields.number("copies", 2);
  CORE_TRY(fields.check());
  if (bytes == 0 || bytes % kSlotBytes != 0)
    return Error{Code::invalid, "the size of a disk is a multiple of 1 MiB, at least 1 MiB"};
  out["sectors"] = bytes / kSectorBytes;
  return out;
}

Result<void> take_nics(Call& call, Fields& fields, json::object& out) {
  fields.skip("nics");
  const json::value* asked = call.body().if_contains("nics");
  if (asked == nullptr) return {};
  if (!asked->is_array()) return Error{Code::invalid, "field 'nics' must be a list"};
  json::array nics;
  for (const json::value& one : asked->as_array()) {
    if (!one.is_object()) return Error{Code::invalid, "a network interface is an object"};
    Fields inner(one.as_object());
    auto nic = nic_of(inner, one.as_object());
    if (!nic) return nic.error();
    nics.push_back(std::move(*nic));
  }
  out["nics"] = std::move(nics);
  return {};
}

Outcome add_nic(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  auto body = nic_of(fields, call.body());
  if (!body) return body;
  (*body)["op"] = "vm_nic_add";
  (*body)["vm"] = vm->id;
  auto done = call.propose(std::move(*body));
  return done ? vms_json(call, name) : done;
}

Outcome change_nic(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const uint64_t slot = fields.number("nic");
  auto body = nic_of(fields, call.body());
  if (!body) return body;
  if (body->empty()) return Error{Code::invalid, "what of it is to change? --at, or --cable"};
  (*body)["op"] = "vm_nic_change";
  (*body)["vm"] = vm->id;
  (*body)["slot"] = slot;
  auto done = call.propose(std::move(*body));
  return done ? vms_json(call, name) : done;
}

Outcome remove_nic(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const uint64_t slot = fields.number("nic");
  CORE_TRY(fields.check());
  auto done = call.propose({{"op", "vm_nic_remove"}, {"vm", vm->id}, {"slot", slot}});
  return done ? vms_json(call, name) : done;
}

Outcome add_disk_to_vm(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  auto body = disk_of(call, call.body());
  if (!body) return body;
  (*body)["op"] = "vm_disk_add";
  (*body)["vm"] = vm->id;
  auto done = call.propose(std::move(*body));
  return done ? vms_json(call, name) : done;
}

Outcome change_disk_of_vm(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  json::object body{{"op", "vm_disk_change"}, {"vm", vm->id}, {"slot", fields.number("disk")}};
  const size_t about = body.size();
  take_limits(fields, call.body(), body);
  CORE_TRY(fields.check());
  if (body.size() == about)
    return Error{Code::invalid, "what of it is to change? --iops, or --bandwidth"};
  auto done = call.propose(std::move(body));
  return done ? vms_json(call, name) : done;
}

Outcome remove_disk_of_vm(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const uint64_t slot = fields.number("disk");
  CORE_TRY(fields.check());
  return answer_vm(call, name,
                   call.propose({{"op", "vm_disk_remove"}, {"vm", vm->id}, {"slot", slot}}), false);
}

}  // namespace scaled
