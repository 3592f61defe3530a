// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "policy/audit.h"
#include "policy/placement.h"
#include "policy_leader.h"

namespace {

namespace json = boost::json;
using core::Code;
using core::DiskId;
using core::NodeId;
using policy::Candidate;
using policy::Proposal;
using policy_tests::Leader;

std::vector<Candidate> three_nodes(uint64_t free = 100) {
  std::vector<Candidate> out;
  for (uint64_t node = 1; node <= 3; node++) {
    out.push_back({{node * 10 + 1}, {node}, true, free, 100});
    out.push_back({{node * 10 + 2}, {node}, false, free, 100});
    out.push_back({{node * 10 + 3}, {node}, false, free, 100});
  }
  return out;
}

NodeId node_of(const std::vector<Candidate>& disks, DiskId disk) {
  for (const Candidate& c : disks)
    if (c.disk == disk) return c.node;
  return {};
}

RC_GTEST_PROP(Placement, CopiesLieOnDifferentNodesThatHaveRoomOrThereAreNone, ()) {
  std::vector<Candidate> disks;
  const auto count = *rc::gen::inRange<uint64_t>(0, 12);
  for (uint64_t i = 1; i <= count; i++)
    disks.push_back({{i},
                     {*rc::gen::inRange<uint64_t>(1, 5)},
                     *rc::gen::arbitrary<bool>(),
                     *rc::gen::inRange<uint64_t>(0, 4),
                     100});
  const auto copies = *rc::gen::inRange<uint32_t>(2, 4);
  const auto chosen = policy::place(disks, copies, false, *rc::gen::arbitrary<uint64_t>());
  std::set<NodeId> with_room;
  for (const Candidate& c : disks)
    if (c.free > 0) with_room.insert(c.node);
  if (chosen.empty()) {
    RC_ASSERT(with_room.size() < copies);
    return;
  }
  RC_ASSERT(chosen.size() == copies);
  std::set<NodeId> used;
  for (DiskId disk : chosen) {
    used.insert(node_of(disks, disk));
    for (const Candidate& c : disks)
      if (c.disk == disk) RC_ASSERT(c.free > 0U);
  }
  RC_ASSERT(used.size() == copies);
}

TEST(Placement, NewDataGoesToTheSsdsUntilTheirReserve) {
  auto disks = three_nodes();
  for (uint64_t seed = 0; seed < 100; seed++)
    for (DiskId disk : policy::place(disks, 2, false, seed)) EXPECT_EQ(disk.value % 10, 1U);
  for (Candidate& c : disks)
    if (c.ssd) c.free = 5;
  for (uint64_t seed = 0; seed < 100; seed++)
    for (DiskId disk : policy::place(disks, 2, false, seed)) EXPECT_NE(disk.value % 10, 1U);
  for (Candidate& c : disks)
    if (!c.ssd) c.free = 0;
  EXPECT_EQ(policy::place(disks, 2, false, 1).size(), 2U) << "the reserve is better than no space";
}

TEST(Placement, ADiskTakesNewDataInProportionToItsFreeSpace) {
  const std::vector<Candidate> disks = {
      {{1}, {1}, false, 100, 1000}, {{2}, {2}, false, 100, 1000}, {{3}, {3}, false, 800, 1000}};
  std::map<DiskId, int> hits;
  for (uint64_t seed = 0; seed < 2000; seed++)
    for (DiskId disk : policy::place(disks, 2, false, seed)) hits[disk]++;
  EXPECT_GT(hits[{3}], 1800);
  EXPECT_GT(hits[{1}], 700);
  EXPECT_GT(hits[{2}], 700);
}

TEST(Placement, OneNodeKeepsTheCopiesOnTwoOfItsDisks) {
  const std::vector<Candidate> disks = {{{1}, {1}, true, 10, 10}, {{2}, {1}, false, 10, 10}};
  const auto chosen = policy::place(disks, 2, true, 7);
  EXPECT_EQ((std::set<DiskId>(chosen.begin(), chosen.end())), (std::set<DiskId>{{1}, {2}}));
  EXPECT_TRUE(policy::place(disks, 2, false, 7).empty());
}

TEST(Proposals, OneThatIsRepeatedGetsTheSameAnswerAndChangesNothing) {
  Leader leader;
  leader.found(1);
  const Proposal p{
      {1}, 7, 1, 0, {{"op", "vsd_create"}, {"name", "a"}, {"sectors", 2048}, {"replicas", 2}}};
  const auto first = leader.entry({p, p});
  const auto again = leader.entry({p});
  EXPECT_EQ(first[0], first[1]);
  EXPECT_EQ(first[0], again[0]);
  EXPECT_TRUE(first[0].contains("ok"));
  EXPECT_EQ(leader.cluster().vsds()->size(), 1U);
}

TEST(Proposals, OneThatWasGivenUpIsNotExecutedWhenItArrivesLate) {
  Leader leader;
  leader.found(1);
  auto create = [](const char* name, uint64_t sequence, uint64_t done, uint64_t session = 7) {
    return Proposal{{1},
                    session,
                    sequence,
                    done,
                    {{"op", "vsd_create"}, {"name", name}, {"sectors", 2048}, {"replicas", 2}}};
  };
  leader.entry({create("second", 2, 1)});
  EXPECT_FALSE(leader.entry({create("first", 1, 0)})[0].contains("ok"));
  leader.entry({create("next run", 1, 0, 8)});
  EXPECT_FALSE(leader.entry({create("late", 3, 2)})[0].contains("ok"))
      << "a daemon's run that is over may not speak any more";
  EXPECT_EQ(leader.cluster().vsds()->size(), 1U);
}

TEST(Proposals, OneThatFailsLeavesTheOthersOfItsEntryAlone) {
  Leader leader;
  leader.found(1);
  auto create = [](const char* name, uint64_t sequence) {
    return Proposal{{1},
                    7,
                    sequence,
                    0,
                    {{"op", "vsd_create"}, {"name", name}, {"sectors", 2048}, {"replicas", 2}}};
  };
  const auto answers = leader.entry({create("a", 1),
                                     create("a", 2),
                                     {{1}, 7, 3, 0, {{"op", "x"}}},
                                     {{1}, 7, 4, 0, {{"op", "reserve"}}},
                                     create("b", 5)});
  EXPECT_TRUE(answers[0].contains("ok"));
  EXPECT_EQ(policy::from_answer(answers[1]).error().code, Code::conflict);
  EXPECT_EQ(policy::from_answer(answers[2]).error().code, Code::invalid);
  EXPECT_EQ(policy::from_answer(answers[3]).error().code, Code::invalid);
  EXPECT_TRUE(answers[4].contains("ok"));
  EXPECT_EQ(leader.cluster().vsds()->size(), 2U);
}

TEST(Proposals, ATokenLetsOneNodeInAndNoneAfterItsTime) {
  Leader leader;
  leader.found(1);
  const json::object join{
      {"op", "node_add"}, {"name", "n2"}, {"lan", "a"}, {"backplane", "b"}, {"token", "t"}};
  EXPECT_EQ(leader.refusal(join), Code::invalid);
  leader.say({{"op", "token_add"}, {"hash", "t"}, {"expires", leader.now + 5}}).value();
  leader.now += 6;
  EXPECT_EQ(leader.refusal(join), Code::invalid);
  leader.say({{"op", "token_add"}, {"hash", "u"}, {"expires", leader.now + 5}}).value();
  json::object good = join;
  good["token"] = "u";
  EXPECT_TRUE(leader.say(good));
  good["name"] = "n3";
  EXPECT_EQ(leader.refusal(good), Code::invalid) << "a token is used once";
}

TEST(Leases, ALiveHolderKeepsItAndADeadOneOnlyUntilAllLiveNodesFencedIt) {
  Leader leader;
  leader.found(3);
  const uint64_t vsd = leader.make_vsd();
  const uint64_t epoch = leader.lease(vsd, 1, 100)->at("epoch").to_number<uint64_t>();
  EXPECT_EQ(leader.lease(vsd, 2, 200).error().code, Code::conflict);
  EXPECT_EQ(leader.lease(vsd, 2, 199).error().code, Code::stale) << "another life of the asker";
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  EXPECT_EQ(leader.lease(vsd, 2, 200).error().code, Code::conflict);
  leader.fenced(1, 100, 2).value();
  EXPECT_EQ(leader.lease(vsd, 2, 200).error().code, Code::conflict) << "node 3 has not fenced it";
  leader.fenced(1, 100, 3).value();
  EXPECT_GT(leader.lease(vsd, 2, 200)->at("epoch").to_number<uint64_t>(), epoch);
  EXPECT_EQ(leader.up(1, 100).error().code, Code::stale) << "only with a new life";
  EXPECT_TRUE(leader.up(1, 101));
}

TEST(Leases, ACommitOfAnOldEpochOrAnotherLifeIsRefused) {
  Leader leader;
  leader.found(2);
  const uint64_t vsd = leader.make_vsd();
  leader.lease(vsd, 1, 100).value();
  auto commit = [&](uint64_t node, uint64_t life, uint64_t epoch) {
    return leader.say({{"op", "commit"},
                       {"vsd", vsd},
                       {"node", node},
                       {"life", life},
                       {"epoch", epoch},
                       {"ops", json::array{}},
                       {"stales", json::array{}}});
  };
  EXPECT_TRUE(commit(1, 100, 1));
  EXPECT_EQ(commit(1, 100, 2).error().code, Code::stale);
  EXPECT_EQ(commit(1, 99, 1).error().code, Code::stale);
  EXPECT_EQ(commit(2, 200, 1).error().code, Code::stale);
}

TEST(Leases, WhatADeadLifeCommitsIsRefusedThoughNobodyHasTakenItsLease) {
  Leader leader;
  leader.found(2);
  const uint64_t vsd = leader.make_vsd();
  leader.lease(vsd, 1, 100).value();
  const uint64_t extent = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  leader.fenced(1, 100, 2).value();
  const auto late = leader.say({{"op", "commit"},
                                {"vsd", vsd},
                                {"node", 1},
                                {"life", 100},
                                {"epoch", 1},
                                {"ops", json::array{json::array{0, 0, 8, 0, extent}}},
                                {"stales", json::array{}}});
  EXPECT_EQ(late.error().code, Code::stale);
}

TEST(Reservations, AreMadeWhileThereIsRoomAndComeBackWhenTheirLifeIsOver) {
  Leader leader;
  leader.found(3);
  size_t got = 0;
  while (const size_t more = leader.reserve(1, 7).size()) got += more;
  EXPECT_EQ(got, 30U) << "60 slots, two for each extent";
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  leader.fenced(1, 100, 2).value();
  leader.fenced(1, 100, 3).value();
  EXPECT_TRUE(leader.reserve(2, 1).empty()) << "in quarantine, not yet free";
  for (uint64_t node = 2; node <= 3; node++)
    leader.say({{"op", "seen"}, {"node", node}, {"index", leader.index()}}).value();
  EXPECT_EQ(leader.say({{"op", "collect"}})->at("freed").to_number<uint64_t>(), 60U);
  EXPECT_EQ(leader.reserve(2, 7).size(), 7U) << "nodes 2 and 3";
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
}

TEST(Reservations, ASlotIsNotUsedAgainWhileAnyLiveNodeMayStillWriteToIt) {
  Leader leader;
  leader.found(2);
  const uint64_t vsd = leader.make_vsd();
  leader.lease(vsd, 1, 100).value();
  const auto extents = leader.reserve(1, 20);
  ASSERT_EQ(extents.size(), 20U);
  const uint64_t extent = extents[0].as_array()[0].to_number<uint64_t>();
  auto commit = [&](uint64_t target) {
    leader
        .say({{"op", "commit"},
              {"vsd", vsd},
              {"node", 1},
              {"life", 100},
              {"epoch", 1},
              {"ops", json::array{json::array{0, 0, 8, 0, target}}},
              {"stales", json::array{}}})
        .value();
  };
  commit(extent);
  commit(0);
  EXPECT_EQ(leader.say({{"op", "collect"}})->at("freed").to_number<uint64_t>(), 0U);
  leader.say({{"op", "seen"}, {"node", 1}, {"index", leader.index()}}).value();
  EXPECT_EQ(leader.say({{"op", "collect"}})->at("freed").to_number<uint64_t>(), 0U)
      << "node 2 has not seen it";
  leader.say({{"op", "seen"}, {"node", 2}, {"index", leader.index()}}).value();
  EXPECT_EQ(leader.say({{"op", "collect"}})->at("freed").to_number<uint64_t>(), 2U);
  EXPECT_EQ(leader.reserve(1, 5).size(), 1U);
}

class TaskRows : public ::testing::Test {
 protected:
  TaskRows() {
    leader.found(1);
    vsd = leader.make_vsd();
  }
  std::string last() {
    const meta::Task task = leader.cluster().tasks()->back();
    return task.what + " " + task.name + " " + task.state + (task.error.empty() ? "" : ": ") +
           task.error;
  }
  void opened(const char* state, const char* error) {
    leader.say({{"op", "opened"}, {"vsd", vsd}, {"node", 1}, {"state", state}, {"error", error}})
        .value();
  }

  Leader leader;
  uint64_t vsd = 0;
};

TEST_F(TaskRows, AJoinAndADiskRunUntilTheyAreUp) {
  std::vector<std::string> seen;
  for (const meta::Task& task : leader.cluster().tasks().value())
    seen.push_back(task.what + " " + task.name + " " + task.state);
  EXPECT_EQ(seen, (std::vector<std::string>{"node join n1 done", "disk add disk 1 done"}));
  leader.say({{"op", "token_add"}, {"hash", "t"}, {"expires", leader.now + 5}}).value();
  leader.say({{"op", "token_add"}, {"hash", "u"}, {"expires", leader.now + 5}}).value();
  json::object join{
      {"op", "node_add"}, {"name", "n2"}, {"lan", "a"}, {"backplane", "b"}, {"token", "t"}};
  leader.say(join).value();
  EXPECT_EQ(last(), "node join n2 running");
  join["token"] = "u";
  leader.say(join).value();
  const auto tasks = leader.cluster().tasks().value();
  EXPECT_EQ(tasks[tasks.size() - 2].state, "failed") << "it never came, and joins anew";
  EXPECT_EQ(tasks.back().state, "running");
}

TEST_F(TaskRows, AnOpenRunsUntilItsNodeSaysWhatBecameOfIt) {
  const json::object open{{"op", "open"}, {"vsd", vsd}, {"node", 1}};
  const auto task = leader.say(open)->at("task");
  EXPECT_EQ(leader.say(open)->at("task"), task) << "said twice, one task";
  opened("failed", "no module");
  EXPECT_EQ(last(), "vsd open v failed: no module");
  EXPECT_NE(leader.say(open)->at("task"), task);
  opened("open", "");
  EXPECT_EQ(last(), "vsd open v done");
  EXPECT_EQ(leader.say(open)->at("task").to_number<uint64_t>(), 0U) << "nothing to do";
}

TEST_F(TaskRows, ACloseThatIsRefusedFailsWithTheReason) {
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 1}}).value();
  leader.say({{"op", "close"}, {"vsd", vsd}, {"node", 1}}).value();
  const auto tasks = leader.cluster().tasks().value();
  EXPECT_EQ(tasks[tasks.size() - 2].error, "it was closed meanwhile");
  leader.say({{"op", "closed"}, {"vsd", vsd}, {"node", 1}, {"error", "in use"}}).value();
  EXPECT_EQ(last(), "vsd close v failed: in use");
}

TEST_F(TaskRows, ADeletionRunsUntilItsMapIsTakenApart) {
  leader.lease(vsd, 1, 100).value();
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}).value();
  EXPECT_EQ(last(), "vsd delete v done") << "it had no map";

  leader.add_disk(1);
  vsd = leader.make_vsd();
  leader.lease(vsd, 1, 100).value();
  const uint64_t extent = leader.reserve(1, 1).at(0).as_array()[0].to_number<uint64_t>();
  leader
      .say({{"op", "commit"},
            {"vsd", vsd},
            {"node", 1},
            {"life", 100},
            {"epoch", 1},
            {"ops", json::array{json::array{0, 0, 8, 0, extent}}},
            {"stales", json::array{}}})
      .value();
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}).value();
  EXPECT_EQ(last(), "vsd delete v running");
  while (leader.say({{"op", "reap"}})->at("rows").to_number<uint64_t>() != 0) {
  }
  EXPECT_EQ(last(), "vsd delete v done");
}

TEST_F(TaskRows, TheLastThousandThatEndedAreKept) {
  for (int i = 0; i < 510; i++) {
    leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 1}}).value();
    leader.say({{"op", "close"}, {"vsd", vsd}, {"node", 1}}).value();
    leader.say({{"op", "closed"}, {"vsd", vsd}, {"node", 1}, {"error", ""}}).value();
  }
  EXPECT_EQ(leader.cluster().tasks()->size(), 1000U);
}

TEST(MajorityTest, TheLargestGroupThatAgreesIsRightUnlessTwoAreAsLarge) {
  using Nodes = std::vector<core::NodeId>;
  EXPECT_EQ(policy::majority({}), Nodes{});
  EXPECT_EQ(policy::majority({{{1}, 7}}), Nodes{{1}});
  EXPECT_EQ(policy::majority({{{1}, 7}, {{2}, 7}, {{3}, 7}}), (Nodes{{1}, {2}, {3}}));
  EXPECT_EQ(policy::majority({{{1}, 7}, {{2}, 8}, {{3}, 7}}), (Nodes{{1}, {3}}));
  EXPECT_EQ(policy::majority({{{1}, 7}, {{2}, 8}}), Nodes{});
  EXPECT_EQ(policy::majority({{{1}, 7}, {{2}, 8}, {{3}, 9}}), Nodes{});
  EXPECT_EQ(policy::majority({{{1}, 8}, {{2}, 8}, {{3}, 7}, {{4}, 7}, {{5}, 7}}),
            (Nodes{{3}, {4}, {5}}));
  EXPECT_EQ(policy::majority({{{1}, 8}, {{2}, 8}, {{3}, 7}, {{4}, 7}, {{5}, 9}}), Nodes{});
}

}  // namespace
