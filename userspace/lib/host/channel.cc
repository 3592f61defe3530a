// SPDX-License-Identifier: GPL-2.0
#include "host/channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace host {

namespace {

using core::Code;
using core::Error;
using core::Result;

constexpr size_t kBuffer = size_t{256} << 10;
constexpr int kPollMs = 200;

bool send_all(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t sent = ::send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    data += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  if (path.size() >= sizeof(out.sun_path)) return Error{Code::invalid, path + " is too long"};
  std::memcpy(out.sun_path, path.c_str(), path.size());
  return out;
}

Error failed(const std::string& path) {
  return {Code::unknown, path + ": " + std::strerror(errno)};
}

}  // namespace

Channel::Channel(int one, int other)
    : one_(one),
      other_(other),
      there_([this] { pump(one_, other_); }),
      back_([this] { pump(other_, one_); }) {}

Channel::~Channel() {
  ::shutdown(one_, SHUT_RDWR);
  ::shutdown(other_, SHUT_RDWR);
  there_.join();
  back_.join();
  ::close(one_);
  ::close(other_);
}

// An end passes on as well; what breaks ends both ways, for its other end is of no use any more.
void Channel::pump(int from, int to) {
  std::vector<char> buffer(kBuffer);
  for (;;) {
    const ssize_t got = ::recv(from, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) {
      ::shutdown(to, SHUT_WR);
      break;
    }
    if (got < 0 || !send_all(to, buffer.data(), static_cast<size_t>(got))) {
      ::shutdown(from, SHUT_RDWR);
      ::shutdown(to, SHUT_RDWR);
      break;
    }
  }
  ended_++;
}

Tunnel::~Tunnel() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
  if (listener_ < 0) return;
  ::close(listener_);
  ::unlink(path_.c_str());
}

Result<void> Tunnel::listen() {
  const auto address = address_of(path_);
  if (!address) return address.error();
  ::unlink(path_.c_str());
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener_ < 0) return failed(path_);
  // Before it listens nobody can connect.
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0 ||
      ::chmod(path_.c_str(), 0600) != 0 || ::listen(listener_, 4) != 0)
    return failed(path_);
  thread_ = std::jthread([this](const std::stop_token& stop) { accept(stop); });
  return {};
}

void Tunnel::accept(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd ready{listener_, POLLIN, 0};
    if (::poll(&ready, 1, kPollMs) <= 0) continue;
    const int here = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (here < 0) continue;
    const auto there = connect_();
    if (!there) {
      ::close(here);
      continue;
    }
    const std::lock_guard lock(mutex_);
    channels_.emplace_back(here, *there);
  }
}

bool Tunnel::idle() {
  const std::lock_guard lock(mutex_);
  channels_.remove_if([](const Channel& one) { return one.over(); });
  return channels_.empty();
}

Result<int> connect_local(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return address.error();
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return failed(path);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0) return fd;
  const Error why = failed(path);
  ::close(fd);
  return why;
}

}  // namespace host
