// SPDX-License-Identifier: GPL-2.0
#include "etcd_service.h"

#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cstring>

extern char** environ;

namespace scaled {

namespace {

constexpr const char* kUnit = "scaled-etcd.service";

Result<void> systemctl(const char* verb) {
  std::array<const char*, 5> argv = {"systemctl", "--no-block", verb, kUnit, nullptr};
  pid_t pid = 0;
  const int err =
      posix_spawnp(&pid, argv[0], nullptr, nullptr, const_cast<char* const*>(argv.data()), environ);
  int status = 0;
  if (err != 0 || ::waitpid(pid, &status, 0) != pid || status != 0)
    return Error{Code::storage, std::string("systemctl ") + verb + " " + kUnit + " failed"};
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
  set("HEARTBEAT_INTERVAL", std::to_string(election / 10));
  set("ELECTION_TIMEOUT", std::to_string(election));
  set("AUTO_COMPACTION_MODE", "revision");
  set("AUTO_COMPACTION_RETENTION", "1000");
  set("QUOTA_BACKEND_BYTES", "4294967296");
  set("MAX_REQUEST_BYTES", "8388608");
  set("LOGGER", "zap");
  set("LOG_LEVEL", "warn");
  return out;
}

}  // namespace

std::string etcd_peer_url(const std::string& address) {
  return "https://" + address + ":" + std::to_string(kEtcdPeerPort);
}

Result<void> start_etcd(const Paths& paths, const Config& config,
                        const std::string& initial_cluster, bool existing) {
  if (!initial_cluster.empty()) {
    std::error_code err;
    std::filesystem::create_directories(paths.etcd(), err);
    CORE_TRY(write_file(paths.etcd() / "node.crt", config.identity.own.cert, 0644));
    CORE_TRY(write_file(paths.etcd() / "node.key", config.identity.own.key, 0600));
    CORE_TRY(write_file(paths.etcd() / "ca.crt", config.identity.ca_cert, 0644));
    CORE_TRY(write_file(paths.etcd() / "etcd.env",
                        settings(paths, config, initial_cluster, existing), 0644));
  }
  return systemctl("start");
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
