// SPDX-License-Identifier: GPL-2.0
#include "policy/verdict.h"

#include <algorithm>
#include <map>

namespace policy {

Verdict judge(const std::vector<Reading>& readings) {
  std::map<uint64_t, size_t> votes;
  for (const Reading& one : readings)
    if (one.digest) votes[*one.digest]++;
  if (votes.empty()) return {{}, !readings.empty()};
  const auto best = std::max_element(
      votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Verdict out;
  const auto ties = std::count_if(votes.begin(), votes.end(),
                                  [&](const auto& vote) { return vote.second == best->second; });
  out.damaged = ties > 1;
  for (const Reading& one : readings)
    if (!one.digest || (!out.damaged && *one.digest != best->first)) out.wrong.push_back(one.disk);
  return out;
}

}  // namespace policy
