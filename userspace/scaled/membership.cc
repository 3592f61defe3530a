// SPDX-License-Identifier: GPL-2.0
#include "membership.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/rest.h"
#include "etcd_service.h"
#include "meta/cluster.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kMemberTimeout{10'000};
constexpr seconds kJoinAgain{1};
constexpr seconds kLetGo{5};
constexpr seconds kMembersEvery{15};
constexpr seconds kCatchUp{120};

}  // namespace

Membership::Membership(const Paths& paths, const Config& config, const Peers& peers,
                       replica::Replica& replica, std::function<void()> changed)
    : paths_(paths),
      config_(config),
      replica_(replica),
      changed_(std::move(changed)),
      etcd_(etcd_endpoints(config, peers), kMemberTimeout) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Membership::run(const std::stop_token& stop) {
  bool settled = false;
  auto next = steady_clock::now();
  while (!stop.stop_requested()) {
    if (!settled && steady_clock::now() >= next) {
      auto done = look(stop);
      settled = done && *done;
      if (!done) spdlog::warn("etcd on this node: {}", done.error().text);
      next = steady_clock::now() + kMembersEvery;
    }
    if (auto done = let_go(); !done) spdlog::info("removing a node: {}", done.error().text);
    core::rest_until(stop, steady_clock::now() + kLetGo);
  }
}

// Nodes that are to be removed: when nothing is left on them, they are; then etcd does without
// them; then they are forgotten.
Result<void> Membership::let_go() {
  if (!replica_.leading()) return {};
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return database.error();
  meta::Cluster cluster(**database);
  auto nodes = cluster.nodes();
  if (!nodes) return nodes.error();
  for (const meta::Node& node : *nodes) {
    json::object body{{"node", node.id.value}};
    if (node.state == "removed") {
      CORE_TRY(drop_member(node));
      body["op"] = "node_forget";
    } else if (node.leaving) {
      const auto copies = cluster.copies_on(node.id);
      if (!copies) return copies.error();
      if (*copies != 0) continue;
      body["op"] = "node_gone";
    } else {
      continue;
    }
    auto done = replica_.propose(std::move(body), steady_clock::now() + kProposeFor);
    if (!done) return done.error();
  }
  return {};
}

Result<void> Membership::drop_member(const meta::Node& node) {
  auto members = etcd_.members();
  if (!members) return members.error();
  for (const auto& one : *members)
    if (one.peer_url == etcd_peer_url(node.backplane_addr)) return etcd_.remove_member(one.id);
  return {};
}

Result<bool> Membership::look(const std::stop_token& stop) {
  if (!config_.etcd_member) return become_member(stop);
  // A member that is not known is not made anew: a list of members may be out of date, and then a
  // healthy member would be removed, and its data.
  CORE_TRY(promote(stop, seconds(0)));
  return true;
}

Result<bool> Membership::become_member(const std::stop_token& stop) {
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return database.error();
  auto nodes = meta::Cluster(**database).nodes();
  auto tasks = meta::Cluster(**database).tasks();
  if (!nodes || !tasks) return Error{Code::storage, "the metadata is unreadable"};
  auto initial = add_etcd_member(etcd_, config_.node, config_.backplane, *nodes, *tasks);
  if (!initial) return initial.error();
  if (initial->empty()) return false;
  Config config = config_;
  config.etcd_member = true;
  CORE_TRY(start_etcd(paths_, config, *initial, true));
  // From here on it is one, though it may not vote yet: the next run sees to that.
  CORE_TRY(save_config(paths_, config));
  if (auto voter = promote(stop, kCatchUp); !voter)
    spdlog::warn("etcd here does not vote yet: {}", voter.error().text);
  changed_();
  return true;
}

Result<void> Membership::promote(const std::stop_token& stop, seconds patience) {
  const auto deadline = steady_clock::now() + patience;
  for (;;) {
    auto members = etcd_.members();
    if (!members) return members.error();
    const auto own = std::find_if(members->begin(), members->end(), [&](const auto& one) {
      return one.peer_url == etcd_peer_url(config_.backplane);
    });
    if (own == members->end())
      return Error{Code::not_found, "the cluster's etcd does not know this node"};
    if (!own->learner) return {};
    auto done = etcd_.promote(own->id);
    if (done) return {};
    if (stop.stop_requested() || steady_clock::now() >= deadline) return done.error();
    core::rest_until(stop, steady_clock::now() + kJoinAgain);
  }
}

}  // namespace scaled
