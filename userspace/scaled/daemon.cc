// SPDX-License-Identifier: GPL-2.0
#include "daemon.h"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "api.h"
#include "etcd_service.h"
#include "host/reset.h"
#include "journal/local_log.h"
#include "meta/cluster.h"
#include "refetch.h"

namespace scaled {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr size_t kHandlers = 16;
constexpr seconds kFoundFor{60};
constexpr milliseconds kStatusTimeout{2'000};
constexpr milliseconds kJoinTimeout{120'000};
constexpr milliseconds kListenRetry{1'000};
constexpr seconds kUsersFor{20};
constexpr milliseconds kStopLook{200};
constexpr seconds kRetireFor{15};
constexpr seconds kResignFor{2};
constexpr size_t kFingerprintDigits = 64;
constexpr size_t kSecretDigits = 32;
constexpr uint64_t kDefaultLeaseSeconds = 10;
constexpr uint64_t kMinLeaseSeconds = 5;
constexpr uint64_t kMaxLeaseSeconds = 120;

std::string host_name() {
  std::array<char, 65> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string text_or(const json::object& o, const char* name, const std::string& fallback) {
  const json::value* value = o.if_contains(name);
  return value == nullptr ? fallback : json::value_to<std::string>(*value);
}

Result<void> take_addresses(const json::object& request, Config& config) {
  config.lan = text_or(request, "lan", "127.0.0.1");
  config.backplane = text_or(request, "backplane", "127.0.0.1");
  in_addr parsed{};
  for (const std::string& address : {config.lan, config.backplane})
    if (inet_pton(AF_INET, address.c_str(), &parsed) != 1)
      return Error{Code::invalid, "'" + address + "' is no IPv4 address"};
  return {};
}

}  // namespace

Member::Member(const Paths& paths, Config config, host::Watchdog& watchdog)
    : paths_(paths),
      config_(std::move(config)),
      watchdog_(watchdog),
      peers_(config_),
      hints_(peers_, config_.node) {}

Member::~Member() {
  server_.reset();
  {
    const std::lock_guard lock(poking_);
    poked_ = nullptr;
    asked_ = nullptr;
  }
  media_.reset();
  vms_.reset();
  schedules_.reset();
  membership_.reset();
  liveness_.reset();
  metadata_.request_stop();
  if (etcd_log_ != nullptr) etcd_log_->stop();
  if (metadata_.joinable()) metadata_.join();
  audit_.reset();
  networks_.reset();
  agent_.reset();
}

// This node's metadata is of no use: the next start begins with a copy of another node's. It is
// fetched before this run ends, because the node's lease goes on as long. A single node has none to
// ask.
void Member::give_up(const Error& why, const std::vector<core::NodeId>& from) {
  const std::lock_guard one(giving_up_);
  if (failure()) return;
  spdlog::critical("metadata: {}", why.text);
  if (!config_.single && (why.code == Code::stale || why.code == Code::corrupt)) {
    auto asked = ask_for_refetch(paths_, why.text, from);
    if (asked) asked = fetch_copy(paths_, config_, peers_);
    if (!asked) spdlog::critical("{}", asked.error().text);
  }
  const std::lock_guard lock(mutex_);
  failure_ = why;
}

Result<std::unique_ptr<journal::Log>> Member::open_log() {
  if (config_.single) {
    auto log = journal::LocalLog::open(paths_.log());
    if (!log) return log.error();
    return std::unique_ptr<journal::Log>(std::move(*log));
  }
  if (config_.etcd_member) CORE_TRY(start_etcd(paths_, config_, "", true));
  const auto ttl = std::chrono::ceil<seconds>(config_.lease * 3 / 5);
  auto log = std::make_unique<journal::EtcdLog>(config_.node, etcd_endpoints(config_, peers_), ttl,
                                                [this] { return most_advanced(); });
  etcd_log_ = log.get();
  return std::unique_ptr<journal::Log>(std::move(log));
}

uint64_t Member::most_advanced() {
  uint64_t most = 0;
  for (const auto& [node, address] : peers_.addresses()) {
    if (node == config_.node) continue;
    auto status = peers_.call(node, "/peer/status", {}, kStatusTimeout);
    if (status) most = std::max(most, status->at("applied").to_number<uint64_t>());
  }
  return most;
}

// The backplane's address may come up after us.
void Member::listen() {
  for (;;) {
    auto api = server_->listen_tls(config_.backplane, kApiPort, config_.identity);
    if (api) break;
    spdlog::warn("{}", api.error().text);
    std::this_thread::sleep_for(kListenRetry);
  }
  auto backplane = peers_.listen();
  if (!backplane) spdlog::error("{}", backplane.error().text);
}

Result<void> Member::start(http::Handler handler) {
  CORE_TRY(refetch_where_asked(paths_, config_, peers_));
  auto database = meta::Database::open(paths_.database());
  auto info = database ? meta::Cluster(**database).info()
                       : Result<std::optional<meta::ClusterInfo>>(database.error());
  auto nodes = database ? meta::Cluster(**database).nodes()
                        : Result<std::vector<meta::Node>>(database.error());
  if (!info || !nodes) {
    give_up(info ? nodes.error() : info.error(), {});
    return *failure();
  }
  peers_.set_nodes(*nodes);
  // First: all that follows may need them.
  networks_ = std::make_unique<Networks>(paths_, config_);
  auto log = open_log();
  if (!log) return log.error();
  replica_ = std::make_unique<replica::Replica>(
      config_.node, std::move(*database), std::move(*log),
      [this](core::NodeId leader, const std::vector<policy::Proposal>& proposals) {
        return peers_.forward(leader, proposals);
      },
      [this](bool announce) {
        if (announce && !config_.single) hints_.announce(replica_->applied().index);
        if (agent_) agent_->poke();
        const std::lock_guard lock(poking_);
        if (poked_ != nullptr) poked_->poke();
      },
      [this](const meta::Position& at) { audit_->begin(at); });
  agent_ = std::make_unique<Agent>(paths_, config_, *replica_, peers_, [this] {
    const Error why{Code::conflict, "this node was removed from its cluster"};
    if (auto marked = write_file(paths_.removed(), why.text + "\n", 0600); !marked)
      spdlog::error("{}", marked.error().text);
    const std::lock_guard lock(mutex_);
    failure_ = why;
  });
  audit_ = std::make_unique<Audit>(
      paths_, config_, peers_,
      [this](const std::string& text) { agent_->set_condition("metadata", text); },
      [this](const Error& why, const std::vector<core::NodeId>& from) { give_up(why, from); });
  metadata_ = std::jthread([this](const std::stop_token& stop) {
    auto done = replica_->run(stop);
    if (done || stop.stop_requested()) return;
    give_up(done.error(), {});
  });
  if (!*info && config_.founder) {
    auto founded = replica_->propose({{"op", "cluster_create"},
                                      {"cluster", config_.cluster},
                                      {"uuid", host::to_string(config_.uuid)},
                                      {"name", config_.name},
                                      {"lan", config_.lan},
                                      {"backplane", config_.backplane}},
                                     steady_clock::now() + kFoundFor);
    if (!founded && founded.error().code != Code::conflict) return founded.error();
  }
  if (!config_.single) {
    server_ = std::make_unique<http::Server>(std::move(handler), kHandlers);
    listen();
  }
  agent_->run();
  networks_->run(*agent_);
  audit_->run(*replica_);
  liveness_ = std::make_unique<Liveness>(paths_, config_, *replica_, *agent_, watchdog_,
                                         etcd_endpoints(config_, peers_));
  if (!config_.single)
    membership_ = std::make_unique<Membership>(paths_, config_, peers_, *replica_, [this] {
      const std::lock_guard lock(mutex_);
      failure_ = Error{Code::conflict, "etcd runs here from now on"};
    });
  schedules_ = std::make_unique<Schedules>(*this);
  vms_ = std::make_unique<Vms>(*this);
  media_ = std::make_unique<Media>(*this);
  const std::lock_guard lock(poking_);
  asked_ = media_.get();
  poked_ = vms_.get();
  return {};
}

Vms* Member::vms() {
  const std::lock_guard lock(poking_);
  return poked_;
}

Media* Member::media() {
  const std::lock_guard lock(poking_);
  return asked_;
}

std::optional<Error> Member::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool put_aside_where_removed(const Paths& paths) {
  std::error_code err;
  if (!std::filesystem::exists(paths.removed(), err)) return false;
  spdlog::warn("this node was removed from its cluster: what it kept is put into {}",
               paths.aside().string());
  if (auto stopped = stop_etcd(); !stopped) spdlog::error("{}", stopped.error().text);
  std::filesystem::remove_all(paths.aside(), err);
  std::filesystem::create_directories(paths.aside(), err);
  // The marker last: what was interrupted is done again.
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(paths.state, err))
    if (entry.path() != paths.aside() && entry.path() != paths.removed())
      found.push_back(entry.path());
  for (const auto& path : found) {
    std::filesystem::rename(path, paths.aside() / path.filename(), err);
    if (err) spdlog::error("{}: {}", path.string(), err.message());
  }
  if (!host::unload_module("dm_scribe"))
    spdlog::error(
        "the module knows this node by its old number and is in use: restart the machine");
  std::filesystem::remove(paths.removed(), err);
  return true;
}

Result<void> Daemon::start() {
  auto config = load_config(paths_);
  if (!config) return config.error();
  if (*config) CORE_TRY(become(**config));
  server_ = std::make_unique<http::Server>(
      [this](const http::Request& request) { return handle(*this, request); }, kHandlers);
  return server_->listen_local(paths_.socket);
}

std::optional<Error> Daemon::failure() const {
  const std::shared_lock lock(mutex_);
  return member_ ? member_->failure() : std::nullopt;
}

Member* Daemon::member() {
  const std::shared_lock lock(mutex_);
  return member_.get();
}

void Member::resign() {
  if (etcd_log_ == nullptr) return;
  etcd_log_->resign();
  const auto end = steady_clock::now() + kResignFor;
  while (replica_->leading() && steady_clock::now() < end) std::this_thread::sleep_for(kStopLook);
}

void Daemon::leave(bool for_long) {
  Member* leaving = member();
  if (leaving == nullptr) return;
  if (for_long) retire(leaving->agent());
  leaving->resign();
}

void Daemon::retire(Agent& agent) {
  // They are being stopped, too, at the same time.
  const auto end = steady_clock::now() + kUsersFor;
  while (agent.has_users() && steady_clock::now() < end) std::this_thread::sleep_for(kStopLook);
  // What file systems that are mounted all the same have in memory comes here only now.
  ::sync();
  const size_t left = agent.retire(steady_clock::now() + kRetireFor);
  if (left != 0)
    spdlog::warn("{} virtual disks are left to others as after a power cut", left);
  else
    spdlog::info("all is flushed and given back");
}

Result<void> Daemon::become(Config config) {
  auto member = std::make_unique<Member>(paths_, std::move(config), watchdog_);
  CORE_TRY(member->start([this](const http::Request& request) { return handle(*this, request); }));
  const std::unique_lock lock(mutex_);
  member_ = std::move(member);
  return {};
}

Result<void> Daemon::create(const json::object& request) {
  const std::lock_guard one(changing_);
  if (member() != nullptr)
    return Error{Code::conflict,
                 "this node is in a cluster already: " + member()->config().cluster};
  Config config;
  config.node = {1};
  config.cluster = text_or(request, "name", "");
  if (config.cluster.empty() || config.cluster.size() > 63)
    return Error{Code::invalid, "a cluster's name has 1 to 63 characters"};
  config.single = request.contains("single") && request.at("single").as_bool();
  config.name = text_or(request, "node", host_name());
  CORE_TRY(take_addresses(request, config));
  const uint64_t lease_s = request.contains("lease_s") ? request.at("lease_s").to_number<uint64_t>()
                                                       : kDefaultLeaseSeconds;
  if (lease_s < kMinLeaseSeconds || lease_s > kMaxLeaseSeconds)
    return Error{Code::invalid, "the lease of a node is 5 to 120 seconds"};
  config.lease = seconds(lease_s);
  config.plain_backplane =
      request.contains("plain_backplane") && request.at("plain_backplane").as_bool();
  config.uuid = host::make_uuid();
  config.founder = true;
  auto authority = tls::make_authority(config.cluster);
  if (!authority) return authority.error();
  auto own = tls::issue(*authority, config.node, config.backplane);
  if (!own) return own.error();
  config.authority = *authority;
  config.identity = {*own, authority->cert};
  if (!config.single)
    CORE_TRY(start_etcd(paths_, config,
                        tls::node_name(config.node) + "=" + etcd_peer_url(config.backplane),
                        false));
  CORE_TRY(save_config(paths_, config));
  return become(std::move(config));
}

Result<void> Daemon::join(const json::object& request) {
  const std::lock_guard one(changing_);
  if (member() != nullptr)
    return Error{Code::conflict,
                 "this node is in a cluster already: " + member()->config().cluster};
  const std::string token = text_or(request, "token", "");
  const std::string address = text_or(request, "address", "");
  if (token.size() != kFingerprintDigits + kSecretDigits)
    return Error{Code::invalid, "that is no token; make one with: scalectl cluster token"};
  Config config;
  config.name = text_or(request, "node", host_name());
  CORE_TRY(take_addresses(request, config));
  if (config.backplane == "127.0.0.1")
    return Error{Code::invalid, "a node that joins needs a backplane address: --backplane"};

  http::Target target;
  target.host = address;
  target.port = kApiPort;
  target.ca_fingerprint = token.substr(0, kFingerprintDigits);
  auto response =
      http::call(target, "POST", "/rest/v1/cluster/members",
                 json::serialize(json::object{{"secret", token.substr(kFingerprintDigits)},
                                              {"name", config.name},
                                              {"lan", config.lan},
                                              {"backplane", config.backplane}}),
                 kJoinTimeout);
  if (!response) return response.error();
  const json::object answer = json::parse(response->body).as_object();
  if (answer.contains("error")) return policy::from_answer(answer).error();
  config.node = {answer.at("node").to_number<uint64_t>()};
  config.cluster = text_or(answer, "cluster", "");
  auto uuid = host::parse_uuid(text_or(answer, "uuid", ""));
  if (!uuid) return uuid.error();
  config.uuid = *uuid;
  config.lease = milliseconds(answer.at("lease_ms").to_number<int64_t>());
  config.plain_backplane = answer.at("plain_backplane").as_bool();
  config.identity = {{text_or(answer, "cert", ""), text_or(answer, "key", "")},
                     text_or(answer, "ca_cert", "")};
  config.authority = {config.identity.ca_cert, text_or(answer, "ca_key", "")};
  const std::string initial = text_or(answer, "etcd_initial", "");
  config.etcd_member = !initial.empty();

  const core::NodeId sponsor{answer.at("sponsor").to_number<uint64_t>()};
  {
    Peers peers(config);
    meta::Node known;
    known.id = sponsor;
    known.backplane_addr = address;
    peers.set_nodes({known});
    std::error_code err;
    std::filesystem::remove(paths_.database(), err);
    CORE_TRY(peers.copy_database(sponsor, paths_.database()));
    if (config.etcd_member) {
      CORE_TRY(start_etcd(paths_, config, initial, true));
      CORE_TRY(save_config(paths_, config));
      // A learner votes once it has caught up.
      const auto deadline = steady_clock::now() + kJoinTimeout;
      auto promoted = peers.call(sponsor, "/peer/promote", {}, kStatusTimeout);
      while (!promoted && steady_clock::now() < deadline) {
        std::this_thread::sleep_for(kListenRetry);
        promoted = peers.call(sponsor, "/peer/promote", {}, kJoinTimeout);
      }
      if (!promoted) spdlog::warn("etcd here does not vote yet: {}", promoted.error().text);
    } else {
      CORE_TRY(save_config(paths_, config));
    }
  }
  return become(std::move(config));
}

}  // namespace scaled
