// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace net {

/// How a bond chooses its port; as IFLA_BOND_MODE and the like have it. Times are in milliseconds.
struct BondSettings {
  uint8_t mode = 0;
  uint32_t miimon = 0;   ///< how often the carriers of its ports are looked at; 0: never
  uint32_t updelay = 0;  ///< a port is used when its carrier has been there that long
  int primary = 0;       ///< the port that is preferred, by its index; 0: none
  uint8_t reselect = 0;  ///< when that is gone back to
  int active = 0;        ///< the port that is used now, by its index; 0: none
};

inline constexpr uint8_t kActiveBackup = 1;

/// A network link of this machine.
struct Link {
  int index = 0;
  std::string name;
  std::string kind;  ///< bond, bridge, vlan, tun, ...; empty: a network card
  std::string mac;
  int master = 0;     ///< the bond or bridge whose port it is, by its index; 0: none
  int lower = 0;      ///< of a VLAN: the link that it is on
  uint16_t vlan = 0;  ///< of a VLAN: its tag
  uint32_t mtu = 0;   ///< in bytes
  bool up = false;    ///< it is to be used
  bool carrier = false;
  BondSettings bond;                   ///< of a bond
  std::vector<std::string> addresses;  ///< that it has for good, as 10.1.0.2/24
  bool leased = false;                 ///< it has an IPv4 address for a time, as from a DHCP server
};

}  // namespace net
