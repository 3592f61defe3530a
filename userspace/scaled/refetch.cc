// SPDX-License-Identifier: GPL-2.0
#include "refetch.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/json.hpp>

namespace scaled {

namespace json = boost::json;
using core::NodeId;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kRefetchTimeout{5'000};

struct Source {
  NodeId node;
  uint64_t applied = 0;
};

Result<void> set_remembered(const Paths& paths, Peers& peers) {
  auto text = read_file(paths.addresses());
  if (!text) return text.error();
  std::vector<meta::Node> nodes;
  try {
    const json::value parsed = json::parse(*text);
    for (const auto& item : parsed.as_object()) {
      nodes.emplace_back();
      nodes.back().id = {std::stoull(std::string(item.key()))};
      nodes.back().backplane_addr = json::value_to<std::string>(item.value());
    }
  } catch (const std::exception& err) {
    return Error{Code::corrupt, paths.addresses().string() + ": " + err.what()};
  }
  peers.set_nodes(nodes);
  return {};
}

Result<std::vector<NodeId>> wanted_sources(const Paths& paths) {
  auto text = read_file(paths.refetch());
  if (!text) return text.error();
  std::vector<NodeId> out;
  boost::system::error_code err;
  const json::value request = json::parse(*text, err);
  // An administrator may have made it by hand, empty.
  if (err || !request.is_object()) return out;
  if (const json::value* from = request.as_object().if_contains("from"))
    for (const json::value& node : from->as_array()) out.push_back({node.to_number<uint64_t>()});
  return out;
}

// The most advanced first: one that is behind the log itself would be of no use.
std::vector<Source> sources(const Config& config, Peers& peers, const std::vector<NodeId>& wanted) {
  std::vector<Source> out;
  for (const auto& [node, address] : peers.addresses()) {
    if (node == config.node) continue;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), node) == wanted.end()) continue;
    auto status = peers.call(node, "/peer/status", {}, kRefetchTimeout);
    if (!status) {
      spdlog::warn("database of node {}: {}", node.value, status.error().text);
      continue;
    }
    try {
      out.push_back({node, status->at("applied").to_number<uint64_t>()});
    } catch (const std::exception& err) {
      spdlog::warn("database of node {}: its status makes no sense: {}", node.value, err.what());
    }
  }
  std::sort(out.begin(), out.end(),
            [](const Source& a, const Source& b) { return a.applied > b.applied; });
  return out;
}

// A copy that arrived whole and can be read, and stands where its node said or later.
Result<void> check(const std::filesystem::path& copy, uint64_t least) {
  auto database = meta::Database::open_reader(copy);
  if (!database) return database.error();
  auto at = (*database)->applied();
  if (!at) return at.error();
  if (at->index < least)
    return Error{Code::stale, "it ends at change " + std::to_string(at->index)};
  return {};
}

}  // namespace

Result<void> ask_for_refetch(const Paths& paths, const std::string& why,
                             const std::vector<NodeId>& from) {
  json::object request{{"why", why}};
  json::array nodes;
  for (const NodeId node : from) nodes.emplace_back(node.value);
  if (!nodes.empty()) request["from"] = std::move(nodes);
  return write_file(paths.refetch(), json::serialize(request) + "\n", 0600);
}

Result<void> remember_addresses(const Paths& paths,
                                const std::map<NodeId, std::string>& addresses) {
  json::object out;
  for (const auto& [node, address] : addresses) out[std::to_string(node.value)] = address;
  return write_file(paths.addresses(), json::serialize(out) + "\n", 0600);
}

Result<void> fetch_copy(const Paths& paths, const Config& config, Peers& peers) {
  std::error_code err;
  auto wanted = wanted_sources(paths);
  if (!wanted) return wanted.error();
  if (peers.addresses().empty()) CORE_TRY(set_remembered(paths, peers));
  const std::filesystem::path fresh = paths.state / "meta.new";
  for (const Source& source : sources(config, peers, *wanted)) {
    auto copied = peers.copy_database(source.node, fresh);
    if (copied) copied = check(fresh, source.applied);
    if (!copied) {
      spdlog::warn("database of node {}: {}", source.node.value, copied.error().text);
      continue;
    }
    std::filesystem::rename(fresh, paths.copy(), err);
    if (err) return Error{Code::storage, paths.copy().string() + ": " + err.message()};
    spdlog::info("metadata copied from node {}", source.node.value);
    return {};
  }
  return Error{Code::unknown, "no other node gives its database; trying again"};
}

Result<void> refetch_where_asked(const Paths& paths, const Config& config, Peers& peers) {
  std::error_code err;
  if (!std::filesystem::exists(paths.refetch(), err)) {
    std::filesystem::remove(paths.copy(), err);
    return {};
  }
  if (!std::filesystem::exists(paths.copy(), err)) CORE_TRY(fetch_copy(paths, config, peers));
  for (const char* side : {"-wal", "-shm"})
    std::filesystem::remove(paths.database().string() + side, err);
  std::filesystem::rename(paths.copy(), paths.database(), err);
  if (err) return Error{Code::storage, paths.database().string() + ": " + err.message()};
  std::filesystem::remove(paths.refetch(), err);
  return {};
}

}  // namespace scaled
