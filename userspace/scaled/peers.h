// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config.h"
#include "control/kernel.h"
#include "core/id.h"
#include "host/channel.h"
#include "http/http.h"
#include "meta/cluster.h"
#include "policy/proposals.h"
#include "replica/replica.h"
#include "tls/kernel_tls.h"

namespace scaled {

/// Other nodes: calls over mutual TLS, and the backplane sockets that the kernel gets.
///
/// A backplane connection: the initiator gets a one-time token from the peer by such a call, then
/// connects to the peer's backplane port, where mutual TLS gives the keys to both kernels (or, in a
/// cluster with a plain backplane, nothing does), and sends it; from the next byte on the stream
/// belongs to the kernels. A CRC32C guards the data of a plain one. In the same way libvirt gets at
/// that of another node, so that it need not listen itself: its connections pass through here.
class Peers {
 public:
  explicit Peers(const Config& config) : config_(config) {}
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  void set_nodes(const std::vector<meta::Node>& nodes);
  [[nodiscard]] std::map<core::NodeId, std::string> addresses() const;
  [[nodiscard]] std::string address_of(core::NodeId node) const;

  /// A JSON call; errors of the peer come back as such.
  Result<boost::json::object> call(core::NodeId node, const std::string& path,
                                   const boost::json::object& body,
                                   std::chrono::milliseconds timeout);
  /// Writes a peer's database, as of now, to a file.
  Result<void> copy_database(core::NodeId node, const std::filesystem::path& path);
  Result<replica::Served> forward(core::NodeId leader,
                                  const std::vector<policy::Proposal>& proposals);

  /// Takes backplane connections until destruction.
  Result<void> listen();
  /// Answers a peer that wants to connect: {"token"}.
  boost::json::object admit(core::NodeId node, uint64_t life);
  /// Answers a peer whose libvirt wants to connect to ours: {"token"}.
  boost::json::object admit_libvirt(core::NodeId node);
  /// Answers a peer that is to be connected to a socket, which is given away: {"token"}.
  boost::json::object admit_to(core::NodeId node, int socket);
  /// Connects to a peer's kernel and hands the sockets to ours.
  Result<void> connect(control::Kernel& kernel, core::NodeId node, uint64_t life,
                       uint64_t peer_life);
  /// A connection to a peer's libvirt, as a socket that the caller closes.
  Result<int> connect_libvirt(core::NodeId node);
  /// A connection to the screen of a run of a VM on another node, as a socket likewise.
  Result<int> connect_screen(core::NodeId node, const std::string& uuid, uint64_t run);

 private:
  struct Admitted {
    core::NodeId node;
    uint64_t life = 0;
    bool libvirt = false;
    std::shared_ptr<const int> socket;  ///< closed with the last of these
    std::chrono::steady_clock::time_point until;
  };

  http::Target target(core::NodeId node, const std::string& address) const;
  void accept_loop(const std::stop_token& stop);
  void accept_one(control::Kernel& kernel, int fd);
  void pass_on(int fd, const Result<int>& to);
  boost::json::object admit(const Admitted& who);
  /// A connection that the peer has admitted, by the answer to such a call.
  Result<int> greet(core::NodeId node, const boost::json::object& admitted);
  /// Who the other side is; nobody on a plain backplane.
  Result<core::NodeId> secure(int fd, tls::Side side) const;

  const Config& config_;
  mutable std::mutex mutex_;
  std::map<core::NodeId, std::string> addresses_;
  std::map<std::string, Admitted> tokens_;
  // Connections that wait for the next call; a handshake costs more than most calls.
  std::map<core::NodeId, std::vector<std::unique_ptr<http::Client>>> idle_;
  std::list<host::Channel> channels_;
  int listener_ = -1;
  std::vector<std::jthread> threads_;
};

}  // namespace scaled
