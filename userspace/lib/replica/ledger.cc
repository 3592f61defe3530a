// SPDX-License-Identifier: GPL-2.0
#include "replica/ledger.h"

#include <utility>

namespace replica {

namespace {

constexpr size_t kReadAtOnce = 64;
constexpr uint64_t kEntriesKept = 16'384;
constexpr uint64_t kBytesKept = uint64_t{256} << 20;
constexpr uint64_t kTrimEvery = 256;

}  // namespace

Ledger::Ledger(meta::Database& database, journal::Log& log, Audited audited)
    : database_(database),
      log_(log),
      audited_(std::move(audited)),
      decisions_(database_),
      retention_(kEntriesKept, kBytesKept) {}

Result<void> Ledger::open() {
  auto at = database_.applied();
  if (!at) return at.error();
  applied_ = *at;
  return {};
}

Result<size_t> Ledger::follow() {
  auto entries = log_.read_from(applied_.index + 1, kReadAtOnce);
  if (!entries) {
    if (entries.error().code == Code::stale || entries.error().code == Code::corrupt)
      return entries.error();
    return size_t{0};  // out of reach now; the next step tries again
  }
  if (entries->empty()) return size_t{0};
  decisions_.forget();  // made by another leader, or before a restart
  for (const journal::Entry& entry : *entries) {
    if (entry.prev_hash != applied_.hash)
      return Error{Code::corrupt, "log: entry " + std::to_string(entry.index) +
                                      " does not continue this node's database"};
    CORE_TRY(database_.apply({entry.index, entry.hash}, entry.payload));
    applied_ = {entry.index, entry.hash};
    retention_.add(entry.index, entry.payload.size());
    CORE_TRY(audit(applied_));
  }
  return entries->size();
}

Decided Ledger::decide(std::span<const policy::Proposal> proposals, int64_t now) {
  using Next = Decided::Next;
  std::vector<policy::Answer> answers;
  auto patch = decisions_.prepare(proposals, applied_.index + 1, now, answers);
  if (!patch) return {Next::end, patch.error()};
  if (patch->size() > journal::kMaxPayloadBytes) {
    database_.rollback();
    decisions_.forget();
    if (proposals.size() > 1) return {Next::split, Error{Code::unknown, "not decided yet"}};
    return {Next::go_on, refusal(proposals.size(), applied_.index)};
  }
  const size_t bytes = patch->size();
  auto entry = log_.append(applied_.index + 1, applied_.hash, std::move(*patch));
  if (!entry) {
    database_.rollback();
    decisions_.forget();
    const Error why = entry.error();
    if (why.code == Code::invalid) return {Next::go_on, refusal(proposals.size(), applied_.index)};
    return {why.code == Code::conflict ? Next::step_down : Next::end,
            Error{Code::unknown, why.text}};
  }
  const meta::Position at{entry->index, entry->hash};
  if (auto done = database_.commit(at); !done)
    return {Next::end, Error{Code::unknown, done.error().text}};
  decisions_.committed();
  applied_ = at;
  retention_.add(at.index, bytes);
  if (auto done = audit(at); !done) return {Next::end, Error{Code::unknown, done.error().text}};
  trim(at.index);
  return {Next::go_on, Served{at.index, std::move(answers)}};
}

// Keeps enough for nodes that were away for a moment; others copy a database.
void Ledger::trim(uint64_t index) {
  if (index % kTrimEvery != 0 || retention_.trimmable() == 0) return;
  // What fails now is done with the next one.
  if (auto done = log_.trim(retention_.trimmable()); !done) return;
}

Result<void> Ledger::audit(const meta::Position& at) {
  auto asked = database_.audit_index();
  if (!asked) return asked.error();
  if (*asked == at.index) audited_(at);
  return {};
}

// What would not fit into an entry is refused for good, not tried again.
Result<Served> Ledger::refusal(size_t proposals, uint64_t index) {
  const Error why{Code::invalid, "that is more than one change of the metadata can hold"};
  return Served{index, std::vector<policy::Answer>(proposals, policy::to_answer(why))};
}

}  // namespace replica
