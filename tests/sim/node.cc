// SPDX-License-Identifier: GPL-2.0
#include "node.h"

namespace sim {

namespace {

constexpr uint64_t kBetweenBursts = 6000;
constexpr uint64_t kBurst = 12;
constexpr uint64_t kBetween = 40;

}  // namespace

void Node::boot() {
  powered = true;
  kernel = std::make_unique<Kernel>(world_, id, world_.scheduler.draw(uint64_t{1} << 60) + 1);
  for (auto& [number, disk] : world_.disks())
    if (disk->node == id && !disk->gone) disk->life = world_.scheduler.draw(uint64_t{1} << 60) + 1;
  for (const VsdId vsd : world_.vsds) {
    world_.scheduler.spawn(this, kernel->flusher(vsd));
    world_.scheduler.spawn(this, guest(vsd));
  }
  world_.say("n" + std::to_string(id) + " boots");
}

void Node::halt() {
  kill_daemon();
  world_.scheduler.kill(this);
  world_.scheduler.thaw(this);
  kernel.reset();
  powered = false;
  frozen = false;
  for (auto& [number, disk] : world_.disks())
    if (disk->node == id) disk->life = 0;
}

void Node::start_daemon() {
  daemon = std::make_unique<Daemon>(world_, *this, *database);
  daemon->start_fibers();
}

void Node::kill_daemon() {
  world_.scheduler.kill(daemon.get());
  world_.scheduler.thaw(daemon.get());
  daemon.reset();
  daemon_frozen = false;
}

void Node::freeze(bool daemon_only) {
  if (daemon) world_.scheduler.freeze(daemon.get());
  daemon_frozen = true;
  if (daemon_only) return;
  world_.scheduler.freeze(this);
  frozen = true;
}

void Node::resume() {
  if (daemon) world_.scheduler.thaw(daemon.get());
  world_.scheduler.thaw(this);
  daemon_frozen = false;
  frozen = false;
}

Co<Done> Node::touch(VsdId vsd) {
  co_await kernel->read(vsd, 0, 0);
  co_return Done{};
}

// Whoever uses the device here, now and then.
Co<Done> Node::guest(VsdId vsd) {
  for (;;) {
    co_await world_.scheduler.pause(kBetweenBursts);
    for (uint64_t i = world_.scheduler.draw(kBurst); i > 0 && world_.guests; i--) {
      const uint64_t chunk = world_.scheduler.draw(kChunks);
      const auto cell = static_cast<uint32_t>(world_.scheduler.draw(kCells));
      const auto most = static_cast<uint32_t>(world_.scheduler.draw(kCells - cell) + 1);
      const uint64_t what = world_.scheduler.draw(20);
      if (what < 11)
        co_await kernel->write(vsd, chunk, cell, world_.scheduler.one_in(4) ? most : 1, false);
      else if (what < 12)
        co_await kernel->write(vsd, chunk, cell, most, true);
      else if (what < 16)
        co_await kernel->read(vsd, chunk, cell);
      else
        co_await kernel->flush(vsd);
      co_await world_.scheduler.pause(kBetween);
    }
  }
}

}  // namespace sim
