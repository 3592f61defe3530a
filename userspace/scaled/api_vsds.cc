// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <thread>

#include "api_call.h"
#include "host/dm.h"
#include "meta/map.h"

namespace scaled {

namespace json = boost::json;
using core::DiskId;
using core::NodeId;
using core::VsdId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr seconds kOpenFor{60};
constexpr uint64_t kWhole = 1000;

}  // namespace

namespace {

// Virtual disks

json::object vsd_json(const meta::Vsd& vsd, const std::vector<meta::Opened>& opened,
                      const std::vector<meta::Filling>& fillings) {
  uint64_t made = kWhole;
  std::string problem;
  for (const meta::Filling& one : fillings)
    if (one.vsd == vsd.id) {
      made = std::min(one.done, kWhole - 1);
      problem = one.problem;
    }
  json::array open;
  for (const meta::Opened& row : opened)
    if (row.vsd == vsd.id)
      open.push_back({{"node", row.node.value}, {"state", row.state}, {"error", row.error}});
  return {{"id", vsd.id.value},
          {"name", vsd.name},
          {"size_bytes", vsd.sectors * kSectorBytes},
          {"copies", vsd.replicas},
          {"lease_node", vsd.lease_node.value},
          {"epoch", vsd.epoch},
          {"device", "/dev/mapper/" + host::device_name(vsd.name)},
          {"made_permille", made},
          {"problem", problem},
          {"open", std::move(open)}};
}

}  // namespace

Outcome list_vsds(Call& call) {
  auto vsds = call.cluster().vsds();
  auto opened = call.cluster().opened();
  const auto fillings = call.cluster().fillings();
  if (!vsds || !opened || !fillings) return Error{Code::storage, "the metadata is unreadable"};
  json::array out;
  for (const meta::Vsd& vsd : *vsds)
    if (vsd.is_listed()) out.push_back(vsd_json(vsd, *opened, *fillings));
  return json::object{{"vsds", std::move(out)}};
}

Outcome brief_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto opened = call.cluster().opened();
  const auto fillings = call.cluster().fillings();
  if (!opened) return opened.error();
  if (!fillings) return fillings.error();
  return vsd_json(*vsd, *opened, *fillings);
}

// With what it uses and where its copies lie. Walks the whole map.
Outcome show_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto opened = call.cluster().opened();
  const auto fillings = call.cluster().fillings();
  if (!opened) return opened.error();
  if (!fillings) return fillings.error();
  json::object out = vsd_json(*vsd, *opened, *fillings);
  meta::Map map(call.database());
  auto spread = map.spread(vsd->id);
  if (!spread) return spread.error();
  auto version = map.version(vsd->id);
  auto usage = version ? map.usage(*version) : Result<meta::Usage>(version.error());
  if (!usage) return usage.error();
  json::array disks;
  uint64_t stale = 0;
  for (const meta::DiskShare& share : spread->disks) {
    disks.push_back({{"disk", share.disk.value}, {"copies", share.copies}, {"stale", share.stale}});
    stale += share.stale;
  }
  out["mapped_bytes"] = spread->mapped_sectors * kSectorBytes;
  out["extents"] = spread->extents;
  out["pieces"] = spread->pieces;
  out["referenced_bytes"] = usage->referenced * kSlotBytes;
  out["unique_bytes"] = usage->unique * kSlotBytes;
  out["stale_copies"] = stale;
  out["spread"] = std::move(disks);
  return out;
}

Outcome create_vsd(Call& call) {
  Fields fields = call.fields();
  const std::string name = fields.text("name");
  const uint64_t bytes = fields.number("size_bytes");
  const uint64_t copies = fields.number("copies", 2);
  CORE_TRY(fields.check());
  if (bytes == 0 || bytes % kSlotBytes != 0)
    return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB, at least 1 MiB"};
  auto made = call.propose({{"op", "vsd_create"},
                            {"name", name},
                            {"sectors", bytes / kSectorBytes},
                            {"replicas", copies}});
  if (!made) return made;
  return brief_vsd(call, name);
}

// Its size, or its number of copies.
Outcome change_vsd(Call& call, const std::string& name) {
  Fields fields = call.fields();
  const uint64_t bytes = fields.number("size_bytes", 0);
  const uint64_t copies = fields.number("copies", 0);
  CORE_TRY(fields.check());
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  uint64_t task = 0;
  if (call.body().contains("size_bytes")) {
    if (bytes % kSlotBytes != 0)
      return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB"};
    auto done = call.propose(
        {{"op", "vsd_resize"}, {"vsd", vsd->id.value}, {"sectors", bytes / kSectorBytes}});
    if (!done) return done;
  }
  if (call.body().contains("copies")) {
    auto done = call.propose({{"op", "vsd_copies"}, {"vsd", vsd->id.value}, {"replicas", copies}});
    if (!done) return done;
    task = done->at("task").to_number<uint64_t>();
  }
  auto shown = brief_vsd(call, name);
  if (shown) (*shown)["task"] = task;
  return shown;
}

Outcome delete_vsd(Call& call, const std::string& name) {
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  return call.propose({{"op", "vsd_delete"}, {"vsd", vsd->id.value}});
}

Result<void> wait_for_device(Call& call, VsdId vsd, const meta::Node& node, bool open,
                             uint64_t task) {
  const auto deadline = steady_clock::now() + kOpenFor;
  while (steady_clock::now() < deadline) {
    auto opened = call.cluster().opened();
    if (!opened) return opened.error();
    const meta::Opened* row = nullptr;
    for (const meta::Opened& one : *opened)
      if (one.vsd == vsd && one.node == node.id) row = &one;
    if (open ? row != nullptr && row->state == "open" : row == nullptr) return {};
    if (row == nullptr) return Error{Code::conflict, "it was closed meanwhile"};
    if (!row->error.empty() && row->state != "closing" && row->state != "opening")
      return Error{Code::conflict, row->error};
    std::this_thread::sleep_for(kLook);
  }
  return Error{Code::unknown, "node " + node.name +
                                  " has not answered yet; it will when it can. See: scalectl task "
                                  "wait " +
                                  std::to_string(task)};
}

Outcome open_or_close(Call& call, const std::string& name, const char* op) {
  Fields fields = call.fields();
  const std::string where = fields.text("node", "");
  const bool wait = fields.flag("wait", true);
  CORE_TRY(fields.check());
  auto vsd = call.vsd(name);
  if (!vsd) return vsd.error();
  auto node = call.node(where);
  if (!node) return node.error();
  auto done = call.propose({{"op", op}, {"vsd", vsd->id.value}, {"node", node->id.value}});
  if (!done) return done;
  const uint64_t task = done->at("task").to_number<uint64_t>();
  if (wait) CORE_TRY(wait_for_device(call, vsd->id, *node, op == std::string("open"), task));
  auto shown = brief_vsd(call, name);
  if (shown) (*shown)["task"] = task;
  return shown;
}

namespace {

// Tasks

json::object task_json(const meta::Task& task) {
  return {{"id", task.id},           {"what", task.what},   {"name", task.name},
          {"node", task.node.value}, {"state", task.state}, {"why", task.error},
          {"began", task.began},     {"ended", task.ended}};
}

}  // namespace

Outcome list_tasks(Call& call) {
  auto tasks = call.cluster().tasks();
  if (!tasks) return tasks.error();
  json::array out;
  for (const meta::Task& task : *tasks) out.push_back(task_json(task));
  return json::object{{"tasks", std::move(out)}};
}

Outcome show_task(Call& call, const std::string& id) {
  auto tasks = call.cluster().tasks();
  if (!tasks) return tasks.error();
  for (const meta::Task& task : *tasks)
    if (std::to_string(task.id) == id) return task_json(task);
  return Error{Code::not_found, "no task " + id + "; of those that ended only the last are kept"};
}

// Answers when the task has ended, as failed with its error, or after a time with what it is then.
Outcome wait_for_task(Call& call, const std::string& id) {
  Fields fields = call.fields();
  const uint64_t seconds_left = fields.number("seconds", kOpenFor.count());
  CORE_TRY(fields.check());
  if (seconds_left > static_cast<uint64_t>(kOpenFor.count()))
    return Error{Code::invalid, "a call waits for at most 60 seconds; ask again"};
  const auto deadline = steady_clock::now() + seconds(seconds_left);
  for (;;) {
    auto task = show_task(call, id);
    if (!task || task->at("state") == "done") return task;
    const std::string error = json::value_to<std::string>(task->at("why"));
    if (task->at("state") == "failed") return Error{Code::conflict, error};
    if (steady_clock::now() >= deadline)
      return Error{Code::unknown, "task " + id + " goes on; ask again"};
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace scaled
