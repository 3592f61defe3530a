// SPDX-License-Identifier: GPL-2.0
#include "policy/pace.h"

#include <algorithm>

namespace policy {

namespace {

constexpr double kSlowest = 16;
constexpr double kSlowestUrgent = 4;
constexpr double kFastest = 0.1;
constexpr double kFastestBeside = 0.5;  // others' I/O
constexpr double kNoticed = 2;          // times as long as without us
constexpr double kFewer = 0.8;
constexpr double kRecent = 0.2;
constexpr uint64_t kEnough = 8;  // I/Os to know how long they take
constexpr std::chrono::milliseconds kLongestRest{10'000};

double each_ms(const Load& load) {
  return static_cast<double>(load.waited_ms) / static_cast<double>(load.count);
}

}  // namespace

std::chrono::milliseconds Pace::rest_after(std::chrono::milliseconds worked, const Load& meanwhile,
                                           Haste haste) {
  if (meanwhile.count == 0) {
    factor_ = std::max(kFastest, factor_ / 2);
  } else if (calm_ms_ == 0) {
    factor_ = std::max(1.0, factor_);
  } else if (meanwhile.count >= kEnough && each_ms(meanwhile) > kNoticed * calm_ms_) {
    factor_ = std::max(1.0, factor_) * 2;
  } else {
    factor_ = std::max(kFastestBeside, factor_ * kFewer);
  }
  factor_ = std::min(factor_, haste == Haste::urgent ? kSlowestUrgent : kSlowest);
  const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(worked * factor_);
  return std::min(rest, kLongestRest);
}

void Pace::rested(const Load& meanwhile) {
  if (meanwhile.count < kEnough) return;
  const double now = each_ms(meanwhile);
  calm_ms_ = calm_ms_ == 0 ? now : calm_ms_ * (1 - kRecent) + now * kRecent;
}

size_t Pace::piece(size_t most) const {
  if (factor_ <= kFastestBeside) return most;
  return std::max<size_t>(1, static_cast<size_t>(static_cast<double>(most) / (4 * factor_)));
}

}  // namespace policy
