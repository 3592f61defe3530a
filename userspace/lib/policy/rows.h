// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <SQLiteCpp/VariadicBind.h>

#include <cstdint>

#include "meta/database.h"

namespace policy {

/// Runs a statement with its arguments bound; how many rows it changed.
template <class... Args>
int run(meta::Database& database, const char* statement, const Args&... args) {
  meta::Query made(database, statement);
  SQLite::bind(*made, args...);
  return made.exec();
}

/// The first column of the first row; 0 where there is none.
template <class... Args>
uint64_t ask(meta::Database& database, const char* query, const Args&... args) {
  meta::Query made(database, query);
  SQLite::bind(*made, args...);
  return made.executeStep() ? static_cast<uint64_t>(made.getColumn(0).getInt64()) : 0;
}

/// The next number of a sequence, none of which is given twice.
uint64_t next_id(meta::Database& database, const char* counter);

}  // namespace policy
