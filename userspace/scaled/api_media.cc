// SPDX-License-Identifier: GPL-2.0
// Media, what is made of them, and the drives that they are in.
#include <algorithm>
#include <charconv>

#include "api_vms.h"

namespace scaled {

namespace json = boost::json;

namespace {

constexpr uint64_t kMostRead = uint64_t{8} << 20;

json::object medium_json(const meta::Medium& medium) {
  return {{"name", medium.name},
          {"state", medium.state},
          {"problem", medium.problem},
          {"size_bytes", medium.bytes},
          {"received_bytes", medium.received},
          {"checked_bytes", medium.done},
          {"sha256", medium.sha256.empty() ? medium.wanted_sha256 : medium.sha256},
          {"format", medium.format},
          {"disk_bytes", medium.disk_bytes},
          {"node", medium.node.value},
          {"created", medium.created}};
}

// Not one that is being deleted, or is there for another alone.
bool is_listed(const meta::Medium& medium) { return medium.name.find(':') == std::string::npos; }

Result<meta::Medium> find_medium(Call& call, const std::string& name) {
  auto all = call.cluster().media();
  if (!all) return all.error();
  for (meta::Medium& one : *all)
    if (one.name == name && is_listed(one)) return std::move(one);
  return Error{Code::not_found, "no medium named " + name};
}

// Of a query.
Result<uint64_t> number_of(Fields& fields, const char* name) {
  const std::string text = fields.text(name);
  uint64_t out = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), out);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size())
    return Error{Code::invalid, "'" + std::string(name) + "' is a number of bytes"};
  return out;
}

Result<Media*> media_of(Call& call) {
  Media* const media = call.member().media();
  if (media == nullptr) return Error{Code::unknown, "this node's daemon has just begun; try again"};
  return media;
}

// The medium that a drive is to have; 0 for "".
Result<uint64_t> wanted_medium(Call& call, Fields& fields) {
  const std::string name = fields.text("medium", "");
  CORE_TRY(fields.check());
  if (name.empty()) return uint64_t{0};
  const auto medium = find_medium(call, name);
  if (!medium) return medium.error();
  return medium->id;
}

}  // namespace

Outcome list_media(Call& call) {
  const auto all = call.cluster().media();
  if (!all) return all.error();
  json::array out;
  for (const meta::Medium& one : *all)
    if (is_listed(one)) out.push_back(medium_json(one));
  return json::object{{"media", std::move(out)}};
}

Outcome show_medium(Call& call, const std::string& name) {
  const auto medium = find_medium(call, name);
  if (!medium) return medium.error();
  return medium_json(*medium);
}

Outcome create_medium(Call& call) {
  Fields fields = call.fields();
  const std::string name = fields.text("name");
  const uint64_t bytes = fields.number("size_bytes");
  std::string digest = fields.text("sha256", "");
  CORE_TRY(fields.check());
  std::transform(digest.begin(), digest.end(), digest.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  auto made =
      call.propose({{"op", "medium_create"}, {"name", name}, {"bytes", bytes}, {"sha256", digest}});
  return made ? show_medium(call, name) : made;
}

Outcome put_piece(Call& call, const std::string& name, const std::string& piece) {
  Fields fields = call.fields();
  const auto offset = number_of(fields, "offset");
  CORE_TRY(fields.check());
  if (!offset) return offset.error();
  const auto medium = find_medium(call, name);
  if (!medium) return medium.error();
  const auto media = media_of(call);
  if (!media) return media.error();
  CORE_TRY((*media)->put(call, name, *offset, piece));
  return show_medium(call, name);
}

Result<std::string> get_piece(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const auto offset = number_of(fields, "offset");
  const auto bytes = number_of(fields, "bytes");
  CORE_TRY(fields.check());
  if (!offset) return offset.error();
  if (!bytes) return bytes.error();
  if (*bytes == 0 || *bytes > kMostRead)
    return Error{Code::invalid, "'bytes' is 1 to " + std::to_string(kMostRead)};
  const auto medium = find_medium(call, name);
  if (!medium) return medium.error();
  const auto media = media_of(call);
  if (!media) return media.error();
  return (*media)->get(call, name, *offset, *bytes);
}

Outcome delete_medium(Call& call, const std::string& name) {
  const auto medium = find_medium(call, name);
  if (!medium) return medium.error();
  return call.propose({{"op", "medium_delete"}, {"medium", medium->id}});
}

Outcome import_vsd(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string from = fields.text("medium");
  const uint64_t copies = fields.number("copies", 2);
  CORE_TRY(fields.check());
  const auto medium = find_medium(call, from);
  if (!medium) return medium.error();
  auto made = call.propose({{"op", "vsd_fill"},
                            {"medium", medium->id},
                            {"name", name},
                            {"replicas", copies},
                            {"node", call.member().config().node.value},
                            {"life", call.member().agent().life()}});
  if (!made) return made;
  auto shown = brief_vsd(call, name);
  if (shown) (*shown)["task"] = made->at("task");
  return shown;
}

// Of a snapshot, VSD@NAME, or of what a VSD is now.
Outcome export_vsd(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const std::string to = fields.text("medium");
  const std::string format = fields.text("format", "qcow2");
  CORE_TRY(fields.check());
  const bool now = name.find('@') == std::string::npos;
  std::string of = name;
  if (now) {
    const std::string taken = "for-" + to;
    CORE_TRY(take_snapshots(call, {name}, {{"name", taken}}));
    of += "@" + taken;
  }
  const auto snapshot = find_snapshot(call, of);
  if (!snapshot) return snapshot.error();
  auto made = call.propose({{"op", "medium_make"},
                            {"name", to},
                            {"snapshot", snapshot->id.value},
                            {"format", format},
                            {"drop", now},
                            {"node", call.member().config().node.value},
                            {"life", call.member().agent().life()}});
  if (made) return show_medium(call, to);
  if (now) (void)call.propose({{"op", "snapshot_delete"}, {"snapshot", snapshot->id.value}});
  return made;
}

Outcome cancel_import(Call& call, const std::string& name) {
  const auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  return call.propose({{"op", "vsd_fill_cancel"}, {"vsd", vsd->id.value}});
}

Result<void> take_cdroms(Call& call, json::object& out) {
  const json::value* asked = call.body().if_contains("cdroms");
  if (asked == nullptr) return {};
  if (!asked->is_array()) return Error{Code::invalid, "field 'cdroms' must be a list"};
  json::array cdroms;
  for (const json::value& one : asked->as_array()) {
    if (!one.is_object()) return Error{Code::invalid, "a drive is an object"};
    Fields fields(one.as_object());
    const auto medium = wanted_medium(call, fields);
    if (!medium) return medium.error();
    cdroms.push_back(json::object{{"medium", *medium}});
  }
  out["cdroms"] = std::move(cdroms);
  return {};
}

Outcome add_cdrom(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const auto medium = wanted_medium(call, fields);
  if (!medium) return medium.error();
  auto done = call.propose({{"op", "vm_cdrom_add"}, {"vm", vm->id}, {"medium", *medium}});
  return done ? vms_json(call, name) : done;
}

Outcome change_cdrom(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const uint64_t slot = fields.number("cdrom");
  const auto medium = wanted_medium(call, fields);
  if (!medium) return medium.error();
  auto done = call.propose(
      {{"op", "vm_cdrom_change"}, {"vm", vm->id}, {"slot", slot}, {"medium", *medium}});
  return done ? vms_json(call, name) : done;
}

Outcome remove_cdrom(Call& call, const std::string& name) {
  const auto vm = find_vm(call, name);
  if (!vm) return vm.error();
  Fields fields = call.fields();
  const uint64_t slot = fields.number("cdrom");
  CORE_TRY(fields.check());
  auto done = call.propose({{"op", "vm_cdrom_remove"}, {"vm", vm->id}, {"slot", slot}});
  return done ? vms_json(call, name) : done;
}

}  // namespace scaled
