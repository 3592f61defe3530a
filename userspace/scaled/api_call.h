// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon.h"
#include "meta/cluster.h"

namespace scaled {

/// What a call of the API ends with: its answer, or why it was refused.
using Outcome = Result<boost::json::object>;

inline constexpr std::chrono::seconds kCallProposesFor{30};
inline constexpr std::chrono::milliseconds kEtcdTimeout{10'000};
inline constexpr std::chrono::milliseconds kLook{200};  // between looks at what is waited for
inline constexpr size_t kSecretBytes = 16;
inline constexpr uint64_t kSlotBytes = uint64_t{1} << 20;

/// A request's fields, checked: each that is read must have its type, and none may be left over.
class Fields {
 public:
  explicit Fields(const boost::json::object& object) : object_(object) {}

  std::string text(const char* name, std::optional<std::string> fallback = {}) {
    const boost::json::value* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_string()) return fail<std::string>(name, "a text");
    return std::string(value->as_string());
  }
  uint64_t number(const char* name, std::optional<uint64_t> fallback = {}) {
    const boost::json::value* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    boost::system::error_code err;
    const uint64_t out = value == nullptr ? 0 : value->to_number<uint64_t>(err);
    if (value == nullptr || err) return fail<uint64_t>(name, "a number, 0 or more");
    return out;
  }
  bool flag(const char* name, bool fallback) {
    const boost::json::value* value = find(name);
    if (value == nullptr) return fallback;
    return value->is_bool() ? value->as_bool() : fail<bool>(name, "true or false");
  }
  /// A list of one or more.
  std::vector<std::string> texts(const char* name) {
    constexpr const char* kWhat = "a list of texts";
    const boost::json::value* value = find(name);
    if (value == nullptr || !value->is_array() || value->as_array().empty())
      return fail<std::vector<std::string>>(name, kWhat);
    std::vector<std::string> out;
    for (const boost::json::value& one : value->as_array()) {
      if (!one.is_string()) return fail<std::vector<std::string>>(name, kWhat);
      out.emplace_back(one.as_string());
    }
    return out;
  }
  /// It is read elsewhere.
  void skip(const char* name) { known_.insert(name); }
  /// After all fields were read: what was wrong, if anything.
  Result<void> check() const {
    if (!problem_.empty()) return Error{Code::invalid, problem_};
    for (const auto& item : object_)
      if (!known_.contains(item.key()))
        return Error{Code::invalid, "unknown field '" + std::string(item.key()) + "'"};
    return {};
  }

 private:
  const boost::json::value* find(const char* name) {
    known_.insert(name);
    return object_.if_contains(name);
  }
  template <class T>
  T fail(const char* name, const char* what) {
    if (problem_.empty()) problem_ = std::string("field '") + name + "' must be " + what;
    return {};
  }

  const boost::json::object& object_;
  std::set<std::string, std::less<>> known_;
  std::string problem_;
};

/// One request of a member, with its view of the metadata.
class Call {
 public:
  Call(Member& member, boost::json::object body) : member_(member), body_(std::move(body)) {}

  Result<void> open() {
    auto reader = meta::Database::open_reader(member_.paths().database());
    if (!reader) return reader.error();
    database_ = std::move(*reader);
    return {};
  }

  /// Who asked, for what is noted of proposals; nobody: the node itself.
  void set_by(std::string by) { by_ = std::move(by); }

  Outcome propose(boost::json::object proposal) {
    if (!by_.empty()) proposal["by"] = by_;
    return member_.replica().propose(std::move(proposal),
                                     std::chrono::steady_clock::now() + kCallProposesFor);
  }
  meta::Cluster cluster() { return meta::Cluster(*database_); }
  Fields fields() const { return Fields(body_); }
  const boost::json::object& body() const { return body_; }
  Member& member() { return member_; }
  meta::Database& database() { return *database_; }

  /// A VSD by name; not one that was deleted.
  Result<meta::Vsd> vsd(const std::string& name) {
    auto found = vsd_or_deleted(name);
    if (found && !found->is_listed()) return Error{Code::not_found, "no VSD named " + name};
    return found;
  }
  Result<meta::Vsd> vsd_or_deleted(const std::string& name) {
    auto all = cluster().vsds();
    if (!all) return all.error();
    for (const meta::Vsd& one : *all)
      if (one.name == name && !one.is_medium()) return one;
    return Error{Code::not_found, "no VSD named " + name};
  }
  /// A node by name or number; this one for "".
  Result<meta::Node> node(const std::string& name) {
    auto all = cluster().nodes();
    if (!all) return all.error();
    for (const meta::Node& one : *all)
      if (one.name == name || std::to_string(one.id.value) == name ||
          (name.empty() && one.id == member_.config().node))
        return one;
    return Error{Code::not_found, "no node named " + name};
  }

 private:
  Member& member_;
  std::string by_;
  boost::json::object body_;
  std::unique_ptr<meta::Database> database_;
};

// The calls, as Documentation/openapi.json describes them.

// api_cluster.cc
Outcome show_cluster(Call& call);
Outcome set_cluster(Call& call);
/// Right after a node became one the answer would be "no quorum".
void wait_for_leader(Call& call);
Outcome list_nodes(Call& call);
Outcome make_token(Call& call);
Outcome admit_node(Call& call);
Outcome remove_node(Call& call, const std::string& name);
Outcome drain_node(Call& call);
Outcome bond_node(Call& call, const std::string& name);
Outcome audit_cluster(Call& call);

// api_disks.cc
Outcome list_disks(Call& call);
Outcome list_candidates(Call&);
/// Takes a disk of this node; add_disk() asks the node that has it.
Outcome add_local_disk(Call& call);
Outcome add_disk(Call& call);
Outcome remove_disk(Call& call, const std::string& id);
Outcome evacuate_disk(Call& call, const std::string& id);
Outcome show_pool(Call& call);
Outcome verify_pool(Call& call);
Outcome rebalance_pool(Call& call);
Outcome repair_pool(Call& call);

// api_vsds.cc
Outcome list_vsds(Call& call);
Outcome show_vsd(Call& call, const std::string& name);
/// Without what only its map knows.
Outcome brief_vsd(Call& call, const std::string& name);
Outcome create_vsd(Call& call);
Outcome change_vsd(Call& call, const std::string& name);
Outcome delete_vsd(Call& call, const std::string& name);
Outcome open_or_close(Call& call, const std::string& name, const char* op);
/// Waits until the node has said what became of an "opening" or "closing" of a VSD's device.
Result<void> wait_for_device(Call& call, core::VsdId vsd, const meta::Node& node, bool open,
                             uint64_t task);

// api_snapshots.cc; `name` is VSD@NAME
Result<meta::Snapshot> find_snapshot(Call& call, const std::string& what);
/// For create_snapshot() on another node.
Outcome serve_hold(Call& call);
Outcome serve_go_on(Call& call);
Outcome create_snapshot(Call& call);
/// Of VSDs at one instant, for proposal "snapshot" with these arguments.
Outcome take_snapshots(Call& call, const std::vector<std::string>& names,
                       const boost::json::object& what);
Outcome list_snapshots(Call& call);
Outcome show_snapshot(Call& call, const std::string& name);
Outcome delete_snapshot(Call& call, const std::string& name);
Outcome revert_snapshot(Call& call, const std::string& name);
Outcome clone_snapshot(Call& call, const std::string& name);
Outcome open_or_close_snapshot(Call& call, const std::string& name, const char* op);
/// `name` is a VSD's; what it is now is cloned.
Outcome clone_vsd(Call& call, const std::string& name);
Outcome diff_snapshot(Call& call, const std::string& name);
/// What deleting some of them would free.
Outcome weigh_snapshots(Call& call);

// api_schedules.cc
Outcome list_schedules(Call& call);
Outcome show_schedule(Call& call, const std::string& name);
Outcome create_schedule(Call& call);
Outcome change_schedule(Call& call, const std::string& name);
Outcome delete_schedule(Call& call, const std::string& name);

// api_vms.cc
Outcome list_vms(Call& call);
Outcome show_vm(Call& call, const std::string& name);
Outcome create_vm(Call& call);
Outcome change_vm(Call& call, const std::string& name);
Outcome show_stats(Call& call, const std::string& name);
Outcome serve_stats(Call& call);
Outcome add_disk_to_vm(Call& call, const std::string& name);
Outcome change_disk_of_vm(Call& call, const std::string& name);
Outcome remove_disk_of_vm(Call& call, const std::string& name);
Outcome add_nic(Call& call, const std::string& name);
Outcome change_nic(Call& call, const std::string& name);
Outcome remove_nic(Call& call, const std::string& name);
Outcome delete_vm(Call& call, const std::string& name);
Outcome start_vm(Call& call, const std::string& name);
// `name` is VM@NAME
Outcome export_vm(Call& call, const std::string& name);
Outcome import_vm(Call& call);
Outcome restart_vm(Call& call, const std::string& name, const char* how);
Outcome serve_restart(Call& call);
// api_vm_snapshots.cc
Outcome serve_freeze(Call& call);
Outcome serve_thaw(Call& call);
Outcome serve_tpm(Call& call);
Outcome serve_screen(Call& call, core::NodeId peer);
Outcome console_of_vm(Call& call, const std::string& name);
Outcome migrate_vm(Call& call, const std::string& name);
Outcome cancel_migration(Call& call, const std::string& name);
Outcome serve_progress(Call& call);
Outcome list_vm_snapshots(Call& call);
Outcome create_vm_snapshot(Call& call);
Outcome export_vm_snapshot(Call& call, const std::string& name);
Outcome delete_vm_snapshot(Call& call, const std::string& name);
Outcome revert_vm(Call& call, const std::string& name);
/// `name` may be a VM's: then what it is now is cloned.
Outcome clone_vm(Call& call, const std::string& name);
/// Off, running or paused; `how` says how it is to become off.
Outcome want_vm(Call& call, const std::string& name, const char* wanted, const char* how);

// api_media.cc
Outcome list_media(Call& call);
Outcome show_medium(Call& call, const std::string& name);
Outcome create_medium(Call& call);
/// The request's body is a piece of the file.
Outcome put_piece(Call& call, const std::string& name, const std::string& piece);
Result<std::string> get_piece(Call& call, const std::string& name);
Outcome delete_medium(Call& call, const std::string& name);
/// `name` is that of the VSD to be.
Outcome import_vsd(Call& call, const std::string& name);
Outcome cancel_import(Call& call, const std::string& name);
/// `name` is a VSD's, or VSD@NAME.
Outcome export_vsd(Call& call, const std::string& name);
Outcome add_cdrom(Call& call, const std::string& name);
Outcome change_cdrom(Call& call, const std::string& name);
Outcome remove_cdrom(Call& call, const std::string& name);

// api_vsds.cc: tasks
Outcome list_tasks(Call& call);
Outcome list_events(Call& call);
Outcome show_task(Call& call, const std::string& id);
Outcome wait_for_task(Call& call, const std::string& id);

}  // namespace scaled
