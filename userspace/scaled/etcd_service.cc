// SPDX-License-Identifier: GPL-2.0
#include "etcd_service.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <set>
#include <thread>

#include "host/command.h"

namespace scaled {

namespace {

constexpr const char* kUnit = "scaled-etcd.service";
constexpr size_t kNodesForFive = 5;
constexpr int64_t kJoinSeconds = 300;
constexpr std::chrono::seconds kSettle{20};
constexpr std::chrono::seconds kEtcdAgain{1};

Result<void> systemctl(const char* verb, const char* how) {
  const auto done = host::run_command({"systemctl", how, verb, kUnit});
  if (!done)
    return Error{Code::storage,
                 std::string("systemctl ") + verb + " " + kUnit + ": " + done.error().text};
  return {};
}

std::string settings(const Paths& paths, const Config& c, const std::string& initial_cluster,
                     bool existing) {
  const std::string dir = paths.etcd().string();
  const std::string peer = etcd_peer_url(c.backplane);
  const std::string client = "https://" + c.backplane + ":" + std::to_string(kEtcdClientPort);
  // A member that misses heartbeats for a fifth of a node's lease is not waited for any longer.
  const auto election = c.lease.count() / 5;
  std::string out;
  auto set = [&](const char* name, const std::string& value) {
    out += std::string("ETCD_") + name + "=" + value + "\n";
  };
  set("NAME", tls::node_name(c.node));
  set("DATA_DIR", dir + "/data");
  set("LISTEN_PEER_URLS", peer);
  set("INITIAL_ADVERTISE_PEER_URLS", peer);
  set("LISTEN_CLIENT_URLS", client + ",https://127.0.0.1:" + std::to_string(kEtcdClientPort));
  set("ADVERTISE_CLIENT_URLS", client);
  set("INITIAL_CLUSTER", initial_cluster);
  set("INITIAL_CLUSTER_STATE", existing ? "existing" : "new");
  set("INITIAL_CLUSTER_TOKEN", host::to_string(c.uuid));
  for (const char* side : {"", "PEER_"}) {
    const std::string prefix = side;
    set((prefix + "CERT_FILE").c_str(), dir + "/node.crt");
    set((prefix + "KEY_FILE").c_str(), dir + "/node.key");
    set((prefix + "TRUSTED_CA_FILE").c_str(), dir + "/ca.crt");
    set((prefix + "CLIENT_CERT_AUTH").c_str(), "true");
  }
  set("HEARTBEAT_INTERVAL", std::to_string(election / 5));
  set("ELECTION_TIMEOUT", std::to_string(election));
  set("AUTO_COMPACTION_MODE", "revision");
  set("AUTO_COMPACTION_RETENTION", "1000");
  set("QUOTA_BACKEND_BYTES", "4294967296");
  set("MAX_REQUEST_BYTES", "8388608");
  set("LOGGER", "zap");
  set("LOG_LEVEL", "warn");
  return out;
}

// Where a learner may be about to start: at a node of the cluster, or one that was let in just now.
std::set<std::string> may_start(const std::vector<meta::Node>& nodes,
                                const std::vector<meta::Task>& tasks) {
  std::set<core::NodeId> joining;
  for (const meta::Task& task : tasks)
    if (task.what == "node join" && task.state == "running" &&
        task.began > std::time(nullptr) - kJoinSeconds)
      joining.insert(task.node);
  std::set<std::string> out;
  for (const meta::Node& node : nodes)
    if (node.state != "new" || joining.contains(node.id))
      out.insert(etcd_peer_url(node.backplane_addr));
  return out;
}

}  // namespace

std::string etcd_peer_url(const std::string& address) {
  return "https://" + address + ":" + std::to_string(kEtcdPeerPort);
}

Result<void> start_etcd(const Paths& paths, const Config& config,
                        const std::string& initial_cluster, bool existing) {
  if (!initial_cluster.empty()) {
    // What an earlier attempt left, which came so far and no further, belongs to no cluster.
    CORE_TRY(systemctl("stop", "--quiet"));
    std::error_code err;
    std::filesystem::remove_all(paths.etcd(), err);
    std::filesystem::create_directories(paths.etcd(), err);
    CORE_TRY(write_file(paths.etcd() / "node.crt", config.identity.own.cert, 0644));
    CORE_TRY(write_file(paths.etcd() / "node.key", config.identity.own.key, 0600));
    CORE_TRY(write_file(paths.etcd() / "ca.crt", config.identity.ca_cert, 0644));
    CORE_TRY(write_file(paths.etcd() / "etcd.env",
                        settings(paths, config, initial_cluster, existing), 0644));
  }
  return systemctl("start", "--no-block");
}

Result<void> stop_etcd() { return systemctl("stop", "--quiet"); }

Result<std::string> add_etcd_member(journal::Etcd& etcd, core::NodeId node,
                                    const std::string& address,
                                    const std::vector<meta::Node>& nodes,
                                    const std::vector<meta::Task>& tasks) {
  auto members = etcd.members();
  if (!members) return members.error();
  const std::string url = etcd_peer_url(address);
  const std::set<std::string> starting = may_start(nodes, tasks);
  // etcd takes one learner at a time. One that never started is of a node that is about to start
  // it, or of a join that came to no end; one in this node's place is of an earlier attempt of its
  // own.
  for (const auto& one : *members) {
    const bool idle = one.learner && one.name.empty();
    if (one.peer_url != url && idle && starting.contains(one.peer_url))
      return Error{Code::conflict,
                   "another node joins at this moment; try again when it is in, or in 5 minutes"};
    if (one.peer_url == url || idle) CORE_TRY(etcd.remove_member(one.id));
  }
  std::erase_if(*members, [&](const auto& one) {
    return one.peer_url == url || (one.learner && one.name.empty());
  });
  if (members->size() >= (nodes.size() >= kNodesForFive ? 5U : 3U)) return std::string();
  // For 5 s after another came, etcd calls itself unhealthy and takes nobody; and the member that
  // is asked may not have started yet. Where the outcome is not known, the list tells.
  const auto deadline = std::chrono::steady_clock::now() + kSettle;
  bool listed = false;
  auto added = etcd.add_learner(url);
  while (!added && added.error().code == Code::unknown &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kEtcdAgain);
    auto now = etcd.members();
    const auto known = [&](const auto& one) { return one.peer_url == url; };
    listed = now && std::any_of(now->begin(), now->end(), known);
    if (listed) break;
    if (now) added = etcd.add_learner(url);
  }
  if (!added && !listed) return added.error();
  std::string out = tls::node_name(node) + "=" + url;
  for (const auto& one : *members) out += "," + one.name + "=" + one.peer_url;
  return out;
}

journal::Etcd::Endpoints etcd_endpoints(const Config& config, const Peers& peers) {
  return [&config, &peers] {
    std::vector<http::Target> out;
    auto add = [&](const std::string& host, core::NodeId node) {
      http::Target target;
      target.host = host;
      target.port = kEtcdClientPort;
      target.identity = &config.identity;
      target.node = node;
      out.push_back(std::move(target));
    };
    if (config.etcd_member) add("127.0.0.1", config.node);
    for (const auto& [node, address] : peers.addresses())
      if (node != config.node) add(address, node);
    return out;
  };
}

}  // namespace scaled
