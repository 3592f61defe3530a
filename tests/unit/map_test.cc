// SPDX-License-Identifier: GPL-2.0
// The map tree against a naive model, its replica fed with patches only.
#include "meta/map.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "meta/database.h"

namespace {

using core::Code;
using core::ExtentId;
using core::Segment;
using core::VsdId;
using meta::Batch;
using meta::Copy;
using meta::Database;
using meta::Map;

namespace fs = std::filesystem;

constexpr uint64_t kChunk = core::kChunkSectors;
constexpr core::NodeId kNode{1};
constexpr uint64_t kLife = 77;

// A leader and a follower that sees nothing but patches.
class Cluster {
 public:
  Cluster()
      : leader_(Database::open(":memory:").value()),
        follower_(Database::open(":memory:").value()),
        map_(*leader_) {
    for (Database* database : {leader_.get(), follower_.get()})
      for (const char* disk : {"1", "2"})
        database->sql().exec(std::string("INSERT INTO disk VALUES(") + disk + ", 1, '" + disk +
                             "', '', 'ssd', 1000000, 'ok', 1, 0, 0)");
  }

  /// Runs a change as the next entry on both; an error changes neither.
  template <class Function>
  auto entry(Function&& change) -> decltype(change(std::declval<Map&>(), uint64_t{})) {
    using R = decltype(change(map_, uint64_t{}));
    std::optional<R> result;
    auto patch = leader_->prepare([&]() -> core::Result<void> {
      result = change(map_, index_ + 1);
      if (!*result) return result->error();
      return {};
    });
    if (!patch) return patch.error();
    index_++;
    leader_->commit({index_, 0}).value();
    follower_->apply({index_, 0}, *patch).value();
    return *result;
  }

  void expect_sound() {
    EXPECT_EQ(leader_->digest().value(), follower_->digest().value());
    EXPECT_EQ(map_.verify().value(), std::vector<std::string>{});
  }
  bool sound() {
    return leader_->digest().value() == follower_->digest().value() &&
           map_.verify().value().empty();
  }

  ExtentId reserve() {
    const uint32_t slot = next_slot_++;
    const std::array<Copy, 2> copies{Copy{{1}, slot}, Copy{{2}, slot}};
    return entry([&](Map& map, uint64_t) { return map.reserve(copies, kNode, kLife); }).value();
  }

  VsdId vsd(const std::string& name, uint64_t chunks) {
    const VsdId id =
        entry([&](Map& map, uint64_t) { return map.create_vsd(name, chunks * kChunk, 2); }).value();
    entry([&](Map& map, uint64_t) { return map.grant_lease(id, kNode, kLife); }).value();
    return id;
  }

  core::Result<core::SnapshotId> snapshot(VsdId vsd, const std::string& name) {
    return entry([&](Map& map, uint64_t index) { return map.snapshot(vsd, name, index, 5); });
  }

  core::Result<VsdId> clone(core::SnapshotId snapshot, const std::string& name) {
    auto id = entry([&](Map& map, uint64_t) { return map.clone(snapshot, name, 2); });
    if (id) entry([&](Map& map, uint64_t) { return map.grant_lease(*id, kNode, kLife); }).value();
    return id;
  }

  core::Result<void> write(VsdId vsd, uint64_t chunk, Segment segment, uint64_t epoch = 1) {
    return entry([&](Map& map, uint64_t index) {
      return map.commit(Batch{vsd, epoch, {{chunk, segment}}, {}}, index);
    });
  }

  /// Takes all garbage apart, a few rows an entry; how many entries.
  uint64_t reap() {
    for (uint64_t entries = 1;; entries++) {
      const auto rows = entry([&](Map& map, uint64_t index) { return map.reap(3, index); }).value();
      expect_sound();
      if (rows == 0) return entries;
    }
  }

  Map& map() { return map_; }
  Database& leader() { return *leader_; }
  Database& follower() { return *follower_; }
  uint64_t index() const { return index_; }

 private:
  std::unique_ptr<Database> leader_;
  std::unique_ptr<Database> follower_;
  Map map_;
  uint64_t index_ = 0;
  uint32_t next_slot_ = 0;
};

core::Segments chunk_of(Map& map, VsdId vsd, uint64_t chunk) {
  return map.leaf(vsd, chunk / core::kLeafChunks).value().chunks[chunk % core::kLeafChunks];
}

TEST(Map, AWalkOverLeavesFindsThoseWithSomethingInThem) {
  Cluster c;
  const VsdId vsd = c.vsd("v", 1000000);
  const auto next = [&](uint64_t from) { return c.map().next_leaf(vsd, from).value(); };
  EXPECT_EQ(next(0), std::nullopt);
  for (const uint64_t leaf : {0, 1, 63, 64, 5000, 62499})
    c.write(vsd, leaf * core::kLeafChunks + 3, {0, 8, 0, c.reserve()}).value();
  std::vector<uint64_t> found;
  for (auto leaf = next(0); leaf; leaf = next(*leaf + 1)) found.push_back(*leaf);
  EXPECT_EQ(found, (std::vector<uint64_t>{0, 1, 63, 64, 5000, 62499}));
  EXPECT_EQ(next(4097), 5000U);
  EXPECT_EQ(next(5000), 5000U);
  EXPECT_EQ(next(UINT64_MAX / 2), std::nullopt);
  EXPECT_FALSE(c.map().next_leaf({99}, 0));
}

TEST(Map, ACopyWhereNoDiskIsIsFound) {
  Cluster c;
  c.write(c.vsd("v", 16), 0, {0, 8, 0, c.reserve()}).value();
  c.expect_sound();
  c.leader().sql().exec("UPDATE disk SET slots = 0 WHERE id = 2");
  EXPECT_EQ(c.map().verify().value().size(), 1U);
  c.leader().sql().exec("DELETE FROM disk WHERE id = 2");
  EXPECT_EQ(c.map().verify().value().size(), 1U);
  c.leader().sql().exec("UPDATE copy SET disk = 1, slot = 77 WHERE disk = 2");
  EXPECT_EQ(c.map().verify().value(),
            std::vector<std::string>{"an extent has two copies on one disk"});
}

TEST(Map, AWriteIsFoundAgainWithTheCopiesOfItsExtent) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 5000);
  const ExtentId extent = c.reserve();
  c.write(vsd, 4321, {8, 16, 0, extent}).value();
  const auto leaf = c.map().leaf(vsd, 4321 / 16).value();
  EXPECT_EQ(leaf.chunks[4321 % 16], (core::Segments{{8, 16, 0, extent}}));
  ASSERT_EQ(leaf.extents.size(), 1U);
  EXPECT_TRUE(leaf.extents[0].exclusive);
  EXPECT_EQ(leaf.extents[0].copies, (std::vector<Copy>{{{1}, 0, false}, {{2}, 0, false}}));
  c.expect_sound();
}

TEST(Map, ABatchOfAnOldEpochChangesNothing) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId extent = c.reserve();
  c.entry([&](Map& map, uint64_t) { return map.grant_lease(vsd, kNode, kLife); }).value();
  const uint64_t before = c.leader().digest().value();
  const auto result = c.write(vsd, 0, {0, 8, 0, extent}, 1);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::stale);
  EXPECT_EQ(c.leader().digest().value(), before);
}

TEST(Map, AnOpThatNamesNoReservationOrLeavesTheDiskRollsTheWholeBatchBack) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId good = c.reserve();
  const uint64_t before = c.leader().digest().value();
  auto commit = [&](std::vector<meta::Op> ops) {
    return c.entry([&](Map& map, uint64_t index) {
      return map.commit({vsd, 1, std::move(ops), {}}, index);
    });
  };
  EXPECT_FALSE(commit({{0, {0, 8, 0, good}}, {1, {0, 8, 0, {999}}}}));
  EXPECT_EQ(commit({{0, {0, 8, 0, good}}, {16, {0, 8, 0, good}}}).error().code, Code::invalid);
  EXPECT_EQ(commit({{0, {2040, 16, 0, good}}}).error().code, Code::invalid);
  EXPECT_EQ(c.leader().digest().value(), before);
}

TEST(Map, OverwritingFreesTheSlotsIntoQuarantineAndTheyAreNotReusedBefore) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId first = c.reserve();
  const ExtentId second = c.reserve();
  c.write(vsd, 3, {0, 2048, 0, first}).value();
  c.write(vsd, 3, {0, 2048, 0, second}).value();
  SQLite::Statement query(c.follower().sql(),
                          "SELECT disk, slot, freed_at FROM quarantine ORDER BY disk");
  ASSERT_TRUE(query.executeStep());
  EXPECT_EQ(query.getColumn(1).getInt(), 0);
  EXPECT_EQ(static_cast<uint64_t>(query.getColumn(2).getInt64()), c.index());
  const std::array<Copy, 2> reuse{Copy{{1}, 0}, Copy{{2}, 9}};
  EXPECT_EQ(c.entry([&](Map& map, uint64_t) { return map.reserve(reuse, kNode, 77); }).error().code,
            Code::conflict);
  c.expect_sound();
}

TEST(Map, WhatOneChunkDropsAndAnotherTakesUpInTheSameBatchLives) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 8);
  const ExtentId extent = c.reserve();
  c.write(vsd, 1, {0, 8, 0, extent}).value();
  // The batch's chunks are changed in order; that of the discard comes first.
  const Batch batch{vsd, 1, {{5, {0, 8, 8, extent}}, {1, {0, 8, 0, {}}}}, {}};
  c.entry([&](Map& map, uint64_t index) { return map.commit(batch, index); }).value();
  c.expect_sound();
  EXPECT_EQ(c.map().leaf(vsd, 0)->extents.size(), 1U);
  // Committed again, for its answer was lost.
  c.entry([&](Map& map, uint64_t index) { return map.commit(batch, index); }).value();
  c.expect_sound();
  EXPECT_EQ(c.map().leaf(vsd, 0)->extents.size(), 1U);
}

TEST(Map, WhatABatchMapsAndUnmapsAgainDoesNotStayReserved) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 8);
  const ExtentId extent = c.reserve();
  const Batch batch{vsd, 1, {{1, {0, 8, 0, extent}}, {1, {0, 8, 0, {}}}}, {}};
  for (int times = 0; times < 2; times++) {
    c.entry([&](Map& map, uint64_t index) { return map.commit(batch, index); }).value();
    c.expect_sound();
    EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM reservation").getInt(), 0);
    EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM quarantine").getInt(), 2);
  }
}

TEST(Map, StaleMarksCommitWithTheBatchAndThoseOfUnmappedReservationsAreDropped) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId mapped = c.reserve();
  const ExtentId reserved = c.reserve();
  c.entry([&](Map& map, uint64_t index) {
     return map.commit({vsd, 1, {{0, {0, 8, 0, mapped}}}, {{mapped, {2}}, {reserved, {1}}}}, index);
   }).value();
  const auto leaf = c.map().leaf(vsd, 0).value();
  EXPECT_EQ(leaf.extents[0].copies, (std::vector<Copy>{{{1}, 0, false}, {{2}, 0, true}}));
  c.expect_sound();
}

TEST(Map, ASnapshotKeepsWhatWasAndEndsExclusiveness) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 3000);
  const ExtentId old_extent = c.reserve();
  const ExtentId new_extent = c.reserve();
  c.write(vsd, 2500, {0, 64, 0, old_extent}).value();
  const auto snapshot = c.snapshot(vsd, "s").value();
  EXPECT_FALSE(c.map().leaf(vsd, 2500 / 16).value().extents[0].exclusive);
  c.write(vsd, 2500, {0, 64, 0, new_extent}).value();
  EXPECT_TRUE(c.map().leaf(vsd, 2500 / 16).value().extents[0].exclusive);
  EXPECT_EQ(c.map().snapshot_chunk(snapshot, 2500).value(),
            (core::Segments{{0, 64, 0, old_extent}}));
  c.expect_sound();
  c.entry([&](Map& map, uint64_t) { return map.delete_vsd(vsd); }).value();
  c.reap();
  c.expect_sound();
  c.entry([&](Map& map, uint64_t) { return map.delete_snapshot(snapshot); }).value();
  c.reap();
  c.expect_sound();
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM tree").getInt(), 0);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM quarantine").getInt(), 4);
}

TEST(Map, AVsdGrowsByLevelsAndKeepsItsData) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId extent = c.reserve();
  c.write(vsd, 7, {0, 8, 0, extent}).value();
  c.entry([&](Map& map, uint64_t) {
     return map.resize_vsd(vsd, 16 * 64 * 64 * 3 * kChunk);
   }).value();
  EXPECT_EQ(chunk_of(c.map(), vsd, 7), (core::Segments{{0, 8, 0, extent}}));
  const ExtentId far = c.reserve();
  c.write(vsd, 16 * 64 * 64 * 2, {0, 8, 0, far}).value();
  EXPECT_EQ(chunk_of(c.map(), vsd, 16 * 64 * 64 * 2), (core::Segments{{0, 8, 0, far}}));
  EXPECT_EQ(chunk_of(c.map(), vsd, 7), (core::Segments{{0, 8, 0, extent}}));
  const auto shrink = c.entry([&](Map& map, uint64_t) { return map.resize_vsd(vsd, 16 * kChunk); });
  EXPECT_EQ(shrink.error().code, Code::invalid);
  c.expect_sound();
}

TEST(Map, BadNamesSizesAndDuplicatesAreRefused) {
  Cluster c;
  c.vsd("a", 1);
  auto create = [&](const std::string& name, uint64_t sectors, uint32_t replicas) {
    const auto result =
        c.entry([&](Map& map, uint64_t) { return map.create_vsd(name, sectors, replicas); });
    return result ? std::string("created") : result.error().text;
  };
  EXPECT_EQ(create("a", kChunk, 2), "a VSD named a exists");
  for (const std::string name : {"", "-a", ".a", "a/b", "a b", "../x"})
    EXPECT_NE(create(name, kChunk, 2), "created");
  EXPECT_NE(create(std::string(65, 'a'), kChunk, 2), "created");
  EXPECT_NE(create("b", 0, 2), "created");
  EXPECT_NE(create("b", kChunk + 1, 2), "created");
  EXPECT_NE(create("b", uint64_t{1} << 60, 2), "created");
  EXPECT_NE(create("b", kChunk, 1), "created");
  EXPECT_NE(create("b", kChunk, 4), "created");
}

TEST(Map, ABigDeletionIsManySmallEntriesAndSparesWhatASnapshotHolds) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 3000);
  for (uint64_t chunk = 0; chunk < 3000; chunk += 300)
    c.write(vsd, chunk, {0, 8, 0, c.reserve()}).value();
  const auto snapshot = c.snapshot(vsd, "s").value();
  c.write(vsd, 300, {0, 8, 0, c.reserve()}).value();
  c.entry([&](Map& map, uint64_t) { return map.delete_vsd(vsd); }).value();
  c.expect_sound();
  EXPECT_GT(c.reap(), 1U);
  EXPECT_EQ(c.map().snapshot_chunk(snapshot, 300)->size(), 1U);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt(), 10);
  c.entry([&](Map& map, uint64_t) { return map.delete_snapshot(snapshot); }).value();
  EXPECT_GT(c.reap(), 5U);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt(), 0);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM tree").getInt(), 0);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM quarantine").getInt(), 22);
}

TEST(Database, AFollowerRefusesGapsRepeatsAndEntriesThatDoNotFit) {
  Cluster c;
  c.vsd("a", 16);
  auto other = Database::open(":memory:").value();
  Map other_map(*other);
  auto patch = other->prepare([&]() -> core::Result<void> {
    const auto id = other_map.create_vsd("different", kChunk, 2);
    if (!id) return id.error();
    return {};
  });
  other->rollback();
  const uint64_t before = c.follower().digest().value();
  EXPECT_EQ(c.follower().apply({c.index(), 0}, *patch).error().code, Code::conflict);
  EXPECT_EQ(c.follower().apply({c.index() + 2, 0}, *patch).error().code, Code::conflict);
  EXPECT_EQ(c.follower().apply({c.index() + 1, 0}, *patch).error().code, Code::corrupt);
  EXPECT_FALSE(c.follower().apply({c.index() + 1, 0}, "not a patch"));
  EXPECT_EQ(c.follower().digest().value(), before);
  EXPECT_EQ(c.follower().applied()->index, c.index());
}

TEST(Database, WhatIsCommittedIsThereAfterReopeningAndWhatIsPreparedIsNot) {
  const auto path =
      std::filesystem::temp_directory_path() / ("scribe-meta-" + std::to_string(::getpid()));
  std::filesystem::remove(path);
  {
    auto db = Database::open(path).value();
    Map map(*db);
    for (const char* name : {"kept", "lost"}) {
      db->prepare([&]() -> core::Result<void> {
          const auto id = map.create_vsd(name, kChunk, 2);
          if (!id) return id.error();
          return {};
        }).value();
      if (name == std::string("kept")) db->commit({1, 5}).value();
    }
  }
  {
    auto db = Database::open(path).value();
    EXPECT_EQ(db->applied().value(), (meta::Position{1, 5}));
    EXPECT_EQ(db->sql().execAndGet("SELECT group_concat(name) FROM vsd").getString(), "kept");
  }
  std::filesystem::remove(path);
}

TEST(Database, OneOfAnotherVersionIsNotOpenedAndStaysAsItIs) {
  const auto path =
      std::filesystem::temp_directory_path() / ("scribe-version-" + std::to_string(::getpid()));
  std::filesystem::remove(path);
  const int ours = Database::open(path).value()->sql().execAndGet("PRAGMA user_version").getInt();
  for (const int version : {ours - 1, ours + 1}) {
    SQLite::Database(path, SQLite::OPEN_READWRITE)
        .exec("PRAGMA user_version = " + std::to_string(version));
    const auto opened = Database::open(path);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, core::Code::conflict);
    EXPECT_NE(opened.error().text.find(version < ours ? "older version" : "newer version"),
              std::string::npos);
    EXPECT_EQ(SQLite::Database(path).execAndGet("PRAGMA user_version").getInt(), version);
  }
  std::filesystem::remove(path);
}

TEST(Map, ACloneBeginsAsItsSnapshotGoesItsOwnWayAndOutlivesItsOrigin) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 3000);
  c.write(vsd, 2500, {0, 64, 0, c.reserve()}).value();
  const auto snapshot = c.snapshot(vsd, "s").value();
  const VsdId clone = c.clone(snapshot, "b").value();
  EXPECT_EQ(chunk_of(c.map(), clone, 2500), chunk_of(c.map(), vsd, 2500));
  EXPECT_FALSE(c.map().leaf(clone, 2500 / 16)->extents[0].exclusive);
  const ExtentId own = c.reserve();
  c.write(clone, 2500, {8, 8, 0, own}).value();
  EXPECT_EQ(chunk_of(c.map(), clone, 2500).size(), 3U);
  EXPECT_EQ(chunk_of(c.map(), vsd, 2500).size(), 1U);
  c.expect_sound();
  c.entry([&](Map& map, uint64_t) { return map.delete_vsd(vsd); }).value();
  c.entry([&](Map& map, uint64_t) { return map.delete_snapshot(snapshot); }).value();
  c.reap();
  EXPECT_EQ(chunk_of(c.map(), clone, 2500).size(), 3U);
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt(), 2);
  c.entry([&](Map& map, uint64_t) { return map.delete_vsd(clone); }).value();
  c.reap();
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt(), 0);
}

TEST(Map, AVsdThatIsRevertedIsAsItWasInSizeAsWell) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 16);
  const ExtentId first = c.reserve();
  c.write(vsd, 3, {0, 8, 0, first}).value();
  const auto snapshot = c.snapshot(vsd, "s").value();
  c.entry([&](Map& map, uint64_t) { return map.resize_vsd(vsd, 5000 * kChunk); }).value();
  c.write(vsd, 3, {0, 8, 0, c.reserve()}).value();
  c.write(vsd, 4000, {0, 8, 0, c.reserve()}).value();
  c.entry([&](Map& map, uint64_t) { return map.revert(vsd, snapshot); }).value();
  c.expect_sound();
  c.reap();
  EXPECT_EQ(c.map().version(vsd)->sectors, 16 * kChunk);
  EXPECT_EQ(chunk_of(c.map(), vsd, 3), (core::Segments{{0, 8, 0, first}}));
  EXPECT_FALSE(c.map().leaf(vsd, 0)->extents[0].exclusive) << "the snapshot has it, too";
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt(), 1);
  const VsdId other = c.vsd("b", 16);
  const auto foreign = c.entry([&](Map& map, uint64_t) { return map.revert(other, snapshot); });
  EXPECT_EQ(foreign.error().code, Code::invalid);
  const auto missing = c.entry([&](Map& map, uint64_t) { return map.revert(vsd, {99}); });
  EXPECT_EQ(missing.error().code, Code::not_found);
}

TEST(Map, NamesOfSnapshotsAreOnceForAVsd) {
  Cluster c;
  const VsdId a = c.vsd("a", 1);
  const VsdId b = c.vsd("b", 1);
  const auto first = c.snapshot(a, "daily").value();
  EXPECT_EQ(c.snapshot(a, "daily").error().code, Code::conflict);
  EXPECT_TRUE(c.snapshot(b, "daily"));
  EXPECT_EQ(c.snapshot(a, "../x").error().code, Code::invalid);
  EXPECT_EQ(c.snapshot({99}, "x").error().code, Code::not_found);
  c.entry([&](Map& map, uint64_t) { return map.delete_snapshot(first); }).value();
  EXPECT_TRUE(c.snapshot(a, "daily"));
}

TEST(Map, ADiffCostsWhatDiffersAndComesInPieces) {
  Cluster c;
  const VsdId vsd = c.vsd("a", 3000);
  c.write(vsd, 0, {0, 2048, 0, c.reserve()}).value();
  const auto before = c.map().version(c.snapshot(vsd, "s").value()).value();
  c.write(vsd, 0, {2040, 8, 0, c.reserve()}).value();
  c.write(vsd, 1, {0, 16, 0, c.reserve()}).value();
  c.write(vsd, 0, {100, 4, 0, {}}).value();
  for (uint64_t chunk = 1000; chunk < 1010; chunk += 2)
    c.write(vsd, chunk, {5, 1, 0, c.reserve()}).value();
  const auto after = c.map().version(vsd).value();
  const auto all = c.map().diff(before, after, 0, 1000).value();
  ASSERT_EQ(all.changes.size(), 7U);
  EXPECT_EQ(all.next, std::nullopt);
  EXPECT_EQ(all.changes[0], (meta::Change{100, 4, false}));
  EXPECT_EQ(all.changes[1], (meta::Change{2040, 24, true})) << "over the end of a chunk";
  EXPECT_EQ(all.changes[6], (meta::Change{1008 * kChunk + 5, 1, true}));
  std::vector<meta::Change> pieces;
  for (std::optional<uint64_t> at = 0; at;) {
    const auto some = c.map().diff(before, after, *at, 2).value();
    EXPECT_LE(some.changes.size(), 3U);
    pieces.insert(pieces.end(), some.changes.begin(), some.changes.end());
    at = some.next;
  }
  ASSERT_EQ(pieces.size(), 8U) << "what crosses the end of a piece comes in two";
  EXPECT_EQ(pieces[2], (meta::Change{kChunk, 16, true}));
  pieces[1].sectors += pieces[2].sectors;
  pieces.erase(pieces.begin() + 2);
  EXPECT_EQ(pieces, all.changes);
  EXPECT_TRUE(c.map().diff(after, after, 0, 10)->changes.empty());
  EXPECT_TRUE(c.map().diff(before, after, uint64_t{1} << 60, 10)->changes.empty());
}

// Where each sector of a chunk leads to.
using Sectors = std::vector<std::pair<ExtentId, int>>;
Sectors spread_out(const core::Segments& segments) {
  Sectors out(kChunk);
  for (const Segment& one : segments)
    for (int i = 0; i < one.len; i++)
      out[static_cast<size_t>(one.start + i)] = {one.extent, one.off + i};
  return out;
}

using Model = std::map<uint64_t, core::Segments>;

// What was gathered: the same data has been in both places.
using Origins = std::map<std::pair<ExtentId, int>, std::pair<ExtentId, int>>;

// The data of each sector of a chunk, by where it was first.
Sectors data_of(const core::Segments& segments, const Origins& origins) {
  Sectors out = spread_out(segments);
  for (auto& sector : out)
    if (const auto at = origins.find(sector); at != origins.end()) sector = at->second;
  return out;
}

// A chunk row, the VSD's now or a snapshot's, gets an extent of its own; those that read by its map
// hear of that.
void gather_some(Cluster& c, VsdId vsd, uint64_t leaf, Origins& origins,
                 const std::vector<VsdId>& vsds) {
  auto history = c.map().history(vsd, leaf).value();
  if (history.chunks.empty()) return;
  const auto row = history.chunks[*rc::gen::inRange<size_t>(0, history.chunks.size())];
  const ExtentId to = c.reserve();
  std::vector<meta::Piece> pieces;
  for (const Segment& one : row.segments) {
    pieces.push_back({row.row, row.chunk, one, one.start});
    for (int i = 0; i < one.len; i++) {
      const std::pair from(one.extent, one.off + i);
      const auto at = origins.find(from);
      origins[{to, one.start + i}] = at == origins.end() ? from : at->second;
    }
  }
  std::map<uint64_t, core::Segments> cached;
  for (const VsdId id : vsds) cached[id.value] = chunk_of(c.map(), id, row.chunk);
  const uint64_t behind = c.index();
  c.entry([&](Map& map, uint64_t index) { return map.gather(vsd, pieces, to, index); }).value();
  for (const auto& moved : c.map().gathered(behind, kNode, kLife).value())
    for (const meta::Piece& piece : moved.pieces) {
      RC_ASSERT(piece.chunk == row.chunk);
      auto& mine = cached[moved.vsd.value];
      mine = core::splice(mine, {piece.from.start, piece.from.len, piece.to, moved.to.id});
    }
  for (const VsdId id : vsds) {
    const bool same = chunk_of(c.map(), id, row.chunk) == cached[id.value];
    RC_ASSERT(same);
  }
  RC_ASSERT(c.map().gathered(c.index(), kNode, kLife).value().empty());
}

// Whether all that the second names is in the first.
bool covers(const std::vector<meta::Change>& all, const std::vector<meta::Change>& some) {
  std::map<uint64_t, bool> named;
  for (const meta::Change& one : all)
    for (uint64_t i = 0; i < one.sectors; i++) named[one.sector + i] = one.mapped;
  for (const meta::Change& one : some)
    for (uint64_t i = 0; i < one.sectors; i++) {
      const auto at = named.find(one.sector + i);
      if (at == named.end() || at->second != one.mapped) return false;
    }
  return true;
}

std::vector<meta::Change> naive_diff(const Model& from, const Model& to) {
  std::set<uint64_t> chunks;
  for (const Model* model : {&from, &to})
    for (const auto& [chunk, segments] : *model) chunks.insert(chunk);
  auto of = [](const Model& model, uint64_t chunk) {
    const auto at = model.find(chunk);
    return spread_out(at == model.end() ? core::Segments{} : at->second);
  };
  std::vector<meta::Change> out;
  for (const uint64_t chunk : chunks) {
    const Sectors before = of(from, chunk);
    const Sectors after = of(to, chunk);
    for (uint64_t i = 0; i < kChunk; i++) {
      if (before[i] == after[i]) continue;
      const uint64_t sector = chunk * kChunk + i;
      const bool mapped = static_cast<bool>(after[i].first);
      if (!out.empty() && out.back().mapped == mapped &&
          out.back().sector + out.back().sectors == sector)
        out.back().sectors++;
      else
        out.push_back({sector, 1, mapped});
    }
  }
  return out;
}

constexpr uint64_t kChunks = 1100;  // three levels

// What one version may write in place, no other leads to.
void expect_exclusive(Cluster& c, const std::map<uint64_t, Model>& vsds,
                      const std::map<uint64_t, Model>& snapshots, uint64_t leaf) {
  std::map<ExtentId, std::set<std::pair<bool, uint64_t>>> users;
  std::map<ExtentId, uint64_t> exclusive;
  for (const auto& [id, model] : vsds) {
    const auto read = c.map().leaf({id}, leaf).value();
    for (const auto& extent : read.extents) {
      users[extent.id].emplace(false, id);
      if (extent.exclusive) exclusive[extent.id] = id;
    }
  }
  for (const auto& [id, model] : snapshots)
    for (uint64_t chunk = leaf * core::kLeafChunks; chunk < (leaf + 1) * core::kLeafChunks; chunk++)
      if (chunk < kChunks)
        for (const Segment& one : c.map().snapshot_chunk({id}, chunk).value())
          users[one.extent].emplace(true, id);
  for (const auto& [extent, id] : exclusive) RC_ASSERT(users[extent].size() == 1U);
}

void compare_with_model(bool gathers) {
  Cluster c;
  Origins gathered;
  std::map<uint64_t, Model> vsds;        // id -> chunks
  std::map<uint64_t, Model> snapshots;   // id -> chunks
  std::map<uint64_t, uint64_t> origins;  // of snapshots
  vsds[c.vsd("v0", kChunks).value] = {};
  int names = 1;
  // By its number: a counterexample is shown when the container is gone.
  auto pick = [](const auto& from) {
    return *std::next(from.begin(), *rc::gen::inRange<ptrdiff_t>(0, std::ssize(from)));
  };
  auto extents = [&] {
    return static_cast<uint64_t>(
        c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt64());
  };
  const int steps = *rc::gen::inRange(5, 40);
  for (int step = 0; step < steps; step++) {
    const int what = *rc::gen::inRange(0, gathers ? 20 : 14);
    const std::string name = "x" + std::to_string(names++);
    if (what == 0 || vsds.empty()) {
      vsds[c.vsd(name, kChunks).value] = {};
    } else if (what <= 2) {
      const uint64_t id = pick(vsds).first;
      const auto snapshot = c.snapshot({id}, name).value();
      snapshots[snapshot.value] = vsds[id];
      origins[snapshot.value] = id;
    } else if (what == 3 && !snapshots.empty()) {
      const uint64_t id = pick(snapshots).first;
      const auto version = c.map().version(core::SnapshotId{id}).value();
      const uint64_t goes = c.map().freed_by(std::span(&version, 1)).value();
      const uint64_t before = extents();
      c.entry([&](Map& map, uint64_t) { return map.delete_snapshot({id}); }).value();
      c.reap();
      RC_ASSERT(extents() + goes == before);
      snapshots.erase(id);
    } else if (what == 4 && vsds.size() > 1) {
      // Alone, or with all of its snapshots.
      const bool alone = *rc::gen::arbitrary<bool>();
      const uint64_t id = pick(vsds).first;
      std::vector<meta::Version> versions{c.map().version(VsdId{id}).value()};
      for (const auto& [snapshot, origin] : origins)
        if (!alone && origin == id && snapshots.contains(snapshot))
          versions.push_back(c.map().version(core::SnapshotId{snapshot}).value());
      const uint64_t goes = c.map().freed_by(versions).value();
      const uint64_t before = extents();
      c.entry([&](Map& map, uint64_t) { return map.delete_vsd({id}); }).value();
      for (const auto& [snapshot, origin] : origins)
        if (!alone && origin == id && snapshots.erase(snapshot) != 0)
          c.entry([&](Map& map, uint64_t) { return map.delete_snapshot({snapshot}); }).value();
      c.reap();
      RC_ASSERT(extents() + goes == before);
      vsds.erase(id);
    } else if (what == 5 && !snapshots.empty()) {
      const uint64_t id = pick(snapshots).first;
      vsds[c.clone({id}, name).value().value] = snapshots[id];
    } else if (what == 6 && !snapshots.empty()) {
      const uint64_t id = pick(snapshots).first;
      const uint64_t origin = origins[id];
      if (!vsds.contains(origin)) continue;
      c.entry([&](Map& map, uint64_t) { return map.revert({origin}, {id}); }).value();
      c.reap();
      vsds[origin] = snapshots[id];
    } else if (what >= 14) {
      std::vector<VsdId> all;
      for (const auto& [id, model] : vsds) all.push_back({id});
      gather_some(c, {pick(vsds).first}, *rc::gen::element<uint64_t>(0, 1, 31, 63, 64), gathered,
                  all);
    } else {
      const uint64_t id = pick(vsds).first;
      Batch batch{{id}, 1, {}, {}};
      const int ops = *rc::gen::inRange(1, 6);
      for (int i = 0; i < ops; i++) {
        const uint64_t chunk =
            *rc::gen::element<uint64_t>(0, 1, 15, 16, 500, 1023, 1024, kChunks - 1);
        const auto start = *rc::gen::inRange<uint16_t>(0, kChunk);
        const auto len = *rc::gen::inRange<uint16_t>(1, static_cast<uint16_t>(kChunk - start + 1));
        const ExtentId extent = *rc::gen::inRange(0, 4) ? c.reserve() : ExtentId{};
        const Segment segment{start, len, 0, extent};
        batch.ops.push_back({chunk, segment});
        vsds[id][chunk] = core::splice(vsds[id][chunk], segment);
      }
      c.entry([&](Map& map, uint64_t index) { return map.commit(batch, index); }).value();
    }
    RC_ASSERT(c.sound());
  }
  std::vector<std::pair<meta::Version, const Model*>> versions;
  for (auto& [id, model] : vsds) {
    for (auto& [chunk, segments] : model) {
      const auto now = chunk_of(c.map(), {id}, chunk);
      const bool same = gathers ? data_of(now, gathered) == spread_out(segments) : now == segments;
      RC_ASSERT(same);
    }
    versions.emplace_back(c.map().version(VsdId{id}).value(), &model);
  }
  for (auto& [id, model] : snapshots) {
    for (auto& [chunk, segments] : model) {
      const auto now = c.map().snapshot_chunk({id}, chunk).value();
      const bool same = gathers ? data_of(now, gathered) == spread_out(segments) : now == segments;
      RC_ASSERT(same);
    }
    versions.emplace_back(c.map().version(core::SnapshotId{id}).value(), &model);
  }
  std::map<uint64_t, std::vector<const Model*>> families;
  for (const auto& [id, model] : vsds) families[id].push_back(&model);
  for (const auto& [id, model] : snapshots) families[origins[id]].push_back(&model);
  for (const auto& [id, models] : families)
    for (const uint64_t leaf : {0, 1, 31, 63, 64, 68}) {
      std::set<std::pair<uint64_t, Sectors>> expected;
      for (const Model* model : models)
        for (const auto& [chunk, segments] : *model)
          if (chunk / core::kLeafChunks == leaf && !segments.empty())
            expected.emplace(chunk, spread_out(segments));
      std::set<std::pair<uint64_t, Sectors>> found;
      for (const auto& one : c.map().history({id}, leaf).value().chunks) {
        found.emplace(one.chunk, data_of(one.segments, gathered));
        const bool live = vsds.contains(id) && chunk_of(c.map(), {id}, one.chunk) == one.segments;
        RC_ASSERT(live || !one.live);
      }
      const bool same = found == expected;
      RC_ASSERT(same);
      RC_ASSERT(expected.empty() || c.map().next_leaf({id}, leaf).value() == leaf);
    }
  uint64_t all = 0;
  for (const auto& [version, model] : versions) {
    const auto usage = c.map().usage(version).value();
    std::set<ExtentId> referenced;
    uint64_t sectors = 0;
    for (const auto& [chunk, segments] : *model)
      for (const Segment& one : segments) {
        referenced.insert(one.extent);
        sectors += one.len;
      }
    RC_ASSERT(usage.logical_sectors == sectors);
    RC_ASSERT(gathers || usage.referenced == referenced.size());
    all += usage.unique;
    const auto& other = pick(versions);
    const auto diff = c.map().diff(version, other.first, 0, SIZE_MAX).value();
    const auto expected = naive_diff(*model, *other.second);
    // Where one of two versions was gathered and the other not, more seems to differ.
    const bool same = gathers ? covers(diff.changes, expected) : diff.changes == expected;
    RC_ASSERT(same);
  }
  RC_ASSERT(all <= extents());
  for (const uint64_t leaf : {0, 1, 31, 63, 64, 68}) expect_exclusive(c, vsds, snapshots, leaf);
}

// Any history of writes, unmaps, snapshots, clones, reverts and deletions equals a model that maps
// each sector, on the leader and on the follower; its counts equal a recount; what differs between
// two versions is what differs in the model; what a deletion frees was foretold; and all versions
// of a leaf are found together, also of VSDs that are deleted.
RC_GTEST_PROP(Map, AnyHistoryEqualsTheModel, ()) { compare_with_model(false); }

// The same where chunks are gathered meanwhile, of VSDs and of snapshots alike: no version changes,
// and whoever reads by a map from before comes to read by the one from behind.
RC_GTEST_PROP(Map, GatheringChangesWhereDataIsAndNoVersion, ()) { compare_with_model(true); }

// A disk that is written between 5000 snapshots: each has what it had, none costs more than the
// first, and all space comes back.
TEST(Map, FiveThousandSnapshotsWithAWriteBetweenEach) {
  constexpr uint64_t kMany = 5000;
  Cluster c;
  const VsdId v = c.vsd("v", kChunks);
  std::vector<core::SnapshotId> taken;
  std::vector<ExtentId> written;
  for (uint64_t i = 0; i < kMany; i++) {
    written.push_back(c.reserve());
    c.write(v, i % 7, {static_cast<uint16_t>(i % 16 * 8), 8, 0, written.back()}).value();
    taken.push_back(c.snapshot(v, "s" + std::to_string(i)).value());
  }
  c.expect_sound();
  for (const uint64_t i : {uint64_t{0}, kMany / 2, kMany - 1}) {
    const auto chunk = c.map().snapshot_chunk(taken[i], i % 7).value();
    const bool has = std::any_of(chunk.begin(), chunk.end(),
                                 [&](const Segment& one) { return one.extent == written[i]; });
    EXPECT_TRUE(has) << "snapshot " << i;
  }
  // For each write behind a snapshot a row of each level, and the chunk's.
  EXPECT_LE(c.leader().sql().execAndGet("SELECT count(*) FROM tree").getInt64(),
            static_cast<int64_t>(kMany) * 4);
  const auto before = c.map().version(taken[kMany / 2]).value();
  const auto after = c.map().version(taken[kMany / 2 + 1]).value();
  EXPECT_EQ(c.map().diff(before, after, 0, 100)->changes.size(), 1U);
  for (const core::SnapshotId snapshot : taken)
    c.entry([&](Map& map, uint64_t) { return map.delete_snapshot(snapshot); }).value();
  c.entry([&](Map& map, uint64_t) { return map.delete_vsd(v); }).value();
  while (c.entry([&](Map& map, uint64_t index) { return map.reap(128, index); }).value() != 0) {
  }
  c.expect_sound();
  EXPECT_EQ(c.leader().sql().execAndGet("SELECT count(*) FROM extent").getInt64(), 0);
}

// A machine that dies at any entry has the one before it or that one, never a part.
class Crashes : public ::testing::Test {
 protected:
  Crashes() {
    fs::remove_all(dir_);
    fs::create_directory(dir_);
    database_ = Database::open(path("live")).value();
    for (const char* disk : {"1", "2"})
      database_->sql().exec(std::string("INSERT INTO disk VALUES(") + disk + ", 1, '" + disk +
                            "', '', 'ssd', 1000000, 'ok', 1, 0, 0)");
  }
  ~Crashes() override {
    database_.reset();
    fs::remove_all(dir_);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return dir_ / name; }
  // As the files lie there at this moment.
  uint64_t digest_after_a_crash() {
    for (const char* part : {"", "-wal", "-shm"}) {
      fs::remove(path("dead") + part);
      if (fs::exists(path("live") + part)) fs::copy(path("live") + part, path("dead") + part);
    }
    auto dead = Database::open(path("dead")).value();
    EXPECT_EQ(Map(*dead).verify().value(), std::vector<std::string>{});
    return dead->digest().value();
  }
  template <class Function>
  auto entry(Function&& change) {
    Map map(*database_);
    std::optional<decltype(change(map, uint64_t{}))> result;
    const uint64_t before = database_->digest().value();
    database_
        ->prepare([&]() -> core::Result<void> {
          result = change(map, index_ + 1);
          if (!*result) return result->error();
          return {};
        })
        .value();
    EXPECT_EQ(digest_after_a_crash(), before) << "entry " << index_ + 1 << " is not committed";
    database_->commit({++index_, 0}).value();
    EXPECT_EQ(digest_after_a_crash(), database_->digest().value()) << "entry " << index_;
    return result->value();
  }

 private:
  const fs::path dir_ = fs::temp_directory_path() / ("scribe-crash-" + std::to_string(::getpid()));
  std::unique_ptr<Database> database_;
  uint64_t index_ = 0;
};

TEST_F(Crashes, AtEveryEntryOfSnapshotsClonesRevertsAndDeletions) {
  uint32_t slot = 0;
  auto reserve = [&] {
    const std::array<Copy, 2> copies{Copy{{1}, slot}, Copy{{2}, slot}};
    slot++;
    return entry([&](Map& map, uint64_t) { return map.reserve(copies, kNode, kLife); });
  };
  auto write = [&](VsdId vsd, uint64_t epoch, uint64_t chunk, uint16_t start) {
    const ExtentId extent = reserve();
    entry([&](Map& map, uint64_t index) -> core::Result<bool> {
      const auto done = map.commit({vsd, epoch, {{chunk, {start, 8, 0, extent}}}, {}}, index);
      if (!done) return done.error();
      return true;
    });
  };
  auto done = [](const core::Result<void>& result) -> core::Result<bool> {
    if (!result) return result.error();
    return true;
  };
  const VsdId v =
      entry([](Map& map, uint64_t) { return map.create_vsd("v", kChunks * kChunk, 2); });
  entry([&](Map& map, uint64_t) { return map.grant_lease(v, kNode, kLife); });
  for (uint16_t i = 0; i < 4; i++) write(v, 1, 3, static_cast<uint16_t>(i * 8));
  const auto one = entry([&](Map& map, uint64_t i) { return map.snapshot(v, "one", i, 5); });
  write(v, 1, 3, 8);
  write(v, 1, 1000, 0);
  const auto two = entry([&](Map& map, uint64_t i) { return map.snapshot(v, "two", i, 6); });
  const VsdId b = entry([&](Map& map, uint64_t) { return map.clone(one, "b", 2); });
  entry([&](Map& map, uint64_t) { return map.grant_lease(b, kNode, kLife); });
  write(b, 1, 3, 0);
  const ExtentId to = reserve();
  entry([&](Map& map, uint64_t index) -> core::Result<bool> {
    const auto history = map.history(b, 0);
    std::vector<meta::Piece> pieces;
    for (const auto& chunk : history->chunks)
      if (chunk.live)
        for (const Segment& segment : chunk.segments)
          pieces.push_back({chunk.row, chunk.chunk, segment, segment.start});
    return done(map.gather(b, pieces, to, index));
  });
  entry([&](Map& map, uint64_t) { return done(map.revert(v, one)); });
  entry([&](Map& map, uint64_t) { return done(map.delete_snapshot(two)); });
  entry([&](Map& map, uint64_t) { return done(map.delete_vsd(v)); });
  entry([&](Map& map, uint64_t) { return done(map.delete_snapshot(one)); });
  entry([&](Map& map, uint64_t) { return done(map.delete_vsd(b)); });
  while (entry([](Map& map, uint64_t index) { return map.reap(2, index); }) != 0) {
  }
}

TEST(Map, PiecesOfAChunkThatChangedMeanwhileAreNotGathered) {
  Cluster c;
  const VsdId v = c.vsd("v", 64);
  for (uint16_t i = 0; i < 4; i++)
    c.write(v, 3, {static_cast<uint16_t>(i * 8), 8, 0, c.reserve()}).value();
  const auto row = c.map().history(v, 0).value().chunks.front();
  std::vector<meta::Piece> pieces;
  for (const Segment& one : row.segments) pieces.push_back({row.row, 3, one, one.start});
  const ExtentId to = c.reserve();
  auto gather = [&](ExtentId where) {
    return c.entry([&](Map& map, uint64_t index) { return map.gather(v, pieces, where, index); });
  };
  c.write(v, 3, {8, 8, 0, c.reserve()}).value();
  EXPECT_EQ(gather(to).error().code, core::Code::conflict);
  pieces = {{row.row + 1000, 3, {0, 8, 0, row.segments.front().extent}, 0}};
  EXPECT_EQ(gather(to).error().code, core::Code::conflict);
  pieces.clear();
  const auto again = c.map().history(v, 0).value().chunks.front();
  for (const Segment& one : again.segments) pieces.push_back({row.row, 3, one, one.start});
  pieces.front().to = kChunk - 1;
  EXPECT_EQ(gather(to).error().code, core::Code::invalid);
  pieces.front().to = 0;
  EXPECT_FALSE(gather({4711})) << "not reserved";
  gather(to).value();
  EXPECT_EQ(chunk_of(c.map(), v, 3), (core::Segments{{0, 32, 0, to}}));
  EXPECT_EQ(c.map().references({to}).value(), (std::map<ExtentId, uint64_t>{{to, 1}}));
  EXPECT_TRUE(c.map().extent(to, v)->exclusive);
  c.expect_sound();
}

}  // namespace
