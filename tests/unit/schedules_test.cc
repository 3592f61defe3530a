// SPDX-License-Identifier: GPL-2.0
// Schedules as the leader keeps them, and what they do not keep.
#include "policy/retention.h"
#include "policy_leader.h"

namespace policy_tests {

namespace {

class Schedules : public Moves {
 protected:
  json::object nightly(uint64_t starts = 0) {
    return {{"op", "schedule_create"}, {"name", "nightly"},       {"rule", "FREQ=DAILY"},
            {"zone", "UTC"},           {"starts", starts},        {"keep", 2},
            {"keep_seconds", 0},       {"vsds", json::array{vsd}}};
  }
  json::object changed(const char* field, json::value value) {
    json::object body = nightly(5000);
    body["op"] = "schedule_set";
    body["schedule"] = 1;
    body[field] = std::move(value);
    return body;
  }
  core::Result<json::object> take(const std::string& name, uint64_t epoch, int64_t time,
                                  uint64_t schedule = 1) {
    return leader.say({{"op", "snapshot"},
                       {"name", name},
                       {"schedule", schedule},
                       {"time", time},
                       {"vsds", json::array{json::object{
                                    {"vsd", vsd}, {"node", 1}, {"life", 100}, {"epoch", epoch}}}}});
  }
  meta::Schedule row() { return leader.cluster().schedules()->at(0); }
  size_t count() { return leader.cluster().snapshots()->size(); }
};

TEST_F(Schedules, CountFromTheirMakingAndSeeToEachTimeOnce) {
  leader.say(nightly()).value();
  EXPECT_EQ(row().starts, leader.now);
  EXPECT_EQ(row().done, leader.now - 1) << "this moment is the first that may be its time";
  EXPECT_EQ(row().vsds, std::vector<core::VsdId>{{vsd}});
  ASSERT_TRUE(take("a", 1, 1000));
  EXPECT_EQ(row().done, 1000);
  EXPECT_EQ(leader.cluster().snapshots()->at(0).schedule, 1U);
  EXPECT_EQ(take("b", 2, 1000).error().code, Code::conflict) << "said twice, or by two leaders";
  EXPECT_EQ(take("b", 2, 900).error().code, Code::conflict);
  leader.now = 2000;
  EXPECT_EQ(take("b", 2, 2000, 9).error().code, Code::not_found);
  EXPECT_EQ(count(), 1U);
  ASSERT_TRUE(take("b", 2, 2000));
  EXPECT_EQ(count(), 2U);
}

TEST_F(Schedules, ATimeThatALeaderWithAWrongClockSawToDoesNotStopThem) {
  leader.say(nightly()).value();
  ASSERT_TRUE(take("a", 1, 900'000));
  EXPECT_EQ(row().done, 900'000) << "the clock was right again at the next entry";
  ASSERT_TRUE(take("b", 2, 1000));
  EXPECT_EQ(row().done, 1000);
}

TEST_F(Schedules, WhatIsChangedCountsFromThenOn) {
  leader.say(nightly()).value();
  leader.now = 3000;
  leader.say(changed("rule", "FREQ=HOURLY")).value();
  EXPECT_EQ(row().rule, "FREQ=HOURLY");
  EXPECT_EQ(row().starts, 5000);
  EXPECT_EQ(row().done, 2999) << "what was missed is not caught up by another rule";
  EXPECT_EQ(leader.refusal(changed("vsds", json::array{})), Code::invalid);
  EXPECT_EQ(leader.refusal(changed("vsds", json::array{99})), Code::not_found);
  EXPECT_EQ(leader.refusal(changed("schedule", 7)), Code::not_found);
  EXPECT_EQ(row().vsds.size(), 1U);
}

TEST_F(Schedules, AreRefusedUnderABadNameOrOneThatIsTaken) {
  leader.say(nightly()).value();
  EXPECT_EQ(leader.refusal(nightly()), Code::conflict);
  for (const std::string& name : {std::string(), std::string("a b"), std::string(41, 'a')}) {
    json::object body = nightly();
    body["name"] = name;
    EXPECT_EQ(leader.refusal(body), Code::invalid) << name;
  }
  json::object body = nightly();
  body["name"] = "other";
  body["vsds"] = json::array{vsd, 99};
  EXPECT_EQ(leader.refusal(body), Code::not_found);
  EXPECT_EQ(leader.cluster().schedules()->size(), 1U) << "nothing of it is left";
}

TEST_F(Schedules, ThoseThatAreDeletedLeaveTheirSnapshotsAndADeletedDiskLeavesThem) {
  leader.say(nightly()).value();
  ASSERT_TRUE(take("a", 1, 1000));
  leader.say({{"op", "schedule_delete"}, {"schedule", 1}}).value();
  EXPECT_EQ(count(), 1U);
  EXPECT_EQ(leader.cluster().snapshots()->at(0).schedule, 0U);
  EXPECT_EQ(leader.refusal({{"op", "schedule_delete"}, {"schedule", 1}}), Code::not_found);
  leader.say(nightly()).value();
  EXPECT_EQ(row().id, 2U) << "no number is given twice";
  leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}).value();
  EXPECT_TRUE(row().vsds.empty());
}

meta::Snapshot snapshot(uint64_t id, uint64_t of, int64_t created, uint64_t schedule = 1) {
  meta::Snapshot out;
  out.id = {id};
  out.vsd = {of};
  out.created = created;
  out.schedule = schedule;
  return out;
}

std::set<uint64_t> gone(uint64_t keep, uint64_t seconds, const std::vector<meta::Snapshot>& all,
                        int64_t now) {
  meta::Schedule schedule;
  schedule.id = 1;
  schedule.keep = keep;
  schedule.keep_seconds = seconds;
  std::set<uint64_t> out;
  for (const auto& one : policy::expired(schedule, all, now)) out.insert(one.snapshot.id.value);
  return out;
}

TEST(Retention, KeepsTheNewestOfEachDiskAndNothingOfOthers) {
  const std::vector<meta::Snapshot> all{
      snapshot(1, 1, 10), snapshot(2, 2, 10),    snapshot(3, 1, 20),    snapshot(4, 2, 20),
      snapshot(5, 1, 30), snapshot(6, 1, 40, 0), snapshot(7, 1, 40, 2), snapshot(8, 3, 10)};
  EXPECT_EQ(gone(2, 0, all, 100), (std::set<uint64_t>{1}));
  EXPECT_EQ(gone(1, 0, all, 100), (std::set<uint64_t>{1, 2, 3}));
  EXPECT_EQ(gone(0, 0, all, 100), (std::set<uint64_t>{}));
}

TEST(Retention, ForgetsWhatIsTooOldButTheNewest) {
  const std::vector<meta::Snapshot> all{snapshot(1, 1, 10), snapshot(2, 1, 20), snapshot(3, 1, 30),
                                        snapshot(4, 2, 10)};
  EXPECT_EQ(gone(0, 75, all, 100), (std::set<uint64_t>{1, 2}));
  EXPECT_EQ(gone(0, 5, all, 100), (std::set<uint64_t>{1, 2}));
  EXPECT_EQ(gone(2, 85, all, 100), (std::set<uint64_t>{1}));
  EXPECT_EQ(gone(0, 5, all, 0), (std::set<uint64_t>{})) << "a clock that is behind deletes nothing";
  // Taken by a leader whose clock was behind: it is the newest all the same.
  const std::vector<meta::Snapshot> odd{snapshot(1, 1, 90), snapshot(2, 1, 10)};
  EXPECT_EQ(gone(1, 0, odd, 100), (std::set<uint64_t>{1}));
}

}  // namespace

}  // namespace policy_tests
