// SPDX-License-Identifier: GPL-2.0
#include "net/watch.h"

#include <algorithm>

namespace net {

namespace {

// Those that were named, else those behind the address. What is not there at all is the plan's to
// say.
std::vector<Link> ports(const std::optional<Uplink>& named, const std::string& address,
                        const std::vector<Link>& links) {
  if (!named) return ports_of(address, links);
  std::vector<Link> out;
  for (const Link& link : links)
    if (std::find(named->ports.begin(), named->ports.end(), link.name) != named->ports.end())
      out.push_back(link);
  return out;
}

}  // namespace

void Watch::look_at(const std::string& network, const std::vector<Link>& ports, Time now,
                    Seen& seen) {
  const auto good =
      std::count_if(ports.begin(), ports.end(), [](const Link& port) { return port.carrier; });
  for (const Link& port : ports) {
    // A loopback, or what a tunnel is on, has none to lose.
    if (port.name == "lo") continue;
    const auto before = failed_.find(port.name);
    if (!port.carrier) {
      failed_[port.name] = now;
      seen.conditions["link " + port.name] = "a port of " + network + " without a carrier" +
                                             (good == 0 ? ", and there is no other" : "") +
                                             ": look at its cable and its switch";
    } else if (before != failed_.end() && now - before->second < kCalm) {
      seen.conditions["link " + port.name] =
          "a port of " + network + " that lost its carrier a moment ago, and has it again";
    } else if (before != failed_.end()) {
      failed_.erase(before);
    }
  }
}

Watch::Seen Watch::look(const Wanted& wanted, const std::vector<Link>& links, Time now) {
  Seen seen;
  look_at("the LAN", ports(wanted.lan_ports, wanted.lan, links), now, seen);
  look_at("the backplane", ports(wanted.backplane_ports, wanted.backplane, links), now, seen);
  const int active = active_port(wanted, links);
  seen.switched = active_ != 0 && active != 0 && active != active_;
  if (active != 0) active_ = active;
  return seen;
}

}  // namespace net
