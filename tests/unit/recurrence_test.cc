// SPDX-License-Identifier: GPL-2.0
#include "recurrence/recurrence.h"

#include <gtest/gtest.h>

#include <ctime>
#include <vector>

namespace {

using core::Code;
using recurrence::check;
using recurrence::last_within;
using recurrence::next_after;
using recurrence::Rule;

int64_t utc(const char* text) {
  std::tm parts{};
  strptime(text, "%Y-%m-%d %H:%M:%S", &parts);
  return timegm(&parts);
}

std::string text(std::optional<int64_t> time) {
  if (!time) return "never";
  const std::time_t moment = *time;
  std::tm parts{};
  gmtime_r(&moment, &parts);
  char out[32];
  strftime(out, sizeof(out), "%Y-%m-%d %H:%M:%S", &parts);
  return out;
}

const int64_t kStart = utc("2026-11-27 14:33:20");

TEST(Recurrence, ComesAsTheRuleSaysBehindATime) {
  const auto next = [](const char* rule, const char* after) {
    const Rule one{rule, "UTC", kStart};
    EXPECT_TRUE(check(one)) << rule;
    return text(next_after(one, utc(after)));
  };
  EXPECT_EQ(next("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0", "2026-11-27 15:00:00"),
            "2026-11-28 02:00:00");
  EXPECT_EQ(next("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0", "2026-11-28 02:00:00"),
            "2026-11-29 02:00:00")
      << "behind it, not at it";
  EXPECT_EQ(next("FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=3;BYMINUTE=30;BYSECOND=0", "2027-03-02 00:00:00"),
            "2027-03-03 03:30:00");
  EXPECT_EQ(next("FREQ=HOURLY", "2026-11-27 14:33:19"), "2026-11-27 14:33:20") << "its start";
  EXPECT_EQ(next("FREQ=HOURLY", "2026-12-31 23:40:00"), "2027-01-01 00:33:20");
  EXPECT_EQ(next("FREQ=MINUTELY;INTERVAL=15", "2026-11-28 00:00:00"), "2026-11-28 00:03:20");
  EXPECT_EQ(next("FREQ=MONTHLY;BYDAY=-1FR", "2026-12-01 00:00:00"), "2026-12-25 14:33:20");
  EXPECT_EQ(next("FREQ=DAILY", "2020-01-01 00:00:00"), "2026-11-27 14:33:20") << "not before it";
}

TEST(Recurrence, EndsWhereTheRuleDoes) {
  const Rule three{"FREQ=DAILY;COUNT=3", "UTC", kStart};
  EXPECT_EQ(text(next_after(three, kStart)), "2026-11-28 14:33:20");
  EXPECT_EQ(text(next_after(three, utc("2026-11-28 14:33:20"))), "2026-11-29 14:33:20");
  EXPECT_EQ(text(next_after(three, utc("2026-11-29 14:33:20"))), "never");
  const Rule until{"FREQ=DAILY;UNTIL=20261129T000000Z", "UTC", kStart};
  EXPECT_EQ(text(next_after(until, kStart)), "2026-11-28 14:33:20");
  EXPECT_EQ(text(next_after(until, utc("2026-11-28 14:33:20"))), "never");
}

TEST(Recurrence, OfWhatWasMissedTheLastIsFound) {
  const Rule hourly{"FREQ=HOURLY", "UTC", kStart};
  EXPECT_EQ(text(last_within(hourly, kStart, utc("2026-12-05 10:00:00"))), "2026-12-05 09:33:20");
  EXPECT_EQ(text(last_within(hourly, kStart, utc("2026-11-27 15:33:19"))), "never");
  EXPECT_EQ(text(last_within(hourly, kStart, utc("2026-11-27 15:33:20"))), "2026-11-27 15:33:20");
  EXPECT_EQ(text(last_within(hourly, utc("2026-12-05 10:00:00"), utc("2026-12-05 09:00:00"))),
            "never")
      << "a clock that went back";
  const Rule minutely{"FREQ=MINUTELY", "UTC", kStart};
  EXPECT_EQ(text(last_within(minutely, kStart, utc("2027-11-27 14:33:50"))), "2027-11-27 14:33:20")
      << "of a year";
}

TEST(Recurrence, HoursAreThoseOfTheZoneInSummerAndWinter) {
  const Rule nightly{"FREQ=DAILY;BYHOUR=4;BYMINUTE=0;BYSECOND=0", "Europe/Berlin", kStart};
  ASSERT_TRUE(check(nightly));
  EXPECT_EQ(text(next_after(nightly, utc("2027-03-27 12:00:00"))), "2027-03-28 02:00:00");
  EXPECT_EQ(text(next_after(nightly, utc("2027-03-26 12:00:00"))), "2027-03-27 03:00:00");
  // 02:30 is not there on the night in which the clocks are put forward; the day is not left out.
  const Rule gap{"FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", "Europe/Berlin", kStart};
  const auto there = next_after(gap, utc("2027-03-27 12:00:00"));
  ASSERT_TRUE(there);
  EXPECT_LT(*there, utc("2027-03-28 04:00:00"));
}

TEST(Recurrence, WhatIsNoRuleOrComesTooOftenOrNeverIsRefused) {
  const std::vector<const char*> bad{"",
                                     "garbage",
                                     "FREQ=",
                                     "FREQ=SECONDLY",
                                     "FREQ=HOURLY;BYSECOND=0,30",
                                     "FREQ=DAILY;BYHOUR=25",
                                     "FREQ=DAILY;COUNT=-1",
                                     "FREQ=DAILY;COUNT=10001",
                                     "FREQ=DAILY;INTERVAL=0",
                                     "FREQ=YEARLY;RSCALE=GREGORIAN",
                                     "rscale=HEBREW;FREQ=YEARLY",
                                     "FREQ=DAILY;BYHOUR=2\r\nX:Y",
                                     "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
                                     "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30",
                                     "FREQ=MINUTELY;INTERVAL=2;BYMINUTE=1"};
  for (const char* rule : bad) {
    const auto said = check({rule, "UTC", kStart});
    ASSERT_FALSE(said) << rule;
    EXPECT_EQ(said.error().code, Code::invalid) << rule;
  }
  EXPECT_FALSE(check({std::string(501, 'F'), "UTC", kStart}));
  EXPECT_FALSE(check({std::string("FREQ=DAILY\0;COUNT=0", 20), "UTC", kStart}));
  EXPECT_FALSE(check({"FREQ=DAILY", std::string("UTC\0x", 5), kStart}));
  for (const char* zone : {"", "Nowhere/Land", "../../etc/passwd", "/etc/localtime"})
    EXPECT_FALSE(check({"FREQ=DAILY", zone, kStart})) << zone;
}

}  // namespace
