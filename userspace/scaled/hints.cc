// SPDX-License-Identifier: GPL-2.0
#include "hints.h"

namespace scaled {

namespace {

constexpr std::chrono::milliseconds kHintTimeout{2'000};
constexpr std::chrono::seconds kRestAfterFailure{2};

}  // namespace

Hints::~Hints() {
  for (auto& [node, thread] : threads_) thread.request_stop();
  threads_.clear();
}

void Hints::announce(uint64_t index) {
  const auto nodes = peers_.addresses();
  const std::lock_guard lock(mutex_);
  index_ = index;
  for (const auto& [node, address] : nodes) {
    if (node == self_ || threads_.contains(node)) continue;
    threads_[node] =
        std::jthread([this, to = node](const std::stop_token& stop) { tell(to, stop); });
  }
  grown_.notify_all();
}

void Hints::tell(core::NodeId node, const std::stop_token& stop) {
  uint64_t told = 0;
  std::unique_lock lock(mutex_);
  while (grown_.wait(lock, stop, [&] { return index_ > told; })) {
    told = index_;
    lock.unlock();
    const auto done = peers_.call(node, "/peer/hint", {{"index", told}}, kHintTimeout);
    lock.lock();
    if (!done) grown_.wait_for(lock, stop, kRestAfterFailure, [] { return false; });
  }
}

}  // namespace scaled
