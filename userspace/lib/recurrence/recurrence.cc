// SPDX-License-Identifier: GPL-2.0
#include "recurrence/recurrence.h"

#include <libical/ical.h>

#include <algorithm>
#include <cctype>
#include <memory>

namespace recurrence {

using core::Code;
using core::Error;
using core::Result;

namespace {

constexpr int kMostCounted = 10'000;  // a rule that counts is walked through from its start
constexpr size_t kLongest = 500;

struct FreeIterator {
  void operator()(icalrecur_iterator* iterator) const { icalrecur_iterator_free(iterator); }
};
using Iterator = std::unique_ptr<icalrecur_iterator, FreeIterator>;

icaltimezone* zone_of(const Rule& rule) {
  if (rule.zone == "UTC") return icaltimezone_get_utc_timezone();
  return icaltimezone_get_builtin_timezone(rule.zone.c_str());
}

bool printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// Rules of other calendars (RFC 7529). libical hands their names out to be freed, and forgets them
// where the rule is wrong.
bool names_calendar(const std::string& text) {
  const std::string word = "RSCALE";
  return std::search(text.begin(), text.end(), word.begin(), word.end(), [](char a, char b) {
           return std::toupper(static_cast<unsigned char>(a)) == b;
         }) != text.end();
}

icalrecurrencetype parse(const Rule& rule) {
  icalerror_set_errors_are_fatal(0);
  icalrecurrencetype out = icalrecurrencetype_from_string(rule.text.c_str());
  // "UNTIL=20270101T000000Z" is so much UTC; without the Z it is meant as the rule's hours are.
  if (icaltime_is_null_time(out.until) == 0 && icaltime_is_utc(out.until) == 0)
    icaltime_set_timezone(&out.until, zone_of(rule));
  return out;
}

// Of a rule that goes by hours or minutes, what could make it go through years of them to the next
// time, if there is one.
bool names_days(const icalrecurrencetype& rule) {
  const auto any = [](const short* values) { return values[0] != ICAL_RECURRENCE_ARRAY_MAX; };
  return any(rule.by_month) || any(rule.by_month_day) || any(rule.by_year_day) ||
         any(rule.by_week_no) || any(rule.by_set_pos);
}

// After how many seconds on the clock a rule that does not count begins anew; 0: it is of months.
int64_t period_of(const icalrecurrencetype& rule) {
  constexpr int64_t kMinute = 60;
  constexpr int64_t kDay = 86'400;
  if (rule.count != 0) return 0;
  switch (rule.freq) {
    case ICAL_MINUTELY_RECURRENCE:
      return rule.interval * kMinute;
    case ICAL_HOURLY_RECURRENCE:
      return rule.interval * kMinute * kMinute;
    case ICAL_DAILY_RECURRENCE:
      return rule.interval * kDay;
    case ICAL_WEEKLY_RECURRENCE:
      return rule.interval * kDay * 7;  // NOLINT(readability-magic-numbers)
    default:
      return 0;
  }
}

// The times at which a rule comes, from one that is not behind `from` on. Those before are not
// walked through: a rule of minutes has half a million in a year.
class Times {
 public:
  Times(const Rule& rule, int64_t from) : zone_(zone_of(rule)) {
    if (zone_ == nullptr) return;
    const icalrecurrencetype parsed = parse(rule);
    if (parsed.freq == ICAL_NO_RECURRENCE) return;
    icaltimetype start = at(rule.starts);
    if (const int64_t period = period_of(parsed); period != 0 && from > rule.starts) {
      // By the clock on the wall, which is what the rule goes by.
      const int64_t apart = icaltime_as_timet(at(from)) - icaltime_as_timet(start);
      const int64_t periods = apart / period - 1;
      if (periods > 0) {
        start = icaltime_from_timet_with_zone(icaltime_as_timet(start) + periods * period, 0,
                                              icaltimezone_get_utc_timezone());
        icaltime_set_timezone(&start, zone_);
      }
    }
    iterator_.reset(icalrecur_iterator_new(parsed, start));
  }

  std::optional<int64_t> next() {
    if (!iterator_) return {};
    const icaltimetype time = icalrecur_iterator_next(iterator_.get());
    if (icaltime_is_null_time(time) != 0) return {};
    return icaltime_as_timet_with_zone(time, zone_);
  }

 private:
  [[nodiscard]] icaltimetype at(int64_t time) const {
    return icaltime_from_timet_with_zone(static_cast<time_t>(time), 0, zone_);
  }

  icaltimezone* zone_;
  Iterator iterator_;
};

}  // namespace

Result<void> check(const Rule& rule) {
  const std::string what = "'" + rule.text + "' is no recurrence rule of RFC 5545";
  if (!printable(rule.zone) || zone_of(rule) == nullptr)
    return Error{Code::invalid, "'" + rule.zone + "' is no time zone; write UTC or Europe/Berlin"};
  if (rule.text.size() > kLongest) return Error{Code::invalid, "a rule is too long"};
  if (!printable(rule.text)) return Error{Code::invalid, "a rule is of letters, digits and marks"};
  if (names_calendar(rule.text))
    return Error{Code::invalid, "a rule goes by the calendar of RFC 5545; leave RSCALE out"};
  const icalrecurrencetype parsed = parse(rule);
  switch (parsed.freq) {
    case ICAL_NO_RECURRENCE:
      return Error{Code::invalid, what + "; write FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0"};
    case ICAL_SECONDLY_RECURRENCE:
      return Error{Code::invalid, "more than once a minute is too often"};
    default:
      break;
  }
  if ((parsed.freq == ICAL_HOURLY_RECURRENCE || parsed.freq == ICAL_MINUTELY_RECURRENCE) &&
      names_days(parsed))
    return Error{Code::invalid,
                 "days of a month or year go with FREQ=DAILY, WEEKLY, MONTHLY or YEARLY"};
  if (parsed.freq == ICAL_MINUTELY_RECURRENCE && parsed.by_minute[0] != ICAL_RECURRENCE_ARRAY_MAX)
    return Error{Code::invalid, "BYMINUTE goes with FREQ=HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY"};
  if (parsed.by_second[0] != ICAL_RECURRENCE_ARRAY_MAX &&
      parsed.by_second[1] != ICAL_RECURRENCE_ARRAY_MAX)
    return Error{Code::invalid, "more than once a minute is too often"};
  if (parsed.count > kMostCounted)
    return Error{Code::invalid, "COUNT is at most " + std::to_string(kMostCounted)};
  if (!Times(rule, rule.starts).next()) return Error{Code::invalid, what + " that ever comes"};
  return {};
}

std::optional<int64_t> last_within(const Rule& rule, int64_t after, int64_t until) {
  std::optional<int64_t> out;
  Times times(rule, after);
  for (auto time = times.next(); time && *time <= until; time = times.next())
    if (*time > after) out = time;
  return out;
}

std::optional<int64_t> next_after(const Rule& rule, int64_t after) {
  Times times(rule, after);
  auto time = times.next();
  while (time && *time <= after) time = times.next();
  return time;
}

}  // namespace recurrence
