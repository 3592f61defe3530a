// SPDX-License-Identifier: GPL-2.0
#include "policy/balance.h"

namespace policy {

namespace {

constexpr double kTolerance = 0.02;

double used(const Candidate& disk) {
  return disk.total == 0 ? 1 : 1 - static_cast<double>(disk.free) / static_cast<double>(disk.total);
}

// Of all disks of a tier together.
double mean_used(const std::vector<Candidate>& disks, bool ssd) {
  Candidate sum{{}, {}, ssd, 0, 0};
  for (const Candidate& disk : disks) {
    if (disk.ssd != ssd) continue;
    sum.free += disk.free;
    sum.total += disk.total;
  }
  return used(sum);
}

}  // namespace

std::optional<Candidate> overfull(const std::vector<Candidate>& disks) {
  std::optional<Candidate> found;
  double most = kTolerance;
  for (const Candidate& disk : disks) {
    const double more = used(disk) - mean_used(disks, disk.ssd);
    if (more <= most) continue;
    most = more;
    found = disk;
  }
  return found;
}

bool evens_out(const Candidate& from, const Candidate& to) {
  return from.ssd == to.ssd && used(to) + kTolerance < used(from);
}

}  // namespace policy
