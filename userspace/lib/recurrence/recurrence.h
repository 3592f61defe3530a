// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/result.h"

/// Recurrence rules of RFC 5545. Times are in seconds since 1970.
namespace recurrence {

struct Rule {
  std::string text;    ///< "FREQ=DAILY;BYHOUR=2;BYMINUTE=0"
  std::string zone;    ///< of the hours that it names: "UTC", "Europe/Berlin"
  int64_t starts = 0;  ///< DTSTART: what the rule does not name is as it is here
};

/// What is wrong with a rule, if anything: also one that never comes.
core::Result<void> check(const Rule& rule);

/// The last time that it comes in (after, until]; none where it does not.
std::optional<int64_t> last_within(const Rule& rule, int64_t after, int64_t until);

/// The first time that it comes behind `after`.
std::optional<int64_t> next_after(const Rule& rule, int64_t after);

}  // namespace recurrence
