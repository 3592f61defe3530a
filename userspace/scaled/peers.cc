// SPDX-License-Identifier: GPL-2.0
#include "peers.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace scaled {

namespace json = boost::json;
using core::NodeId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kForwardTimeout{15'000};
constexpr milliseconds kAdmitTimeout{5'000};
constexpr milliseconds kScreenTimeout{10'000};  // libvirt is asked
constexpr milliseconds kCopyTimeout{300'000};
constexpr seconds kTokenLife{30};
constexpr seconds kGreetingTimeout{10};
constexpr size_t kTokenBytes = 16;
constexpr int kConnections = 4;  // to each peer: one slow request holds up a quarter of the others
constexpr int kPollMs = 500;
constexpr size_t kMaxTokens = 256;
constexpr size_t kIdleConnections = 4;
constexpr const char* kLibvirt = "/run/libvirt/libvirt-sock";
constexpr int kSilentMs = 30'000;
constexpr int kAcceptors = 4;  // so that a few that connect and stay silent hold up nobody

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Error failed(const std::string& what) {
  return {Code::unknown, "backplane: " + what + ": " + std::strerror(errno)};
}

void set_timeouts(int fd, seconds limit) {
  const timeval value{static_cast<time_t>(limit.count()), 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
}

// Both ends, before the kernel gets the socket: no delay, and its own timeouts only.
void prepare(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  set_timeouts(fd, seconds(0));
}

bool receive_all(int fd, char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = ::recv(fd, data, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    data += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool fill_address(sockaddr_in& out, const std::string& text, uint16_t port) {
  out = {};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  return inet_pton(AF_INET, text.c_str(), &out.sin_addr) == 1;
}

}  // namespace

Peers::~Peers() {
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
  if (listener_ >= 0) ::close(listener_);
}

void Peers::set_nodes(const std::vector<meta::Node>& nodes) {
  const std::lock_guard lock(mutex_);
  addresses_.clear();
  for (const meta::Node& node : nodes) addresses_[node.id] = node.backplane_addr;
}

std::string Peers::address_of(NodeId node) const {
  const std::lock_guard lock(mutex_);
  const auto at = addresses_.find(node);
  return at == addresses_.end() ? "" : at->second;
}

std::map<NodeId, std::string> Peers::addresses() const {
  const std::lock_guard lock(mutex_);
  return addresses_;
}

http::Target Peers::target(NodeId node, const std::string& address) const {
  http::Target out;
  out.host = address;
  out.port = kApiPort;
  out.identity = &config_.identity;
  out.node = node;
  return out;
}

Result<void> Peers::copy_database(NodeId node, const std::filesystem::path& path) {
  auto response =
      http::call(target(node, address_of(node)), "GET", "/peer/database", "", kCopyTimeout);
  if (!response) return response.error();
  if (response->status != 200)
    return Error{Code::unknown, "node " + std::to_string(node.value) + " gives no database"};
  return write_file(path, response->body, 0600);
}

Result<json::object> Peers::call(NodeId node, const std::string& path, const json::object& body,
                                 milliseconds timeout) {
  const std::string address = address_of(node);
  if (address.empty()) return Error{Code::not_found, "no node " + std::to_string(node.value)};
  std::unique_ptr<http::Client> client;
  {
    const std::lock_guard lock(mutex_);
    auto& idle = idle_[node];
    if (!idle.empty()) {
      client = std::move(idle.back());
      idle.pop_back();
    }
  }
  if (!client) client = std::make_unique<http::Client>(target(node, address));
  auto response = client->call("POST", path, json::serialize(body), timeout);
  if (!response) {
    const std::lock_guard lock(mutex_);
    idle_[node].clear();  // as broken as this one, as a rule
    return response.error();
  }
  {
    const std::lock_guard lock(mutex_);
    auto& idle = idle_[node];
    if (idle.size() < kIdleConnections) idle.push_back(std::move(client));
  }
  try {
    const json::object answer = json::parse(response->body).as_object();
    if (response->status / 100 == 2) return answer;
    const auto failure = policy::from_answer(answer);
    return failure ? Error{Code::unknown, "node " + std::to_string(node.value) + " failed"}
                   : failure.error();
  } catch (const std::exception& err) {
    return Error{Code::unknown,
                 "node " + std::to_string(node.value) + ": no sense in its answer: " + err.what()};
  }
}

Result<replica::Served> Peers::forward(NodeId leader,
                                       const std::vector<policy::Proposal>& proposals) {
  json::array list;
  for (const auto& proposal : proposals) list.push_back(policy::to_json(proposal));
  auto answer = call(leader, "/peer/propose", {{"proposals", std::move(list)}}, kForwardTimeout);
  if (!answer) return answer.error();
  try {
    replica::Served served{answer->at("index").to_number<uint64_t>(), {}};
    for (const json::value& one : answer->at("answers").as_array())
      served.answers.push_back(one.as_object());
    return served;
  } catch (const std::exception& err) {
    return Error{Code::unknown, std::string("the leader's answer makes no sense: ") + err.what()};
  }
}

Result<void> Peers::listen() {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  if (!fill_address(address, config_.backplane, kBackplanePort))
    return Error{Code::invalid, config_.backplane + " is no IPv4 address"};
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener_, 64) != 0)
    return failed("listen on " + config_.backplane);
  for (int i = 0; i < kAcceptors; i++)
    threads_.emplace_back([this](const std::stop_token& stop) { accept_loop(stop); });
  return {};
}

json::object Peers::admit(NodeId node, uint64_t life) {
  return admit({node, life, false, nullptr, steady_clock::now() + kTokenLife});
}

json::object Peers::admit_libvirt(NodeId node) {
  return admit({node, 0, true, nullptr, steady_clock::now() + kTokenLife});
}

json::object Peers::admit_to(NodeId node, int socket) {
  const std::shared_ptr<const int> owned(new int(socket), [](const int* fd) {
    ::close(*fd);
    delete fd;
  });
  return admit({node, 0, false, owned, steady_clock::now() + kTokenLife});
}

json::object Peers::admit(const Admitted& who) {
  const std::string token = tls::random_hex(kTokenBytes);
  const std::lock_guard lock(mutex_);
  const auto now = steady_clock::now();
  std::erase_if(tokens_, [&](const auto& item) { return item.second.until < now; });
  if (tokens_.size() < kMaxTokens) tokens_[token] = who;
  return {{"token", token}};
}

void Peers::accept_loop(const std::stop_token& stop) {
  auto kernel = control::Kernel::open();
  if (!kernel) {
    spdlog::error("backplane: {}", kernel.error().text);
    return;
  }
  while (!stop.stop_requested()) {
    pollfd ready{listener_, POLLIN, 0};
    if (::poll(&ready, 1, kPollMs) <= 0) continue;
    const Socket socket(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.get() >= 0) accept_one(**kernel, socket.get());
    const std::lock_guard lock(mutex_);
    channels_.remove_if([](const host::Channel& one) { return one.over(); });
  }
}

Result<NodeId> Peers::secure(int fd, tls::Side side) const {
  if (config_.plain_backplane) return NodeId{};
  return tls::secure(fd, side, config_.identity);
}

void Peers::accept_one(control::Kernel& kernel, int fd) {
  set_timeouts(fd, kGreetingTimeout);
  const auto node = secure(fd, tls::Side::server);
  if (!node) {
    spdlog::warn("backplane: a connection was closed: {}", node.error().text);
    return;
  }
  std::string token(2 * kTokenBytes, '\0');
  if (!receive_all(fd, token.data(), token.size())) return;
  Admitted who;
  {
    const std::lock_guard lock(mutex_);
    const auto at = tokens_.find(token);
    if (at == tokens_.end() || at->second.until < steady_clock::now()) {
      spdlog::warn("backplane: a connection with an unknown token was closed");
      return;
    }
    who = at->second;
    tokens_.erase(at);  // once
  }
  if (*node && *node != who.node) {
    spdlog::warn("backplane: node {} came with the token of node {}", node->value, who.node.value);
    return;
  }
  prepare(fd);
  if (who.libvirt || who.socket) {
    pass_on(fd, who.libvirt ? host::connect_local(kLibvirt) : Result<int>(::dup(*who.socket)));
    return;
  }
  if (auto done = kernel.set_peer(who.node, who.life); !done) {
    spdlog::warn("backplane: node {}: {}", who.node.value, done.error().text);
    return;
  }
  // The other side hands its end over on this byte; what it sends at once waits in the socket.
  if (::send(fd, "+", 1, MSG_NOSIGNAL) != 1) return;
  if (auto done =
          kernel.add_socket(who.node, who.life, control::Role::target, fd, config_.plain_backplane);
      !done)
    spdlog::warn("backplane: node {}: {}", who.node.value, done.error().text);
}

void Peers::pass_on(int fd, const Result<int>& to) {
  if (!to) spdlog::warn("{}", to.error().text);
  if (!to || *to < 0) return;
  // Its machine may end without a word.
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kSilentMs, sizeof(kSilentMs));
  const int own = ::dup(fd);
  if (own < 0 || ::send(fd, "+", 1, MSG_NOSIGNAL) != 1) {
    ::close(*to);
    if (own >= 0) ::close(own);
    return;
  }
  const std::lock_guard lock(mutex_);
  channels_.emplace_back(own, *to);
}

Result<int> Peers::connect_libvirt(NodeId node) {
  auto admitted = call(node, "/peer/libvirt", {}, kAdmitTimeout);
  // A connection that was kept breaks where that daemon was restarted; a token more does no harm.
  if (!admitted) admitted = call(node, "/peer/libvirt", {}, kAdmitTimeout);
  if (!admitted) return admitted.error();
  auto socket = greet(node, *admitted);
  if (socket) setsockopt(*socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kSilentMs, sizeof(kSilentMs));
  return socket;
}

Result<int> Peers::connect_screen(NodeId node, const std::string& uuid, uint64_t run) {
  const auto admitted = call(node, "/peer/screen", {{"uuid", uuid}, {"run", run}}, kScreenTimeout);
  if (!admitted) return admitted.error();
  auto socket = greet(node, *admitted);
  if (socket) setsockopt(*socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kSilentMs, sizeof(kSilentMs));
  return socket;
}

Result<int> Peers::greet(NodeId node, const json::object& admitted) {
  const std::string token = json::value_to<std::string>(admitted.at("token"));
  Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_timeouts(socket.get(), kGreetingTimeout);
  sockaddr_in address{};
  char ready = 0;
  if (!fill_address(address, address_of(node), kBackplanePort) ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return failed("connect to node " + std::to_string(node.value));
  const auto there = secure(socket.get(), tls::Side::client);
  if (!there) return there.error();
  if (*there && *there != node)
    return Error{Code::invalid, "backplane: node " + std::to_string(there->value) +
                                    " answers in the place of node " + std::to_string(node.value)};
  if (::send(socket.get(), token.data(), token.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(token.size()) ||
      !receive_all(socket.get(), &ready, 1))
    return failed("greet node " + std::to_string(node.value));
  prepare(socket.get());
  return socket.release();
}

Result<void> Peers::connect(control::Kernel& kernel, NodeId node, uint64_t life,
                            uint64_t peer_life) {
  for (int i = 0; i < kConnections; i++) {
    auto admitted = call(node, "/peer/backplane",
                         {{"node", config_.node.value}, {"life", life}, {"peer_life", peer_life}},
                         kAdmitTimeout);
    if (!admitted) return admitted.error();
    const auto greeted = greet(node, *admitted);
    if (!greeted) return greeted.error();
    const Socket socket(*greeted);
    CORE_TRY(kernel.add_socket(node, peer_life, control::Role::initiator, socket.get(),
                               config_.plain_backplane));
  }
  return {};
}

}  // namespace scaled
