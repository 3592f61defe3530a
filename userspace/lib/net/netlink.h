// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "core/result.h"
#include "net/plan.h"

struct nl_sock;

namespace net {

using core::Result;

/// The kernel's networks, by rtnetlink. One thread at a time, and one more in wait().
class Netlink {
 public:
  static Result<std::unique_ptr<Netlink>> open();
  ~Netlink();
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;

  /// All links, with their addresses.
  Result<std::vector<Link>> links();
  /// Does a step of a plan.
  Result<void> apply(const Step& step);
  /// Until a link changes, so long at most.
  void wait(std::chrono::milliseconds most);

 private:
  Netlink(nl_sock* socket, nl_sock* events) : socket_(socket), events_(events) {}
  Result<std::vector<Link>> links_once();
  Result<int> index_of(const std::string& name);
  Result<void> move_addresses(int from, int to);

  nl_sock* const socket_;
  nl_sock* const events_;
};

/// Tells the switches behind a link where a MAC is, by a frame from it.
Result<void> announce(const std::string& link, const std::string& mac);

}  // namespace net
