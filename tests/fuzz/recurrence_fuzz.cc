// SPDX-License-Identifier: GPL-2.0
// Recurrence rules: whatever is accepted comes, and is found from wherever one begins.
#include "fuzz.h"
#include "recurrence/recurrence.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kStart = 1'795'790'000;
  constexpr int64_t kWeeks = 30 * 86'400;
  const recurrence::Rule rule{std::string(reinterpret_cast<const char*>(data), size),
                              size % 2 == 0 ? "UTC" : "Europe/Berlin", kStart};
  if (!recurrence::check(rule)) return 0;
  const auto first = recurrence::next_after(rule, kStart - 1);
  EXPECT(first && *first >= kStart);
  const auto later = recurrence::next_after(rule, *first + kWeeks);
  EXPECT(!later || *later > *first + kWeeks);
  const auto last = recurrence::last_within(rule, *first - 1, *first + kWeeks);
  EXPECT(last && *last >= *first && *last <= *first + kWeeks);
  return 0;
}
