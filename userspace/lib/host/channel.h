// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "core/result.h"

namespace host {

/// Passes on what comes from either of two sockets to the other, until both ends have ended, on two
/// threads of its own. It owns the sockets; its destructor ends both sides and waits for the
/// threads. over() may be asked by any thread.
class Channel {
 public:
  Channel(int one, int other);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  [[nodiscard]] bool over() const { return ended_ == 2; }

 private:
  void pump(int from, int to);

  const int one_;
  const int other_;
  std::atomic<int> ended_{0};
  std::jthread there_;
  std::jthread back_;
};

/// A local socket, for its owner alone, whose connections lead to where `connect` does; where that
/// fails they end at once. A thread of its own accepts, calls `connect` and waits for it; the
/// destructor waits for that thread, ends all connections and removes the socket. One that was left
/// at the path by a process that is gone is replaced.
class Tunnel {
 public:
  using Connect = std::function<core::Result<int>()>;

  Tunnel(std::string path, Connect connect)
      : path_(std::move(path)), connect_(std::move(connect)) {}
  ~Tunnel();
  Tunnel(const Tunnel&) = delete;
  Tunnel& operator=(const Tunnel&) = delete;

  [[nodiscard]] core::Result<void> listen();
  [[nodiscard]] const std::string& path() const { return path_; }
  /// Whether none of its connections is left; any thread may ask.
  [[nodiscard]] bool idle();

 private:
  void accept(const std::stop_token& stop);

  const std::string path_;
  const Connect connect_;
  int listener_ = -1;
  std::mutex mutex_;
  std::list<Channel> channels_;
  std::jthread thread_;
};

/// A stream socket to a local path.
[[nodiscard]] core::Result<int> connect_local(const std::string& path);

}  // namespace host
