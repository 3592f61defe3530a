// SPDX-License-Identifier: GPL-2.0
// Which chunks are worth being put together, and what becomes of that as the leader decides it.
#include "policy/gathering.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "policy_leader.h"

namespace policy_tests {

namespace {

using core::ExtentId;
using core::Segments;
using policy::is_scattered;
using Refs = std::map<ExtentId, uint64_t>;

// So many pieces of 8 sectors, one behind the other, by turns of the extents.
Segments pieces(uint16_t count, const std::vector<uint64_t>& extents, uint16_t len = 8) {
  Segments out;
  for (uint16_t i = 0; i < count; i++)
    out.push_back({static_cast<uint16_t>(i * len),
                   len,
                   static_cast<uint16_t>(i * len),
                   {extents[i % extents.size()]}});
  return out;
}

TEST(Scattered, AChunkInOnePlaceIsNot) {
  EXPECT_FALSE(is_scattered({}, {}, true, true));
  EXPECT_FALSE(is_scattered({{0, 2048, 0, {1}}}, {{{1}, 1}}, true, true));
}

TEST(Scattered, WhatFreesSpaceIsAlways) {
  const Refs both{{{1}, 1}, {{2}, 1}};
  EXPECT_TRUE(is_scattered(pieces(2, {1, 2}), both, false, false));
  EXPECT_FALSE(is_scattered(pieces(2, {1, 2}), {{{1}, 1}, {{2}, 2}}, true, true))
      << "another chunk keeps one of them";
}

TEST(Scattered, ManyRequestsAreWhereItCostsNoSpace) {
  const Refs one{{{1}, 1}, {{2}, 9}};
  EXPECT_TRUE(is_scattered(pieces(5, {1, 2}), one, false, false));
  EXPECT_FALSE(is_scattered(pieces(4, {1, 2}), one, true, true));
  Segments apart = pieces(5, {1, 2});
  for (size_t i = 0; i < apart.size(); i++) apart[i].start = static_cast<uint16_t>(i * 100);
  EXPECT_FALSE(is_scattered(apart, one, true, true)) << "with holes it stays as many requests";
}

TEST(Scattered, SpaceIsSpentOnlyWhereThereIsPlentyAndTheDiskIsSoNow) {
  const Refs none{{{1}, 9}, {{2}, 9}};
  EXPECT_TRUE(is_scattered(pieces(16, {1, 2}, 128), none, true, true));
  EXPECT_FALSE(is_scattered(pieces(16, {1, 2}, 128), none, true, false));
  EXPECT_FALSE(is_scattered(pieces(16, {1, 2}, 128), none, false, true));
  EXPECT_FALSE(is_scattered(pieces(16, {1, 2}, 8), none, true, true)) << "of a chunk nearly empty";
}

meta::History::Chunk row(uint64_t number, core::Segments segments) {
  return {number, std::move(segments), number + 100, true};
}

TEST(Sparse, ExtentsWithLittleInThemArePutTogetherWhereAllThatNamesThemWasSeen) {
  policy::Sparse sparse;
  const Refs refs{{{1}, 1}, {{2}, 2}, {{3}, 2}, {{4}, 1}, {{5}, 17}};
  sparse.add(row(1, {{0, 16, 0, {1}}, {100, 8, 4, {2}}, {200, 7, 0, {3}}, {300, 9, 0, {5}}}), refs);
  sparse.add(row(2, {{0, 8, 16, {2}}, {8, 600, 0, {4}}}), refs);
  const auto packed = sparse.pack();
  ASSERT_EQ(packed.size(), 1U) << "3 is named elsewhere, 4 is well filled, 5 by too many";
  EXPECT_EQ(packed.front(), (std::vector<meta::Piece>{{101, 1, {0, 16, 0, {1}}, 0},
                                                      {101, 1, {100, 8, 4, {2}}, 16},
                                                      {102, 2, {0, 8, 16, {2}}, 24}}));
  EXPECT_TRUE(sparse.pack().empty());
}

TEST(Sparse, OneAloneIsNotMoved) {
  policy::Sparse sparse;
  sparse.add(row(1, {{0, 16, 0, {1}}}), {{{1}, 1}});
  EXPECT_TRUE(sparse.pack().empty());
}

RC_GTEST_PROP(Sparse, WhatIsPutTogetherFitsAndDoesNotOverlap, ()) {
  policy::Sparse sparse;
  Refs refs;
  for (uint64_t id = 1; id <= 80; id++) {
    const auto count = *rc::gen::inRange<uint16_t>(1, 5);
    core::Segments segments;
    uint16_t at = 0;
    for (uint16_t i = 0; i < count; i++) {
      const auto len = *rc::gen::inRange<uint16_t>(1, 200);
      segments.push_back({at, len, at, {id}});
      at = static_cast<uint16_t>(at + len + 1);
    }
    refs[{id}] = 1;
    sparse.add(row(id, segments), refs);
  }
  std::set<std::pair<core::ExtentId, int>> once;
  for (const auto& pieces : sparse.pack()) {
    RC_ASSERT(pieces.size() <= 64U);
    std::set<core::ExtentId> freed;
    int end = 0;
    for (const meta::Piece& piece : pieces) {
      RC_ASSERT(piece.to >= end);
      end = piece.to + piece.from.len;
      RC_ASSERT(end <= 2048);
      RC_ASSERT(piece.from.len % 8 != 0 || piece.to % 8 == 0);
      freed.insert(piece.from.extent);
      const bool fresh = once.emplace(piece.from.extent, piece.from.off).second;
      RC_ASSERT(fresh);
    }
    RC_ASSERT(freed.size() > 1U);
  }
}

// VSD v has a chunk of two extents; node 1 holds its lease.
class Gathered : public Moves {
 protected:
  Gathered() {
    second = reserve();
    write(1, 8, 8, second).value();
    to = reserve();
  }
  uint64_t reserve() { return leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>(); }
  core::Result<json::object> write(uint64_t epoch, int start, int len, uint64_t into) {
    json::object body = about("commit", epoch);
    body["ops"] = json::array{json::array{0, start, len, start, into}};
    body["stales"] = json::array{};
    return leader.say(std::move(body));
  }
  meta::History history() { return meta::Map(leader.db()).history({vsd}, 0).value(); }
  Segments chunk(uint64_t of) { return meta::Map(leader.db()).leaf({of}, 0)->chunks[0]; }
  uint64_t source(uint64_t of) {
    for (const meta::CopyRow& copy : leader.cluster().copies({of}).value())
      if (copy.stale == 0) return copy.disk.value;
    return 0;
  }
  json::object wish(uint64_t epoch = 1) {
    json::object body = about("gathered", epoch);
    json::array list;
    json::array sources;
    const auto row = history().chunks.front();
    for (const core::Segment& one : row.segments) {
      list.push_back(
          json::array{row.row, 0, one.start, one.len, one.off, one.extent.value, one.start});
      sources.push_back(json::array{one.extent.value, source(one.extent.value)});
    }
    body["extent"] = to;
    body["pieces"] = std::move(list);
    body["sources"] = std::move(sources);
    return body;
  }
  uint64_t count(const std::string& table) {
    meta::Query rows(leader.db(), "SELECT count(*) FROM " + table);
    rows.executeStep();
    return static_cast<uint64_t>(rows.getColumn(0).getInt64());
  }

  uint64_t second = 0;
  uint64_t to = 0;
};

TEST_F(Gathered, TheChunkLiesInOneExtentAndTheOthersAreFreeWhenAllHaveSeenIt) {
  leader.say(wish()).value();
  EXPECT_EQ(chunk(vsd), (Segments{{0, 16, 0, {to}}}));
  EXPECT_EQ(count("quarantine"), 4U);
  EXPECT_EQ(count("extent"), 1U);
  EXPECT_EQ(count("reservation"), 0U);
  EXPECT_TRUE(leader.cluster().quarantine_behind(leader.index() - 1).value());
  const auto told = meta::Map(leader.db()).gathered(0, {1}, 100).value();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told.front().pieces.size(), 2U);
  EXPECT_EQ(told.front().epoch, 1U);
  EXPECT_TRUE(told.front().to.exclusive);
  EXPECT_TRUE(meta::Map(leader.db()).gathered(0, {1}, 101).value().empty()) << "another life";
  const uint64_t index = leader.index();
  for (const uint64_t node : {1, 2, 3})
    leader.say({{"op", "seen"}, {"node", node}, {"index", index}}).value();
  leader.say({{"op", "collect"}}).value();
  EXPECT_EQ(count("quarantine"), 0U);
  EXPECT_EQ(count("gathered"), 0U);
}

TEST_F(Gathered, WhatWasWrittenMeanwhileIsNotLost) {
  const json::object before = wish();
  write(1, 4, 8, reserve()).value();
  const Segments now = chunk(vsd);
  EXPECT_EQ(leader.refusal(before), Code::conflict);
  EXPECT_EQ(chunk(vsd), now);
  EXPECT_EQ(count("gathered"), 0U);
}

TEST_F(Gathered, AnotherEpochAnotherLifeOrAReservationThatIsNoneIsRefused) {
  EXPECT_EQ(leader.refusal(wish(2)), Code::stale);
  json::object other = wish();
  other["life"] = 101;
  EXPECT_FALSE(leader.say(other));
  json::object none = wish();
  none["extent"] = second;
  EXPECT_EQ(leader.refusal(none), Code::conflict);
  json::object nothing = wish();
  nothing["pieces"] = json::array{};
  EXPECT_EQ(leader.refusal(nothing), Code::invalid);
  leader.say({{"op", "unreserve"}, {"node", 1}, {"life", 100}, {"extents", json::array{to}}})
      .value();
  EXPECT_EQ(leader.refusal(wish()), Code::conflict);
}

TEST_F(Gathered, DataFromACopyThatTurnedOutToBeStaleIsNotUsed) {
  const json::object before = wish();
  commit({source(extent)}).value();
  EXPECT_EQ(leader.refusal(before), Code::conflict);
  leader.say(wish()).value();
  EXPECT_EQ(chunk(vsd), (Segments{{0, 16, 0, {to}}})) << "read from the other";
}

TEST_F(Gathered, ARepeatedWishChangesNothingTwice) {
  const json::object same = wish();
  leader.say(same).value();
  EXPECT_EQ(leader.refusal(same), Code::conflict);
  EXPECT_EQ(chunk(vsd), (Segments{{0, 16, 0, {to}}}));
}

TEST_F(Gathered, SnapshotsAndClonesThatHaveTheChunkReadItFromThereAndNobodyWritesToItInPlace) {
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  const auto snapshot =
      leader.say({{"op", "snapshot"}, {"name", "s"}, {"vsds", {json::object{{"vsd", vsd}}}}})
          ->at("taken")
          .at(0)
          .at("snapshot")
          .to_number<uint64_t>();
  const auto clone = leader.say({{"op", "vsd_clone"}, {"snapshot", snapshot}, {"name", "b"}})
                         ->at("vsd")
                         .to_number<uint64_t>();
  leader.lease(vsd, 1, 100).value();
  leader.lease(clone, 2, 200).value();
  const uint64_t epoch = leader.cluster().vsd({vsd}).value()->epoch;
  const Segments old = chunk(vsd);
  leader.say(wish(epoch)).value();
  for (const uint64_t one : {vsd, clone}) {
    EXPECT_EQ(chunk(one), (Segments{{0, 16, 0, {to}}}));
    EXPECT_FALSE(meta::Map(leader.db()).extent({to}, {one})->exclusive);
  }
  EXPECT_EQ(meta::Map(leader.db()).snapshot_chunk({snapshot}, 0).value(), chunk(vsd));
  const auto told = meta::Map(leader.db()).gathered(0, {2}, 200).value();
  ASSERT_EQ(told.size(), 1U) << "the clone's node hears of it";
  EXPECT_EQ(told.front().vsd.value, clone);
  ASSERT_EQ(told.front().pieces.size(), old.size());
  EXPECT_EQ(told.front().pieces.front().from, old.front());
}

TEST_F(Gathered, AVsdThatIsAsItWasBeforeHearsNothingOfIt) {
  // The snapshot has the chunk as it was, in a row of its own once the VSD was written to.
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}})
      .value();
  const auto snapshot =
      leader.say({{"op", "snapshot"}, {"name", "s"}, {"vsds", {json::object{{"vsd", vsd}}}}})
          ->at("taken")
          .at(0)
          .at("snapshot")
          .to_number<uint64_t>();
  leader.lease(vsd, 1, 100).value();
  uint64_t epoch = leader.cluster().vsd({vsd}).value()->epoch;
  write(epoch, 100, 8, reserve()).value();
  json::object live = wish(epoch);
  json::array list;
  for (const auto& chunk : history().chunks)
    if (chunk.live)
      for (const core::Segment& one : chunk.segments)
        list.push_back(
            json::array{chunk.row, 0, one.start, one.len, one.off, one.extent.value, one.start});
  live["pieces"] = std::move(list);
  leader.say(live).value();
  ASSERT_EQ(meta::Map(leader.db()).gathered(0, {1}, 100)->size(), 1U);
  leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", epoch}, {"clean", true}})
      .value();
  leader.say({{"op", "vsd_revert"}, {"vsd", vsd}, {"snapshot", snapshot}, {"keep", "k"}}).value();
  leader.lease(vsd, 1, 100).value();
  epoch = leader.cluster().vsd({vsd}).value()->epoch;
  EXPECT_TRUE(meta::Map(leader.db()).gathered(0, {1}, 100)->empty())
      << "what it leads to now is where it was, and may differ by now from where it went";
  write(epoch, 8, 8, reserve()).value();
}

}  // namespace

}  // namespace policy_tests
