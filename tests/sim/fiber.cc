// SPDX-License-Identifier: GPL-2.0
#include "fiber.h"

#include <algorithm>

namespace sim {

void Scheduler::spawn(const void* owner, Co<Done> main) {
  const auto at = main.handle();
  fibers_.push_back(std::make_unique<Fiber>(Fiber{owner, std::move(main), at, {}}));
}

void Scheduler::kill(const void* owner) {
  std::erase_if(fibers_, [&](const auto& fiber) {
    if (fiber->owner != owner) return false;
    fiber->killed = true;
    return fiber.get() != running_;
  });
}

void Scheduler::step() {
  now_++;
  if (fibers_.empty()) return;
  Fiber& fiber = *fibers_[draw(fibers_.size())];
  if (frozen_.contains(fiber.owner) || (fiber.until && !fiber.until())) return;
  fiber.until = {};
  running_ = &fiber;
  fiber.at.resume();
  running_ = nullptr;
  const bool over = fiber.main.handle().done();
  if (over) fiber.main.rethrow();
  if (!over && !fiber.killed) return;
  std::erase_if(fibers_, [&](const auto& one) { return one.get() == &fiber; });
}

}  // namespace sim
