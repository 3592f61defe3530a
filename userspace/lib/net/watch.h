// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "net/plan.h"

namespace net {

/// What becomes of the ports of a node's networks. No clock of its own.
class Watch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Seen {
    std::map<std::string, std::string> conditions;  ///< of ports that do not, or did not just now
    bool switched = false;  ///< another port of the LAN's bond is used now than when last looked
  };
  Seen look(const Wanted& wanted, const std::vector<Link>& links, Time now);

 private:
  void look_at(const std::string& network, const std::vector<Link>& ports, Time now, Seen& seen);

  std::map<std::string, Time> failed_;  // when it was last seen without carrier
  int active_ = 0;
};

/// A port that comes and goes is told of until it has been there for so long.
inline constexpr std::chrono::seconds kCalm{60};

}  // namespace net
