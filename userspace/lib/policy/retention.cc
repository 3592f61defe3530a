// SPDX-License-Identifier: GPL-2.0
#include "policy/retention.h"

#include <algorithm>
#include <utility>

namespace policy {

std::vector<Expired> expired(const meta::Schedule& schedule,
                             const std::vector<meta::Snapshot>& snapshots, int64_t now) {
  std::vector<meta::Snapshot> mine;
  for (const meta::Snapshot& one : snapshots)
    if (one.schedule == schedule.id) mine.push_back(one);
  // Numbers, not times: clocks go wrong.
  std::sort(mine.begin(), mine.end(), [](const meta::Snapshot& a, const meta::Snapshot& b) {
    return std::pair(a.vsd, b.id) < std::pair(b.vsd, a.id);
  });
  std::vector<Expired> out;
  uint64_t kept = 0;
  for (size_t i = 0; i < mine.size(); i++) {
    if (i == 0 || mine[i].vsd != mine[i - 1].vsd) kept = 0;
    const bool many = schedule.keep != 0 && kept >= schedule.keep;
    const bool old = schedule.keep_seconds != 0 &&
                     now - mine[i].created > static_cast<int64_t>(schedule.keep_seconds);
    if (kept != 0 && (many || old))
      out.push_back({mine[i], !many});
    else
      kept++;
  }
  return out;
}

}  // namespace policy
