// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/audit.h"
#include "policy/placement.h"
#include "policy/proposals.h"
#include "policy/verdict.h"

namespace {

namespace json = boost::json;
using core::Code;
using core::DiskId;
using core::NodeId;
using policy::Answer;
using policy::Candidate;
using policy::Proposal;

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

// A leader's database, with a follower that sees its patches.
class Leader {
 public:
  Leader()
      : db_(meta::Database::open(":memory:").value()),
        follower_(meta::Database::open(":memory:").value()),
        decisions_(*db_) {}

  std::vector<Answer> entry(const std::vector<Proposal>& proposals) {
    std::vector<Answer> answers;
    auto patch = decisions_.prepare(proposals, index_ + 1, now, answers).value();
    index_++;
    db_->commit({index_, 0}).value();
    decisions_.committed();
    follower_->apply({index_, 0}, patch).value();
    EXPECT_EQ(db_->digest().value(), follower_->digest().value());
    return answers;
  }
  core::Result<json::object> say(json::object body, uint64_t node = 1) {
    Proposal p{{node}, 1000 + node, ++sequence_[node], sequence_[node] - 1, std::move(body)};
    return policy::from_answer(entry({p}).front());
  }
  Code refusal(json::object body) {
    auto answer = say(std::move(body));
    EXPECT_FALSE(answer);
    return answer ? Code::unknown : answer.error().code;
  }

  /// A cluster of `nodes` that are up in life node * 100, with one disk each.
  void found(uint64_t nodes) {
    say({{"op", "cluster_create"},
         {"cluster", "c"},
         {"uuid", "u"},
         {"name", "n1"},
         {"lan", "a"},
         {"backplane", "b"}})
        .value();
    for (uint64_t node = 2; node <= nodes; node++) {
      const std::string name = "n" + std::to_string(node);
      say({{"op", "token_add"}, {"hash", name}, {"expires", now + 10}}).value();
      EXPECT_EQ(say({{"op", "node_add"},
                     {"name", name},
                     {"lan", "a"},
                     {"backplane", "b"},
                     {"token", name}})
                    ->at("node")
                    .to_number<uint64_t>(),
                node);
    }
    for (uint64_t node = 1; node <= nodes; node++) {
      up(node, node * 100).value();
      add_disk(node);
    }
  }
  void add_disk(uint64_t node) {
    disks_++;
    const std::string uuid = "uuid-" + std::to_string(disks_);
    say({{"op", "disk_add"},
         {"node", node},
         {"uuid", uuid},
         {"serial", uuid},
         {"tier", "hdd"},
         {"slots", 20}})
        .value();
    say({{"op", "disk_up"}, {"disk", disks_}, {"life", 5}, {"slots", 20}}).value();
  }
  core::Result<json::object> up(uint64_t node, uint64_t life) {
    return say({{"op", "node_up"}, {"node", node}, {"life", life}, {"version", "1"}});
  }
  core::Result<json::object> lease(uint64_t vsd, uint64_t node, uint64_t life) {
    return say({{"op", "lease_take"}, {"vsd", vsd}, {"node", node}, {"life", life}});
  }
  core::Result<json::object> fenced(uint64_t node, uint64_t life, uint64_t witness) {
    return say({{"op", "fenced"}, {"node", node}, {"life", life}, {"witness", witness}});
  }
  uint64_t make_vsd() {
    return say({{"op", "vsd_create"}, {"name", "v"}, {"sectors", 2048 * 64}, {"replicas", 2}})
        ->at("vsd")
        .to_number<uint64_t>();
  }
  json::array reserve(uint64_t node, uint64_t count) {
    return say({{"op", "reserve"}, {"node", node}, {"life", node * 100}, {"count", count}})
        ->at("extents")
        .as_array();
  }

  meta::Cluster cluster() { return meta::Cluster(*db_); }
  meta::Database& db() { return *db_; }
  uint64_t index() const { return index_; }
  int64_t now = 1000;

 private:
  std::unique_ptr<meta::Database> db_;
  std::unique_ptr<meta::Database> follower_;
  policy::Proposals decisions_;
  uint64_t index_ = 0;
  uint64_t disks_ = 0;
  std::map<uint64_t, uint64_t> sequence_;
};

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

// Three nodes with a disk each, and an extent of VSD v that is mapped in two copies. Node 1 holds
// the lease.
class Moves : public ::testing::Test {
 protected:
  Moves() {
    leader.found(3);
    vsd = leader.make_vsd();
    leader.lease(vsd, 1, 100).value();
    extent = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
    commit({}).value();
  }
  json::object about(const char* op, uint64_t epoch = 1) {
    return {{"op", op}, {"vsd", vsd}, {"node", 1}, {"life", 100}, {"epoch", epoch}};
  }
  core::Result<json::object> commit(const std::vector<uint64_t>& stale) {
    json::array stales;
    for (const uint64_t disk : stale) stales.push_back(json::array{extent, disk});
    json::object body = about("commit");
    body["ops"] = json::array{json::array{0, 0, 8, 0, extent}};
    body["stales"] = std::move(stales);
    return leader.say(std::move(body));
  }
  core::Result<json::object> place(uint64_t epoch = 1) {
    json::object body = about("place", epoch);
    body["extents"] = json::array{extent};
    return leader.say(std::move(body));
  }
  bool moved(uint64_t from, uint64_t to, uint64_t since, uint64_t drop = 0) {
    json::object body = about("moved");
    body["items"] = json::array{json::array{extent, from, to, since, drop}};
    return leader.say(std::move(body))->at("done").as_array()[0].as_bool();
  }
  std::vector<meta::CopyRow> copies() { return leader.cluster().copies({extent}).value(); }
  /// The disks of its copies, stale ones as negative numbers.
  std::set<int64_t> lie() {
    std::set<int64_t> out;
    for (const meta::CopyRow& row : copies())
      out.insert(static_cast<int64_t>(row.disk.value) * (row.stale != 0 ? -1 : 1));
    return out;
  }
  uint64_t since(uint64_t disk) {
    for (const meta::CopyRow& row : copies())
      if (row.disk.value == disk) return row.stale;
    return 0;
  }
  core::Result<json::object> fail(uint64_t disk) {
    return leader.say({{"op", "disk_failed"}, {"disk", disk}, {"life", 5}});
  }
  core::Result<json::object> leave(uint64_t disk, bool leaving = true) {
    return leader.say({{"op", "disk_leave"}, {"disk", disk}, {"leaving", leaving}});
  }
  core::Result<json::object> remove(uint64_t disk) {
    return leader.say({{"op", "disk_remove"}, {"disk", disk}});
  }
  size_t ailing() {
    meta::AilingAt at;
    std::set<core::ExtentId> found;
    while (!at.end)
      for (const meta::Owned& one : leader.cluster().ailing(at, 1).value())
        found.insert(one.extent);
    return found.size();
  }
  uint64_t other(uint64_t a, uint64_t b) { return 6 - a - b; }

  Leader leader;
  uint64_t vsd = 0;
  uint64_t extent = 0;
};

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
  commit({b}).value();
  EXPECT_FALSE(moved(a, b, since(b)));
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
  EXPECT_EQ(place()->at("placed").to_number<int>(), 1);
  EXPECT_EQ(place()->at("placed").to_number<int>(), 0) << "one in the making is enough";
  EXPECT_EQ(lie(), (std::set<int64_t>{static_cast<int64_t>(a), static_cast<int64_t>(b),
                                      -static_cast<int64_t>(c)}));
  EXPECT_EQ(remove(b).error().code, Code::conflict);
  EXPECT_TRUE(moved(a, c, since(c), b));
  EXPECT_EQ(lie(), (std::set<int64_t>{static_cast<int64_t>(a), static_cast<int64_t>(c)}));
  EXPECT_EQ(ailing(), 0U);
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
  EXPECT_TRUE(moved(b, c, since(c), b));
  EXPECT_EQ(leader.cluster().tasks()->back().what, "disk evacuate");
  EXPECT_EQ(leader.cluster().tasks()->back().state, "done");
  EXPECT_TRUE(remove(b));
  EXPECT_EQ(leader.say({{"op", "disk_up"}, {"disk", b}, {"life", 9}, {"slots", 20}}).error().code,
            Code::not_found)
      << "it is not in the pool any more";
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
  commit_suspect(a);
  EXPECT_TRUE(copies()[0].suspect);
  fail(b).value();
  EXPECT_TRUE(moved(0, a, since(a))) << "the other one is gone";
  commit({a}).value();
  EXPECT_FALSE(copies()[0].suspect);
  commit_suspect(a);
  EXPECT_FALSE(copies()[0].suspect);
  EXPECT_NE(since(a), 0U);
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
