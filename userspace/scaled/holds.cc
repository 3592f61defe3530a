// SPDX-License-Identifier: GPL-2.0
// The agent's part of a snapshot: virtual disks that stand still on this node, from hold() until
// go_on() or for a time. Called by threads of the API; keep_holds() by the housekeeping thread.
// What is held is a row of held_ and of releasing_, both under mutex_; decision 13 tells why it is
// safe.
#include <spdlog/spdlog.h>

#include "agent.h"

namespace scaled {

namespace json = boost::json;
using control::Kernel;
using core::VsdId;
using std::chrono::seconds;

namespace {

constexpr seconds kHeldAtMost{10};

}  // namespace

// What the metadata is to know of each VSD, once nobody can write to any of them: those whose
// leases this node's kernel has are held there. It lets its users go on in a new epoch only, which
// it asks for by itself where nobody grants one.
Result<json::array> Agent::hold_still(const Mover::Paused& paused, const std::vector<VsdId>& vsds) {
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return database.error();
  json::array items;
  std::vector<std::pair<VsdId, uint64_t>> held;
  for (const VsdId vsd : vsds) {
    auto row = meta::Cluster(**database).vsd(vsd);
    if (!row) return row.error();
    if (!*row) return Error{Code::not_found, "no VSD with id " + std::to_string(vsd.value)};
    json::object item{{"vsd", vsd.value}};
    if ((*row)->lease_node == config_.node && (*row)->lease_life == life_) {
      item["node"] = config_.node.value;
      item["life"] = life_.load();
      item["epoch"] = (*row)->epoch;
      if (mover_.stop_minding(paused, vsd) != (*row)->epoch) {
        // What is on its way to the kernel would come there behind us.
        auto kernel = Kernel::open();
        if (!kernel || !(*kernel)->set_extents(vsd, (*row)->epoch, {}))
          return Error{Code::conflict, "a lease is being taken at this moment; try again"};
        held.emplace_back(vsd, (*row)->epoch);
      }
    }
    items.push_back(std::move(item));
  }
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [vsd, epoch] : held) held_[vsd].epoch = epoch;
  }
  // All at once, so that the first does not wait for the flush of the last.
  std::vector<Result<void>> done(held.size());
  {
    std::vector<std::jthread> flushers;
    for (size_t i = 0; i < held.size(); i++)
      flushers.emplace_back([&, i] {
        auto kernel = Kernel::open();
        done[i] = kernel ? (*kernel)->release_lease(held[i].first, held[i].second)
                         : Result<void>(kernel.error());
      });
  }
  for (const auto& one : done)
    if (!one) return one.error();
  return items;
}

Result<json::array> Agent::hold(const std::vector<VsdId>& vsds) {
  const auto paused = mover_.pause({});
  {
    const std::lock_guard lock(mutex_);
    for (const VsdId vsd : vsds)
      if (recovering_.change(vsd) || releasing_.change(vsd))
        return Error{Code::conflict, "a lease changes hands at this moment; try again"};
    for (const VsdId vsd : vsds) {
      releasing_.begin(vsd);
      held_[vsd] = {Clock::now() + kHeldAtMost, 0};
    }
  }
  auto items = hold_still(paused, vsds);
  if (items) return items;
  for (const VsdId vsd : vsds) give_up_hold(vsd);
  wake_service();
  return items;
}

void Agent::go_on(const std::vector<std::pair<VsdId, uint64_t>>& epochs) {
  auto kernel = Kernel::open();
  for (const auto& [vsd, epoch] : epochs) {
    // After its time the lease may be under way to the kernel in another epoch.
    if (kernel && epoch != 0 && prolong_hold(vsd)) {
      go_on_in(**kernel, vsd, epoch);
      end_hold(vsd);
    } else {
      give_up_hold(vsd);
    }
  }
  wake_service();
}

bool Agent::prolong_hold(VsdId vsd) {
  const std::lock_guard lock(mutex_);
  const auto at = held_.find(vsd);
  if (at == held_.end()) return false;
  at->second.until = Clock::time_point::max();
  return true;
}

// The epoch in which this node's kernel had it; 0: it had not, or that is over.
uint64_t Agent::end_hold(VsdId vsd) {
  const std::lock_guard lock(mutex_);
  const auto at = held_.find(vsd);
  if (at == held_.end()) return 0;
  releasing_.end(vsd);
  return held_.extract(at).mapped().epoch;
}

// Nothing became of it: what the kernel has released is for whoever wants it, this node too. Where
// the snapshot was taken all the same, and only its answer was lost, that epoch is over.
void Agent::give_up_hold(VsdId vsd) {
  const uint64_t epoch = end_hold(vsd);
  auto kernel = Kernel::open();
  if (epoch == 0 || !kernel || (*kernel)->set_extents(vsd, epoch, {})) return;
  auto dropped = propose({{"op", "lease_drop"},
                          {"vsd", vsd.value},
                          {"node", config_.node.value},
                          {"epoch", epoch},
                          {"clean", false}});
  if (!dropped) spdlog::info("VSD {}: {}", vsd.value, dropped.error().text);
}

// Whoever asked for it has not said what became of it.
void Agent::keep_holds() {
  std::vector<VsdId> over;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [vsd, held] : held_)
      if (Clock::now() >= held.until) over.push_back(vsd);
  }
  for (const VsdId vsd : over) give_up_hold(vsd);
  if (!over.empty()) wake_service();
}

// In the epoch that the snapshot began. One that no device here uses is for others.
void Agent::go_on_in(Kernel& kernel, VsdId vsd, uint64_t epoch) {
  auto database = meta::Database::open_reader(paths_.database());
  auto row = database ? meta::Cluster(**database).vsd(vsd)
                      : Result<std::optional<meta::Vsd>>(database.error());
  const uint32_t copies = row && *row ? (*row)->replicas : 2;
  auto done = kernel.grant_lease(vsd, epoch, copies);
  if (done) note_granted(vsd, epoch, copies);
  // Else it asks for one by itself.
  if (done || done.error().code != Code::not_found) return;
  auto dropped = propose({{"op", "lease_drop"},
                          {"vsd", vsd.value},
                          {"node", config_.node.value},
                          {"epoch", epoch},
                          {"clean", true}});
  if (!dropped) spdlog::info("VSD {}: {}", vsd.value, dropped.error().text);
}

}  // namespace scaled
