// SPDX-License-Identifier: GPL-2.0
#include "hypervisor/freezes.h"

#include <fstream>
#include <utility>

namespace hypervisor {

using core::Code;
using core::Error;

Freezes::Freezes(std::filesystem::path folder, Agents agents, std::chrono::milliseconds at_most,
                 std::chrono::milliseconds again)
    : folder_(std::move(folder)), agents_(std::move(agents)), at_most_(at_most), again_(again) {
  std::error_code err;
  std::filesystem::create_directories(folder_, err);
  for (const auto& left : std::filesystem::directory_iterator(folder_, err))
    frozen_[left.path().filename()] = {0, Clock::now(), false, true, 0};
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

// What is still frozen goes on now, if its agent answers; else when the next daemon begins.
Freezes::~Freezes() {
  thread_.request_stop();
  thread_.join();
  std::error_code err;
  for (const auto& [uuid, frozen] : frozen_)
    if (agents_.thaw(uuid)) std::filesystem::remove(file_of(uuid), err);
}

void Freezes::poke() {
  changed_ = true;
  poked_.notify_all();
}

void Freezes::forget(const std::string& uuid) {
  std::error_code err;
  std::filesystem::remove(file_of(uuid), err);
  frozen_.erase(uuid);
}

// Another one than any before, also those of daemons that were here before this one.
uint64_t Freezes::another_ticket() {
  std::uniform_int_distribution<uint64_t> any(1);
  return any(random_);
}

Result<uint64_t> Freezes::freeze(const std::string& uuid) {
  uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    if (moving_.contains(uuid)) return Error{Code::conflict, "it is on its way to another node"};
    if (frozen_.contains(uuid))
      return Error{Code::conflict, "it is frozen for another snapshot, or was just now"};
    // It need not survive the machine, which the guest does not either.
    if (!std::ofstream(file_of(uuid)))
      return Error{Code::storage, file_of(uuid).string() + " cannot be written"};
    ticket = another_ticket();
    frozen_[uuid] = {ticket, Clock::now() + at_most_, true, false, 0};
  }
  const auto done = agents_.freeze(uuid);
  const std::lock_guard lock(mutex_);
  Frozen& frozen = frozen_[uuid];
  frozen.begins = false;
  if (!done) frozen = {ticket, Clock::now(), false, true, 0};
  poke();
  if (!done) return done.error();
  return ticket;
}

bool Freezes::thaw(const std::string& uuid, uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  const auto at = frozen_.find(uuid);
  if (at == frozen_.end() || at->second.ticket != ticket || at->second.ends) return false;
  const bool in_time = Clock::now() < at->second.until;
  at->second = {ticket, Clock::now(), false, true, 0};
  poke();
  return in_time;
}

bool Freezes::may_move(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  if (frozen_.contains(uuid)) return false;
  moving_.insert(uuid);
  return true;
}

void Freezes::moved(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  moving_.erase(uuid);
}

void Freezes::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    auto next = frozen_.end();
    for (auto at = frozen_.begin(); at != frozen_.end(); ++at)
      if (!at->second.begins && (next == frozen_.end() || at->second.until < next->second.until))
        next = at;
    const auto changed = [this] { return std::exchange(changed_, false); };
    if (next == frozen_.end()) {
      poked_.wait(lock, stop, changed);
      continue;
    }
    if (const auto until = next->second.until; until > Clock::now()) {
      poked_.wait_until(lock, stop, until, changed);
      continue;
    }
    const std::string uuid = next->first;
    next->second.ends = true;
    lock.unlock();
    const auto done = agents_.thaw(uuid);
    lock.lock();
    // Nobody else has taken it away.
    Frozen& frozen = frozen_[uuid];
    if (done || done.error().code == Code::not_found) {
      forget(uuid);
      continue;
    }
    frozen.until = Clock::now() + again_;
    const bool given_up = ++frozen.tries == kTries;
    if (frozen.tries == 1 || given_up) agents_.failed(uuid, done.error().text, given_up);
    if (given_up) forget(uuid);
  }
}

}  // namespace hypervisor
