// SPDX-License-Identifier: GPL-2.0
#include "host/dm.h"

#include <libdevmapper.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>

namespace host {

namespace {

using core::Code;
using core::Error;
using core::VsdId;

// syslog's levels in the low bits, flags of libdevmapper's own above.
constexpr int kLevelMask = 7;
constexpr int kLevelWarning = 4;

struct TaskDeleter {
  void operator()(dm_task* task) const { dm_task_destroy(task); }
};
using Task = std::unique_ptr<dm_task, TaskDeleter>;

// libdevmapper reports by a callback, and keeps state of its own: one call at a time.
std::mutex library;
std::string last_message;  // guarded by library

void on_message(int level, const char*, int, int, const char* format, ...) {
  if ((level & kLevelMask) > kLevelWarning) return;
  va_list args;
  va_start(args, format);
  char* text = nullptr;
  if (vasprintf(&text, format, args) >= 0) {
    last_message = text;
    free(text);
  }
  va_end(args);
}

constexpr const char* kUuid = "SCRIBE-";

std::string uuid_of(VsdId vsd) { return kUuid + std::to_string(vsd.value); }

Error failed(VsdId vsd, const char* what) {
  return {Code::storage, std::string("device of VSD ") + std::to_string(vsd.value) + ": " + what +
                             " failed: " + last_message};
}

Task task_for(int type, VsdId vsd) {
  dm_log_with_errno_init(reinterpret_cast<dm_log_with_errno_fn>(on_message));
  last_message.clear();
  Task task(dm_task_create(type));
  if (task && dm_task_set_uuid(task.get(), uuid_of(vsd).c_str()) == 0) task.reset();
  return task;
}

bool run_with_udev(dm_task* task) {
  uint32_t cookie = 0;
  // udev makes the names and looks no further: what is on it belongs to a guest, and reading it
  // would take the lease from the node that writes.
  constexpr uint16_t kNoScan = DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG |
                               DM_UDEV_DISABLE_DISK_RULES_FLAG | DM_UDEV_DISABLE_OTHER_RULES_FLAG;
  if (dm_task_set_cookie(task, &cookie, kNoScan) == 0) return false;
  const bool good = dm_task_run(task) != 0;
  dm_udev_wait(cookie);
  return good;
}

bool add_target(dm_task* task, VsdId vsd, uint64_t sectors) {
  return dm_task_add_target(task, 0, sectors, "scribe", std::to_string(vsd.value).c_str()) != 0;
}

Result<std::optional<VsdDevice>> find(VsdId vsd) {
  const Task task = task_for(DM_DEVICE_TABLE, vsd);
  if (!task || dm_task_run(task.get()) == 0) {
    // A driver without the device is the usual case; without a driver nothing else will work.
    return std::optional<VsdDevice>();
  }
  dm_info info{};
  if (dm_task_get_info(task.get(), &info) == 0 || info.exists == 0)
    return std::optional<VsdDevice>();
  uint64_t start = 0;
  uint64_t length = 0;
  char* type = nullptr;
  char* params = nullptr;
  dm_get_next_target(task.get(), nullptr, &start, &length, &type, &params);
  return std::optional(VsdDevice{type == nullptr ? 0 : length, info.open_count > 0});
}

}  // namespace

std::string device_name(const std::string& vsd_name) { return "scribe-" + vsd_name; }

DeviceLoad device_load() {
  DeviceLoad out;
  std::error_code err;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", err)) {
    std::string uuid;
    if (!(std::ifstream(entry.path() / "dm/uuid") >> uuid) || !uuid.starts_with(kUuid)) continue;
    // Documentation/block/stat.rst: reads, merged, sectors, ms, and the same of writes.
    std::array<uint64_t, 8> stat{};
    std::ifstream file(entry.path() / "stat");
    for (uint64_t& value : stat) file >> value;
    if (!file) continue;
    out.count += stat[0] + stat[4];
    out.waited_ms += stat[3] + stat[7];
  }
  return out;
}

Result<std::optional<VsdDevice>> find_device(VsdId vsd) {
  const std::lock_guard lock(library);
  return find(vsd);
}

Result<void> create_device(VsdId vsd, const std::string& name, uint64_t sectors, bool read_only) {
  const std::lock_guard lock(library);
  const Task task = task_for(DM_DEVICE_CREATE, vsd);
  if (!task || dm_task_set_name(task.get(), device_name(name).c_str()) == 0 ||
      (read_only && dm_task_set_ro(task.get()) == 0) || !add_target(task.get(), vsd, sectors) ||
      !run_with_udev(task.get()))
    return failed(vsd, "create");
  return {};
}

Result<void> remove_device(VsdId vsd) {
  {
    const std::lock_guard lock(library);
    auto device = find(vsd);
    if (!device) return device.error();
    if (!*device) return {};
    if ((*device)->in_use)
      return Error{Code::conflict, "the device is in use on this node (mounted, or held open)"};
  }
  // The driver flushes before it removes, and the daemon must answer it meanwhile: no lock.
  const Task task = task_for(DM_DEVICE_REMOVE, vsd);
  if (!task || !run_with_udev(task.get())) return failed(vsd, "remove");
  return {};
}

Result<void> resize_device(VsdId vsd, uint64_t sectors) {
  {
    const std::lock_guard lock(library);
    const Task reload = task_for(DM_DEVICE_RELOAD, vsd);
    if (!reload || !add_target(reload.get(), vsd, sectors) || dm_task_run(reload.get()) == 0)
      return failed(vsd, "resize");
  }
  const Task resume = task_for(DM_DEVICE_RESUME, vsd);
  if (!resume || !run_with_udev(resume.get())) return failed(vsd, "resume");
  return {};
}

}  // namespace host
