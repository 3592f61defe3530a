// SPDX-License-Identifier: GPL-2.0
// The module, as far as rules R1 to R6 go: kernel/plan.c, io.c, flush.c, intent.c and freeze.c say
// the same in C.
#include <algorithm>

#include "node.h"

namespace sim {

namespace {

constexpr uint64_t kFlushEvery = 400;  // the timer of R4
constexpr uint64_t kParked = 60;
constexpr int kAttempts = 16;

bool all_ended(const std::vector<std::shared_ptr<Request>>& legs) {
  return std::all_of(legs.begin(), legs.end(), [](const auto& one) { return one->ended; });
}

bool holds(const std::vector<meta::Copy>& copies, DiskId disk) {
  return std::any_of(copies.begin(), copies.end(),
                     [&](const meta::Copy& copy) { return copy.disk == disk; });
}

uint16_t sectors(uint32_t cells) { return static_cast<uint16_t>(cells * kCellSectors); }

// For good: nobody takes that lease anew.
bool given_up(const Vsd& vsd) { return vsd.lease == Vsd::Lease::failed && !vsd.relet; }

}  // namespace

/// I/O under way, for barriers and for those that wait until a VSD is idle.
class Active {
 public:
  Active(Kernel& kernel, Vsd& vsd)
      : kernel_(kernel), vsd_(vsd), at_(kernel.running_.insert(kernel.generation_)) {
    vsd_.active++;
  }
  ~Active() {
    vsd_.active--;
    kernel_.running_.erase(at_);
  }
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;

 private:
  Kernel& kernel_;
  Vsd& vsd_;
  const std::multiset<uint64_t>::iterator at_;
};

namespace {

/// Cells that nobody else reads or writes meanwhile.
class Range {
 public:
  Range(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count)
      : vsd_(vsd), chunk_(chunk), cell_(cell), count_(count) {
    for (uint32_t i = 0; i < count_; i++) vsd_.busy.insert({chunk_, cell_ + i});
  }
  ~Range() {
    for (uint32_t i = 0; i < count_; i++) vsd_.busy.erase({chunk_, cell_ + i});
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  static bool free(const Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
      if (vsd.busy.contains({chunk, cell + i})) return false;
    return true;
  }

 private:
  Vsd& vsd_;
  const uint64_t chunk_;
  const uint32_t cell_;
  const uint32_t count_;
};

/// A leaf with a write under way has copies that may differ.
class Pin {
 public:
  explicit Pin(Vsd& vsd) : vsd_(vsd) { vsd_.pins++; }
  ~Pin() { vsd_.pins--; }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

 private:
  Vsd& vsd_;
};

/// A lease that is being given back; where the caller is killed meanwhile, it is owned as before.
class Releasing {
 public:
  explicit Releasing(Vsd& vsd) : vsd_(vsd) { vsd_.lease = Vsd::Lease::releasing; }
  ~Releasing() {
    if (vsd_.lease == Vsd::Lease::releasing) vsd_.lease = Vsd::Lease::owned;
  }
  Releasing(const Releasing&) = delete;
  Releasing& operator=(const Releasing&) = delete;

 private:
  Vsd& vsd_;
};

}  // namespace

Vsd& Kernel::vsd(VsdId id) {
  Vsd& out = vsds_[id];
  out.id = id;
  return out;
}

bool Kernel::expired() const {
  return world_.holds(Rule::deadline) && world_.scheduler.now() >= deadline;
}

bool Kernel::in_epoch(VsdId id, uint64_t epoch) {
  const Vsd& vsd = this->vsd(id);
  return vsd.epoch == epoch && vsd.lease != Vsd::Lease::none && vsd.lease != Vsd::Lease::failed;
}

bool Kernel::equal_copies(const Vsd& vsd) const {
  return vsd.pins == 0 && vsd.open.ops.empty() && vsd.closed.ops.empty() &&
         vsd.written_gen < vsd.flushed_gen;
}

// Plan

bool Kernel::reachable(DiskId id) const {
  const auto at = world_.disks().find(id.value);
  if (at == world_.disks().end()) return false;
  const Disk& disk = *at->second;
  return disk.life != 0 && !disk.failed && !disk.gone && world_.linked(node_, disk.node);
}

bool Kernel::copy_ok(const Vsd& vsd, const Extent& extent, const meta::Copy& copy) const {
  if (copy.stale) return false;
  if (!reachable(copy.disk)) return false;
  const Disk& disk = world_.disk(copy.disk);
  auto lost = [&](const Batch& batch, const Extent::Missed& missed) {
    if (missed.failed.contains(copy.disk) || missed.skipped.contains(copy.disk)) return true;
    if (!missed.written.contains(copy.disk)) return false;
    const Batch::Written& written = batch.disks.at(copy.disk);
    return written.failed || written.life != disk.life;
  };
  if (extent.open_dirty && lost(vsd.open, extent.open)) return false;
  return !extent.closed_dirty || !lost(vsd.closed, extent.closed);
}

// R1
bool Kernel::in_place_ok(const Vsd& vsd, const Extent& extent,
                         std::map<DiskId, uint64_t>& lives) const {
  lives.clear();
  if (!extent.exclusive || extent.frozen) return false;
  for (const meta::Copy& copy : extent.copies) {
    if (!copy_ok(vsd, extent, copy)) return false;
    lives[copy.disk] = world_.disk(copy.disk).life;
  }
  return true;
}

std::shared_ptr<Extent> Kernel::take(Vsd& vsd, std::map<DiskId, uint64_t>& lives) {
  for (uint64_t copies = vsd.copies; copies >= 2; copies--) {
    auto& some = stock[copies];
    for (size_t i = some.size(); i-- > 0;) {
      if (!in_place_ok(vsd, *some[i], lives)) continue;
      auto extent = some[i];
      some.erase(some.begin() + static_cast<ptrdiff_t>(i));
      vsd.extents[extent->id] = extent;
      return extent;
    }
    if (!no_space[copies]) break;
  }
  return nullptr;
}

bool Kernel::plan_fresh(Vsd& vsd, uint32_t cell, uint32_t count, Target& out) {
  out.skipped.clear();
  out.cell = cell;
  if (count == kCells || world_.scheduler.one_in(3)) {
    out.extent = take(vsd, out.lives);
    if (out.extent) {
      out.extent->own = true;
      out.extent->fill = cell + count;
    }
    return out.extent != nullptr;
  }
  if (vsd.young && !vsd.young->dead && vsd.young->fill + count <= kCells &&
      in_place_ok(vsd, *vsd.young, out.lives)) {
    out.extent = vsd.young;
    out.cell = vsd.young->fill;
    vsd.young->fill += count;
    return true;
  }
  vsd.young = take(vsd, out.lives);
  if (!vsd.young) return false;
  out.extent = vsd.young;
  out.cell = 0;
  vsd.young->fill = count;
  return true;
}

const core::Segment* Kernel::cover(const Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count) {
  const auto at = vsd.chunks.find(chunk);
  if (at == vsd.chunks.end()) return nullptr;
  for (const core::Segment& one : at->second)
    if (one.start <= sectors(cell) && one.start + one.len >= sectors(cell + count)) return &one;
  return nullptr;
}

Kernel::Plan Kernel::plan(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, Target& out) {
  const core::Segment* one = cover(vsd, chunk, cell, count);
  const auto known = one != nullptr ? vsd.extents.find(one->extent) : vsd.extents.end();
  const auto extent = known == vsd.extents.end() ? nullptr : known->second;
  auto in_place = [&] {
    out.extent = extent;
    out.cell = (one->off + (sectors(cell) - one->start)) / kCellSectors;
  };
  out = {};
  if (extent && in_place_ok(vsd, *extent, out.lives)) {
    if (!vsd.intent && world_.holds(Rule::intent)) return Plan::intent;
    in_place();
    return Plan::in_place;
  }
  if (plan_fresh(vsd, cell, count, out)) return Plan::fresh;
  // R6
  bool full = true;
  for (uint64_t copies = vsd.copies; copies >= 2; copies--) full = full && no_space[copies];
  if (!extent || !extent->exclusive || extent->frozen || !full) return Plan::no_space;
  out = {};
  for (const meta::Copy& copy : extent->copies) {
    if (copy_ok(vsd, *extent, copy))
      out.lives[copy.disk] = world_.disk(copy.disk).life;
    else
      out.skipped.insert(copy.disk);
  }
  if (out.lives.empty()) return Plan::no_space;
  if (!vsd.intent && world_.holds(Rule::intent)) return Plan::intent;
  in_place();
  return Plan::degraded;
}

// I/O

std::shared_ptr<Request> Kernel::leg(Request::Op op, DiskId disk, uint64_t life) const {
  auto out = std::make_shared<Request>();
  out->op = op;
  out->from = node_;
  out->from_life = life_;
  out->disk = disk;
  out->life = life;
  return out;
}

void Kernel::note_written(Vsd& vsd, const Target& target, const std::set<DiskId>& failed) {
  for (const auto& [disk, life] : target.lives) {
    if (failed.contains(disk)) continue;
    const auto [at, fresh] = vsd.open.disks.try_emplace(disk, Batch::Written{life, false});
    if (!fresh && at->second.life != life) at->second.failed = true;
    target.extent->open.written.insert(disk);
  }
  vsd.open.dirty.insert(target.extent->id);
  target.extent->open_dirty = true;
  target.extent->open.failed.insert(failed.begin(), failed.end());
  target.extent->open.skipped.insert(target.skipped.begin(), target.skipped.end());
}

// The map still leads to where a write in place failed: one copy counts until all are equal again.
void Kernel::give_up(Vsd& vsd, const std::shared_ptr<Extent>& left) const {
  if (!world_.holds(Rule::settle)) return;
  vsd.open.dirty.insert(left->id);
  left->open_dirty = true;
  left->open.unsettled = true;
  for (const meta::Copy& copy : left->copies)
    if (reachable(copy.disk)) left->open.reached.insert(copy.disk);
}

bool Kernel::mapped(const Vsd& vsd, ExtentId id) {
  return std::any_of(vsd.chunks.begin(), vsd.chunks.end(), [&](const auto& chunk) {
    return std::any_of(chunk.second.begin(), chunk.second.end(),
                       [&](const core::Segment& one) { return one.extent == id; });
  });
}

// False where the extent is dead: the data must go elsewhere.
bool Kernel::remap(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, ExtentId extent,
                   uint32_t off) {
  if (extent && vsd.extents.at(extent)->dead) return false;
  const bool holds = world_.holds(Rule::dead_extents);
  const core::Segment change{sectors(cell), sectors(count), sectors(off), extent};
  const core::Segments before = vsd.chunks[chunk];
  vsd.chunks[chunk] = core::splice(before, change);
  for (const core::Segment& one : before)
    if (!mapped(vsd, one.extent)) vsd.extents.at(one.extent)->dead = holds;
  vsd.open.ops.push_back({chunk, change});
  return true;
}

// One attempt, with the range held; false where it must wait for the daemon.
Co<bool> Kernel::write_once(Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count, bool zero) {
  const Active active(*this, vsd);
  const Range range(vsd, chunk, cell, count);
  std::vector<uint64_t> values;
  for (uint32_t i = 0; i < count; i++)
    values.push_back(world_.oracle.issue({vsd.id, chunk, cell + i}, zero, vsd.epoch));
  auto written = [&] {
    vsd.written_gen = vsd.gen;
    vsd.touched = world_.scheduler.now();
  };
  auto acknowledge = [&] {
    written();
    for (uint32_t i = 0; i < count; i++)
      world_.oracle.acknowledge({vsd.id, chunk, cell + i}, values[i]);
  };
  if (zero) {
    remap(vsd, chunk, cell, count, {}, 0);
    acknowledge();
    co_return true;
  }
  Target target;
  Plan how = plan(vsd, chunk, cell, count, target);
  if (how == Plan::intent) vsd.wants_intent = true;
  if (how == Plan::no_space) vsd.wants_space = true;
  if (how == Plan::intent || how == Plan::no_space) co_return false;
  const Pin pin(vsd);
  std::shared_ptr<Extent> left;
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    std::vector<std::shared_ptr<Request>> legs;
    for (const meta::Copy& copy : target.extent->copies) {
      const auto life = target.lives.find(copy.disk);
      if (life == target.lives.end()) continue;
      legs.push_back(leg(Request::Op::write, copy.disk, life->second));
      legs.back()->slot = copy.slot;
      legs.back()->cell = target.cell;
      legs.back()->data = values;
      world_.send(legs.back());
    }
    co_await world_.scheduler.until([&legs] { return all_ended(legs); });
    std::set<DiskId> failed;
    for (const auto& one : legs)
      if (!one->ok) failed.insert(one->disk);
    note_written(vsd, target, failed);
    if (failed.empty() &&
        (how != Plan::fresh || remap(vsd, chunk, cell, count, target.extent->id, target.cell))) {
      acknowledge();
      co_return true;
    }
    // The same data goes to other space, the range still held.
    written();
    if (how != Plan::fresh) left = target.extent;
    how = Plan::fresh;
    if (vsd.lease == Vsd::Lease::failed || !plan_fresh(vsd, cell, count, target)) break;
  }
  if (left) give_up(vsd, left);
  vsd.wants_space = true;
  co_return false;
}

Co<bool> Kernel::write(VsdId id, uint64_t chunk, uint32_t cell, uint32_t count, bool zero) {
  Vsd& vsd = this->vsd(id);
  for (;;) {
    vsd.wanted = true;
    co_await world_.scheduler.until([&] { return ready(vsd, chunk, cell, count); });
    if (given_up(vsd)) co_return false;
    if (co_await write_once(vsd, chunk, cell, count, zero)) co_return true;
    co_await world_.scheduler.pause(kParked);
  }
}

bool Kernel::ready(const Vsd& vsd, uint64_t chunk, uint32_t cell, uint32_t count) const {
  return given_up(vsd) || (vsd.lease == Vsd::Lease::owned && !expired() && vsd.loaded &&
                           Range::free(vsd, chunk, cell, count));
}

// One cell. False where no copy can be read now.
Co<bool> Kernel::read_once(Vsd& vsd, uint64_t chunk, uint32_t cell) {
  const Active active(*this, vsd);
  const Range range(vsd, chunk, cell, 1);
  const Oracle::Place place{vsd.id, chunk, cell};
  const uint64_t least = world_.oracle.least(place, vsd.epoch);
  const uint64_t epoch = vsd.epoch;
  const core::Segment* one = cover(vsd, chunk, cell, 1);
  if (one == nullptr) {
    world_.oracle.read(place, 0, least, epoch);
    co_return true;
  }
  const auto extent = vsd.extents.at(one->extent);
  const uint32_t at = (one->off + (sectors(cell) - one->start)) / kCellSectors;
  std::vector<meta::Copy> good;
  for (const meta::Copy& copy : extent->copies)
    if (copy_ok(vsd, *extent, copy)) good.push_back(copy);
  while (!good.empty()) {
    const auto chosen = static_cast<ptrdiff_t>(world_.scheduler.draw(good.size()));
    const meta::Copy copy = good[static_cast<size_t>(chosen)];
    good.erase(good.begin() + chosen);
    auto request = leg(Request::Op::read, copy.disk, world_.disk(copy.disk).life);
    request->slot = copy.slot;
    request->cell = at;
    request->data.resize(1);
    world_.send(request);
    co_await world_.scheduler.until([&] { return request->ended; });
    if (!request->ok) continue;
    world_.oracle.read(place, request->data[0], least, epoch);
    co_return true;
  }
  co_return false;
}

Co<bool> Kernel::read(VsdId id, uint64_t chunk, uint32_t cell) {
  Vsd& vsd = this->vsd(id);
  for (;;) {
    vsd.wanted = true;
    co_await world_.scheduler.until([&] { return ready(vsd, chunk, cell, 1); });
    if (given_up(vsd)) co_return false;
    if (co_await read_once(vsd, chunk, cell)) co_return true;
    co_await world_.scheduler.pause(kParked);
  }
}

// Flush

// What of an extent's copies misses data that must not get lost.
Extent::Marks Kernel::marks(const Vsd& vsd, const Extent& extent) {
  std::set<DiskId> lost;
  std::set<DiskId> missed;
  std::set<DiskId> whole;
  for (const meta::Copy& copy : extent.copies) {
    const bool written = extent.closed.written.contains(copy.disk);
    if (extent.closed.skipped.contains(copy.disk)) {
      lost.insert(copy.disk);
    } else if (copy.stale) {
      continue;
    } else if (written && vsd.closed.disks.at(copy.disk).failed) {
      lost.insert(copy.disk);
    } else if (extent.closed.failed.contains(copy.disk)) {
      missed.insert(copy.disk);
    } else {
      whole.insert(copy.disk);
    }
  }
  Extent::Marks out;
  // A write goes to all copies: where none reached one of them, all went elsewhere.
  const bool nothing_stays =
      extent.closed.skipped.empty() && !extent.closed.unsettled &&
      std::any_of(extent.closed.failed.begin(), extent.closed.failed.end(),
                  [&](DiskId disk) { return !extent.closed.written.contains(disk); });
  if (whole.empty() && nothing_stays) {
    out.good = !lost.empty() || !missed.empty();
    return out;
  }
  out.good = !whole.empty() || !missed.empty();
  if (extent.closed.unsettled && out.good) {
    out.suspects = whole.empty() ? missed : whole;
    const auto keep = std::find_if(out.suspects.begin(), out.suspects.end(), [&](DiskId disk) {
      return extent.closed.reached.contains(disk);
    });
    out.suspects.erase(keep != out.suspects.end() ? keep : out.suspects.begin());
  }
  if (!whole.empty()) lost.merge(missed);
  out.stale = std::move(lost);
  return out;
}

std::vector<meta::Stale> Kernel::stales(Vsd& vsd) const {
  std::vector<meta::Stale> out;
  if (!world_.holds(Rule::stale_marks)) return out;
  for (const ExtentId id : vsd.closed.dirty) {
    const Extent::Marks all = marks(vsd, *vsd.extents.at(id));
    for (const DiskId disk : all.stale) out.push_back({id, disk, false});
    for (const DiskId disk : all.suspects) out.push_back({id, disk, true});
  }
  return out;
}

std::optional<ExtentId> Kernel::without_copy(const Vsd& vsd) const {
  const auto at = std::find_if(vsd.closed.dirty.begin(), vsd.closed.dirty.end(), [&](ExtentId id) {
    const bool used = vsd.strict || mapped(vsd, id) ||
                      std::any_of(vsd.closed.ops.begin(), vsd.closed.ops.end(),
                                  [&](const meta::Op& op) { return op.segment.extent == id; });
    return used && !marks(vsd, *vsd.extents.at(id)).good;
  });
  return at == vsd.closed.dirty.end() ? std::nullopt : std::optional(*at);
}

Co<Done> Kernel::flush_written(Vsd& vsd, bool again) {
  std::vector<std::shared_ptr<Request>> legs;
  for (auto& [disk, written] : vsd.closed.disks) {
    if (written.failed != again) continue;
    written.failed = false;
    legs.push_back(leg(Request::Op::flush, disk, written.life));
    world_.send(legs.back());
  }
  co_await world_.scheduler.until([&legs] { return all_ended(legs); });
  for (const auto& one : legs)
    if (!one->ok) vsd.closed.disks.at(one->disk).failed = true;
  // One that has failed since is as good as not flushed; of another node's nothing is known here.
  for (auto& [id, written] : vsd.closed.disks)
    if (world_.disk(id).failed && world_.disk(id).node == node_) written.failed = true;
  co_return Done{};
}

// A disk may come back; where none of them can, the daemon knows, and fails the lease.
Co<bool> Kernel::await_good_copy(Vsd& vsd) {
  while (const auto id = without_copy(vsd)) {
    const Extent& extent = *vsd.extents.at(*id);
    vsd.stuck.emplace();
    for (const meta::Copy& copy : extent.copies)
      if (!copy.stale && extent.closed.written.contains(copy.disk) &&
          !extent.closed.skipped.contains(copy.disk))
        vsd.stuck->emplace(copy.disk, vsd.closed.disks.at(copy.disk).life);
    co_await world_.scheduler.pause(kParked);
    if (vsd.lease == Vsd::Lease::failed) break;
    co_await flush_written(vsd, true);
  }
  vsd.stuck.reset();
  co_return vsd.lease != Vsd::Lease::failed;
}

// The closed batch; false where the lease failed meanwhile.
Co<bool> Kernel::flush_closed(Vsd& vsd) {
  vsd.strict = false;
  co_await flush_written(vsd, false);
  for (;;) {
    if (!co_await await_good_copy(vsd)) co_return false;
    if (vsd.closed.ops.empty() && stales(vsd).empty()) co_return true;
    vsd.batch++;
    vsd.ready = true;
    co_await world_.scheduler.until([&] {
      return vsd.acked == vsd.batch || vsd.refused == vsd.batch || vsd.lease == Vsd::Lease::failed;
    });
    vsd.ready = false;
    if (vsd.acked == vsd.batch) break;
    if (vsd.refused != vsd.batch) co_return false;
    vsd.strict = true;
    co_await world_.scheduler.pause(kParked);
    if (vsd.lease == Vsd::Lease::failed) co_return false;
    // All of them: the one that failed may not know it yet.
    co_await flush_written(vsd, false);
    co_await flush_written(vsd, true);
  }
  for (const meta::Stale& one : stales(vsd))
    for (meta::Copy& copy : vsd.extents.at(one.extent)->copies)
      if (copy.disk == one.disk) copy.stale = true;
  co_return true;
}

void Kernel::drop_batch(Vsd& vsd, Batch& batch) {
  for (const ExtentId id : batch.dirty) {
    Extent& extent = *vsd.extents.at(id);
    (&batch == &vsd.open ? extent.open_dirty : extent.closed_dirty) = false;
    (&batch == &vsd.open ? extent.open : extent.closed) = {};
  }
  batch = {};
}

// One worker for each VSD: whoever asked before the batch is closed is told when it is committed.
Co<Done> Kernel::flusher(VsdId id) {
  Vsd& vsd = this->vsd(id);
  for (;;) {
    const uint64_t again = world_.scheduler.now() + kFlushEvery;
    co_await world_.scheduler.until([&] {
      return vsd.asked > vsd.closing ||
             (world_.scheduler.now() > again && !(vsd.open.ops.empty() && vsd.open.dirty.empty()));
    });
    vsd.closing = vsd.asked;
    // Of an epoch that was dropped nothing is promised: its next flush fails, which is not
    // modelled.
    const auto promised = vsd.dropped ? std::map<Oracle::Place, uint64_t>{}
                                      : world_.oracle.acknowledged(id, vsd.epoch);
    std::swap(vsd.open, vsd.closed);
    const uint64_t gen = ++vsd.gen;
    bool unsettled = false;
    for (const ExtentId dirty : vsd.closed.dirty) {
      Extent& extent = *vsd.extents.at(dirty);
      extent.open_dirty = false;
      extent.closed_dirty = true;
      extent.closed = std::exchange(extent.open, {});
      unsettled = unsettled || extent.closed.unsettled;
    }
    const bool something = !vsd.closed.ops.empty() || !vsd.closed.disks.empty() || unsettled;
    bool good = vsd.lease != Vsd::Lease::failed;
    if (something && good) good = co_await flush_closed(vsd);
    if (good) {
      vsd.flushed_gen = gen;
      if (vsd.served < vsd.closing) world_.oracle.flushed(promised);
    }
    drop_batch(vsd, vsd.closed);
    vsd.failed_flush = !good;
    vsd.served = vsd.closing;
  }
}

Co<bool> Kernel::flush(VsdId id) {
  Vsd& vsd = this->vsd(id);
  const uint64_t mine = ++vsd.asked;
  co_await world_.scheduler.until([&vsd, mine] { return vsd.served >= mine; });
  co_return !vsd.failed_flush;
}

// Every disk that can be reached, before a VSD is used whose last owner did not flush. A disk out
// of reach is flushed by its own loss of power, so to say: it comes back with another life.
Co<bool> Kernel::flush_disks() {
  std::vector<std::shared_ptr<Request>> legs;
  for (const auto& [id, disk] : world_.disks()) {
    if (!reachable(disk->id)) continue;
    legs.push_back(leg(Request::Op::flush, disk->id, disk->life));
    world_.send(legs.back());
  }
  co_await world_.scheduler.until([&legs] { return all_ended(legs); });
  co_return true;
}

// Lease

void Kernel::grant(VsdId id, uint64_t epoch, uint32_t copies) {
  Vsd& vsd = this->vsd(id);
  vsd.copies = copies;
  if (vsd.lease == Vsd::Lease::owned && vsd.epoch == epoch) return;
  if (epoch <= vsd.epoch || vsd.lease == Vsd::Lease::releasing) return;
  vsd.lease = Vsd::Lease::owned;
  vsd.epoch = epoch;
  vsd.dropped = false;
  vsd.batch = 0;
  vsd.acked = 0;
  vsd.refused = 0;
  vsd.wanted = false;
}

// What was not committed is lost, as in a power cut; whoever waits is told by the lease.
void Kernel::fail(VsdId id, uint64_t epoch) {
  if (in_epoch(id, epoch)) vsd(id).lease = Vsd::Lease::failed;
}

void Kernel::relet(VsdId id, uint64_t epoch) {
  if (!in_epoch(id, epoch)) return;
  vsd(id).relet = true;
  vsd(id).lease = Vsd::Lease::failed;
  // The caller may be killed meanwhile.
  world_.scheduler.spawn(&world_.node(node_), drop_unflushed(id));
}

Co<Done> Kernel::drop_unflushed(VsdId id) {
  Vsd& vsd = this->vsd(id);
  co_await world_.scheduler.until([&vsd] { return vsd.active == 0; });
  // The worker drops what is closed.
  co_await flush(id);
  drop_batch(vsd, vsd.open);
  drop_map(vsd);
  vsd.relet = false;
  vsd.dropped = true;
  vsd.lease = Vsd::Lease::none;
  co_return Done{};
}

void Kernel::put_leaf(VsdId id, uint64_t epoch, const meta::Leaf& leaf) {
  Vsd& vsd = this->vsd(id);
  if (!in_epoch(id, epoch) || vsd.loaded) return;
  for (size_t i = 0; i < leaf.chunks.size(); i++)
    if (!leaf.chunks[i].empty()) vsd.chunks[i] = leaf.chunks[i];
  for (const meta::MappedExtent& one : leaf.extents) {
    auto extent = std::make_shared<Extent>();
    extent->id = one.id;
    extent->exclusive = one.exclusive;
    extent->copies = one.copies;
    vsd.extents[one.id] = extent;
  }
  vsd.loaded = true;
}

void Kernel::drop_map(Vsd& vsd) {
  vsd.loaded = false;
  vsd.intent = false;
  vsd.chunks.clear();
  vsd.extents.clear();
  vsd.young = nullptr;
  vsd.frozen.clear();
}

Co<bool> Kernel::release(VsdId id, uint64_t epoch) {
  Vsd& vsd = this->vsd(id);
  if (vsd.lease == Vsd::Lease::none) co_return !vsd.dropped;
  if (vsd.epoch != epoch || vsd.lease != Vsd::Lease::owned) co_return false;
  const Releasing releasing(vsd);
  co_await world_.scheduler.until([&vsd] { return vsd.active == 0; });
  const bool flushed = co_await flush(id);
  if (vsd.lease != Vsd::Lease::releasing) co_return false;
  vsd.lease = flushed ? Vsd::Lease::none : Vsd::Lease::owned;
  if (flushed) drop_map(vsd);
  co_return flushed;
}

void Kernel::batch_done(VsdId id, uint64_t epoch, uint64_t batch, bool refused) {
  Vsd& vsd = this->vsd(id);
  if (vsd.epoch != epoch || !vsd.ready || vsd.batch != batch) return;
  (refused ? vsd.refused : vsd.acked) = batch;
  vsd.ready = false;
}

Co<Done> Kernel::barrier() {
  const uint64_t mine = generation_++;
  co_await world_.scheduler.until(
      [this, mine] { return running_.empty() || *running_.begin() > mine; });
  world_.end_strays(node_);
  co_return Done{};
}

// Mover

Co<bool> Kernel::copy_slot(DiskId from, uint32_t from_slot, uint64_t from_life, DiskId to,
                           uint32_t to_slot, uint64_t to_life) {
  auto request = leg(Request::Op::read, from, from_life);
  request->slot = from_slot;
  request->data.resize(kCells);
  world_.send(request);
  co_await world_.scheduler.until([&] { return request->ended; });
  if (!request->ok) co_return false;
  auto write = leg(Request::Op::write, to, to_life);
  write->slot = to_slot;
  write->data = request->data;
  world_.send(write);
  co_await world_.scheduler.until([&] { return write->ended; });
  if (!write->ok) co_return false;
  if (!world_.holds(Rule::mover_flush)) co_return true;
  auto flush = leg(Request::Op::flush, to, to_life);
  world_.send(flush);
  co_await world_.scheduler.until([&] { return flush->ended; });
  co_return flush->ok;
}

Co<bool> Kernel::gather(std::vector<Cells> from, std::vector<Cells> targets) {
  std::vector<uint64_t> data(kCells);
  std::vector<std::shared_ptr<Request>> legs;
  auto send = [&](Request::Op op, const Cells& cells) {
    auto request = leg(op, cells.disk, cells.life);
    request->slot = cells.slot;
    request->cell = cells.cell;
    if (op == Request::Op::read) request->data.resize(cells.count);
    if (op == Request::Op::write)
      request->data.assign(data.begin() + cells.cell, data.begin() + cells.cell + cells.count);
    world_.send(request);
    legs.push_back(std::move(request));
  };
  auto all_good = [&] {
    return std::all_of(legs.begin(), legs.end(), [](const auto& one) { return one->ok; });
  };
  for (const Cells& one : from) send(Request::Op::read, one);
  co_await world_.scheduler.until([&legs] { return all_ended(legs); });
  if (!all_good()) co_return false;
  for (size_t i = 0; i < from.size(); i++)
    std::copy(legs[i]->data.begin(), legs[i]->data.end(),
              data.begin() + static_cast<ptrdiff_t>(from[i].to));
  legs.clear();
  for (const Cells& one : targets) send(Request::Op::write, one);
  co_await world_.scheduler.until([&legs] { return all_ended(legs); });
  if (!all_good()) co_return false;
  if (!world_.holds(Rule::mover_flush)) co_return true;
  legs.clear();
  for (const Cells& one : from) send(Request::Op::flush, one);
  for (const Cells& one : targets) send(Request::Op::flush, one);
  co_await world_.scheduler.until([&legs] { return all_ended(legs); });
  co_return all_good();
}

void Kernel::move_pieces(const meta::Moved& moved) {
  Vsd& vsd = this->vsd(moved.vsd);
  if (!in_epoch(moved.vsd, moved.epoch) || !vsd.loaded) return;
  if (!vsd.extents.contains(moved.to.id)) {
    auto extent = std::make_shared<Extent>();
    extent->id = moved.to.id;
    extent->exclusive = moved.to.exclusive;
    extent->copies = moved.to.copies;
    vsd.extents[moved.to.id] = extent;
  }
  for (const meta::Piece& piece : moved.pieces) {
    const core::Segments before = vsd.chunks[piece.chunk];
    for (const core::Segment& one : before) {
      const int start = std::max(one.start, piece.from.start);
      const int end = std::min(one.start + one.len, piece.from.start + piece.from.len);
      if (one.extent != piece.from.extent || start >= end ||
          one.off - one.start != piece.from.off - piece.from.start)
        continue;
      const core::Segment change{static_cast<uint16_t>(start), static_cast<uint16_t>(end - start),
                                 static_cast<uint16_t>(piece.to + (start - piece.from.start)),
                                 moved.to.id};
      vsd.chunks[piece.chunk] = core::splice(vsd.chunks[piece.chunk], change);
    }
    for (const core::Segment& one : before)
      if (!mapped(vsd, one.extent))
        vsd.extents.at(one.extent)->dead = world_.holds(Rule::dead_extents);
  }
}

bool Kernel::set_extent(VsdId id, uint64_t epoch, const meta::MappedExtent& as, bool frozen,
                        DiskId refreshed, bool partial) {
  Vsd& vsd = this->vsd(id);
  if (!in_epoch(id, epoch)) return false;
  const auto known = vsd.extents.find(as.id);
  if (known == vsd.extents.end()) {
    // Interned only for being frozen; nothing of this node uses it.
    if (frozen)
      vsd.frozen.insert(as.id);
    else
      vsd.frozen.erase(as.id);
    return true;
  }
  Extent& extent = *known->second;
  const bool takes_away =
      std::any_of(extent.copies.begin(), extent.copies.end(),
                  [&](const meta::Copy& copy) { return !holds(as.copies, copy.disk); });
  const bool busy = extent.open_dirty || extent.closed_dirty;
  if (frozen && takes_away && (!extent.frozen || busy)) return false;
  if (frozen && partial && busy) return false;
  if (!frozen && !extent.frozen) return true;
  if (frozen || !(takes_away && busy)) {
    std::erase_if(extent.copies, [&](const meta::Copy& c) { return !holds(as.copies, c.disk); });
    for (const meta::Copy& copy : as.copies) {
      const auto at = std::find_if(extent.copies.begin(), extent.copies.end(),
                                   [&](const meta::Copy& c) { return c.disk == copy.disk; });
      if (at == extent.copies.end())
        extent.copies.push_back(copy);
      else if (copy.disk == refreshed)
        at->stale = false;
      else
        at->stale = at->stale || copy.stale;
    }
  }
  extent.frozen = frozen;
  if (frozen)
    vsd.frozen.insert(as.id);
  else
    vsd.frozen.erase(as.id);
  return true;
}

}  // namespace sim
