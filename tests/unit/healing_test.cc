// SPDX-License-Identifier: GPL-2.0
// What an extent needs next, over all that may have become of its copies.
#include "policy/healing.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "policy/balance.h"
#include "policy/capacity.h"
#include "policy/pace.h"

namespace {

using meta::CopyRow;
using policy::Home;
using policy::Place;
using policy::Places;
using policy::Step;
using Kind = policy::Step::Kind;

constexpr uint64_t kStale = 7;

// Disk n is on node n.
Places homes(std::initializer_list<Home> list) {
  Places out;
  uint64_t id = 0;
  for (const Home home : list) {
    id++;
    out[{id}] = {{id}, home};
  }
  return out;
}

CopyRow copy(uint64_t disk, uint64_t stale = 0) { return {{disk}, 5, stale}; }

TEST(Healing, AnExtentWithAllItsCopiesNeedsNothing) {
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, homes({Home::good, Home::good}), 2).kind,
            Kind::none);
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, homes({Home::good, Home::away}), 2).kind,
            Kind::none)
      << "a node that reboots comes back with its copies";
}

TEST(Healing, AStaleCopyIsRefreshedInItsPlace) {
  EXPECT_EQ(policy::next_step({copy(1), copy(2, kStale)}, homes({Home::good, Home::good}), 2),
            (Step{Kind::move, {1}, {2}, {}}));
}

TEST(Healing, ACopyOnALostDiskIsMadeAnewAndThenForgotten) {
  const Places places = homes({Home::good, Home::gone, Home::good});
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, places, 2).kind, Kind::place);
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3, kStale)}, places, 2),
            (Step{Kind::move, {1}, {3}, {2}}));
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3)}, places, 2),
            (Step{Kind::move, {}, {}, {2}}));
}

TEST(Healing, AStaleCopyThatIsAwayIsNotWaitedFor) {
  EXPECT_EQ(policy::next_step({copy(1), copy(2, kStale)}, homes({Home::good, Home::away}), 2).kind,
            Kind::place);
}

TEST(Healing, ALeavingDiskIsReadAndKeptUntilTheOthersAreWhole) {
  const Places places = homes({Home::away, Home::leaving, Home::good});
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, places, 2).kind, Kind::place);
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3, kStale)}, places, 2),
            (Step{Kind::move, {2}, {3}, {}}))
      << "the other copy cannot be read now, so this one stays";
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3)},
                              homes({Home::good, Home::leaving, Home::good}), 2),
            (Step{Kind::move, {}, {}, {2}}));
}

TEST(Healing, ASuspectCopyIsChosenOnlyWhenNoOtherIsAwaited) {
  CopyRow suspect = copy(2, kStale);
  suspect.suspect = true;
  EXPECT_EQ(policy::next_step({copy(1), suspect}, homes({Home::good, Home::good}), 2),
            (Step{Kind::move, {1}, {2}, {}}));
  EXPECT_EQ(policy::next_step({copy(1), suspect}, homes({Home::away, Home::good}), 2).kind,
            Kind::wait);
  EXPECT_EQ(policy::next_step({copy(1), suspect}, homes({Home::gone, Home::good}), 2),
            (Step{Kind::move, {}, {2}, {}}));
  EXPECT_EQ(policy::next_step({copy(1), copy(2, kStale)}, homes({Home::gone, Home::good}), 2).kind,
            Kind::wait)
      << "this one lacks what was flushed";
}

TEST(Healing, OfCopiesThatMayDifferOneThatCanBeReadIsChosen) {
  EXPECT_EQ(policy::chosen_copy({copy(1), copy(2)}, homes({Home::away, Home::good})),
            core::DiskId{2});
  EXPECT_EQ(policy::chosen_copy({copy(1, kStale), copy(2)}, homes({Home::good, Home::gone})),
            core::DiskId{2});
  EXPECT_EQ(policy::chosen_copy({copy(1), copy(2)}, homes({Home::good, Home::good})),
            core::DiskId{1});
}

TEST(Healing, WithoutACopyThatCanBeReadThereIsOnlyWaiting) {
  EXPECT_EQ(policy::next_step({copy(1), copy(2, kStale)}, homes({Home::away, Home::good}), 2).kind,
            Kind::wait);
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, homes({Home::gone, Home::gone}), 2).kind,
            Kind::wait);
}

// Two disks on each node: 1 and 2 on the first, 3 and 4 on the second.
Places pairs(std::initializer_list<Home> list) {
  Places out;
  uint64_t id = 0;
  for (const Home home : list) {
    id++;
    out[{id}] = {{(id + 1) / 2}, home};
  }
  return out;
}

TEST(Healing, TwoCopiesOnOneNodeCountAsOne) {
  const Places places = pairs({Home::good, Home::good, Home::good, Home::good});
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, places, 2).kind, Kind::place);
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3, kStale)}, places, 2),
            (Step{Kind::move, {1}, {3}, {1}}))
      << "then one of those two goes";
  EXPECT_FALSE(policy::may_drop({copy(1), copy(2), copy(3)}, places, 2, {3}));
}

TEST(Healing, AStaleCopyBesideACurrentOneOfItsNodeIsNotRefreshedButDropped) {
  const Places places = pairs({Home::good, Home::good, Home::good, Home::good});
  // Disk 3 was away while the copy on disk 4 was made.
  EXPECT_EQ(policy::next_step({copy(1), copy(3, kStale), copy(4)}, places, 2),
            (Step{Kind::move, {}, {}, {3}}));
  EXPECT_EQ(policy::next_step({copy(3), copy(4, kStale)}, places, 2).kind, Kind::place);
}

TEST(Healing, OnASingleNodeDisksCount) {
  Places places = homes({Home::good, Home::good});
  for (auto& [disk, place] : places) place.node = {1};
  EXPECT_EQ(policy::next_step({copy(1), copy(2)}, places, 2).kind, Kind::none);
  EXPECT_EQ(policy::next_step({copy(1), copy(2, kStale)}, places, 2),
            (Step{Kind::move, {1}, {2}, {}}));
}

TEST(Healing, OneTooManyThatCannotGoNowIsNotForgotten) {
  const Places places = pairs({Home::good, Home::good, Home::away, Home::good});
  EXPECT_EQ(policy::next_step({copy(1), copy(2), copy(3)}, places, 2).kind, Kind::wait);
}

TEST(Healing, ADiskThatTheMetadataDoesNotKnowIsGone) {
  EXPECT_EQ(policy::next_step({copy(1), copy(9)}, homes({Home::good}), 2).kind, Kind::place);
}

using policy::Load;
using policy::Pace;
using std::chrono::milliseconds;

TEST(Pacing, NobodyElseThereItHardlyRests) {
  Pace pace;
  milliseconds rest{};
  for (int i = 0; i < 10; i++) rest = pace.rest_after(milliseconds(1000), {});
  EXPECT_EQ(rest, milliseconds(100));
  EXPECT_EQ(pace.piece(16), 16U);
}

TEST(Pacing, ItRestsMoreAndDoesLessAtOnceUntilTheOthersDoNotNoticeIt) {
  Pace pace;
  pace.rested({100, 100});
  milliseconds last{};
  for (int i = 0; i < 4; i++) {
    const milliseconds rest = pace.rest_after(milliseconds(100), {100, 400});
    EXPECT_GT(rest, last);
    last = rest;
  }
  EXPECT_EQ(last, milliseconds(1600));
  EXPECT_EQ(pace.piece(16), 1U);
  EXPECT_EQ(pace.rest_after(milliseconds(100), {100, 400}), last) << "there is a slowest";
  EXPECT_EQ(pace.rest_after(milliseconds(100), {100, 400}, policy::Haste::urgent), last / 4)
      << "and a less slow one where copies are missing";
  for (int i = 0; i < 30; i++) last = pace.rest_after(milliseconds(100), {100, 100});
  EXPECT_EQ(last, milliseconds(50)) << "and beside others a fastest";
  EXPECT_GT(pace.piece(16), 1U);
}

TEST(Pacing, WhatTheOthersIoTakesWithoutItIsLearntFromItsRests) {
  Pace pace;
  EXPECT_EQ(pace.rest_after(milliseconds(100), {100, 5000}), milliseconds(100)) << "not known yet";
  pace.rested({3, 3000});
  EXPECT_EQ(pace.rest_after(milliseconds(100), {100, 5000}), milliseconds(100)) << "three are few";
  for (int i = 0; i < 20; i++) pace.rested({100, 5000});
  EXPECT_LT(pace.rest_after(milliseconds(100), {100, 5000}), milliseconds(100)) << "slow by itself";
  EXPECT_LE(pace.rest_after(std::chrono::hours(1), {100, 50000}), milliseconds(10'000));
}

TEST(Balance, ADiskIsOverfullWhereItsTierIsLessFullByMoreThanAFiftieth) {
  using policy::Candidate;
  using policy::evens_out;
  using policy::overfull;
  const Candidate full{{1}, {1}, true, 400, 1000};
  const Candidate less{{2}, {2}, true, 450, 1000};
  const Candidate empty{{3}, {3}, true, 1000, 1000};
  const Candidate slow{{4}, {1}, false, 1000, 1000};
  EXPECT_FALSE(overfull({}));
  EXPECT_FALSE(overfull({full}));
  EXPECT_FALSE(overfull({full, slow})) << "another tier is no place to go";
  EXPECT_EQ(overfull({slow, less, full, empty})->disk.value, 1U) << "the fullest first";
  EXPECT_FALSE(overfull({full, {{2}, {2}, true, 430, 1000}}));
  EXPECT_TRUE(evens_out(full, less));
  EXPECT_FALSE(evens_out(less, full));
  EXPECT_FALSE(evens_out(full, slow));
  EXPECT_FALSE(evens_out(full, {{5}, {3}, true, 415, 1000})) << "it would be the fuller one";
}

TEST(Capacity, OfThreeNodesEachMustFitOnTheOthers) {
  std::vector<meta::Disk> disks;
  std::vector<meta::DiskUse> use;
  auto add = [&](uint64_t node, uint64_t slots, uint64_t used) {
    meta::Disk disk;
    disk.id = {disks.size() + 1};
    disk.node = {node};
    disk.slots = slots;
    disk.state = "ok";
    disks.push_back(disk);
    use.push_back({disk.id, used, 0});
  };
  add(1, 200, 80);
  add(2, 100, 60);
  EXPECT_FALSE(policy::too_big_to_lose(disks, use)) << "two nodes cannot replace each other";
  add(3, 100, 60);
  EXPECT_FALSE(policy::too_big_to_lose(disks, use)) << "80 are free beside each";
  use[0].used = 90;
  EXPECT_EQ(policy::too_big_to_lose(disks, use), core::NodeId{1});
  add(2, 10, 0);
  EXPECT_FALSE(policy::too_big_to_lose(disks, use));
  disks.back().leaving = true;
  EXPECT_EQ(policy::too_big_to_lose(disks, use), core::NodeId{1}) << "it takes nothing new";
  disks.back().leaving = false;
  disks.back().state = "failed";
  EXPECT_EQ(policy::too_big_to_lose(disks, use), core::NodeId{1});
}

std::vector<CopyRow> some_copies(const Places& places) {
  std::vector<CopyRow> out;
  const auto count = *rc::gen::inRange<size_t>(1, policy::kMaxCopies + 1);
  for (const auto& [disk, place] : places)
    if (out.size() < count && *rc::gen::arbitrary<bool>())
      out.push_back({disk, 1, *rc::gen::arbitrary<bool>() ? kStale : 0});
  return out;
}

Places some_homes() {
  Places out;
  for (uint64_t id = 1; id <= 6; id++)
    out[{id}] = {{id}, static_cast<Home>(*rc::gen::inRange(0, 4))};
  return out;
}

size_t current(const std::vector<CopyRow>& copies, const Places& places, bool gone_too) {
  return static_cast<size_t>(std::count_if(copies.begin(), copies.end(), [&](const CopyRow& row) {
    return row.stale == 0 && (gone_too || places.at(row.disk).home != Home::gone);
  }));
}

RC_GTEST_PROP(Healing, NoStepTakesACurrentCopyFromAnExtentThatIsNotWholeWithoutIt, ()) {
  const Places places = some_homes();
  std::vector<CopyRow> copies = some_copies(places);
  const auto replicas = *rc::gen::inRange<uint32_t>(2, 4);
  const Step step = policy::next_step(copies, places, replicas);
  const size_t before = std::min<size_t>(current(copies, places, false), replicas);
  for (CopyRow& row : copies)
    if (row.disk == step.to) row.stale = 0;
  std::erase_if(copies, [&](const CopyRow& row) { return row.disk == step.drop; });
  RC_ASSERT(current(copies, places, false) >= before);
}

RC_GTEST_PROP(Healing, StepsComeToAnEndWhereEveryDiskIsGoodOrGone, ()) {
  Places places = some_homes();
  for (auto& [disk, place] : places)
    if (place.home == Home::away) place.home = Home::good;
  std::vector<CopyRow> copies = some_copies(places);
  const auto replicas = *rc::gen::inRange<uint32_t>(2, 4);
  size_t good = 0;
  for (const auto& [disk, place] : places) good += place.home == Home::good;
  for (int steps = 0; steps < 20; steps++) {
    const Step step = policy::next_step(copies, places, replicas);
    if (step.kind == Kind::none || step.kind == Kind::wait) break;
    if (step.kind == Kind::place) {
      const auto free = std::find_if(places.begin(), places.end(), [&](const auto& place) {
        return place.second.home == Home::good &&
               std::none_of(copies.begin(), copies.end(),
                            [&](const CopyRow& row) { return row.disk == place.first; });
      });
      if (free == places.end()) return;
      copies.push_back({free->first, 1, kStale});
      continue;
    }
    for (CopyRow& row : copies)
      if (row.disk == step.to) row.stale = 0;
    std::erase_if(copies, [&](const CopyRow& row) { return row.disk == step.drop; });
    RC_ASSERT(step.to || step.drop);
  }
  const bool readable = std::any_of(copies.begin(), copies.end(), [&](const CopyRow& row) {
    return row.stale == 0 && places.at(row.disk).home != Home::gone;
  });
  if (!readable || good < replicas) return;
  RC_ASSERT(policy::next_step(copies, places, replicas).kind == Kind::none);
  RC_ASSERT(copies.size() == replicas);
}

}  // namespace
