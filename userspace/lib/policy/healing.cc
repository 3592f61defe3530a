// SPDX-License-Identifier: GPL-2.0
#include "policy/healing.h"

#include <algorithm>
#include <set>

namespace policy {

namespace {

using meta::CopyRow;

Home home_of(const CopyRow& copy, const Places& places) {
  const auto at = places.find(copy.disk);
  if (at == places.end()) return Home::gone;
  return copy.leaving && at->second.home == Home::good ? Home::leaving : at->second.home;
}

// Current, and on a disk that it may stay on.
bool is_kept(const CopyRow& copy, const Places& places) {
  const Home home = home_of(copy, places);
  return copy.stale == 0 && (home == Home::good || home == Home::away);
}

// Apart from each other: copies on one node are lost together, except where there is no other node.
template <class Counts>
size_t count_apart(const std::vector<CopyRow>& copies, const Places& places, const Counts& counts) {
  std::set<core::NodeId> all;
  for (const auto& [disk, place] : places) all.insert(place.node);
  std::set<core::NodeId> on;
  size_t count = 0;
  for (const CopyRow& copy : copies) {
    if (!counts(copy)) continue;
    count++;
    on.insert(places.at(copy.disk).node);
  }
  return all.size() > 1 ? on.size() : count;
}

size_t count_kept(const std::vector<CopyRow>& copies, const Places& places) {
  return count_apart(copies, places, [&](const CopyRow& copy) { return is_kept(copy, places); });
}

// Whether making this copy current would bring the extent closer to what it should have.
bool adds_to_kept(const std::vector<CopyRow>& copies, const Places& places, const CopyRow& copy) {
  std::vector<CopyRow> then = copies;
  for (CopyRow& one : then)
    if (one.disk == copy.disk) one.stale = 0;
  return count_kept(then, places) > count_kept(copies, places);
}

// Which of those that are too many goes first: what is of no use before what still could be.
core::DiskId surplus(const std::vector<CopyRow>& copies, const Places& places, uint32_t replicas) {
  core::DiskId found;
  int best = 0;
  for (const CopyRow& copy : copies) {
    const Home home = home_of(copy, places);
    int score = 1;
    if (home == Home::gone)
      score = copy.stale != 0 ? 6 : 5;
    else if (copy.stale != 0)
      score = 4;
    else if (home == Home::leaving)
      score = 3;
    else if (home == Home::away)
      score = 2;
    if (score > best && may_drop(copies, places, replicas, copy.disk)) {
      best = score;
      found = copy.disk;
    }
  }
  return found;
}

}  // namespace

Places places_of(const std::vector<meta::Disk>& disks, const std::vector<meta::Node>& nodes) {
  Places out;
  for (const meta::Disk& disk : disks) {
    const bool up = std::any_of(nodes.begin(), nodes.end(), [&](const meta::Node& node) {
      return node.id == disk.node && node.state == "up";
    });
    Home home = Home::gone;
    if (disk.state == "ok" && up)
      home = disk.leaving ? Home::leaving : Home::good;
    else if ((disk.state == "ok" || disk.state == "absent") && !disk.leaving)
      home = Home::away;
    out[disk.id] = {disk.node, home};
  }
  return out;
}

bool may_drop(const std::vector<CopyRow>& copies, const Places& places, uint32_t replicas,
              core::DiskId drop) {
  const auto at = std::find_if(copies.begin(), copies.end(),
                               [&](const CopyRow& copy) { return copy.disk == drop; });
  if (at == copies.end()) return false;
  std::vector<CopyRow> left;
  std::copy_if(copies.begin(), copies.end(), std::back_inserter(left),
               [&](const CopyRow& copy) { return copy.disk != drop; });
  auto current = [&](bool leaving_too) {
    return count_apart(left, places, [&](const CopyRow& copy) {
      const Home home = home_of(copy, places);
      return copy.stale == 0 && (home == Home::good || (leaving_too && home == Home::leaving));
    });
  };
  const Home home = home_of(*at, places);
  // Without room for a copy in the making, something goes that is of little use.
  const bool full = copies.size() >= kMaxCopies;
  if (at->stale != 0 || home == Home::gone)
    return count_kept(left, places) >= replicas ||
           (full && (home != Home::good || !adds_to_kept(copies, places, *at)) &&
            current(true) >= 1);
  if (home == Home::away) return count_kept(left, places) >= replicas;
  // One that can be read goes only when as many others can be.
  return current(false) >= replicas || (full && home == Home::leaving && current(true) >= replicas);
}

core::DiskId chosen_copy(const std::vector<CopyRow>& copies, const Places& places) {
  core::DiskId found;
  int best = -1;
  for (const CopyRow& copy : copies) {
    const Home home = home_of(copy, places);
    int score = 0;
    if (home == Home::good)
      score = 3;
    else if (home == Home::leaving)
      score = 2;
    else if (home == Home::away)
      score = 1;
    if (copy.stale != 0 || score <= best) continue;
    best = score;
    found = copy.disk;
  }
  return found;
}

Step next_step(const std::vector<CopyRow>& copies, const Places& places, uint32_t replicas) {
  const size_t kept = count_kept(copies, places);
  if (kept >= replicas) {
    const core::DiskId drop = surplus(copies, places, replicas);
    if (drop) return {Step::Kind::move, {}, {}, drop};
    // One too many that cannot go now goes later.
    const bool all = copies.size() <= replicas &&
                     std::all_of(copies.begin(), copies.end(),
                                 [&](const CopyRow& copy) { return is_kept(copy, places); });
    return {all ? Step::Kind::none : Step::Kind::wait, {}, {}, {}};
  }
  const auto from = std::find_if(copies.begin(), copies.end(), [&](const CopyRow& copy) {
    const Home home = home_of(copy, places);
    return copy.stale == 0 && (home == Home::good || home == Home::leaving);
  });
  if (from == copies.end()) {
    // The chosen one is not awaited any more: another that has all that was flushed.
    const auto suspect = std::find_if(copies.begin(), copies.end(), [&](const CopyRow& copy) {
      const Home home = home_of(copy, places);
      return copy.suspect && (home == Home::good || home == Home::leaving);
    });
    if (kept == 0 && suspect != copies.end()) return {Step::Kind::move, {}, suspect->disk, {}};
    return {Step::Kind::wait, {}, {}, {}};
  }
  const auto to = std::find_if(copies.begin(), copies.end(), [&](const CopyRow& copy) {
    return copy.stale != 0 && home_of(copy, places) == Home::good &&
           adds_to_kept(copies, places, copy);
  });
  if (to != copies.end()) {
    std::vector<CopyRow> then = copies;
    then[static_cast<size_t>(to - copies.begin())].stale = 0;
    return {Step::Kind::move, from->disk, to->disk, surplus(then, places, replicas)};
  }
  if (copies.size() < kMaxCopies) return {Step::Kind::place, {}, {}, {}};
  if (const core::DiskId drop = surplus(copies, places, replicas); drop)
    return {Step::Kind::move, {}, {}, drop};
  return {Step::Kind::wait, {}, {}, {}};
}

}  // namespace policy
