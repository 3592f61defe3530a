// SPDX-License-Identifier: GPL-2.0
#include "policy/placement.h"

#include <algorithm>
#include <random>

namespace policy {

namespace {

constexpr uint64_t kSsdReserveDivisor = 20;  // 5 % of an SSD are kept for what heats up

bool above_reserve(const Candidate& c) { return c.ssd && c.free > c.total / kSsdReserveDivisor; }

// Draws `copies` disks apart from each other; fewer where there are not enough.
std::vector<core::DiskId> draw(std::vector<Candidate> left, uint32_t copies, bool one_node,
                               std::mt19937_64& random) {
  std::vector<core::DiskId> out;
  while (out.size() < copies && !left.empty()) {
    uint64_t sum = 0;
    for (const Candidate& c : left) sum += c.free;
    uint64_t at = std::uniform_int_distribution<uint64_t>(0, sum - 1)(random);
    size_t i = 0;
    while (at >= left[i].free) at -= left[i++].free;
    const Candidate chosen = left[i];
    out.push_back(chosen.disk);
    std::erase_if(left, [&](const Candidate& c) {
      return one_node ? c.disk == chosen.disk : c.node == chosen.node;
    });
  }
  return out;
}

}  // namespace

std::vector<core::DiskId> place(const std::vector<Candidate>& disks, uint32_t copies, bool one_node,
                                uint64_t seed) {
  std::mt19937_64 random(seed);
  auto eligible = [&](auto&& wanted) {
    std::vector<Candidate> out;
    std::copy_if(disks.begin(), disks.end(), std::back_inserter(out),
                 [&](const Candidate& c) { return c.free > 0 && wanted(c); });
    return out;
  };
  for (const auto& some :
       {eligible(above_reserve), eligible([](const Candidate& c) { return !c.ssd; }),
        eligible([](const Candidate&) { return true; })}) {
    std::vector<core::DiskId> out = draw(some, copies, one_node, random);
    if (out.size() == copies) return out;
  }
  return {};
}

}  // namespace policy
