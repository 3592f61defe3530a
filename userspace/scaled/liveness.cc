// SPDX-License-Identifier: GPL-2.0
#include "liveness.h"

#include <spdlog/spdlog.h>
#include <time.h>

#include "core/rest.h"
#include "host/reset.h"

namespace scaled {

using core::NodeId;
using journal::Compare;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

namespace {

constexpr const char* kAlivePrefix = "scribe/alive/";
constexpr const char* kAliveEnd = "scribe/alive0";
constexpr size_t kMaxNodes = 256;
constexpr milliseconds kKernelTick{500};
// Nobody takes over from a single node; the deadline is there for the module's sake alone.
constexpr seconds kSingleLease{3600};
constexpr int kFirstBeatLeases = 8;
// Long enough for whatever one round below may wait for; the node has been given up before.
constexpr int kWatchdogLeases = 4;
constexpr seconds kMinWatchdog{30};

uint64_t boottime_ns() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t ns(auto duration) {
  return static_cast<uint64_t>(std::chrono::duration_cast<nanoseconds>(duration).count());
}

std::string alive_key(NodeId node) { return kAlivePrefix + std::to_string(node.value); }

std::string dead_key(NodeId node, uint64_t life) {
  return "scribe/dead/" + std::to_string(node.value) + "/" + std::to_string(life);
}

}  // namespace

Liveness::Liveness(const Paths& paths, const Config& config, replica::Replica& replica,
                   Agent& agent, host::Watchdog& watchdog, journal::Etcd::Endpoints endpoints)
    : paths_(paths),
      config_(config),
      replica_(replica),
      agent_(agent),
      watchdog_(watchdog),
      etcd_(std::move(endpoints), config.lease / 4) {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    if (config_.single)
      run_single(stop);
    else
      run(stop);
  });
}

Liveness::~Liveness() = default;

void Liveness::run_single(const std::stop_token& stop) {
  std::unique_ptr<control::Kernel> kernel;
  while (!stop.stop_requested()) {
    const uint64_t life = agent_.life();
    if (life != 0 && !kernel) {
      auto opened = control::Kernel::open();
      if (opened) kernel = std::move(*opened);
    }
    if (life != 0 && kernel) {
      auto done = kernel->set_deadline(life, boottime_ns() + ns(kSingleLease));
      if (!done) spdlog::error("deadline: {}", done.error().text);
    }
    core::rest_until(stop, Clock::now() + kKernelTick);
  }
}

void Liveness::run(const std::stop_token& stop) {
  std::unique_ptr<control::Kernel> kernel;
  while (!stop.stop_requested()) {
    const auto next = Clock::now() + config_.lease / 5;
    const uint64_t life = agent_.life();
    if (life != 0 && !kernel) {
      auto opened = control::Kernel::open();
      if (opened) kernel = std::move(*opened);
    }
    if (life != 0 && kernel) beat(*kernel, life);
    observe();
    if (life != 0) watch();
    // Before the life is known there is nothing to renew, and soon there will be.
    core::rest_until(stop, life == 0 ? Clock::now() + kKernelTick : next);
  }
}

void Liveness::beat(control::Kernel& kernel, uint64_t life) {
  const uint64_t began = boottime_ns();
  const std::string dead = dead_key(config_.node, life);
  auto done = etcd_.put_if({{dead, Compare::What::absent, 0}}, alive_key(config_.node),
                           std::to_string(life), 0, {dead});
  if (!done) {
    spdlog::warn("the lease was not renewed: {}", done.error().text);
    return;
  }
  if (!done->succeeded) {
    spdlog::critical("this node was declared dead by the others and resets itself");
    host::reset_machine();
  }
  deadline_ns_ = began + ns(config_.lease);
  if (auto set = kernel.set_deadline(life, deadline_ns_); !set)
    spdlog::error("deadline: {}", set.error().text);
}

bool Liveness::expired() const { return boottime_ns() >= deadline_ns_; }

void Liveness::watch() {
  const auto timeout =
      std::max(kMinWatchdog, std::chrono::duration_cast<seconds>(config_.lease * kWatchdogLeases));
  auto armed = watchdog_.arm(timeout);
  agent_.set_condition("watchdog", armed ? "" : armed.error().text);
  watchdog_.pet();
}

void Liveness::observe() {
  const auto now = Clock::now();
  auto alive = etcd_.range(kAlivePrefix, kAliveEnd, kMaxNodes);
  auto database = meta::Database::open_reader(paths_.database());
  auto nodes = database ? meta::Cluster(**database).nodes()
                        : Result<std::vector<meta::Node>>(database.error());
  if (!alive || !nodes) return;
  // Time in which we saw nothing counts for nobody: without a quorum none could renew its lease.
  if (now - observed_ > config_.lease / 2)
    for (auto& [node, seen] : seen_) seen.since += now - observed_;
  observed_ = now;
  for (const meta::Node& node : *nodes) {
    if (node.id == config_.node || node.state != "up") {
      seen_.erase(node.id);
      continue;
    }
    uint64_t revision = 0;
    bool heard = false;
    for (const journal::KeyValue& kv : *alive) {
      if (kv.key != alive_key(node.id)) continue;
      revision = kv.modified_at;
      heard = kv.value == std::to_string(node.life);
    }
    Seen& seen = seen_[node.id];
    if (seen.life != node.life || seen.revision != revision) seen = {node.life, revision, now};
    const auto limit = heard ? config_.lease + config_.lease / 4 : config_.lease * kFirstBeatLeases;
    if (replica_.leading() && now - seen.since > limit) declare(node, seen);
  }
}

void Liveness::declare(const meta::Node& node, const Seen& seen) {
  const std::string dead = dead_key(node.id, node.life);
  auto done = etcd_.put_if({{alive_key(node.id), Compare::What::modified_at, seen.revision}}, dead,
                           "", 0, {dead});
  // It may be there already, and only the row is missing: this leader, or one before, was
  // interrupted.
  if (!done || (!done->succeeded && done->found.empty())) return;
  spdlog::warn("node {} is down: not heard for {} s", node.name,
               std::chrono::duration_cast<seconds>(Clock::now() - seen.since).count());
  // This thread renews this node's own lease, too: it waits for a part of that only, and is here
  // again with the next beat.
  auto down = replica_.propose({{"op", "node_down"}, {"node", node.id.value}, {"life", node.life}},
                               Clock::now() + config_.lease / 2);
  if (!down) spdlog::warn("node {}: {}", node.name, down.error().text);
}

}  // namespace scaled
