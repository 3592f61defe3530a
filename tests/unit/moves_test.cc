// SPDX-License-Identifier: GPL-2.0
// Copies that move: healing, other numbers of copies, balance, nodes that leave.
#include "policy_leader.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;
using policy_tests::Moves;

TEST_F(Moves, ACopyThatWasMarkedAgainAfterItWasCopiedStaysStale) {
  const uint64_t good = copies()[0].disk.value;
  const uint64_t bad = copies()[1].disk.value;
  EXPECT_EQ(ailing(), 0U);
  commit({bad}).value();
  EXPECT_EQ(ailing(), 1U);
  const uint64_t first = since(bad);
  commit({bad}).value();
  EXPECT_FALSE(moved(good, bad, first));
  EXPECT_TRUE(moved(good, bad, since(bad)));
  EXPECT_EQ(ailing(), 0U);
  EXPECT_FALSE(moved(good, bad, 0)) << "it is current";
}

TEST_F(Moves, FromACopyThatBecameStaleNothingIsMadeGood) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  commit({b}).value();
  EXPECT_FALSE(moved(other(a, b), b, since(b))) << "there is no copy";
  EXPECT_FALSE(moved(b, b, since(b)));
  EXPECT_TRUE(moved(a, b, since(b)));
  commit({a}).value();
  EXPECT_FALSE(moved(a, a, since(a)));
  EXPECT_TRUE(moved(b, a, since(a)));
}

TEST_F(Moves, ABatchThatGivesUpTheLastGoodCopyIsRefusedAndChangesNothing) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  fail(a).value();
  EXPECT_EQ(commit({b}).error().code, Code::conflict) << "what a had flushed is gone with it";
  EXPECT_EQ(since(b), 0U);
  EXPECT_EQ(commit({a, b}).error().code, Code::conflict);
  commit({a}).value();
  EXPECT_EQ(since(b), 0U);
}

TEST_F(Moves, OnlyTheHolderOfTheLeaseInItsEpochMayMove) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  commit({b}).value();
  json::object body = about("moved", 2);
  body["items"] = json::array{json::array{extent, a, b, since(b), 0}};
  EXPECT_EQ(leader.refusal(body), Code::stale);
  EXPECT_EQ(place(2).error().code, Code::stale);
  body["epoch"] = 1;
  body["life"] = 99;
  EXPECT_EQ(leader.refusal(body), Code::stale);
}

TEST_F(Moves, AFailedDiskIsReplacedByTheThirdNodesAndItsCopyForgotten) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  const uint64_t c = other(a, b);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 0) << "nothing is missing";
  fail(b).value();
  EXPECT_EQ(ailing(), 1U);
  EXPECT_EQ(leader.cluster().redundancy()->lost, 1U);
  EXPECT_EQ(leader.cluster().redundancy()->few, 1U);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_EQ(leader.cluster().redundancy()->few, 1U) << "until it is made";
  EXPECT_EQ(place()->at("placed").to_number<int>(), 0) << "one in the making is enough";
  EXPECT_EQ(lie(), (std::set<int64_t>{static_cast<int64_t>(a), static_cast<int64_t>(b),
                                      -static_cast<int64_t>(c)}));
  EXPECT_EQ(remove(b).error().code, Code::conflict);
  EXPECT_TRUE(moved(a, c, since(c), b));
  EXPECT_EQ(lie(), (std::set<int64_t>{static_cast<int64_t>(a), static_cast<int64_t>(c)}));
  EXPECT_EQ(ailing(), 0U);
  EXPECT_EQ(leader.cluster().redundancy()->few, 0U);
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
  EXPECT_TRUE(remove(b));
  EXPECT_EQ(remove(b).error().code, Code::not_found);
  EXPECT_EQ(leader.cluster().disks()->size(), 3U) << "its node may have it open";
  leader.say({{"op", "disk_closed"}, {"disk", a}}).value();
  leader.say({{"op", "disk_closed"}, {"disk", b}}).value();
  EXPECT_EQ(leader.cluster().disks()->size(), 2U);
}

TEST_F(Moves, ADropThatWouldLeaveTooFewCopiesIsNotDone) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  EXPECT_TRUE(moved(0, 0, 0, b));
  EXPECT_EQ(copies().size(), 2U);
  fail(b).value();
  EXPECT_TRUE(moved(0, 0, 0, b));
  EXPECT_EQ(copies().size(), 2U) << "perhaps the last that can be brought back";
  EXPECT_TRUE(moved(0, 0, 0, a));
  EXPECT_EQ(copies().size(), 2U);
}

TEST_F(Moves, ADiskThatLeavesIsEmptyAtTheEndOfItsTaskAndMayGo) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  const uint64_t c = other(a, b);
  EXPECT_EQ(remove(b).error().code, Code::conflict);
  leave(b).value();
  EXPECT_EQ(leave(b)->at("task").to_number<int>(), 0) << "it leaves already";
  EXPECT_TRUE(leader.reserve(1, 1)[0].as_array()[1].as_array().size() == 2);
  for (const auto& value : leader.reserve(1, 5))
    for (const auto& one : value.as_array()[1].as_array())
      EXPECT_NE(one.as_array()[0].to_number<uint64_t>(), b) << "it takes nothing new";
  EXPECT_EQ(leader.cluster().tasks()->back().state, "running");
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_EQ(leader.cluster().redundancy()->stale, 1U);
  EXPECT_EQ(leader.cluster().redundancy()->few, 0U) << "nothing is lost";
  EXPECT_TRUE(moved(b, c, since(c), b));
  EXPECT_EQ(leader.cluster().tasks()->back().what, "disk evacuate");
  EXPECT_EQ(leader.cluster().tasks()->back().state, "done");
  EXPECT_TRUE(remove(b));
  EXPECT_EQ(leader.say({{"op", "disk_up"}, {"disk", b}, {"life", 9}, {"slots", 20}}).error().code,
            Code::not_found)
      << "it is not in the pool any more";
}

TEST_F(Moves, AnEvacuationEndsAlsoWhereWhatLayThereIsDeleted) {
  leave(copies()[0].disk.value).value();
  EXPECT_EQ(leader.cluster().tasks()->back().state, "running");
  free_all();
  EXPECT_EQ(leader.cluster().tasks()->back().state, "done");
}

TEST_F(Moves, ADiskThatHasBecomeSmallerDoesNotComeUp) {
  const json::object body{{"op", "disk_up"}, {"disk", 1}, {"life", 9}, {"slots", 19}};
  EXPECT_EQ(leader.refusal(body), Code::conflict);
  EXPECT_EQ(leader.cluster().disks()->at(0).life, 5U);
}

TEST_F(Moves, AnEvacuationThatIsTakenBackLeavesTheDiskInUse) {
  const uint64_t b = copies()[1].disk.value;
  leave(b).value();
  leave(b, false).value();
  EXPECT_EQ(ailing(), 0U);
  EXPECT_EQ(leader.cluster().tasks()->back().state, "failed");
  fail(b).value();
  EXPECT_EQ(leave(b).error().code, Code::conflict) << "what is on it is made anew anyway";
  EXPECT_EQ(leave(77).error().code, Code::not_found);
}

TEST_F(Moves, ADiskIsGivenUpWhenItsNodeIsAwayForLongerThanTheGraceTimeAndNotInMaintenance) {
  const uint64_t b = copies()[1].disk.value;
  auto lose = [&] { return leader.say({{"op", "disk_lost"}, {"disk", b}}); };
  EXPECT_EQ(lose().error().code, Code::conflict) << "it is there";
  leader.say({{"op", "node_down"}, {"node", b}, {"life", b * 100}}).value();
  EXPECT_EQ(ailing(), 0U) << "it is awaited";
  leader.now += meta::kDefaultGraceSeconds - 1;
  EXPECT_EQ(lose().error().code, Code::conflict);
  leader.now += 2;
  leader.say({{"op", "set"}, {"name", "maintenance"}, {"value", 1}}).value();
  EXPECT_EQ(lose().error().code, Code::conflict);
  leader.say({{"op", "set"}, {"name", "maintenance"}, {"value", 0}}).value();
  lose().value();
  EXPECT_EQ(ailing(), 1U);
  leader.up(b, b * 100 + 1).value();
  leader.say({{"op", "disk_up"}, {"disk", b}, {"life", 6}, {"slots", 20}}).value();
  EXPECT_EQ(ailing(), 0U) << "it came back with everything";
}

TEST_F(Moves, ReservationsThatAreGivenUpFreeTheirSlotsOnceAndOnlyTheirHolders) {
  const auto reserved = leader.reserve(1, 3);
  json::array ids;
  for (const auto& one : reserved) ids.push_back(one.as_array()[0]);
  ids.push_back(extent);
  auto give_up = [&](uint64_t life) {
    json::object body{{"op", "unreserve"}, {"node", 1}, {"life", life}};
    body["extents"] = ids;
    return leader.say(std::move(body))->at("freed").to_number<int>();
  };
  EXPECT_EQ(give_up(99), 0);
  EXPECT_EQ(give_up(100), 3);
  EXPECT_EQ(give_up(100), 0);
  EXPECT_EQ(copies().size(), 2U) << "what is mapped stays";
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
}

TEST_F(Moves, AnOwnerThatDiesWritingLeavesOneCopyOfEachExtentThereCurrent) {
  auto say_intent = [&](json::array add, json::array drop) {
    json::object body = about("intent");
    body["add"] = std::move(add);
    body["drop"] = std::move(drop);
    return leader.say(std::move(body));
  };
  EXPECT_EQ(say_intent({0, 1}, {})->at("added").as_array().size(), 2U);
  EXPECT_EQ(say_intent({0}, {1})->at("added").as_array().size(), 1U);
  EXPECT_EQ(say_intent({4}, {}).error().code, Code::invalid) << "behind the end";
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  leader.fenced(1, 100, 2).value();
  leader.fenced(1, 100, 3).value();
  const auto taken = leader.lease(vsd, 2, 200).value();
  EXPECT_TRUE(taken.at("recover").as_bool());
  EXPECT_TRUE(leader.cluster().intents({vsd}, 10)->empty());
  size_t current = 0;
  for (const meta::CopyRow& row : copies()) {
    current += row.stale == 0;
    EXPECT_EQ(row.suspect, row.stale != 0);
    if (row.stale == 0) {
      EXPECT_NE(row.disk.value, 1U) << "node 1 is away";
    }
  }
  EXPECT_EQ(current, 1U);
  EXPECT_EQ(ailing(), 1U);
}

TEST_F(Moves, ALeaseThatWasGivenBackCleanLeavesNothingToRecover) {
  auto add = [&](uint64_t epoch) {
    json::object body = about("intent", epoch);
    body["add"] = json::array{0};
    body["drop"] = json::array{};
    leader.say(std::move(body)).value();
  };
  auto drop = [&](uint64_t epoch, bool clean) {
    leader
        .say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", epoch}, {"clean", clean}})
        .value();
  };
  add(1);
  drop(1, true);
  EXPECT_FALSE(leader.lease(vsd, 1, 100)->at("recover").as_bool());
  EXPECT_EQ(ailing(), 0U);
  add(2);
  drop(2, false);
  EXPECT_TRUE(leader.lease(vsd, 1, 100)->at("recover").as_bool());
  EXPECT_EQ(ailing(), 1U);
  drop(3, false);
  EXPECT_TRUE(leader.lease(vsd, 2, 200)->at("recover").as_bool())
      << "a daemon that ended before it had flushed the disks";
}

TEST_F(Moves, ASuspectCopyIsTakenForTheChosenOneThatIsGoneAndNotBefore) {
  json::object body = about("intent");
  body["add"] = json::array{0};
  body["drop"] = json::array{};
  leader.say(std::move(body)).value();
  leader.lease(vsd, 1, 100).value();  // epoch 2: the module failed the lease, say
  auto promote = [&](uint64_t disk) {
    json::object item = about("moved", 2);
    item["items"] = json::array{json::array{extent, 0, disk, since(disk), 0}};
    return leader.say(std::move(item))->at("done").as_array()[0].as_bool();
  };
  const auto rows = copies();
  const uint64_t chosen = rows[rows[0].stale != 0 ? 1 : 0].disk.value;
  const uint64_t suspect = rows[rows[0].stale != 0 ? 0 : 1].disk.value;
  EXPECT_FALSE(promote(suspect));
  EXPECT_FALSE(promote(chosen));
  fail(chosen).value();
  EXPECT_TRUE(promote(suspect));
  EXPECT_EQ(since(suspect), 0U);
  EXPECT_NE(since(chosen), 0U) << "were its disk only lost, it could come back";
}

TEST_F(Moves, ACommitMakesACopySuspectButNotOneThatLacksData) {
  auto commit_suspect = [&](uint64_t disk) {
    json::object body = about("commit");
    body["ops"] = json::array{};
    body["stales"] = json::array{json::array{extent, disk, true}};
    leader.say(std::move(body)).value();
  };
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  commit({a}).value();
  EXPECT_FALSE(copies()[0].suspect);
  commit_suspect(a);
  EXPECT_FALSE(copies()[0].suspect);
  EXPECT_NE(since(a), 0U);
  EXPECT_TRUE(moved(b, a, since(a)));
  commit_suspect(a);
  EXPECT_TRUE(copies()[0].suspect);
  fail(b).value();
  EXPECT_TRUE(moved(0, a, since(a))) << "the other one is gone";
}

TEST_F(Moves, MoreThanFitsIntoOneEntryIsRecoveredInSeveral) {
  const uint64_t big =
      leader.say({{"op", "vsd_create"}, {"name", "b"}, {"sectors", 2048 * 1024}, {"replicas", 2}})
          ->at("vsd")
          .to_number<uint64_t>();
  leader.lease(big, 1, 100).value();
  json::array leaves;
  for (int leaf = 0; leaf < 40; leaf++) leaves.push_back(leaf);
  json::object body{{"op", "intent"}, {"vsd", big}, {"node", 1}, {"life", 100}, {"epoch", 1}};
  body["add"] = leaves;
  body["drop"] = json::array{};
  leader.say(std::move(body)).value();
  EXPECT_EQ(leader.lease(big, 1, 100)->at("epoch").to_number<int>(), 0);
  EXPECT_EQ(leader.lease(big, 1, 100)->at("epoch").to_number<int>(), 2);
}

class Removal : public Moves {
 protected:
  core::Result<json::object> leave_node(uint64_t node, bool leaving = true) {
    return leader.say({{"op", "node_leave"}, {"node", node}, {"leaving", leaving}});
  }
  core::Result<json::object> about_node(const char* op, uint64_t node) {
    return leader.say({{"op", op}, {"node", node}});
  }
  std::string state(uint64_t node) {
    for (const meta::Node& one : leader.cluster().nodes().value())
      if (one.id.value == node) return one.state;
    return "";
  }
  void fence(uint64_t node) {
    for (uint64_t witness = 1; witness <= 3; witness++)
      if (witness != node)
        leader.say({{"op", "fenced"}, {"node", node}, {"life", node * 100}, {"witness", witness}})
            .value();
  }
};

TEST_F(Removal, ANodeIsEmptiedThenRemovedThenFencedThenForgotten) {
  const uint64_t b = copies()[1].disk.value == 1 ? copies()[0].disk.value : copies()[1].disk.value;
  const uint64_t a = copies()[0].disk.value == b ? copies()[1].disk.value : copies()[0].disk.value;
  const uint64_t c = other(a, b);
  EXPECT_NE(leave_node(b)->at("task").to_number<int>(), 0);
  EXPECT_EQ(leave_node(b)->at("task").to_number<int>(), 0) << "it leaves already";
  EXPECT_EQ(leave_node(c).error().code, Code::conflict) << "two must stay";
  EXPECT_EQ(about_node("node_gone", b).error().code, Code::conflict) << "it holds a copy";
  EXPECT_EQ(about_node("node_forget", b).error().code, Code::not_found);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_TRUE(moved(b, c, since(c), b));
  about_node("node_gone", b).value();
  EXPECT_EQ(state(b), "removed");
  EXPECT_EQ(leader.cluster().tasks()->back().what, "node remove");
  EXPECT_EQ(leader.cluster().tasks()->back().state, "done");
  EXPECT_EQ(leader.up(b, b * 100 + 1).error().code, Code::not_found) << "it cannot come back";
  EXPECT_EQ(leave_node(b).error().code, Code::not_found);
  EXPECT_EQ(about_node("node_forget", b).error().code, Code::conflict) << "it is not fenced";
  leader.say({{"op", "token_add"}, {"hash", "t"}, {"expires", leader.now + 10}}).value();
  const json::object again{{"op", "node_add"},
                           {"name", "n" + std::to_string(b)},
                           {"lan", "a"},
                           {"backplane", "b"},
                           {"token", "t"}};
  EXPECT_EQ(leader.say(again).error().code, Code::conflict) << "its name is free later";
  fence(b);
  about_node("node_forget", b).value();
  EXPECT_EQ(state(b), "");
  EXPECT_EQ(leader.cluster().disks()->size(), 2U);
  EXPECT_TRUE(leader.cluster().fences()->empty());
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
  EXPECT_EQ(leader.say(again)->at("node").to_number<uint64_t>(), 4U) << "no number is given twice";
}

TEST_F(Removal, OfANodeThatIsGoneForGoodEverythingIsMadeAnewAtOnce) {
  const uint64_t b = copies()[1].disk.value == 1 ? copies()[0].disk.value : copies()[1].disk.value;
  leader.say({{"op", "node_down"}, {"node", b}, {"life", b * 100}}).value();
  EXPECT_EQ(ailing(), 0U) << "it is awaited";
  leave_node(b).value();
  EXPECT_EQ(ailing(), 1U);
  EXPECT_EQ(leader.cluster().redundancy()->lost, 1U);
}

TEST_F(Removal, ANodeWithAnOpenDiskStaysAndOneThatIsTakenBackGoesOn) {
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 2}}).value();
  EXPECT_EQ(leave_node(2).error().code, Code::conflict);
  EXPECT_EQ(leave_node(9).error().code, Code::not_found);
  leave_node(3).value();
  leave_node(3, false).value();
  EXPECT_EQ(leader.cluster().tasks()->back().state, "failed");
  for (const meta::Disk& disk : leader.cluster().disks().value()) EXPECT_FALSE(disk.leaving);
  EXPECT_EQ(about_node("node_gone", 3).error().code, Code::conflict);
}

TEST_F(Removal, ALeaseOfARemovedNodeIsForOthersWhoFlushFirst) {
  // Node 1 has the lease of v. Its disk is emptied.
  const bool mine = copies()[0].disk.value == 1 || copies()[1].disk.value == 1;
  leave_node(1).value();
  if (mine) {
    const uint64_t b =
        copies()[0].disk.value == 1 ? copies()[1].disk.value : copies()[0].disk.value;
    place().value();
    EXPECT_TRUE(moved(b, other(1, b), since(other(1, b)), 1));
  }
  about_node("node_gone", 1).value();
  EXPECT_EQ(leader.lease(vsd, 2, 200).error().code, Code::conflict) << "it is not fenced";
  fence(1);
  about_node("node_forget", 1).value();
  const auto taken = leader.lease(vsd, 2, 200);
  ASSERT_TRUE(taken);
  EXPECT_TRUE(taken->at("recover").as_bool());
}

class Copies : public Moves {
 protected:
  core::Result<json::object> want(uint64_t replicas) {
    return leader.say({{"op", "vsd_copies"}, {"vsd", vsd}, {"replicas", replicas}});
  }
  void widen() {
    while (leader.say({{"op", "widen"}})->at("left").as_bool()) {
    }
  }
  std::string state() { return leader.cluster().tasks()->back().state; }
};

TEST(Vsds, APoolThatIsNearlyFullTakesNoNewOneUntilThereIsRoom) {
  Leader leader;
  leader.found(2);
  leader.make_vsd();
  EXPECT_EQ(leader.say({{"op", "reserve"}, {"node", 1}, {"life", 100}, {"count", 20}})
                ->at("extents")
                .as_array()
                .size(),
            20U);
  const json::object more{
      {"op", "vsd_create"}, {"name", "more"}, {"sectors", 2048}, {"replicas", 2}};
  EXPECT_EQ(leader.refusal(more), Code::no_space);
  leader.add_disk(1);
  EXPECT_TRUE(leader.say(more));
}

TEST_F(Copies, AThirdIsMadeOfWhatIsThereAndTheTaskEndsWithIt) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  EXPECT_EQ(want(4).error().code, Code::invalid);
  EXPECT_EQ(want(1).error().code, Code::invalid);
  EXPECT_EQ(want(2)->at("task").to_number<int>(), 0) << "it has two";
  EXPECT_NE(want(3)->at("task").to_number<int>(), 0);
  EXPECT_EQ(ailing(), 0U) << "nobody has looked at it yet";
  widen();
  EXPECT_EQ(ailing(), 1U);
  EXPECT_EQ(leader.cluster().redundancy()->wanting, 1U);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_EQ(state(), "running");
  EXPECT_TRUE(moved(a, other(a, b), since(other(a, b))));
  EXPECT_EQ(lie(), (std::set<int64_t>{1, 2, 3}));
  EXPECT_EQ(ailing(), 0U);
  EXPECT_EQ(state(), "done");
}

TEST_F(Copies, TheTaskEndsAlsoWhereWhatWantedAThirdIsDeleted) {
  want(3).value();
  widen();
  EXPECT_EQ(ailing(), 1U);
  free_all();
  EXPECT_EQ(leader.cluster().redundancy()->wanting, 0U);
  EXPECT_EQ(state(), "done");
}

TEST_F(Copies, ACopyTooManyOfADiskThatStaysAfterAllGoes) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  const uint64_t c = other(a, b);
  leader.say({{"op", "disk_leave"}, {"disk", a}, {"leaving", true}}).value();
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_TRUE(moved(b, c, since(c)));
  leader.say({{"op", "disk_leave"}, {"disk", a}, {"leaving", false}}).value();
  EXPECT_EQ(copies().size(), 3U);
  EXPECT_EQ(ailing(), 0U) << "nobody has looked at it yet";
  widen();
  EXPECT_EQ(ailing(), 1U);
  EXPECT_TRUE(moved(0, 0, 0, a));
  EXPECT_EQ(copies().size(), 2U);
  EXPECT_EQ(ailing(), 0U);
}

TEST_F(Copies, OneTooManyGoesAndWhoHasEnoughIsNotLookedAtAgain) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t c = other(a, copies()[1].disk.value);
  want(3).value();
  widen();
  place().value();
  EXPECT_TRUE(moved(a, c, since(c)));
  want(2).value();
  widen();
  EXPECT_EQ(ailing(), 1U);
  EXPECT_TRUE(moved(0, 0, 0, c));
  EXPECT_EQ(copies().size(), 2U);
  EXPECT_EQ(state(), "done");
  want(3).value();
  want(2).value();
  widen();
  EXPECT_EQ(ailing(), 0U) << "it has what it should";
  EXPECT_EQ(state(), "done");
}

TEST_F(Copies, WhatWasWrittenWithTwoWhereThreeAreWantedIsNoted) {
  want(3).value();
  widen();
  place().value();
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  for (const meta::CopyRow& copy : copies()) {
    if (copy.stale == 0) continue;
    EXPECT_TRUE(moved(a == copy.disk.value ? b : a, copy.disk.value, copy.stale));
  }
  EXPECT_EQ(ailing(), 0U);
  const uint64_t two = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
  json::object body = about("commit");
  body["ops"] = json::array{json::array{5, 0, 8, 0, two}};
  body["stales"] = json::array{};
  leader.say(std::move(body)).value();
  EXPECT_EQ(ailing(), 1U);
  leader.say({{"op", "vsd_delete"}, {"vsd", vsd}});
}

TEST_F(Copies, WhatWasReservedWithThreeIsNotedWhereTwoAreWantedWhenItIsWritten) {
  want(3).value();
  widen();
  const auto reserved =
      leader.say({{"op", "reserve"}, {"node", 1}, {"life", 100}, {"count", 1}, {"copies", 3}});
  const auto three = reserved->at("extents").as_array()[0].as_array()[0].to_number<uint64_t>();
  want(2).value();
  widen();
  const size_t before = ailing();
  json::object body = about("commit");
  body["ops"] = json::array{json::array{5, 0, 8, 0, three}};
  body["stales"] = json::array{};
  leader.say(std::move(body)).value();
  EXPECT_EQ(ailing(), before + 1);
}

TEST_F(Copies, ReservationsHaveAsManyAsAreAskedForOnDifferentNodes) {
  json::object body{{"op", "reserve"}, {"node", 1}, {"life", 100}, {"count", 4}, {"copies", 3}};
  const auto extents = leader.say(body)->at("extents").as_array();
  EXPECT_EQ(extents.size(), 4U);
  for (const json::value& one : extents) EXPECT_EQ(one.as_array()[1].as_array().size(), 3U);
  body["copies"] = 4;
  EXPECT_EQ(leader.refusal(body), Code::invalid);
  body["copies"] = 3;
  leader.say({{"op", "node_down"}, {"node", 3}, {"life", 300}}).value();
  EXPECT_TRUE(leader.say(body)->at("extents").as_array().empty());
  EXPECT_EQ(leader.reserve(1, 1).size(), 1U) << "two are better than none";
}

class Rebalancing : public Moves {
 protected:
  uint64_t mark() {
    return leader.say({{"op", "rebalance_some"}})->at("marked").to_number<uint64_t>();
  }
  core::Result<json::object> mode(int how) {
    return leader.say({{"op", "rebalance"}, {"mode", how}});
  }
  meta::Task task() { return leader.cluster().tasks()->back(); }
  /// Three more extents beside the first; nothing lies on the third disk.
  Rebalancing() {
    const uint64_t a = copies()[0].disk.value;
    const uint64_t b = copies()[1].disk.value;
    for (uint64_t chunk = 1; chunk < 4;) {
      const json::array got = leader.reserve(1, 1)[0].as_array();
      const json::array& at = got[1].as_array();
      const uint64_t sum =
          at[0].as_array()[0].to_number<uint64_t>() + at[1].as_array()[0].to_number<uint64_t>();
      if (sum != a + b) {
        leader
            .say(
                {{"op", "unreserve"}, {"node", 1}, {"life", 100}, {"extents", json::array{got[0]}}})
            .value();
        for (uint64_t node = 1; node <= 3; node++)
          leader.say({{"op", "seen"}, {"node", node}, {"index", leader.index()}}).value();
        leader.say({{"op", "collect"}}).value();
        continue;
      }
      json::object body = about("commit");
      body["ops"] = json::array{json::array{chunk++, 0, 8, 0, got[0]}};
      body["stales"] = json::array{};
      leader.say(std::move(body)).value();
    }
  }
  static constexpr uint64_t fullest = 4;
};

TEST_F(Rebalancing, ACopyOfAFullDiskGoesToAnEmptyOneAndIsThereAllTheTime) {
  const uint64_t a = copies()[0].disk.value;
  const uint64_t b = copies()[1].disk.value;
  const uint64_t c = other(a, b);
  EXPECT_EQ(mark(), 0U) << "nobody has asked for it";
  EXPECT_EQ(mode(7).error().code, Code::invalid);
  mode(1).value();
  EXPECT_EQ(mark(), fullest);
  EXPECT_EQ(mark(), 0U) << "one batch after the other";
  EXPECT_EQ(ailing(), fullest);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  const uint64_t goes = copies()[0].leaving ? copies()[0].disk.value : copies()[1].disk.value;
  EXPECT_TRUE(moved(0, 0, 0, goes));
  EXPECT_EQ(copies().size(), 3U) << "there is no other yet";
  EXPECT_TRUE(moved(a + b - goes, c, since(c), goes));
  EXPECT_EQ(lie(),
            (std::set<int64_t>{static_cast<int64_t>(a + b - goes), static_cast<int64_t>(c)}));
  EXPECT_EQ(ailing(), fullest - 1);
  EXPECT_EQ(task().state, "running");
}

TEST_F(Rebalancing, ItEndsWhenNothingCanBeEvenedOut) {
  mode(1).value();
  EXPECT_EQ(mark(), fullest);
  const uint64_t third = other(copies()[0].disk.value, copies()[1].disk.value);
  leader.say({{"op", "disk_absent"}, {"disk", third}, {"life", 5}}).value();
  json::object body = about("place");
  json::array all;
  meta::AilingAt at;
  for (const meta::Owned& one : leader.cluster().ailing(at, 100).value())
    all.push_back(one.extent.value);
  body["extents"] = std::move(all);
  EXPECT_EQ(leader.say(std::move(body))->at("placed").to_number<int>(), 0);
  EXPECT_EQ(ailing(), 0U) << "what has nowhere to go stays";
  EXPECT_FALSE(leader.cluster().rebalancing().value());
  EXPECT_EQ(mark(), 0U);
  EXPECT_EQ(task().state, "done") << "the disks that are left are as full as each other";
}

TEST_F(Rebalancing, WhereItIsStoppedEverythingStaysWhereItIs) {
  mode(1).value();
  EXPECT_EQ(mark(), fullest);
  mode(0).value();
  EXPECT_EQ(task().state, "failed") << "it was stopped";
  EXPECT_FALSE(leader.cluster().rebalancing().value());
  place().value();
  EXPECT_EQ(mark(), 0U);
}

TEST(CopiesOfTwoNodes, AreTwo) {
  Leader leader;
  leader.found(2);
  EXPECT_EQ(
      leader.refusal({{"op", "vsd_create"}, {"name", "x"}, {"sectors", 2048}, {"replicas", 3}}),
      Code::conflict);
}

TEST_F(Moves, SettingsOutOfRangeAreRefused) {
  EXPECT_EQ(leader.refusal({{"op", "set"}, {"name", "grace"}, {"value", 1}}), Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "set"}, {"name", "grace_seconds"}, {"value", -1}}),
            Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "set"}, {"name", "maintenance"}, {"value", 2}}), Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "set"}, {"name", "scrub_days"}, {"value", 366}}), Code::invalid);
}

TEST_F(Moves, ALeaseThatIsHeldIsNotFreeNotEvenForItsHolder) {
  auto mind = [&](uint64_t node) {
    return leader.say(
        {{"op", "lease_take"}, {"vsd", vsd}, {"node", node}, {"life", node * 100}, {"free", true}});
  };
  EXPECT_EQ(mind(1).error().code, Code::conflict);
  EXPECT_EQ(mind(2).error().code, Code::conflict);
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  EXPECT_EQ(mind(2)->at("epoch").to_number<int>(), 2);
  EXPECT_TRUE(leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}))
      << "a node that only moves its copies does not hold up its deletion";
}

}  // namespace
