// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>

#include "meta/database.h"

namespace policy {

/// What goes on after its call was answered, as rows of the database: they change in the same entry
/// as what they tell of, so none is lost with a node and none outlives its work.
class Tasks {
 public:
  /// `now` is in seconds since 1970.
  Tasks(meta::Database& database, int64_t now) : database_(database), now_(now) {}

  /// What is done (`what`) to which object on which node. Gives the running task of the same, if
  /// there is one, else a new one.
  uint64_t begin(const std::string& what, uint64_t object, const std::string& name, uint64_t node);
  /// Ends it, as failed where there is an error. Nothing where none runs.
  void end(const std::string& what, uint64_t object, uint64_t node, const std::string& error);
  /// Ends all of a kind well.
  void end_all(const std::string& what);

 private:
  meta::Database& database_;
  const int64_t now_;
};

}  // namespace policy
