// SPDX-License-Identifier: GPL-2.0
#include "net/plan.h"

#include <algorithm>
#include <charconv>

namespace net {

namespace {

constexpr const char* kBridgePrefix = "scribe-br";
constexpr const char* kLinkPrefix = "scribe-vl";
constexpr uint16_t kMaxVlan = 4094;

using What = Step::What;

// 0: it is not the cluster's.
uint16_t vlan_of(const std::string& name, const std::string& prefix) {
  if (!name.starts_with(prefix)) return 0;
  uint16_t tag = 0;
  const char* const end = name.data() + name.size();
  const auto read = std::from_chars(name.data() + prefix.size(), end, tag);
  return read.ec == std::errc() && read.ptr == end && tag <= kMaxVlan ? tag : 0;
}

// What leads out of the machine, not to a guest of it.
bool leads_out(const Link& link) {
  return (link.kind.empty() || link.kind == "bond" || link.kind == "vlan") &&
         vlan_of(link.name, kLinkPrefix) == 0;
}

template <class Links>
auto* by_index(Links& links, int index) {
  const auto at =
      std::find_if(links.begin(), links.end(), [&](const Link& one) { return one.index == index; });
  return index == 0 || at == links.end() ? nullptr : &*at;
}

template <class Links>
auto* by_name(Links& links, const std::string& name) {
  const auto at =
      std::find_if(links.begin(), links.end(), [&](const Link& one) { return one.name == name; });
  return at == links.end() ? nullptr : &*at;
}

const Link* master_of(const Link& link, const std::string& kind, const std::vector<Link>& links) {
  const Link* const master = by_index(links, link.master);
  return master != nullptr && master->kind == kind ? master : nullptr;
}

const Link* with_address(const std::string& address, const std::vector<Link>& links) {
  for (const Link& link : links)
    for (const std::string& one : link.addresses)
      if (one.starts_with(address + "/")) return &link;
  return nullptr;
}

// The only way out of a bridge; nothing where there are several.
const Link* way_out(const Link& bridge, const std::vector<Link>& links) {
  const Link* out = nullptr;
  for (const Link& link : links) {
    if (link.master != bridge.index || !leads_out(link)) continue;
    if (out != nullptr) return nullptr;
    out = &link;
  }
  return out;
}

// Down to the card or the bond behind an address.
const Link* beneath(const std::string& address, const std::vector<Link>& links) {
  const Link* at = with_address(address, links);
  if (at != nullptr && at->kind == "bridge") at = way_out(*at, links);
  if (at != nullptr && at->kind == "vlan") at = by_index(links, at->lower);
  return at;
}

// What the ports are in, as far as they are there.
const Link* bond_of(const Uplink& uplink, const std::vector<Link>& links) {
  for (const std::string& name : uplink.ports) {
    const Link* const port = by_name(links, name);
    const Link* const bond = port == nullptr ? nullptr : master_of(*port, "bond", links);
    if (bond != nullptr) return bond;
  }
  return nullptr;
}

// Links as they would be after the steps so far.
class Planner {
 public:
  Planner(const Wanted& wanted, std::vector<Link> links)
      : wanted_(wanted), links_(std::move(links)) {}

  void make_uplink(const Uplink& wanted, const std::string& network, const char* bond,
                   const char* bridge);
  void make_vlans();
  Plan take() { return std::move(plan_); }

 private:
  Link& at(const std::string& name) { return *by_name(links_, name); }
  void add(Step step);
  void problem(const std::string& subject, const std::string& text) {
    plan_.problems[subject] = text;
  }
  std::vector<std::string> usable(const Uplink& wanted, const std::string& network);
  std::optional<std::string> make_bond(const std::vector<std::string>& ports,
                                       const std::string& network, const char* otherwise);
  bool take_port(const std::string& port, const std::string& bond);
  void move(const std::string& from, const std::string& to);
  void set_up(const std::string& link);
  void make_settings(const std::string& bond, const std::string& primary);
  bool make_bridge(const std::string& bond, const char* name);
  void make_vlan(uint16_t tag, const std::string& uplink);
  void remove_vlans(const std::set<uint16_t>& wanted);

  const Wanted& wanted_;
  std::vector<Link> links_;
  Plan plan_;
  int next_ = -1;  // no kernel's
};

void Planner::add(Step step) {
  switch (step.what) {
    case What::add_bond:
    case What::add_bridge:
    case What::add_vlan: {
      Link link;
      link.index = next_--;
      link.name = step.link;
      link.kind = step.what == What::add_bond     ? "bond"
                  : step.what == What::add_bridge ? "bridge"
                                                  : "vlan";
      if (step.what == What::add_bond) link.bond.mode = kActiveBackup;
      link.mtu = step.mtu;
      if (step.what == What::add_vlan) {
        link.lower = at(step.other).index;
        link.vlan = step.vlan;
      }
      links_.push_back(std::move(link));
      break;
    }
    case What::set_bond:
      at(step.link).bond = step.bond;
      break;
    case What::set_master:
      at(step.link).master = at(step.other).index;
      break;
    case What::set_up:
    case What::set_down:
      at(step.link).up = step.what == What::set_up;
      break;
    case What::move_addresses: {
      Link& from = at(step.link);
      Link& to = at(step.other);
      to.addresses.insert(to.addresses.end(), from.addresses.begin(), from.addresses.end());
      from.addresses.clear();
      break;
    }
    case What::remove:
      std::erase_if(links_, [&](const Link& one) { return one.name == step.link; });
      break;
  }
  plan_.steps.push_back(std::move(step));
}

void Planner::set_up(const std::string& link) {
  if (!at(link).up) add({What::set_up, link, "", 0, {}});
}

void Planner::move(const std::string& from, const std::string& to) {
  if (!at(from).addresses.empty()) add({What::move_addresses, from, to, 0, {}});
}

// Those of its ports that are there and can be one of several.
std::vector<std::string> Planner::usable(const Uplink& wanted, const std::string& network) {
  std::vector<std::string> out;
  for (const std::string& name : wanted.ports) {
    const Link* const port = by_name(links_, name);
    const std::string subject = "link " + name;
    if (port == nullptr) {
      problem(subject, "a port of " + network + " that is not there");
      continue;
    }
    if (!port->kind.empty()) {
      problem(subject, "a port of " + network + " that is no network card");
      continue;
    }
    if (const auto why = wanted_.refused.find(name); why != wanted_.refused.end()) {
      problem(subject, "its bond did not take it: " + why->second);
      continue;
    }
    const Link* on_it = nullptr;
    for (const Link& link : links_)
      if (link.kind == "vlan" && link.lower == port->index && vlan_of(link.name, kLinkPrefix) == 0)
        on_it = &link;
    if (on_it != nullptr)
      problem(subject, "it cannot be a port of " + network + ": " + on_it->name + " is on it");
    else if (port->leased)
      problem(subject, "it cannot be a port of " + network +
                           ": it has its address from a DHCP server; give the node a fixed one");
    else
      out.push_back(name);
  }
  return out;
}

// The bond that they are in, or one that is made.
std::optional<std::string> Planner::make_bond(const std::vector<std::string>& ports,
                                              const std::string& network, const char* otherwise) {
  std::set<std::string> bonds;
  for (const std::string& port : ports)
    if (const Link* const bond = master_of(at(port), "bond", links_)) bonds.insert(bond->name);
  if (bonds.size() > 1) {
    problem(network, "its ports are in several bonds: " + *bonds.begin() + ", " + *bonds.rbegin());
    return std::nullopt;
  }
  if (bonds.size() == 1) return *bonds.begin();
  if (const Link* const found = by_name(links_, otherwise); found == nullptr) {
    // What all of them can: a bond's own would be the usual one.
    uint32_t mtu = 0;
    for (const std::string& port : ports)
      mtu = mtu == 0 ? at(port).mtu : std::min(mtu, at(port).mtu);
    add({What::add_bond, otherwise, "", 0, {}, mtu});
  } else if (found->kind != "bond") {
    problem(network, std::string(otherwise) + " is there, and no bond");
    return std::nullopt;
  }
  return otherwise;
}

// Its addresses, and its place in a bridge, are the bond's first: the node can be reached there as
// soon as the port is.
bool Planner::take_port(const std::string& port, const std::string& bond) {
  if (at(port).master == at(bond).index) return true;
  if (const Link* const bridge = master_of(at(port), "bridge", links_)) {
    if (at(bond).master != 0 && at(bond).master != bridge->index) {
      problem("link " + port, "it is a port of " + bridge->name);
      return false;
    }
    // Never two ways from the bridge to the LAN: frames would go round.
    const std::string name = bridge->name;
    if (at(port).up) add({What::set_down, port, "", 0, {}});
    if (at(bond).master == 0) add({What::set_master, bond, name, 0, {}});
  }
  move(port, bond);
  if (at(port).up) add({What::set_down, port, "", 0, {}});
  add({What::set_master, port, bond, 0, {}});
  add({What::set_up, port, "", 0, {}});
  return true;
}

// A bond of another mode than active-backup is the administrator's, and left as it is.
void Planner::make_settings(const std::string& bond, const std::string& primary) {
  const BondSettings& has = at(bond).bond;
  if (has.mode != kActiveBackup) return;
  BondSettings wanted = has;
  wanted.miimon = kMiimonMs;
  wanted.updelay = kUpdelayMs;
  wanted.reselect = 0;
  const Link* const port = by_name(links_, primary);
  wanted.primary = port == nullptr || port->master != at(bond).index ? 0 : port->index;
  if (has.miimon != wanted.miimon || has.updelay != wanted.updelay ||
      has.reselect != wanted.reselect || has.primary != wanted.primary)
    add({What::set_bond, bond, "", 0, wanted});
}

bool Planner::make_bridge(const std::string& bond, const char* name) {
  if (at(bond).leased) {
    problem("link " + bond,
            "it has its address from a DHCP server; give the node a fixed one: there is no bridge "
            "for guests before");
    return false;
  }
  const Link* bridge = by_index(links_, at(bond).master);
  if (bridge != nullptr && bridge->kind != "bridge") {
    problem("link " + bond, "it is a port of " + bridge->name);
    return false;
  }
  if (bridge == nullptr) bridge = by_name(links_, name);
  if (bridge == nullptr) {
    add({What::add_bridge, name, bond, 0, {}});
    bridge = by_name(links_, name);
  } else if (bridge->kind != "bridge") {
    problem("link " + bond, bridge->name + " is there, and no bridge");
    return false;
  }
  const std::string top = bridge->name;
  set_up(top);
  move(bond, top);
  if (at(bond).master != at(top).index) add({What::set_master, bond, top, 0, {}});
  return true;
}

void Planner::make_uplink(const Uplink& wanted, const std::string& network, const char* bond,
                          const char* bridge) {
  const std::vector<std::string> ports = usable(wanted, network);
  if (ports.empty()) return;
  const auto name = make_bond(ports, network, bond);
  if (!name) return;
  set_up(*name);
  for (const std::string& port : ports) {
    if (!take_port(port, *name)) continue;
    // Somebody configured it anew.
    move(port, *name);
  }
  make_settings(*name, wanted.primary);
  if (bridge != nullptr) make_bridge(*name, bridge);
}

void Planner::make_vlan(uint16_t tag, const std::string& uplink) {
  const std::string name = link_of(tag);
  const std::string bridge = bridge_of(tag);
  const std::string subject = "VLAN " + std::to_string(tag);
  const Link* link = by_name(links_, name);
  if (link != nullptr &&
      (link->kind != "vlan" || link->vlan != tag || link->lower != at(uplink).index)) {
    add({What::remove, name, "", 0, {}});
    link = nullptr;
  }
  for (const Link& other : links_)
    if (other.kind == "vlan" && other.vlan == tag && other.lower == at(uplink).index &&
        other.name != name) {
      problem(subject, "guests cannot be in it here: " + other.name +
                           " is in use; put that into a bridge, and name the bridge");
      return;
    }
  if (const Link* const found = by_name(links_, bridge); found == nullptr) {
    add({What::add_bridge, bridge, "", 0, {}});
  } else if (found->kind != "bridge") {
    problem(subject, bridge + " is there, and no bridge");
    return;
  }
  if (link == nullptr) add({What::add_vlan, name, uplink, tag, {}});
  if (at(name).master != at(bridge).index) add({What::set_master, name, bridge, 0, {}});
  set_up(bridge);
  set_up(name);
}

// A bridge that guests are at stays until they are gone.
void Planner::remove_vlans(const std::set<uint16_t>& wanted) {
  std::vector<std::string> gone;
  for (const Link& link : links_) {
    const uint16_t of_link = vlan_of(link.name, kLinkPrefix);
    const uint16_t of_bridge = vlan_of(link.name, kBridgePrefix);
    if (of_link != 0 && !wanted.contains(of_link)) gone.push_back(link.name);
    if (of_bridge != 0 && !wanted.contains(of_bridge) &&
        std::none_of(links_.begin(), links_.end(), [&](const Link& port) {
          return port.master == link.index && port.name != link_of(of_bridge);
        }))
      gone.push_back(link.name);
  }
  for (const std::string& name : gone) add({What::remove, name, "", 0, {}});
}

void Planner::make_vlans() {
  remove_vlans(wanted_.vlans);
  if (wanted_.vlans.empty()) return;
  const Lan lan = lan_of(wanted_, links_);
  if (lan.uplink.empty()) {
    problem("VLANs of guests", lan.problem);
    return;
  }
  for (const uint16_t tag : wanted_.vlans) make_vlan(tag, lan.uplink);
}

}  // namespace

uint16_t tag_of(const std::string& bridge) { return vlan_of(bridge, kBridgePrefix); }

std::string bridge_of(uint16_t vlan) { return kBridgePrefix + std::to_string(vlan); }

std::string link_of(uint16_t vlan) { return kLinkPrefix + std::to_string(vlan); }

Plan plan(const Wanted& wanted, const std::vector<Link>& links) {
  Planner planner(wanted, links);
  if (wanted.backplane_ports)
    planner.make_uplink(*wanted.backplane_ports, "the backplane", kBackplaneBond, nullptr);
  if (wanted.lan_ports) planner.make_uplink(*wanted.lan_ports, "the LAN", kLanBond, kLanBridge);
  planner.make_vlans();
  return planner.take();
}

std::vector<Step> undo(const Step& failed, const std::vector<Link>& links) {
  const Link* const port = by_name(links, failed.link);
  const Link* const bond = by_name(links, failed.other);
  if (failed.what != What::set_master || port == nullptr || bond == nullptr ||
      bond->kind != "bond" || port->master == bond->index)
    return {};
  std::vector<Step> out;
  if (!port->up) out.push_back({What::set_up, port->name, "", 0, {}});
  // Others that it took carry all.
  if (std::any_of(links.begin(), links.end(),
                  [&](const Link& one) { return one.master == bond->index; }))
    return out;
  if (!bond->addresses.empty())
    out.push_back({What::move_addresses, bond->name, port->name, 0, {}});
  if (const Link* const bridge = master_of(*bond, "bridge", links);
      bridge != nullptr && port->master == 0) {
    out.push_back({What::set_master, bond->name, "", 0, {}});
    out.push_back({What::set_master, port->name, bridge->name, 0, {}});
  }
  return out;
}

Lan lan_of(const Wanted& wanted, const std::vector<Link>& links) {
  const Link* at = nullptr;
  if (wanted.lan_ports) {
    at = bond_of(*wanted.lan_ports, links);
    if (at == nullptr) return {"", "", "the ports of the LAN are not there"};
  } else {
    at = with_address(wanted.lan, links);
    if (at == nullptr || at->name == "lo")
      return {"", "",
              at == nullptr ? "no link here has the LAN's address " + wanted.lan
                            : "this node has no address on a LAN"};
    if (at->kind == "bridge") {
      const std::string bridge = at->name;
      at = way_out(*at, links);
      if (at == nullptr)
        return {bridge, "", bridge + " has not one port that leads out, but none or several"};
    }
  }
  Lan out;
  if (const Link* const bridge = master_of(*at, "bridge", links))
    out.bridge = bridge->name;
  else
    out.problem = at->name + " is in no bridge; make one, or say: scalectl node bond";
  if (at->kind == "vlan") at = by_index(links, at->lower);
  if (at != nullptr) out.uplink = at->name;
  return out;
}

std::vector<Link> ports_of(const std::string& address, const std::vector<Link>& links) {
  const Link* const at = beneath(address, links);
  std::vector<Link> out;
  if (at == nullptr) return out;
  if (at->kind != "bond") return {*at};
  for (const Link& link : links)
    if (link.master == at->index) out.push_back(link);
  return out;
}

int active_port(const Wanted& wanted, const std::vector<Link>& links) {
  const Link* at =
      wanted.lan_ports ? bond_of(*wanted.lan_ports, links) : beneath(wanted.lan, links);
  return at == nullptr || at->kind != "bond" ? 0 : at->bond.active;
}

}  // namespace net
