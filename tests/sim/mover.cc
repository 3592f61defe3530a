// SPDX-License-Identifier: GPL-2.0
// A daemon's mover: what userspace/scaled/mover.cc does, as a fiber.
#include <algorithm>

#include "node.h"

namespace sim {

using core::Code;
using policy::Step;

namespace {

constexpr uint64_t kHouse = 150;
constexpr uint64_t kAtOnce = 3;
constexpr uint64_t kTick = 60;

const meta::CopyRow* row_of(const std::vector<meta::CopyRow>& rows, DiskId disk) {
  const auto at = std::find_if(rows.begin(), rows.end(),
                               [&](const meta::CopyRow& row) { return row.disk == disk; });
  return at == rows.end() ? nullptr : &*at;
}

meta::MappedExtent without(meta::MappedExtent extent, DiskId disk) {
  std::erase_if(extent.copies, [&](const meta::Copy& copy) { return copy.disk == disk; });
  return extent;
}

}  // namespace

Co<Done> Daemon::mover() {
  // What an earlier run froze.
  for (const VsdId id : world_.vsds) {
    Vsd& vsd = node_.kernel->vsd(id);
    std::vector<Item> items;
    for (const ExtentId extent : vsd.frozen) items.push_back({{extent, false, {}}, {}, {}});
    if (!items.empty()) thaw(id, vsd.epoch, items);
  }
  for (;;) {
    co_await world_.scheduler.pause(kHouse);
    for (meta::AilingAt at; !at.end;) {
      auto found = cluster_.ailing(at, 64);
      if (!found) break;
      std::map<VsdId, std::vector<ExtentId>> by_vsd;
      for (const meta::Owned& one : *found) by_vsd[one.vsd].push_back(one.extent);
      for (const auto& [vsd, extents] : by_vsd) {
        for (size_t from = 0; from < extents.size(); from += kAtOnce) {
          const std::vector<ExtentId> some(
              extents.begin() + static_cast<ptrdiff_t>(from),
              extents.begin() + static_cast<ptrdiff_t>(std::min(extents.size(), from + kAtOnce)));
          co_await move_some(vsd, some);
          co_await world_.scheduler.pause(kTick);
        }
      }
    }
    if (world_.gathers && world_.guests) co_await gather_one();
    co_await world_.scheduler.until([this] { return !moving_; });
    const Held moving(moving_);
    co_await give_back_leases();
  }
}

Co<Done> Daemon::give_back_leases() {
  const auto minded = minded_;
  for (const auto& [vsd, epoch] : minded) {
    json::object body{{"op", "lease_drop"},
                      {"vsd", vsd.value},
                      {"node", node_.id},
                      {"epoch", epoch},
                      {"clean", true}};
    auto done = co_await propose(std::move(body));
    if (done || done.error().code != Code::unknown) minded_.erase(vsd);
  }
  co_return Done{};
}

Co<std::optional<Daemon::Lease>> Daemon::hold(VsdId id) {
  using Out = std::optional<Lease>;
  auto row = cluster_.vsd(id).value();
  auto nodes = cluster_.nodes().value();
  if (!row) co_return Out();
  if (row->lease_node.value == node_.id && row->lease_life == life_) {
    const auto at = minded_.find(id);
    if (at != minded_.end() && at->second == row->epoch) co_return Out(Lease{at->second, true});
    co_return Out(Lease{row->epoch, false});
  }
  std::vector<uint64_t> up;
  for (const meta::Node& node : nodes) {
    if (node.state != "up") continue;
    if (node.id == row->lease_node && node.life == row->lease_life) co_return Out();
    up.push_back(node.id.value);
  }
  if (retiring_ || up.empty() || up[id.value % up.size()] != node_.id) co_return Out();
  json::object body{
      {"op", "lease_take"}, {"vsd", id.value}, {"node", node_.id}, {"life", life_}, {"free", true}};
  auto taken = co_await propose(std::move(body));
  if (!taken) co_return Out();
  const auto epoch = taken->at("epoch").to_number<uint64_t>();
  if (epoch == 0) co_return Out();
  if (taken->at("recover").as_bool()) co_await node_.kernel->flush_disks();
  minded_[id] = epoch;
  co_return Out(Lease{epoch, true});
}

std::vector<Daemon::Item> Daemon::plan(VsdId vsd, const std::vector<ExtentId>& extents) {
  std::vector<Item> out;
  auto disks = cluster_.disks().value();
  auto nodes = cluster_.nodes().value();
  auto row = cluster_.vsd(vsd).value();
  if (!row) return out;
  const policy::Places places = policy::places_of(disks, nodes);
  for (const ExtentId id : extents) {
    auto extent = meta::Map(database_).extent(id, vsd);
    auto rows = cluster_.copies(id);
    if (!extent || !rows) continue;
    const Step step = policy::next_step(*rows, places, row->replicas);
    out.push_back({std::move(*extent), std::move(*rows), step});
  }
  return out;
}

Co<Done> Daemon::move_some(VsdId vsd, std::vector<ExtentId> extents) {
  co_await world_.scheduler.until([this] { return !moving_; });
  const Held moving(moving_);
  const auto lease = co_await hold(vsd);
  if (!lease) co_return Done{};
  json::array homeless;
  for (const Item& item : plan(vsd, extents))
    if (item.step.kind == Step::Kind::place || item.step.kind == Step::Kind::none)
      homeless.push_back(item.extent.id.value);
  if (!homeless.empty()) {
    json::object body = about("place", vsd, lease->epoch);
    body["extents"] = std::move(homeless);
    auto placed = co_await propose(std::move(body));
  }
  co_await world_.scheduler.until([this] { return !looking_; });
  Held looking(looking_);
  std::vector<Item> items;
  for (Item& item : plan(vsd, extents))
    if (item.step.kind == Step::Kind::move) items.push_back(std::move(item));
  if (items.empty()) co_return Done{};
  const std::vector<Item> all = items;
  bool settled = true;
  if (!lease->minded && !co_await freeze(vsd, lease->epoch, items)) {
    thaw(vsd, lease->epoch, all);
    co_return Done{};
  }
  items = co_await copy(std::move(items));
  looking.release();
  json::array list;
  for (const Item& item : items) {
    // What is to go leaves the module first: nothing uses it any more.
    if (!lease->minded && item.step.drop &&
        !node_.kernel->set_extent(vsd, lease->epoch, without(item.extent, item.step.drop), true,
                                  {}))
      continue;
    const meta::CopyRow* to = row_of(item.rows, item.step.to);
    list.push_back(json::array{item.extent.id.value, item.step.from.value, item.step.to.value,
                               to != nullptr ? to->stale : 0, item.step.drop.value});
  }
  if (!list.empty()) {
    world_.say("n" + std::to_string(node_.id) + " moved " + json::serialize(list) + " of VSD " +
               std::to_string(vsd.value));
    json::object body = about("moved", vsd, lease->epoch);
    body["items"] = std::move(list);
    auto done = co_await propose(std::move(body));
    settled = done || done.error().code != Code::unknown;
    // An outcome that was not known is settled once a later proposal has been answered.
    while (!settled) {
      json::object seen{{"op", "seen"}, {"node", node_.id}, {"index", uint64_t{0}}};
      auto again = co_await propose(std::move(seen));
      settled = static_cast<bool>(again);
    }
  }
  if (!lease->minded) thaw(vsd, lease->epoch, all);
  co_return Done{};
}

Co<bool> Daemon::freeze(VsdId vsd, uint64_t epoch, const std::vector<Item>& items) {
  if (!world_.holds(Rule::mover_freeze)) co_return true;
  for (const Item& item : items) {
    if (node_.kernel->set_extent(vsd, epoch, item.extent, true, {})) continue;
    world_.say("n" + std::to_string(node_.id) + " cannot freeze extent " +
               std::to_string(item.extent.id.value) + " now");
    co_return false;
  }
  co_await node_.kernel->barrier();
  co_return co_await node_.kernel->flush(vsd);
}

Co<std::vector<Daemon::Item>> Daemon::copy(std::vector<Item> items) {
  std::map<DiskId, uint64_t> lives;
  auto disks = cluster_.disks().value();
  for (const meta::Disk& disk : disks) lives[disk.id] = disk.life;
  std::vector<Item> out;
  for (Item& item : items) {
    const meta::CopyRow* from = row_of(item.rows, item.step.from);
    const meta::CopyRow* to = row_of(item.rows, item.step.to);
    bool done = to == nullptr || !item.step.from;
    if (!done && from != nullptr)
      done = co_await node_.kernel->copy_slot(from->disk, from->slot, lives[from->disk], to->disk,
                                              to->slot, lives[to->disk]);
    if (done) out.push_back(std::move(item));
  }
  co_return out;
}

void Daemon::thaw(VsdId vsd, uint64_t epoch, const std::vector<Item>& items) {
  if (world_.holds(Rule::told_first)) tell_gathered(0);
  for (const Item& item : items) {
    auto extent = meta::Map(database_).extent(item.extent.id, vsd);
    const auto& now = extent && !extent->copies.empty() ? *extent : item.extent;
    const bool copied = std::any_of(now.copies.begin(), now.copies.end(), [&](const auto& copy) {
      return copy.disk == item.step.to && !copy.stale;
    });
    if (!now.copies.empty())
      node_.kernel->set_extent(vsd, epoch, now, false, copied ? item.step.to : DiskId{});
  }
}

// What userspace/scaled/gather.cc does; whatever is scattered, for nothing is ever cold here.
Co<Done> Daemon::gather_one() {
  const VsdId vsd = world_.vsds[world_.scheduler.draw(world_.vsds.size())];
  const auto history = meta::Map(database_).history(vsd, 0);
  if (!history || history->chunks.empty()) co_return Done{};
  const auto& chunk = history->chunks[world_.scheduler.draw(history->chunks.size())];
  const bool whole = chunk.segments.size() == 1 && chunk.segments[0].start == chunk.segments[0].off;
  if (whole && !world_.scheduler.one_in(8)) co_return Done{};
  co_await gather_chunk(vsd, chunk.row);
  co_return Done{};
}

void Daemon::tell_gathered(uint64_t behind) {
  auto gathered = meta::Map(database_).gathered(behind, {node_.id}, life_).value();
  for (const meta::Moved& moved : gathered) node_.kernel->move_pieces(moved);
}

std::optional<Daemon::Gathering> Daemon::plan_gathering(VsdId vsd, uint64_t row,
                                                        const json::array& to) {
  const auto history = meta::Map(database_).history(vsd, 0);
  if (!history) return std::nullopt;
  const auto chunk = std::find_if(history->chunks.begin(), history->chunks.end(),
                                  [&](const auto& one) { return one.row == row; });
  if (chunk == history->chunks.end()) return std::nullopt;
  std::map<DiskId, uint64_t> lives;
  auto disks = cluster_.disks().value();
  auto nodes = cluster_.nodes().value();
  const policy::Places places = policy::places_of(disks, nodes);
  for (const meta::Disk& disk : disks)
    if (places.at(disk.id).home == policy::Home::good) lives[disk.id] = disk.life;
  Gathering out;
  for (const core::Segment& seg : chunk->segments) {
    auto copies = cluster_.copies(seg.extent).value();
    const auto source = std::find_if(copies.begin(), copies.end(), [&](const meta::CopyRow& copy) {
      return copy.stale == 0 && lives.contains(copy.disk);
    });
    if (source == copies.end()) return std::nullopt;
    out.sources.push_back(json::array{seg.extent.value, source->disk.value});
    out.pieces.push_back(
        json::array{row, chunk->chunk, seg.start, seg.len, seg.off, seg.extent.value, seg.start});
    out.from.push_back({source->disk, lives[source->disk], source->slot, seg.off / kCellSectors,
                        seg.len / kCellSectors, seg.start / kCellSectors});
  }
  for (const meta::MappedExtent& extent : history->extents)
    if (extent.exclusive &&
        std::any_of(chunk->segments.begin(), chunk->segments.end(),
                    [&](const core::Segment& seg) { return seg.extent == extent.id; }))
      out.writable.push_back({extent, {}, {}});
  const uint32_t first = chunk->segments.front().start / kCellSectors;
  const uint32_t end = (chunk->segments.back().start + chunk->segments.back().len) / kCellSectors;
  for (const json::value& place : to.at(1).as_array()) {
    const DiskId disk{place.at(0).to_number<uint64_t>()};
    if (!lives.contains(disk)) return std::nullopt;
    out.targets.push_back(
        {disk, lives[disk], place.at(1).to_number<uint32_t>(), first, end - first, 0});
  }
  return out;
}

Co<Done> Daemon::gather_chunk(VsdId vsd, uint64_t row) {
  json::object wish{
      {"op", "reserve"}, {"node", node_.id}, {"life", life_}, {"count", 1}, {"copies", 2}};
  auto reserved = co_await propose(std::move(wish));
  if (!reserved || reserved->at("extents").as_array().empty()) co_return Done{};
  const json::array to = reserved->at("extents").at(0).as_array();
  bool used = false;
  {
    co_await world_.scheduler.until([this] { return !moving_; });
    const Held moving(moving_);
    if (const auto lease = co_await hold(vsd)) {
      co_await world_.scheduler.until([this] { return !looking_; });
      Held looking(looking_);
      auto plan = plan_gathering(vsd, row, to);
      if (plan) {
        auto again = plan;
        const bool held = lease->minded || co_await freeze(vsd, lease->epoch, plan->writable);
        if (held) again = plan_gathering(vsd, row, to);
        bool good = held && again && again->pieces == plan->pieces;
        good = good && co_await node_.kernel->gather(again->from, again->targets);
        looking.release();
        if (good && !lease->minded)
          for (const Item& item : plan->writable)
            good = good && node_.kernel->set_extent(vsd, lease->epoch, item.extent, true, {}, true);
        if (good) {
          world_.say("n" + std::to_string(node_.id) + " gathered " +
                     json::serialize(again->pieces) + " of VSD " + std::to_string(vsd.value));
          json::object body = about("gathered", vsd, lease->epoch);
          body["extent"] = to.at(0);
          body["pieces"] = again->pieces;
          body["sources"] = again->sources;
          auto done = co_await propose(std::move(body));
          used = static_cast<bool>(done);
          if (done) world_.gathered++;
          bool settled = done || done.error().code != Code::unknown;
          while (!settled) {
            json::object seen{{"op", "seen"}, {"node", node_.id}, {"index", uint64_t{0}}};
            auto answer = co_await propose(std::move(seen));
            settled = static_cast<bool>(answer);
          }
        }
        if (!lease->minded) thaw(vsd, lease->epoch, plan->writable);
      }
    }
  }
  if (used) co_return Done{};
  json::object back{
      {"op", "unreserve"}, {"node", node_.id}, {"life", life_}, {"extents", json::array{to.at(0)}}};
  auto done = co_await propose(std::move(back));
  co_return Done{};
}

}  // namespace sim
