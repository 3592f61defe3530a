// SPDX-License-Identifier: GPL-2.0
// Snapshots as the leader decides them.
#include "policy_leader.h"

namespace policy_tests {

namespace {

class Snapshots : public Moves {
 protected:
  core::Result<json::object> take(const std::string& name, json::array items) {
    return leader.say({{"op", "snapshot"}, {"name", name}, {"vsds", std::move(items)}});
  }
  json::object held(uint64_t epoch = 1) {
    return {{"vsd", vsd}, {"node", 1}, {"life", 100}, {"epoch", epoch}};
  }
  json::object free() { return {{"vsd", vsd}}; }
  void give_back() {
    leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
        .value();
  }
  void intend() {
    json::object body = about("intent");
    body["add"] = json::array{0};
    body["drop"] = json::array{};
    leader.say(std::move(body)).value();
  }
  void fence_node_1() {
    for (const uint64_t witness : {2, 3}) leader.fenced(1, 100, witness).value();
  }
  meta::Vsd row() { return *leader.cluster().vsd({vsd}).value(); }
  size_t count() { return leader.cluster().snapshots()->size(); }
  meta::Leaf leaf() { return meta::Map(leader.db()).leaf({vsd}, 0).value(); }
  std::vector<uint64_t> intents() { return leader.cluster().intents({vsd}, 10).value(); }
};

TEST_F(Snapshots, WhoHoldsTheLeaseHasItInANewEpochAndOwnsNothingOfWhatWas) {
  intend();
  const auto taken = take("a", {held()});
  ASSERT_TRUE(taken) << taken.error().text;
  const json::object& one = taken->at("taken").as_array()[0].as_object();
  EXPECT_EQ(one.at("epoch").to_number<int>(), 2);
  EXPECT_EQ(row().lease_node, NodeId{1});
  EXPECT_TRUE(intents().empty());
  EXPECT_FALSE(leaf().extents.front().exclusive);
  EXPECT_EQ(commit({}).error().code, Code::stale) << "the old epoch is over";
  const auto row = leader.cluster().snapshots()->front();
  EXPECT_EQ(row.name, "a");
  EXPECT_EQ(row.created, leader.now);
}

TEST_F(Snapshots, OnlyTheHolderSaysThatItsKernelHasFlushed) {
  EXPECT_EQ(take("a", {free()}).error().code, Code::conflict) << "node 1 may be writing";
  EXPECT_EQ(take("a", {held(2)}).error().code, Code::stale);
  json::object other = held();
  other["node"] = 2;
  other["life"] = 200;
  EXPECT_EQ(take("a", {other}).error().code, Code::stale);
  EXPECT_EQ(count(), 0U);
  EXPECT_EQ(row().epoch, 1U);
}

TEST_F(Snapshots, WhatComesLateChangesNothing) {
  ASSERT_TRUE(take("a", {held()}));
  EXPECT_EQ(take("b", {held()}).error().code, Code::stale) << "said twice: that epoch is over";
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  EXPECT_FALSE(take("c", {held(2)})) << "a holder that was declared dead";
  fence_node_1();
  EXPECT_FALSE(take("d", {held(2)}));
  EXPECT_EQ(count(), 1U);
  leader.lease(vsd, 2, 200).value();
  EXPECT_EQ(take("e", {held(2)}).error().code, Code::stale) << "another has it";
  EXPECT_EQ(count(), 1U);
}

TEST_F(Snapshots, OfSeveralAllOrNoneAreTaken) {
  const uint64_t second =
      leader.say({{"op", "vsd_create"}, {"name", "w"}, {"sectors", 2048}, {"replicas", 2}})
          ->at("vsd")
          .to_number<uint64_t>();
  const json::object other{{"vsd", second}};
  EXPECT_EQ(take("a", {other, free()}).error().code, Code::conflict);
  EXPECT_EQ(take("a", {other, other}).error().code, Code::invalid);
  EXPECT_EQ(take("a", {other, json::object{{"vsd", 99}}}).error().code, Code::not_found);
  EXPECT_EQ(take("a", {}).error().code, Code::invalid);
  EXPECT_EQ(count(), 0U);
  EXPECT_EQ(take("a", {other, held()})->at("taken").as_array().size(), 2U);
  EXPECT_EQ(take("a", {other, held(2)}).error().code, Code::conflict) << "that name is taken";
  EXPECT_EQ(count(), 2U);
  EXPECT_EQ(row().epoch, 2U);
}

TEST_F(Snapshots, WhatADeadOwnerWasWritingIsSettledBeforeItIsShared) {
  intend();
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  EXPECT_EQ(take("a", {free()}).error().code, Code::conflict) << "it may be writing still";
  fence_node_1();
  ASSERT_TRUE(take("a", {free()}));
  EXPECT_TRUE(intents().empty());
  EXPECT_FALSE(leaf().extents.front().exclusive);
  size_t current = 0;
  for (const meta::CopyRow& copy : copies()) current += copy.stale == 0;
  EXPECT_EQ(current, 1U) << "the other may differ, and nobody would look at it again";
  EXPECT_TRUE(leader.lease(vsd, 2, 200)->at("recover").as_bool()) << "nor did it flush";
}

TEST_F(Snapshots, ADeletedVsdIsKnownByItsSnapshotsUntilTheLastIsGone) {
  give_back();
  const uint64_t id = take("a", {free()})
                          ->at("taken")
                          .as_array()[0]
                          .as_object()
                          .at("snapshot")
                          .to_number<uint64_t>();
  EXPECT_TRUE(leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}));
  EXPECT_TRUE(row().deleted);
  EXPECT_EQ(leader.refusal({{"op", "vsd_revert"}, {"vsd", vsd}, {"snapshot", id}, {"keep", "b"}}),
            Code::not_found);
  EXPECT_EQ(take("b", {free()}).error().code, Code::not_found);
  leader.say({{"op", "snapshot_delete"}, {"snapshot", id}}).value();
  EXPECT_EQ(leader.refusal({{"op", "snapshot_delete"}, {"snapshot", id}}), Code::not_found);
  EXPECT_EQ(leader.cluster().tasks()->back().state, "running");
  while (leader.say({{"op", "reap"}})->at("rows").to_number<int>() != 0) {
  }
  EXPECT_EQ(leader.cluster().tasks()->back().what, "snapshot delete");
  EXPECT_EQ(leader.cluster().tasks()->back().state, "done");
  EXPECT_FALSE(*leader.cluster().vsd({vsd})) << "nothing is left of it";
}

TEST_F(Snapshots, ARevertedVsdIsAsItWasAndWhatItBecameIsKept) {
  const uint64_t id = take("a", {held()})
                          ->at("taken")
                          .as_array()[0]
                          .as_object()
                          .at("snapshot")
                          .to_number<uint64_t>();
  const uint64_t fresh = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
  json::object body = about("commit", 2);
  body["ops"] = json::array{json::array{0, 0, 8, 0, fresh}};
  body["stales"] = json::array{};
  leader.say(std::move(body)).value();
  const json::object revert{{"op", "vsd_revert"}, {"vsd", vsd}, {"snapshot", id}, {"keep", "b"}};
  EXPECT_EQ(leader.refusal(revert), Code::conflict) << "node 1 holds its lease";
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 2}, {"clean", true}})
      .value();
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 2}}).value();
  EXPECT_EQ(leader.refusal(revert), Code::conflict) << "it is open";
  leader.say({{"op", "close"}, {"vsd", vsd}, {"node", 2}}).value();
  leader.say({{"op", "closed"}, {"vsd", vsd}, {"node", 2}, {"error", ""}}).value();
  const auto kept = leader.say(revert);
  ASSERT_TRUE(kept) << kept.error().text;
  EXPECT_EQ(leaf().chunks.front().front().extent.value, extent);
  meta::Map map(leader.db());
  EXPECT_EQ(map.snapshot_chunk({kept->at("kept").to_number<uint64_t>()}, 0)->front().extent.value,
            fresh);
  EXPECT_TRUE(map.verify()->empty());
  EXPECT_EQ(leader.refusal({{"op", "vsd_revert"}, {"vsd", vsd}, {"snapshot", 99}, {"keep", "c"}}),
            Code::not_found);
  EXPECT_EQ(count(), 2U) << "what was not reverted was not kept either";
}

}  // namespace

}  // namespace policy_tests
