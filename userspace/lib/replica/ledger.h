// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "journal/log.h"
#include "meta/database.h"
#include "policy/proposals.h"
#include "replica/retention.h"

namespace replica {

using core::Code;
using core::Error;
using core::Result;

/// What a leader answers: the answers and the entry that holds them.
struct Served {
  uint64_t index = 0;
  std::vector<policy::Answer> answers;
};

/// What came of deciding some proposals.
struct Decided {
  enum class Next : uint8_t {
    go_on,
    split,      ///< too much for one entry; nothing was decided: ask for fewer at once
    step_down,  ///< another leads, or led meanwhile
    end         ///< this run can not go on; `served` holds why
  };
  Next next = Next::go_on;
  Result<Served> served = Error{Code::unknown, "not decided"};
};

/// A node's database as its copy of the log: applies entries, makes new ones. It has no thread and
/// no clock of its own, so that a simulation drives what a daemon runs. One thread uses an object.
class Ledger {
 public:
  /// Called right after an entry that asks for an audit was applied, before the next one.
  using Audited = std::function<void(const meta::Position& at)>;

  Ledger(meta::Database& database, journal::Log& log, Audited audited);

  /// Before anything else: where the database stands.
  Result<void> open();
  const meta::Position& applied() const { return applied_; }

  /// Applies some of what the log has more; how many entries, 0 where that is all, or the log is
  /// out of reach now. Code::stale: the log no longer reaches back to this database; Code::corrupt:
  /// they differ.
  Result<size_t> follow();

  /// Decides proposals as one entry. `now` is in seconds since 1970. Pre: this node leads.
  Decided decide(std::span<const policy::Proposal> proposals, int64_t now);

 private:
  void trim(uint64_t index);
  Result<void> audit(const meta::Position& at);
  static Result<Served> refusal(size_t proposals, uint64_t index);

  meta::Database& database_;
  journal::Log& log_;
  const Audited audited_;
  policy::Proposals decisions_;
  Retention retention_;
  meta::Position applied_;
};

}  // namespace replica
