// SPDX-License-Identifier: GPL-2.0
#include "journal/etcd_log.h"

#include <array>
#include <cstdio>
#include <thread>
#include <utility>

#include "journal/record.h"

namespace journal {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTimeout{5'000};
constexpr milliseconds kRetry{200};
constexpr const char* kLeaderKey = "scribe/leader";
constexpr const char* kLogPrefix = "scribe/log/";
constexpr const char* kLogEnd = "scribe/log0";  // behind the last key with the prefix

std::string log_key(uint64_t index) {
  std::array<char, 17> digits{};
  const unsigned long long wide = index;
  std::snprintf(digits.data(), digits.size(), "%016llx", wide);
  return kLogPrefix + std::string(digits.data());
}

}  // namespace

EtcdLog::EtcdLog(core::NodeId node, Etcd::Endpoints endpoints, std::chrono::seconds leader_ttl,
                 MostAdvanced most_advanced)
    : node_(node),
      ttl_(leader_ttl),
      most_advanced_(std::move(most_advanced)),
      etcd_(std::move(endpoints), kTimeout) {}

Result<View> EtcdLog::tend(uint64_t applied) {
  if (resigned_) {
    if (std::exchange(leader_revision_, 0) != 0) CORE_TRY(etcd_.end_lease(lease_));
    return View{};
  }
  if (leader_revision_ != 0) {
    if (steady_clock::now() - kept_ < ttl_ / 3) return View{true, node_};
    auto kept = etcd_.keep_lease(lease_);
    if (kept) {
      kept_ = steady_clock::now();
      return View{true, node_};
    }
    // No answer is not the end: an append finds out by itself whether the key is still ours.
    if (kept.error().code != Code::stale) return kept.error();
    leader_revision_ = 0;
  }
  // Who leads is a hint for others, and campaign() finds out for itself.
  auto leader = etcd_.range(kLeaderKey, "", 1, true);
  if (!leader) return leader.error();
  if (!leader->empty()) {
    const uint64_t who = std::strtoull(leader->front().value.c_str(), nullptr, 10);
    // A key of our own from before a restart goes away with its lease.
    return View{false, {who == node_.value ? 0 : who}};
  }
  return campaign(applied);
}

Result<View> EtcdLog::campaign(uint64_t applied) {
  auto behind = etcd_.range(log_key(applied + 1), kLogEnd, 1);
  if (!behind) return behind.error();
  if (!behind->empty() || most_advanced_() > applied) return View{false, {}};
  auto lease = etcd_.grant_lease(ttl_);
  if (!lease) return lease.error();
  auto won = etcd_.put_if({{kLeaderKey, Compare::What::absent, 0}}, kLeaderKey,
                          std::to_string(node_.value), *lease, {});
  if (!won) return won.error();
  if (!won->succeeded) return View{false, {}};
  lease_ = *lease;
  leader_revision_ = won->revision;
  kept_ = steady_clock::now();
  return View{true, node_};
}

Result<Entry> EtcdLog::append(uint64_t index, uint64_t prev_hash, std::string payload) {
  if (leader_revision_ == 0) return Error{Code::conflict, "log: this node does not lead"};
  if (payload.size() > kMaxPayloadBytes)
    return Error{Code::invalid, "log: an entry has at most " + std::to_string(kMaxPayloadBytes) +
                                    " bytes, this one " + std::to_string(payload.size())};
  const std::string key = log_key(index);
  const std::string record = encode_record(index, prev_hash, payload);
  const uint64_t hash = decode_record(record, 0)->hash;
  while (!stopped_) {
    auto done = etcd_.put_if({{kLeaderKey, Compare::What::created_at, leader_revision_},
                              {key, Compare::What::absent, 0}},
                             key, record, 0, {key});
    if (!done && done.error().code == Code::invalid) return done.error();
    if (!done) {
      std::this_thread::sleep_for(kRetry);
      continue;
    }
    // The second attempt finds what the first one wrote, if it did.
    const bool mine =
        done->succeeded || (!done->found.empty() && done->found.front().value == record);
    if (mine) return Entry{index, prev_hash, hash, std::move(payload)};
    leader_revision_ = 0;
    return Error{Code::conflict, "log: another node leads"};
  }
  return Error{Code::unknown, "log: stopped before entry " + std::to_string(index) +
                                  " was known to be there or not"};
}

Result<std::vector<Entry>> EtcdLog::read_from(uint64_t index, size_t limit) {
  // Entries never change: a member that lags gives fewer of them. Who leads needs all.
  auto found = etcd_.range(log_key(index), kLogEnd, limit, leader_revision_ == 0);
  if (!found) return found.error();
  std::vector<Entry> out;
  for (const KeyValue& kv : *found) {
    const auto record = decode_record(kv.value, 0);
    if (!record) return Error{Code::corrupt, "log: the entry at " + kv.key + " is damaged"};
    if (record->index != index + out.size())
      return Error{Code::stale,
                   "log: entry " + std::to_string(index + out.size()) + " is no longer there"};
    out.push_back({record->index, record->prev_hash, record->hash, std::string(record->payload)});
  }
  return out;
}

Result<void> EtcdLog::trim(uint64_t index) {
  return etcd_.remove_range(log_key(0), log_key(index + 1));
}

}  // namespace journal
