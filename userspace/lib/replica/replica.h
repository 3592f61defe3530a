// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <vector>

#include "core/id.h"
#include "journal/log.h"
#include "meta/database.h"
#include "policy/proposals.h"
#include "replica/ledger.h"

namespace replica {

using Clock = std::chrono::steady_clock;

/// This node's copy of the metadata: leads or follows, and brings proposals to whoever leads.
///
/// One thread calls run(); it alone uses the database and the log. All other methods may be called
/// from any thread and block.
class Replica {
 public:
  /// Sends proposals to another node's serve(); an error leaves their outcome open.
  using Forward = std::function<Result<Served>(core::NodeId leader,
                                               const std::vector<policy::Proposal>& proposals)>;
  /// Called by run() after entries were applied, `announce` where this node made them and others
  /// should look soon; must not block.
  using Changed = std::function<void(bool announce)>;
  /// Called by run() right after an entry that asks for an audit was applied, before the next one;
  /// must not block.
  using Audited = Ledger::Audited;

  Replica(core::NodeId node, std::unique_ptr<meta::Database> database,
          std::unique_ptr<journal::Log> log, Forward forward, Changed changed, Audited audited);

  /// Leads or follows until stopped. Returns earlier where this node cannot go on by itself:
  /// Code::stale (the log no longer reaches back to this database) and Code::corrupt (databases
  /// differ) ask for a copy from another node, Code::storage and Code::unknown for a restart.
  Result<void> run(const std::stop_token& stop);

  /// Proposes and waits until the answer is decided, durable and applied here. Repeats it, without
  /// effect where it was decided, until `deadline`; then Code::unknown.
  Result<boost::json::object> propose(boost::json::object body, Clock::time_point deadline);
  /// The same for several at once, in one entry where possible.
  std::vector<Result<boost::json::object>> propose_all(std::vector<boost::json::object> bodies,
                                                       Clock::time_point deadline);

  /// For other nodes' proposals. Code::conflict where this node does not lead.
  Result<Served> serve(std::vector<policy::Proposal> proposals, Clock::time_point deadline);

  /// The log has this entry, says somebody who should know: look for it now.
  void look_for(uint64_t index);

  bool leading() const;
  core::NodeId leader() const;
  meta::Position applied() const;
  /// False at the deadline.
  bool wait_applied(uint64_t index, Clock::time_point deadline);

 private:
  struct Waiting {
    std::vector<policy::Proposal> proposals;
    bool done = false;
    Result<Served> result = Error{Code::unknown, "not decided yet"};
  };

  Result<void> step(const std::stop_token& stop);
  Result<void> follow();
  Result<void> lead();
  void set_view(const journal::View& view);
  void set_applied(const meta::Position& position);
  std::vector<std::shared_ptr<Waiting>> take(std::vector<policy::Proposal>& proposals);
  void put_back(const std::vector<std::shared_ptr<Waiting>>& batch);
  void answer(const std::vector<std::shared_ptr<Waiting>>& batch, const Result<Served>& result);
  Result<Served> offer(const std::vector<policy::Proposal>& proposals, Clock::time_point deadline);

  const core::NodeId node_;
  const uint64_t session_;
  const std::unique_ptr<meta::Database> database_;
  const std::unique_ptr<journal::Log> log_;
  const Forward forward_;
  const Changed changed_;
  Ledger ledger_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;  // run() has something to do
  std::condition_variable decided_;   // an answer came, or the applied index grew
  std::vector<std::shared_ptr<Waiting>> queue_;
  bool poked_ = false;
  uint64_t wanted_ = 0;  // an entry that must be there: read without a rest until then
  Clock::time_point wanted_until_;
  bool alone_ = false;  // the queue's proposals do not fit together
  journal::View view_;
  meta::Position applied_;
  uint64_t next_sequence_ = 1;
  std::set<uint64_t> open_;  // sequences without an answer
};

}  // namespace replica
