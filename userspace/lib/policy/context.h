// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"
#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/healing.h"
#include "policy/placement.h"
#include "policy/rows.h"
#include "policy/slots.h"
#include "policy/tasks.h"

/// What the handlers of proposals share; for them alone.
namespace policy {

namespace json = boost::json;

using core::Code;
using core::DiskId;
using core::Error;
using core::NodeId;
using core::Result;
using core::VsdId;
using Outcome = Result<json::object>;

/// Extents that a node gets at once, at most; each has a seed of its own for its places.
constexpr uint64_t kMaxReserve = 256;
/// VSDs of which snapshots are taken at one instant, at most.
constexpr size_t kVsdsAtOnce = 64;
/// Copies that are made anew leave so much of a disk to guests: one in 50 slots.
constexpr uint64_t kHealReserveDivisor = 50;

struct Context {
  meta::Database& database;
  Slots& slots;
  std::vector<std::pair<DiskId, uint32_t>>& freed;
  uint64_t index;
  int64_t now;
  SQLite::Database& sql = database.sql();
  meta::Map map{database};
  meta::Cluster cluster{database};
  Tasks tasks{database, now};

  operator meta::Database&() const { return database; }
};

inline int64_t s64(uint64_t value) { return static_cast<int64_t>(value); }

uint64_t number(const json::object& args, const char* name);

std::string text(const json::object& args, const char* name);

Error no_such(const char* what, uint64_t id);

bool is_live(Context& c, uint64_t node, uint64_t life);

Error not_live(uint64_t node);

/// Whether every live node said that it ended all I/O of a life.
bool is_fenced(Context& c, uint64_t node, uint64_t life);

/// Whether all copies have to lie on one node, for there is no other.
bool one_node(Context& c);

Result<Places> places(Context& c);

Result<std::vector<Candidate>> candidates(Context& c);

/// The VSD of a call that only the holder of its lease may make.
Result<meta::Vsd> leased_vsd(Context& c, const json::object& args);

bool is_filled_by(Context& c, uint64_t extent, core::VsdId vsd);
/// Whether others than the VSD that filled it may lead to an extent. Nobody writes to it then.
bool is_shared(Context& c, uint64_t extent);
/// Copies of an extent are elsewhere, or current again: nodes whose maps lead there are to hear of
/// it before their slots are used again.
void note_relocated(Context& c, uint64_t extent);

/// The VSD of a call; one that was deleted does not count, nor does a view.
Result<meta::Vsd> living_vsd(Context& c, const json::object& args);

}  // namespace policy
