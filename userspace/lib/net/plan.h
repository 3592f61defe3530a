// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/links.h"

namespace net {

/// Network cards that are to be one, of which one is used at a time.
struct Uplink {
  std::vector<std::string> ports;
  std::string primary;  ///< the port that is used while it can be; empty: whichever was last
};

/// What a node's networks are to be.
struct Wanted {
  std::string lan;                  ///< the node's address there
  std::string backplane;            ///< and there
  std::optional<Uplink> lan_ports;  ///< nothing: that is the administrator's
  std::optional<Uplink> backplane_ports;
  std::set<uint16_t> vlans;                    ///< that guests are in, 1 to 4094
  std::map<std::string, std::string> refused;  ///< ports that no bond took, and why: left alone
};

/// Where guests of this node can be.
struct Lan {
  std::string bridge;   ///< for those on the LAN itself; empty: there is none
  std::string uplink;   ///< what the VLANs of guests are on; empty: there is none
  std::string problem;  ///< why something of that is not there
};

/// What changes the networks. One after the other; each leaves the node where it can be reached.
struct Step {
  enum class What : uint8_t {
    add_bond,        ///< called `link`, with `mtu`, which its ports get
    add_bridge,      ///< called `link`, with the MAC of `other`
    add_vlan,        ///< called `link`, on `other`, with the tag `vlan`
    set_bond,        ///< what `bond` says of `link`, but for its mode
    set_master,      ///< `link` becomes a port of `other`; nothing: of none
    set_up,          ///< `link` is used
    set_down,        ///< `link` is not used
    move_addresses,  ///< all of `link`'s, and its routes, to `other`
    remove           ///< `link`
  };
  What what;
  std::string link;
  std::string other;
  uint16_t vlan = 0;
  BondSettings bond;
  uint32_t mtu = 0;  ///< 0: the usual one
};

struct Plan {
  std::vector<Step> steps;
  std::map<std::string, std::string> problems;  ///< what cannot be, and why: by its subject
};

/// The VLAN whose bridge has that name; 0: none's.
[[nodiscard]] uint16_t tag_of(const std::string& bridge);
/// The bridge of a VLAN, on every node, and the link that leads from it to the LAN.
[[nodiscard]] std::string bridge_of(uint16_t vlan);
[[nodiscard]] std::string link_of(uint16_t vlan);
/// What bonds, and the bridge of the LAN, are called where there was none.
inline constexpr const char* kLanBond = "scribe-lan";
inline constexpr const char* kBackplaneBond = "scribe-bp";
inline constexpr const char* kLanBridge = "scribe-br0";
inline constexpr uint32_t kMiimonMs = 100;
/// A port that flaps faster than that is not gone back to.
inline constexpr uint32_t kUpdelayMs = 5000;

/// What is next on the way from what there is to what is wanted, all of it that can be said from
/// here: empty when it is so. A function of its arguments alone; after whatever part of its steps
/// it may be asked again.
[[nodiscard]] Plan plan(const Wanted& wanted, const std::vector<Link>& links);

/// What makes up for a step that failed, with the links as they are behind that: a port that its
/// bond did not take is used as it was before, with the node's addresses, or in its bridge.
[[nodiscard]] std::vector<Step> undo(const Step& failed, const std::vector<Link>& links);

/// Where guests can be, as it is now.
[[nodiscard]] Lan lan_of(const Wanted& wanted, const std::vector<Link>& links);

/// The network cards behind an address: the ports of its bond, or its one card. Empty where nothing
/// has it.
[[nodiscard]] std::vector<Link> ports_of(const std::string& address,
                                         const std::vector<Link>& links);
/// The port that the LAN's bond uses now, by its index; 0: there is no bond, or it uses none.
[[nodiscard]] int active_port(const Wanted& wanted, const std::vector<Link>& links);

}  // namespace net
