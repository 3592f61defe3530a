// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "core/id.h"
#include "core/result.h"
#include "host/disks.h"
#include "tls/authority.h"

namespace scaled {

using core::Code;
using core::Error;
using core::Result;

inline constexpr uint16_t kApiPort = 7421;
inline constexpr uint16_t kBackplanePort = 7420;
inline constexpr const char* kSocketPath = "/run/scaled/scaled.sock";
inline constexpr const char* kDevices = "/dev/mapper/";
inline constexpr uint64_t kSectorBytes = 512;
/// How long a thread waits for what it proposes; it comes back to it anyway.
inline constexpr std::chrono::seconds kProposeFor{15};

/// Where a daemon keeps what is its own.
struct Paths {
  std::filesystem::path state = "/var/lib/scaled";
  std::string socket = kSocketPath;

  std::filesystem::path config() const { return state / "node.json"; }
  std::filesystem::path database() const { return state / "meta.db"; }
  std::filesystem::path log() const { return state / "log"; }
  /// The nodes' addresses, for when the database cannot be read.
  std::filesystem::path addresses() const { return state / "nodes.json"; }
  /// Its presence asks for a copy of the database from another node.
  std::filesystem::path refetch() const { return state / "refetch"; }
  /// Such a copy, whole and checked, before it takes the database's place.
  std::filesystem::path copy() const { return state / "meta.copy"; }
  /// What this node found in the audit for which it asked for that copy.
  std::filesystem::path audited() const { return state / "audited"; }
  /// Its presence says that this node was removed from its cluster, and what was the node's is to
  /// be put aside.
  std::filesystem::path removed() const { return state / "removed"; }
  /// Where that is put.
  std::filesystem::path aside() const { return state / "left"; }
  std::filesystem::path etcd() const { return state / "etcd"; }
  /// Guests whose file systems are frozen; gone with the machine, as the guests are.
  std::filesystem::path frozen() const {
    return std::filesystem::path(socket).parent_path() / "frozen";
  }
};

/// Who this node is: written once, when it joins or founds a cluster. The rest is in the database.
struct Config {
  core::NodeId node;
  std::string name;
  std::string cluster;
  host::Uuid uuid{};
  std::string lan;
  std::string backplane;
  bool single = false;   ///< one node, with the local log
  bool founder = false;  ///< it makes the cluster's first entry
  bool etcd_member = true;
  bool plain_backplane = false;  ///< data between nodes in the clear, with a CRC32C
  tls::Identity identity;
  tls::Pair authority;  ///< every node may sign for those that join

  std::chrono::milliseconds lease{10'000};  ///< how long a node may go on without being heard
};

/// Nothing where this node is in no cluster.
[[nodiscard]] Result<std::optional<Config>> load_config(const Paths& paths);
/// Durable when it returns.
[[nodiscard]] Result<void> save_config(const Paths& paths, const Config& config);

/// Replaces a file durably; `mode` as for open().
[[nodiscard]] Result<void> write_file(const std::filesystem::path& path, const std::string& text,
                                      unsigned mode);
[[nodiscard]] Result<std::string> read_file(const std::filesystem::path& path);

}  // namespace scaled
