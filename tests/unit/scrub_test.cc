// SPDX-License-Identifier: GPL-2.0
#include "policy/verdict.h"
#include "policy_leader.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;
using policy_tests::Moves;

class Scrubs : public Moves {
 protected:
  core::Result<json::object> scrubbed(json::array wrong, json::array damaged = {},
                                      json::array good = {}, bool end = false, uint64_t epoch = 1) {
    json::object body = about("scrubbed", epoch);
    body["began"] = leader.now;
    body["next"] = 7;
    body["end"] = end;
    body["wrong"] = std::move(wrong);
    body["damaged"] = std::move(damaged);
    body["good"] = std::move(good);
    return leader.say(std::move(body));
  }
  json::array copy_on(uint64_t disk) { return json::array{json::array{extent, disk}}; }
  meta::Scrub scrub() { return leader.cluster().scrubs().value().at(0); }
  meta::Task task() { return leader.cluster().tasks()->back(); }
};

TEST_F(Scrubs, AWrongCopyBecomesStaleButNeverTheLast) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  EXPECT_EQ(scrubbed(copy_on(b), {}, {}, false, 2).error().code, Code::stale) << "another epoch";
  EXPECT_EQ(scrubbed(copy_on(b))->at("marked").to_number<int>(), 1);
  EXPECT_EQ(ailing(), 1U);
  EXPECT_EQ(scrubbed(copy_on(a))->at("marked").to_number<int>(), 0);
  EXPECT_EQ(since(a), 0U);
  EXPECT_TRUE(moved(a, b, since(b))) << "it is made anew like any other";
}

TEST_F(Scrubs, ACopyIsNotMarkedWhereTheOtherCannotBeReachedNow) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  leader.say({{"op", "disk_absent"}, {"disk", a}, {"life", 5}}).value();
  EXPECT_EQ(scrubbed(copy_on(b))->at("marked").to_number<int>(), 0);
}

TEST_F(Scrubs, AChoiceIsKeptUntilTheCopyThatWasChosenCanBeRead) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  scrubbed({}, json::array{json::array{extent, 0}}).value();
  leader.say({{"op", "repair"}, {"extent", extent}, {"disk", a}}).value();
  leader.say({{"op", "disk_absent"}, {"disk", a}, {"life", 5}}).value();
  scrubbed(copy_on(b), {}, json::array{extent}).value();
  ASSERT_EQ(leader.cluster().damage()->size(), 1U);
  EXPECT_EQ(leader.cluster().damage()->at(0).keep.value, a);
}

TEST_F(Scrubs, DamageStaysUntilItIsGoneOrSettled) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  const json::array here{json::array{extent, 0}};
  scrubbed({}, here).value();
  leader.now += 5;
  scrubbed({}, here).value();
  ASSERT_EQ(leader.cluster().damage()->size(), 1U);
  EXPECT_EQ(leader.cluster().damage()->at(0).found, leader.now - 5) << "when it was found first";
  auto repair = [&](uint64_t which, uint64_t disk) {
    return leader.say({{"op", "repair"}, {"extent", which}, {"disk", disk}});
  };
  EXPECT_EQ(repair(extent + 1, a).error().code, Code::not_found);
  EXPECT_EQ(repair(extent, other(a, b)).error().code, Code::invalid) << "there is no copy";
  repair(extent, a).value();
  EXPECT_EQ(leader.cluster().damage()->at(0).keep.value, a);
  scrubbed(copy_on(b), {}, json::array{extent}).value();
  EXPECT_TRUE(leader.cluster().damage()->empty());
  EXPECT_EQ(repair(extent, a).error().code, Code::not_found);
  // Overwritten elsewhere, the extent is gone.
  scrubbed({}, here).value();
  const uint64_t fresh = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
  json::object body = about("commit");
  body["ops"] = json::array{json::array{0, 0, 8, 0, fresh}};
  body["stales"] = json::array{};
  leader.say(std::move(body)).value();
  scrubbed({}).value();
  EXPECT_TRUE(leader.cluster().damage()->empty());
}

TEST_F(Scrubs, APassCountsFromItsBeginningAndAnOlderOneDoesNotPutItBack) {
  EXPECT_EQ(scrub().done, leader.now) << "a new disk has nothing to be compared";
  leader.now += 100;
  scrubbed({}).value();
  EXPECT_EQ(scrub().next, 7U);
  EXPECT_EQ(scrub().began, leader.now);
  leader.now -= 50;
  scrubbed({}, {}, {}, true).value();
  EXPECT_EQ(scrub().next, 7U) << "of an older pass";
  leader.now += 50;
  scrubbed({}, {}, {}, true).value();
  EXPECT_EQ(scrub().next, 0U);
  EXPECT_EQ(scrub().done, leader.now);
}

TEST_F(Scrubs, AVerificationIsOneTaskThatEndsWithWhatWasFound) {
  const auto first = leader.say({{"op", "verify"}})->at("task").to_number<uint64_t>();
  EXPECT_EQ(leader.say({{"op", "verify"}})->at("task").to_number<uint64_t>(), first);
  leader.say({{"op", "verified"}, {"error", "wrong"}}).value();
  EXPECT_EQ(task().state, "failed");
  EXPECT_EQ(task().error, "wrong");
  EXPECT_NE(leader.say({{"op", "verify"}})->at("task").to_number<uint64_t>(), first);
  leader.say({{"op", "verified"}, {"error", ""}}).value();
  EXPECT_EQ(task().state, "done");
}

TEST_F(Scrubs, NothingIsLeftOfThemWithTheirDisk) {
  scrubbed({}, json::array{json::array{extent, 0}}).value();
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}).value();
  while (leader.say({{"op", "reap"}})->at("rows").to_number<int>() != 0) {
  }
  EXPECT_TRUE(leader.cluster().scrubs()->empty());
  EXPECT_TRUE(leader.cluster().damage()->empty());
}

TEST(Verdicts, WhatCannotBeReadIsMadeAnewFromWhatCan) {
  using policy::judge;
  using policy::Verdict;
  EXPECT_EQ(judge({{{1}, 5}, {{2}, 5}}), Verdict{});
  EXPECT_EQ(judge({{{1}, 5}}), Verdict{});
  EXPECT_EQ(judge({}), Verdict{}) << "no copy could be asked";
  EXPECT_EQ(judge({{{1}, 5}, {{2}, {}}}), (Verdict{{{2}}, false}));
  EXPECT_EQ(judge({{{1}, {}}, {{2}, {}}}), (Verdict{{}, true}));
}

TEST(Verdicts, AMajorityIsRightAndTwoAloneAreNone) {
  using policy::judge;
  using policy::Verdict;
  EXPECT_EQ(judge({{{1}, 5}, {{2}, 6}}), (Verdict{{}, true}));
  EXPECT_EQ(judge({{{1}, 5}, {{2}, 6}, {{3}, 6}}), (Verdict{{{1}}, false}));
  EXPECT_EQ(judge({{{1}, 5}, {{2}, 6}, {{3}, {}}}), (Verdict{{{3}}, true}));
  EXPECT_EQ(judge({{{1}, 5}, {{2}, 6}, {{3}, 7}}), (Verdict{{}, true}));
}

}  // namespace
