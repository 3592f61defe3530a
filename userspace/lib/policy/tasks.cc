// SPDX-License-Identifier: GPL-2.0
#include "policy/tasks.h"

#include "policy/context.h"
#include "policy/rows.h"

namespace policy {

namespace {

constexpr int64_t kTasksKept = 1000;

}  // namespace

uint64_t next_id(meta::Database& database, const char* counter) {
  run(database,
      "INSERT INTO counter VALUES(?, 1) ON CONFLICT(name) DO UPDATE SET value = value + 1",
      counter);
  return ask(database, "SELECT value FROM counter WHERE name = ?", counter);
}

uint64_t Tasks::begin(const std::string& what, uint64_t object, const std::string& name,
                      uint64_t node) {
  if (const uint64_t running = ask(database_,
                                   "SELECT id FROM task WHERE state = 'running' AND what = ? AND "
                                   "object = ? AND node = ?",
                                   what, s64(object), s64(node)))
    return running;
  const uint64_t id = next_id(database_, "task");
  run(database_, "INSERT INTO task VALUES(?, ?, ?, ?, ?, 'running', '', ?, 0)", s64(id), what,
      s64(object), name, s64(node), now_);
  run(database_, "DELETE FROM task WHERE id <= ? AND state <> 'running'", s64(id) - kTasksKept);
  return id;
}

void Tasks::end(const std::string& what, uint64_t object, uint64_t node, const std::string& error) {
  run(database_,
      "UPDATE task SET state = ?, error = ?, ended = ? WHERE state = 'running' AND what = ? AND "
      "object = ? AND node = ?",
      error.empty() ? "done" : "failed", error, now_, what, s64(object), s64(node));
}

void Tasks::end_all(const std::string& what) {
  run(database_, "UPDATE task SET state = 'done', ended = ? WHERE state = 'running' AND what = ?",
      now_, what);
}

}  // namespace policy
