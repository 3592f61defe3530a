// SPDX-License-Identifier: GPL-2.0
// Clones, and what is left of VSDs that are deleted, as the leader decides them.
#include "policy_leader.h"

namespace policy_tests {

namespace {

// VSD v, with a snapshot of it that no lease stands in the way of.
class Clones : public Moves {
 protected:
  Clones() {
    give_back(vsd, 1, 1);
    snapshot =
        leader.say({{"op", "snapshot"}, {"name", "s"}, {"vsds", {json::object{{"vsd", vsd}}}}})
            ->at("taken")
            .at(0)
            .at("snapshot")
            .to_number<uint64_t>();
  }
  void give_back(uint64_t of, uint64_t node, uint64_t epoch) {
    leader
        .say({{"op", "lease_drop"}, {"vsd", of}, {"node", node}, {"epoch", epoch}, {"clean", true}})
        .value();
  }
  core::Result<json::object> clone(const std::string& name) {
    return leader.say({{"op", "vsd_clone"}, {"snapshot", snapshot}, {"name", name}});
  }
  uint64_t made(const std::string& name) { return clone(name)->at("vsd").to_number<uint64_t>(); }
  core::Result<json::object> drop(uint64_t of) {
    return leader.say({{"op", "vsd_delete"}, {"vsd", of}});
  }
  void reap() {
    while (leader.say({{"op", "reap"}})->at("rows").to_number<int>() != 0) {
    }
  }
  meta::Leaf leaf(uint64_t of) { return meta::Map(leader.db()).leaf({of}, 0).value(); }
  std::optional<meta::Vsd> row(uint64_t of) { return leader.cluster().vsd({of}).value(); }
  std::vector<meta::MappedExtent> relocated(uint64_t behind = 0) {
    return leader.cluster().relocated(behind).value();
  }
  void everybody_has_seen(uint64_t index) {
    for (const uint64_t node : {1, 2, 3})
      leader.say({{"op", "seen"}, {"node", node}, {"index", index}}).value();
    leader.say({{"op", "collect"}}).value();
  }
  /// The copy on a disk goes to the third one, under a lease of VSD v that node 1 takes for it.
  bool evacuate() {
    const uint64_t from = copies().front().disk.value;
    const uint64_t epoch =
        leader
            .say({{"op", "lease_take"}, {"vsd", vsd}, {"node", 1}, {"life", 100}, {"free", true}})
            ->at("epoch")
            .to_number<uint64_t>();
    leave(from).value();
    place(epoch).value();
    uint64_t to = 0;
    for (const meta::CopyRow& copy : copies())
      if (copy.stale != 0) to = copy.disk.value;
    json::object body = about("moved", epoch);
    body["items"] = json::array{json::array{extent, from, to, since(to), from}};
    return leader.say(std::move(body))->at("done").as_array()[0].as_bool();
  }
  size_t extents() {
    meta::Query count(leader.db(), "SELECT count(*) FROM extent");
    count.executeStep();
    return static_cast<size_t>(count.getColumn(0).getInt64());
  }

  uint64_t snapshot = 0;
};

TEST_F(Clones, ACloneLeadsToWhatTheSnapshotHasAndOwnsNothingOfIt) {
  const uint64_t b = made("b");
  EXPECT_EQ(row(b)->replicas, 2U);
  EXPECT_EQ(row(b)->sectors, row(vsd)->sectors);
  ASSERT_EQ(leaf(b).extents.size(), 1U);
  EXPECT_EQ(leaf(b).extents.front().id.value, extent);
  EXPECT_FALSE(leaf(b).extents.front().exclusive);
  EXPECT_FALSE(leaf(vsd).extents.front().exclusive);
  EXPECT_EQ(leader.cluster().scrubs()->size(), 2U) << "its copies are compared, too";
  EXPECT_TRUE(meta::Map(leader.db()).verify()->empty());
}

TEST_F(Clones, NamesAndWhatThereIsNoRoomForAreRefused) {
  EXPECT_EQ(clone("v").error().code, Code::conflict);
  EXPECT_EQ(clone("deleted:1:v").error().code, Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "vsd_clone"}, {"snapshot", 99}, {"name", "b"}}),
            Code::not_found);
  leader.lease(vsd, 1, 100).value();
  while (!leader.reserve(1, 20).empty()) {
  }
  EXPECT_EQ(clone("b").error().code, Code::no_space);
  EXPECT_EQ(leader.cluster().vsds()->size(), 1U);
}

TEST_F(Clones, AVsdIsClonedWhileItsHolderHoldsStill) {
  leader.lease(vsd, 1, 100).value();
  const uint64_t epoch = row(vsd)->epoch;
  json::object item{{"vsd", vsd}, {"node", 1}, {"life", 100}, {"epoch", epoch}};
  json::object body{{"op", "snapshot"}, {"clone", "b"}, {"vsds", {item}}};
  const uint64_t fresh = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
  json::object change = about("commit", epoch);
  change["ops"] = json::array{json::array{1, 0, 8, 0, fresh}};
  change["stales"] = json::array{};
  leader.say(std::move(change)).value();
  EXPECT_EQ(leader.refusal({{"op", "snapshot"}, {"clone", "b"}, {"vsds", {item, item}}}),
            Code::invalid);
  const auto taken = leader.say(body);
  ASSERT_TRUE(taken) << taken.error().text;
  const uint64_t b = taken->at("taken").at(0).at("clone").to_number<uint64_t>();
  EXPECT_EQ(taken->at("taken").at(0).at("epoch").to_number<uint64_t>(), epoch + 1);
  EXPECT_EQ(leaf(b).extents.size(), 2U);
  for (const meta::MappedExtent& one : leaf(vsd).extents) EXPECT_FALSE(one.exclusive);
  EXPECT_EQ(leader.cluster().snapshots()->size(), 1U) << "no snapshot was needed for it";
  item["epoch"] = epoch + 1;
  body["vsds"] = json::array{item};
  EXPECT_EQ(leader.refusal(body), Code::conflict) << "that name is taken";
  EXPECT_EQ(row(vsd)->epoch, epoch + 1) << "and nothing was changed";
}

TEST_F(Clones, OriginSnapshotAndCloneGoInAnyOrderAndTheLastFreesTheSpace) {
  std::vector<int> order = {0, 1, 2};
  do {
    const uint64_t a = made("a");
    const uint64_t b = made("b");
    const uint64_t kept = extents();
    for (const int which : order) {
      if (which == 2) {
        const uint64_t id =
            leader.say({{"op", "snapshot"}, {"name", "t"}, {"vsds", {json::object{{"vsd", vsd}}}}})
                ->at("taken")
                .at(0)
                .at("snapshot")
                .to_number<uint64_t>();
        leader.say({{"op", "snapshot_delete"}, {"snapshot", id}}).value();
      } else {
        drop(which == 0 ? a : b).value();
      }
      reap();
      EXPECT_EQ(extents(), kept) << "v still leads there";
      EXPECT_TRUE(meta::Map(leader.db()).verify()->empty());
    }
    EXPECT_FALSE(row(a) || row(b)) << "nothing is left of them";
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(Clones, WhatADeletedVsdFilledIsMovedUntilTheLastCloneIsGone) {
  const uint64_t b = made("b");
  drop(vsd).value();
  reap();
  ASSERT_TRUE(row(vsd));
  EXPECT_TRUE(row(vsd)->deleted);
  EXPECT_EQ(row(vsd)->name, "deleted:" + std::to_string(vsd) + ":v");
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd}}), Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "open"}, {"vsd", vsd}, {"node", 1}}), Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "vsd_resize"}, {"vsd", vsd}, {"sectors", 1 << 20}}),
            Code::not_found);
  EXPECT_EQ(leader.lease(vsd, 1, 100).error().code, Code::not_found) << "nobody uses it";
  EXPECT_TRUE(leader.say({{"op", "vsd_create"}, {"name", "v"}, {"sectors", 2048}, {"replicas", 2}}))
      << "its name is free";

  EXPECT_TRUE(evacuate());
  EXPECT_EQ(leaf(b).extents.front().copies.size(), 2U);
  leader.say({{"op", "snapshot_delete"}, {"snapshot", snapshot}}).value();
  reap();
  EXPECT_TRUE(row(vsd)) << "the clone leads to what it filled";
  drop(b).value();
  reap();
  EXPECT_FALSE(row(vsd));
  EXPECT_FALSE(row(b));
  EXPECT_EQ(extents(), 0U);
}

TEST_F(Clones, ASnapshotIsReadOnAnyNumberOfNodesAndNotDeletedMeanwhile) {
  auto device = [&](const char* op, uint64_t node) {
    return leader.say({{"op", op}, {"snapshot", snapshot}, {"node", node}});
  };
  const uint64_t one = device("snapshot_open", 1)->at("view").to_number<uint64_t>();
  const uint64_t two = device("snapshot_open", 2)->at("view").to_number<uint64_t>();
  EXPECT_NE(one, two) << "each has a lease of its own";
  EXPECT_EQ(device("snapshot_open", 1)->at("view").to_number<uint64_t>(), one) << "said twice";
  EXPECT_EQ(leaf(one).extents.front().id.value, extent);
  EXPECT_FALSE(leaf(one).extents.front().exclusive);
  EXPECT_FALSE(row(one)->is_listed());
  EXPECT_EQ(leader.cluster().device_label(*row(one)).value(), "v@s");
  EXPECT_TRUE(leader.lease(one, 1, 100)) << "by which it is read";
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", one}}), Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "open"}, {"vsd", one}, {"node", 3}}), Code::not_found);
  const json::object gone{{"op", "snapshot_delete"}, {"snapshot", snapshot}};
  EXPECT_EQ(leader.refusal(gone), Code::conflict) << "it is being read";
  EXPECT_EQ(device("snapshot_close", 3).error().code, Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "snapshot_open"}, {"snapshot", 99}, {"node", 1}}),
            Code::not_found);
  EXPECT_EQ(device("snapshot_open", 9).error().code, Code::not_found);
  EXPECT_EQ(drop(vsd).error().code, Code::conflict) << "its device is named by the VSD";
  for (const auto& [node, view] : {std::pair<uint64_t, uint64_t>{1, one}, {2, two}}) {
    device("snapshot_close", node).value();
    EXPECT_TRUE(row(view)) << "until the node has done it";
    leader.say({{"op", "closed"}, {"vsd", view}, {"node", node}, {"error", ""}}).value();
    EXPECT_FALSE(row(view));
  }
  EXPECT_TRUE(drop(vsd)) << "its VSD may go";
  const uint64_t late = device("snapshot_open", 1)->at("view").to_number<uint64_t>();
  EXPECT_EQ(leader.cluster().device_label(*row(late)).value(),
            "deleted:" + std::to_string(vsd) + ":v@s");
  device("snapshot_close", 1).value();
  leader.say({{"op", "closed"}, {"vsd", late}, {"node", 1}, {"error", ""}}).value();
  EXPECT_TRUE(leader.say(gone));
  reap();
  EXPECT_EQ(extents(), 0U);
  EXPECT_TRUE(leader.cluster().vsds()->empty());
  EXPECT_TRUE(meta::Map(leader.db()).verify()->empty());
}

TEST_F(Clones, WhoeverReadsThereHearsOfCopiesThatMovedBeforeTheirSlotsAreUsedAgain) {
  made("b");
  EXPECT_TRUE(relocated().empty());
  ASSERT_TRUE(evacuate());
  const uint64_t index = leader.index();
  ASSERT_EQ(relocated(index - 1).size(), 1U);
  const meta::MappedExtent told = relocated(index - 1).front();
  EXPECT_EQ(told.id.value, extent);
  EXPECT_FALSE(told.exclusive);
  EXPECT_EQ(told.copies.size(), copies().size());
  EXPECT_TRUE(relocated(index).empty());
  EXPECT_TRUE(leader.cluster().quarantine_behind(index - 1).value());

  everybody_has_seen(index - 1);
  EXPECT_EQ(relocated().size(), 1U) << "not all have said that they know";
  everybody_has_seen(index);
  EXPECT_TRUE(relocated().empty());
}

TEST_F(Clones, ACopyThatIsGoodAgainIsToldOfThoughNoSlotIsFreed) {
  const uint64_t b = made("b");
  leader.lease(b, 2, 200).value();
  const uint64_t wrong = copies().front().disk.value;
  json::object body{{"op", "scrubbed"},
                    {"vsd", b},
                    {"node", 2},
                    {"life", 200},
                    {"epoch", 1},
                    {"began", 900},
                    {"next", 0},
                    {"end", false},
                    {"damaged", json::array{}},
                    {"good", json::array{}}};
  body["wrong"] = json::array{json::array{extent, wrong}};
  EXPECT_EQ(leader.say(std::move(body))->at("marked").to_number<int>(), 1)
      << "who compares a clone's copies sees what its origin filled";
  EXPECT_EQ(relocated().size(), 1U);
  everybody_has_seen(leader.index());
  EXPECT_TRUE(relocated().empty()) << "though nothing is in quarantine";
  const uint64_t epoch =
      leader.say({{"op", "lease_take"}, {"vsd", vsd}, {"node", 1}, {"life", 100}, {"free", true}})
          ->at("epoch")
          .to_number<uint64_t>();
  json::object back = about("moved", epoch);
  back["items"] =
      json::array{json::array{extent, copies().back().disk.value, wrong, since(wrong), 0}};
  EXPECT_TRUE(leader.say(std::move(back))->at("done").at(0).as_bool());
  EXPECT_EQ(relocated().size(), 1U);
}

TEST_F(Moves, OfWhatIsNotSharedNobodyElseIsTold) {
  const uint64_t from = copies().front().disk.value;
  leave(from).value();
  place().value();
  uint64_t target = 0;
  for (const meta::CopyRow& copy : copies())
    if (copy.stale != 0) target = copy.disk.value;
  EXPECT_TRUE(moved(from, target, since(target), from));
  EXPECT_TRUE(leader.cluster().relocated(0)->empty());
}

}  // namespace

}  // namespace policy_tests
