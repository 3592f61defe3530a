// SPDX-License-Identifier: GPL-2.0
// Handshakes on loopback. Whether this machine's kernel takes the keys is its own affair: that data
// crosses, and encrypted, is tests/cluster/cluster.py's.
#include "tls/kernel_tls.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

namespace {

using core::Code;
using core::NodeId;
using core::Result;
using tls::Identity;
using tls::Side;

class Pair {
 public:
  Pair() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    ::bind(listener, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener, 1);
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    fds_[0] = ::socket(AF_INET, SOCK_STREAM, 0);
    ::connect(fds_[0], reinterpret_cast<sockaddr*>(&address), size);
    fds_[1] = ::accept(listener, nullptr, nullptr);
    ::close(listener);
    const timeval limit{30, 0};
    for (const int fd : fds_) ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  ~Pair() {
    for (const int fd : fds_) ::close(fd);
  }
  int client() const { return fds_[0]; }
  int server() const { return fds_[1]; }

 private:
  std::array<int, 2> fds_{};
};

Identity identity(const tls::Pair& authority, uint64_t node) {
  return {*tls::issue(authority, {node}, "127.0.0.1"), authority.cert};
}

struct Both {
  Result<NodeId> client = NodeId{};
  Result<NodeId> server = NodeId{};
};

Both shake(const Identity& client, const Identity& server) {
  const Pair sockets;
  Both out;
  std::jthread other([&] {
    out.server = tls::secure(sockets.server(), Side::server, server);
    // A refusal is read as the end of the stream, not as a reset.
    if (!out.server) ::shutdown(sockets.server(), SHUT_WR);
  });
  out.client = tls::secure(sockets.client(), Side::client, client);
  if (!out.client) ::shutdown(sockets.client(), SHUT_WR);
  other.join();
  return out;
}

TEST(KernelTls, EachSideLearnsWhichNodeTheOtherIs) {
  const auto authority = tls::make_authority("a").value();
  const Both both = shake(identity(authority, 1), identity(authority, 2));
  if (both.client && both.server) {
    EXPECT_EQ(both.client->value, 2U);
    EXPECT_EQ(both.server->value, 1U);
  } else {
    // The handshake was good, or it would be another error.
    EXPECT_EQ(both.client.error().code, Code::storage) << both.client.error().text;
  }
}

TEST(KernelTls, ANodeOfAnotherClusterIsRefused) {
  const auto ours = tls::make_authority("a").value();
  const auto theirs = tls::make_authority("a").value();
  EXPECT_FALSE(shake(identity(theirs, 1), identity(ours, 2)).server);
  EXPECT_EQ(shake(identity(ours, 1), identity(theirs, 2)).client.error().code, Code::invalid);
}

TEST(KernelTls, TheAuthoritysOwnCertificateIsNoNodes) {
  const auto authority = tls::make_authority("a").value();
  const Identity imposter{authority, authority.cert};  // the authority's own
  EXPECT_FALSE(shake(identity(authority, 1), imposter).client);
}

TEST(KernelTls, GarbageIsNoHandshake) {
  const auto authority = tls::make_authority("a").value();
  const Pair sockets;
  const std::string garbage(4096, 'x');
  ASSERT_EQ(::send(sockets.client(), garbage.data(), garbage.size(), 0), 4096);
  EXPECT_EQ(tls::secure(sockets.server(), Side::server, identity(authority, 1)).error().code,
            Code::unknown);
}

}  // namespace
