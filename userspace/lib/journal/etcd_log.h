// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "core/id.h"
#include "journal/etcd.h"
#include "journal/log.h"

namespace journal {

/// The log of a cluster: one key of etcd for each entry, written only by whoever holds the leader's
/// key. What is known to be wrong with etcd 3.4's watches and leases does not matter here: the
/// entries are read by range, and an append carries its own condition. The lease on the leader's
/// key only makes way for another leader; it protects nothing.
class EtcdLog final : public Log {
 public:
  /// How far the most advanced database is that can be reached now: a node that is behind it must
  /// not lead, for entries that etcd lost may be there.
  using MostAdvanced = std::function<uint64_t()>;

  EtcdLog(core::NodeId node, Etcd::Endpoints endpoints, std::chrono::seconds leader_ttl,
          MostAdvanced most_advanced);

  [[nodiscard]] Result<View> tend(uint64_t applied) override;
  /// Repeats itself until the outcome is known, or stop() was called (Code::unknown).
  [[nodiscard]] Result<Entry> append(uint64_t index, uint64_t prev_hash,
                                     std::string payload) override;
  [[nodiscard]] Result<std::vector<Entry>> read_from(uint64_t index, size_t limit) override;
  [[nodiscard]] Result<void> trim(uint64_t index) override;

  /// Ends a blocked append(), from any thread.
  void stop() { stopped_ = true; }

  /// From the next tend() on this node does not lead any more, and others need not wait for the end
  /// of its lease. From any thread; never taken back.
  void resign() { resigned_ = true; }

 private:
  Result<View> campaign(uint64_t applied);

  const core::NodeId node_;
  const std::chrono::seconds ttl_;
  const MostAdvanced most_advanced_;
  Etcd etcd_;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> resigned_{false};
  uint64_t leader_revision_ = 0;  // of our key; 0 while we do not lead
  uint64_t lease_ = 0;
  std::chrono::steady_clock::time_point kept_;
};

}  // namespace journal
