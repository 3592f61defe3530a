// SPDX-License-Identifier: GPL-2.0
#include "replica/replica.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <thread>

namespace replica {

namespace json = boost::json;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kIdle{500};             // between looks at the log without a reason
constexpr milliseconds kIdleFollowing{1'000};  // who leads tells what matters to others
constexpr milliseconds kWantedEvery{100};
constexpr std::chrono::seconds kWantedFor{10};
constexpr milliseconds kRetry{200};      // between attempts to reach a leader
constexpr size_t kProposalsAtOnce = 64;  // in one entry
constexpr size_t kBytesAtOnce = size_t{256} << 10;

uint64_t draw() {
  std::random_device device;
  return (uint64_t{device()} << 32 | device()) | 1;
}

// Whether other nodes should know soon. Commits and reservations are of one node alone, and many.
bool concerns_others(const std::vector<policy::Proposal>& proposals) {
  return std::any_of(proposals.begin(), proposals.end(), [](const policy::Proposal& proposal) {
    const json::value* op = proposal.body.if_contains("op");
    return op == nullptr || (*op != "commit" && *op != "reserve" && *op != "seen");
  });
}

size_t bytes_of(const policy::Proposal& proposal) {
  // Only commits are large: their operations count, the rest is small change.
  size_t bytes = 64;
  for (const auto& item : proposal.body)
    bytes += item.value().is_array() ? 32 * item.value().as_array().size() : 32;
  return bytes;
}

}  // namespace

Replica::Replica(core::NodeId node, std::unique_ptr<meta::Database> database,
                 std::unique_ptr<journal::Log> log, Forward forward, Changed changed,
                 Audited audited)
    : node_(node),
      session_(draw()),
      database_(std::move(database)),
      log_(std::move(log)),
      forward_(std::move(forward)),
      changed_(std::move(changed)),
      ledger_(*database_, *log_, std::move(audited)) {}

Result<void> Replica::run(const std::stop_token& stop) {
  CORE_TRY(ledger_.open());
  set_applied(ledger_.applied());
  Result<void> result;
  while (result && !stop.stop_requested()) result = step(stop);
  set_view({});
  std::vector<policy::Proposal> none;
  for (auto batch = take(none); !batch.empty(); batch = take(none))
    answer(batch, Error{Code::conflict, "this node does not lead"});
  return result;
}

Result<void> Replica::step(const std::stop_token& stop) {
  const bool led = leading();
  auto view = log_->tend(applied().index);
  // Without a view there is nothing to lead or follow now: no quorum, or the network.
  set_view(view ? *view : journal::View{});
  // Nobody else appends while this node leads; if one did, an append of ours fails.
  if (view && !(led && view->leading)) CORE_TRY(follow());
  if (view && view->leading) {
    CORE_TRY(lead());
  } else {
    std::vector<policy::Proposal> none;
    answer(take(none), Error{Code::conflict, "this node does not lead"});
  }
  std::unique_lock lock(mutex_);
  auto idle = view && !view->leading ? kIdleFollowing : kIdle;
  if (wanted_ > applied_.index && Clock::now() < wanted_until_) idle = kWantedEvery;
  wake_.wait_for(lock, stop, idle, [&] { return poked_ || !queue_.empty(); });
  poked_ = false;
  return {};
}

Result<void> Replica::follow() {
  for (;;) {
    const auto more = ledger_.follow();
    if (!more) return more.error();
    if (*more == 0) return {};
    set_applied(ledger_.applied());
    changed_(false);
  }
}

Result<void> Replica::lead() {
  for (;;) {
    std::vector<policy::Proposal> proposals;
    const auto batch = take(proposals);
    if (batch.empty()) return {};
    Decided done = ledger_.decide(proposals, std::time(nullptr));
    if (done.next == Decided::Next::split) {
      alone_ = true;  // each in an entry of its own
      put_back(batch);
      continue;
    }
    const bool decided = done.served && done.served->index > applied().index;
    if (decided) set_applied(ledger_.applied());
    if (!done.served) {
      answer(batch, done.served);
      if (done.next == Decided::Next::end) return done.served.error();
      return {};
    }
    size_t first = 0;
    for (const auto& waiting : batch) {
      const auto from = done.served->answers.begin() + static_cast<ptrdiff_t>(first);
      first += waiting->proposals.size();
      const auto to = done.served->answers.begin() + static_cast<ptrdiff_t>(first);
      answer({waiting}, Served{done.served->index, {from, to}});
    }
    if (decided) changed_(concerns_others(proposals));
  }
}

std::vector<std::shared_ptr<Replica::Waiting>> Replica::take(
    std::vector<policy::Proposal>& proposals) {
  std::vector<std::shared_ptr<Waiting>> batch;
  const std::lock_guard lock(mutex_);
  size_t bytes = 0;
  size_t count = 0;
  for (const auto& waiting : queue_) {
    size_t more = 0;
    for (const auto& p : waiting->proposals) more += bytes_of(p);
    if (!batch.empty() && (alone_ || bytes + more > kBytesAtOnce ||
                           proposals.size() + waiting->proposals.size() > kProposalsAtOnce))
      break;
    bytes += more;
    count++;
    batch.push_back(waiting);
    proposals.insert(proposals.end(), waiting->proposals.begin(), waiting->proposals.end());
  }
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  alone_ = alone_ && !queue_.empty();
  return batch;
}

void Replica::put_back(const std::vector<std::shared_ptr<Waiting>>& batch) {
  const std::lock_guard lock(mutex_);
  queue_.insert(queue_.begin(), batch.begin(), batch.end());
}

void Replica::answer(const std::vector<std::shared_ptr<Waiting>>& batch,
                     const Result<Served>& result) {
  const std::lock_guard lock(mutex_);
  for (const auto& waiting : batch) {
    waiting->result = result;
    waiting->done = true;
  }
  decided_.notify_all();
}

void Replica::set_view(const journal::View& view) {
  const std::lock_guard lock(mutex_);
  view_ = view;
}

void Replica::set_applied(const meta::Position& position) {
  const std::lock_guard lock(mutex_);
  applied_ = position;
  decided_.notify_all();
}

bool Replica::leading() const {
  const std::lock_guard lock(mutex_);
  return view_.leading;
}

core::NodeId Replica::leader() const {
  const std::lock_guard lock(mutex_);
  return view_.leading ? node_ : view_.leader;
}

meta::Position Replica::applied() const {
  const std::lock_guard lock(mutex_);
  return applied_;
}

void Replica::look_for(uint64_t index) {
  const std::lock_guard lock(mutex_);
  if (index <= applied_.index) return;
  wanted_ = std::max(wanted_, index);
  wanted_until_ = Clock::now() + kWantedFor;
  poked_ = true;
  wake_.notify_all();
}

bool Replica::wait_applied(uint64_t index, Clock::time_point deadline) {
  look_for(index);
  std::unique_lock lock(mutex_);
  return decided_.wait_until(lock, deadline, [&] { return applied_.index >= index; });
}

Result<Served> Replica::serve(std::vector<policy::Proposal> proposals, Clock::time_point deadline) {
  auto waiting = std::make_shared<Waiting>();
  waiting->proposals = std::move(proposals);
  std::unique_lock lock(mutex_);
  if (!view_.leading) return Error{Code::conflict, "this node does not lead"};
  queue_.push_back(waiting);
  wake_.notify_all();
  if (!decided_.wait_until(lock, deadline, [&] { return waiting->done; })) {
    std::erase(queue_, waiting);
    return Error{Code::unknown,
                 "the leader has no quorum, or is too slow; nothing is lost, ask again"};
  }
  return waiting->result;
}

Result<Served> Replica::offer(const std::vector<policy::Proposal>& proposals,
                              Clock::time_point deadline) {
  const core::NodeId to = leader();
  if (!to) return Error{Code::unknown, "no node leads: the cluster has no quorum"};
  if (to == node_) return serve(proposals, deadline);
  auto served = forward_(to, proposals);
  if (!served) return served;
  if (served->answers.size() != proposals.size())
    return Error{Code::unknown, "the leader's answer is incomplete"};
  // Whoever asked wants to see what was decided in this node's database.
  if (!wait_applied(served->index, deadline))
    return Error{Code::unknown, "decided, but this node does not reach the log"};
  return served;
}

std::vector<Result<json::object>> Replica::propose_all(std::vector<json::object> bodies,
                                                       Clock::time_point deadline) {
  std::vector<policy::Proposal> proposals;
  {
    const std::lock_guard lock(mutex_);
    const uint64_t done = (open_.empty() ? next_sequence_ : *open_.begin()) - 1;
    for (json::object& body : bodies) {
      open_.insert(next_sequence_);
      proposals.push_back({node_, session_, next_sequence_++, done, std::move(body)});
    }
  }
  Result<Served> served = offer(proposals, deadline);
  while (!served && Clock::now() < deadline) {
    // An error of the leader's database is the same next time; the rest may pass.
    std::this_thread::sleep_for(kRetry);
    served = offer(proposals, deadline);
  }
  std::vector<Result<json::object>> out;
  for (size_t i = 0; i < proposals.size(); i++) {
    if (served) {
      out.push_back(policy::from_answer(served->answers[i]));
    } else if (served.error().code == Code::conflict) {
      out.emplace_back(Error{Code::unknown,
                             "no node leads for now, so there is no quorum; nothing is lost, ask "
                             "again"});
    } else {
      out.emplace_back(Error{Code::unknown, served.error().text});
    }
  }
  const std::lock_guard lock(mutex_);
  for (const auto& proposal : proposals) open_.erase(proposal.sequence);
  return out;
}

Result<json::object> Replica::propose(json::object body, Clock::time_point deadline) {
  std::vector<json::object> one;
  one.push_back(std::move(body));
  return std::move(propose_all(std::move(one), deadline).front());
}

}  // namespace replica
