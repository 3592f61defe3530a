// SPDX-License-Identifier: GPL-2.0
// What a node's networks are made of what they are, step by step.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "net/netlink.h"
#include "net/plan.h"
#include "net/watch.h"

namespace {

using net::Lan;
using net::Link;
using net::Plan;
using net::Step;
using net::Uplink;
using net::Wanted;
using What = net::Step::What;

// A kernel's rules, as far as they matter here; stricter where that does no harm.
class Machine {
 public:
  Link& add(const std::string& name, const std::string& kind = "", const std::string& master = "") {
    Link link;
    link.index = next_++;
    link.name = name;
    link.kind = kind;
    link.up = true;
    link.carrier = true;
    link.mtu = 1500;
    if (!master.empty()) link.master = at(master).index;
    links_.push_back(link);
    return links_.back();
  }
  void add_vlan(const std::string& name, const std::string& on, uint16_t tag,
                const std::string& master = "") {
    Link& link = add(name, "vlan", master);
    link.lower = at(on).index;
    link.vlan = tag;
  }
  Link* find(const std::string& name) {
    const auto found = std::find_if(links_.begin(), links_.end(),
                                    [&](const Link& one) { return one.name == name; });
    return found == links_.end() ? nullptr : &*found;
  }
  Link& at(const std::string& name) {
    Link* const found = find(name);
    if (found == nullptr) throw std::runtime_error("no link " + name);
    return *found;
  }
  bool is_port(const std::string& port, const std::string& of) {
    return at(port).master == at(of).index;
  }
  void apply(const Step& step);
  bool goes_round() const;
  void remove(const std::string& name) {
    const int index = at(name).index;
    std::erase_if(links_, [&](const Link& one) {
      return one.index == index || (one.kind == "vlan" && one.lower == index);
    });
    for (Link& one : links_)
      if (one.master == index) one.master = 0;
  }
  // All steps, and none is left then.
  void become(const Wanted& wanted) {
    for (const Step& step : net::plan(wanted, links_).steps) apply(step);
    EXPECT_TRUE(net::plan(wanted, links_).steps.empty());
  }
  const std::vector<Link>& links() const { return links_; }
  bool has(const std::string& address) const {
    return std::any_of(links_.begin(), links_.end(), [&](const Link& one) {
      return one.up &&
             std::find(one.addresses.begin(), one.addresses.end(), address) != one.addresses.end();
    });
  }

 private:
  std::vector<Link> links_;
  int next_ = 1;
};

void Machine::apply(const Step& step) {
  const auto need = [&](bool so) {
    if (!so) throw std::runtime_error("refused: " + step.link + " " + step.other);
  };
  switch (step.what) {
    case What::add_bond:
    case What::add_bridge:
    case What::add_vlan: {
      need(find(step.link) == nullptr && step.link.size() <= 15);
      if (!step.other.empty()) need(find(step.other) != nullptr);
      if (step.what != What::add_vlan) {
        Link& made = add(step.link, step.what == What::add_bond ? "bond" : "bridge");
        made.up = false;
        made.bond.mode = net::kActiveBackup;
        if (step.mtu != 0) made.mtu = step.mtu;
        break;
      }
      for (const Link& one : links_)
        need(one.kind != "vlan" || one.lower != at(step.other).index || one.vlan != step.vlan);
      add_vlan(step.link, step.other, step.vlan);
      at(step.link).up = false;
      break;
    }
    case What::set_bond: {
      Link& bond = at(step.link);
      need(bond.kind == "bond" && step.bond.mode == bond.bond.mode &&
           (step.bond.updelay == 0 || step.bond.miimon != 0));
      bond.bond = step.bond;
      break;
    }
    case What::set_master: {
      Link& port = at(step.link);
      if (step.other.empty()) {
        port.master = 0;
        break;
      }
      const Link& master = at(step.other);
      need(master.kind == "bridge" || (master.kind == "bond" && !port.up && port.kind.empty()));
      // No ring.
      for (const Link* one = &master; one != nullptr;) {
        need(one->index != port.index);
        const auto next = std::find_if(links_.begin(), links_.end(),
                                       [&](const Link& l) { return l.index == one->master; });
        one = one->master == 0 || next == links_.end() ? nullptr : &*next;
      }
      port.master = master.index;
      if (master.kind == "bond") port.mtu = master.mtu;
      break;
    }
    case What::set_up:
    case What::set_down: {
      Link& link = at(step.link);
      for (const Link& one : links_)
        if (step.what == What::set_up && link.kind == "vlan" && one.index == link.lower)
          need(one.up);
      link.up = step.what == What::set_up;
      break;
    }
    case What::move_addresses: {
      Link& from = at(step.link);
      Link& to = at(step.other);
      need(to.up && from.index != to.index);
      to.addresses.insert(to.addresses.end(), from.addresses.begin(), from.addresses.end());
      from.addresses.clear();
      break;
    }
    case What::remove:
      need(at(step.link).addresses.empty());
      remove(step.link);
      break;
  }
  need(!goes_round());
}

// A bridge with two ways to one network, which frames go round for ever.
bool Machine::goes_round() const {
  const auto leads_out = [&](const Link& link) {
    const bool has_port = std::any_of(links_.begin(), links_.end(), [&](const Link& one) {
      return one.master == link.index && one.up;
    });
    return link.up && (link.kind.empty() || (link.kind == "bond" && has_port));
  };
  return std::any_of(links_.begin(), links_.end(), [&](const Link& bridge) {
    return bridge.kind == "bridge" &&
           std::count_if(links_.begin(), links_.end(), [&](const Link& port) {
             return port.master == bridge.index && leads_out(port);
           }) > 1;
  });
}

Wanted with_lan_ports(const std::string& primary = "") {
  Wanted out;
  out.lan = "10.11.0.1";
  out.backplane = "10.12.0.1";
  out.lan_ports = Uplink{{"eth0", "eth1"}, primary};
  return out;
}

Machine four_cards() {
  Machine out;
  out.add("lo").addresses = {"127.0.0.1/8"};
  out.add("eth0").addresses = {"10.11.0.1/24", "fd00::1/64"};
  out.add("eth1");
  out.add("eth2").addresses = {"10.12.0.1/24"};
  out.add("eth3");
  return out;
}

Wanted with_vlans(std::set<uint16_t> vlans) {
  Wanted out;
  out.lan = "10.11.0.1";
  out.vlans = std::move(vlans);
  return out;
}

// As an administrator makes it: a bond with two cards in a bridge, which has the address.
Machine with_bridge() {
  Machine out;
  out.add("br-lan", "bridge").addresses = {"10.11.0.1/24"};
  out.add("lan", "bond", "br-lan").bond.mode = net::kActiveBackup;
  out.add("eth0", "", "lan");
  out.add("eth1", "", "lan");
  out.add("vnet0", "tun", "br-lan");
  return out;
}

TEST(Networks, TwoCardsBecomeABondInABridgeAndTheNodeKeepsItsAddresses) {
  Machine machine = four_cards();
  machine.become(with_lan_ports("eth1"));
  EXPECT_TRUE(machine.is_port("eth0", net::kLanBond));
  EXPECT_TRUE(machine.is_port("eth1", net::kLanBond));
  EXPECT_TRUE(machine.is_port(net::kLanBond, net::kLanBridge));
  EXPECT_EQ(machine.at(net::kLanBridge).addresses,
            (std::vector<std::string>{"10.11.0.1/24", "fd00::1/64"}));
  const net::BondSettings& bond = machine.at(net::kLanBond).bond;
  EXPECT_EQ(bond.primary, machine.at("eth1").index);
  EXPECT_EQ(bond.miimon, net::kMiimonMs);
  EXPECT_EQ(bond.updelay, net::kUpdelayMs);
  EXPECT_EQ(machine.at("eth2").addresses.size(), 1U);
}

TEST(Networks, TheBackplaneIsABondWithoutABridge) {
  Machine machine = four_cards();
  Wanted wanted = with_lan_ports();
  wanted.backplane_ports = Uplink{{"eth2", "eth3"}, ""};
  machine.at("eth2").mtu = machine.at("eth3").mtu = 9000;
  machine.become(wanted);
  EXPECT_EQ(machine.at(net::kBackplaneBond).mtu, 9000U) << "large frames go through as before";
  EXPECT_EQ(machine.at("eth3").mtu, 9000U);
  EXPECT_EQ(machine.at(net::kBackplaneBond).addresses, (std::vector<std::string>{"10.12.0.1/24"}));
  EXPECT_EQ(machine.at(net::kBackplaneBond).master, 0);
}

TEST(Networks, ABondThatIsThereIsTakenAsItIsNamed) {
  Machine machine;
  machine.add("lan", "bond").addresses = {"10.11.0.1/24"};
  machine.at("lan").bond.mode = net::kActiveBackup;
  machine.add("eth0", "", "lan");
  machine.add("eth1", "", "lan");
  machine.become(with_lan_ports("eth0"));
  EXPECT_EQ(machine.find(net::kLanBond), nullptr);
  EXPECT_TRUE(machine.is_port("lan", net::kLanBridge));
  EXPECT_EQ(machine.at(net::kLanBridge).addresses.size(), 1U);
  // ifup, or somebody, gives it back what it had.
  machine.at("lan").addresses = {"10.11.0.1/24"};
  machine.become(with_lan_ports("eth0"));
  EXPECT_TRUE(machine.at("lan").addresses.empty());
}

TEST(Networks, ABridgeThatIsThereIsTakenWithItsCard) {
  Machine machine;
  machine.add("br0", "bridge").addresses = {"10.11.0.1/24"};
  machine.add("eth0", "", "br0");
  machine.add("vnet0", "tun", "br0");
  machine.add("eth1");
  machine.become(with_lan_ports());
  EXPECT_TRUE(machine.is_port(net::kLanBond, "br0"));
  EXPECT_TRUE(machine.is_port("eth0", net::kLanBond));
  EXPECT_EQ(machine.find(net::kLanBridge), nullptr);
  EXPECT_EQ(machine.at("br0").addresses.size(), 1U);
  EXPECT_EQ(net::lan_of(with_lan_ports(), machine.links()).bridge, "br0");
}

TEST(Networks, ABondOfAnotherModeIsLeftAsTheAdministratorMadeIt) {
  constexpr uint8_t kLacp = 4;
  Machine machine;
  machine.add("lan", "bond").addresses = {"10.11.0.1/24"};
  machine.at("lan").bond.mode = kLacp;
  machine.add("eth0", "", "lan");
  machine.add("eth1", "", "lan");
  machine.become(with_lan_ports("eth0"));
  EXPECT_EQ(machine.at("lan").bond.mode, kLacp);
  EXPECT_EQ(machine.at("lan").bond.primary, 0);
}

TEST(Networks, WhatCannotBeAPortIsLeftAndSaid) {
  Machine machine = four_cards();
  machine.at("eth0").leased = true;
  machine.remove("eth1");
  const Plan plan = net::plan(with_lan_ports(), machine.links());
  EXPECT_TRUE(plan.steps.empty());
  EXPECT_NE(plan.problems.at("link eth0").find("DHCP"), std::string::npos);
  EXPECT_NE(plan.problems.at("link eth1").find("not there"), std::string::npos);

  Machine tagged = four_cards();
  tagged.add_vlan("eth0.7", "eth0", 7);
  const Plan half = net::plan(with_lan_ports(), tagged.links());
  EXPECT_NE(half.problems.at("link eth0").find("eth0.7"), std::string::npos);
  for (const Step& step : half.steps) EXPECT_NE(step.link, "eth0");

  Machine two;
  two.add("a", "bond");
  two.add("b", "bond");
  two.add("eth0", "", "a");
  two.add("eth1", "", "b");
  EXPECT_TRUE(net::plan(with_lan_ports(), two.links()).steps.empty());
  EXPECT_NE(net::plan(with_lan_ports(), two.links()).problems.at("the LAN").find("several"),
            std::string::npos);
}

// What can be, and what cannot; then without what no bond takes.
void try_all(Machine& machine, Wanted wanted, const std::string& stubborn) {
  for (int round = 0; round < 3; round++) {
    for (const Step& step : net::plan(wanted, machine.links()).steps) {
      if (step.what != What::set_master || step.link != stubborn) {
        machine.apply(step);
        continue;
      }
      machine.at(stubborn).master = 0;  // the kernel takes it out of its bridge first
      for (const Step& back : net::undo(step, machine.links())) machine.apply(back);
      wanted.refused[stubborn] = "Operation not supported";
      break;
    }
  }
  const Plan plan = net::plan(wanted, machine.links());
  EXPECT_TRUE(plan.steps.empty());
  EXPECT_NE(plan.problems.at("link " + stubborn).find("not supported"), std::string::npos);
}

TEST(Networks, APortThatNoBondTakesKeepsTheNodeReachable) {
  Machine bare = four_cards();
  try_all(bare, with_lan_ports(), "eth0");
  EXPECT_TRUE(bare.at("eth0").up);
  EXPECT_EQ(bare.at("eth0").addresses.size(), 2U);

  Machine bridged;
  bridged.add("br0", "bridge").addresses = {"10.11.0.1/24"};
  bridged.add("eth0", "", "br0");
  bridged.add("eth1");
  try_all(bridged, with_lan_ports(), "eth0");
  EXPECT_TRUE(bridged.is_port("eth0", "br0"));
  EXPECT_TRUE(bridged.at("eth0").up);

  // The other one carries all by then.
  Machine second = four_cards();
  try_all(second, with_lan_ports(), "eth1");
  EXPECT_TRUE(second.is_port("eth0", net::kLanBond));
  EXPECT_EQ(second.at(net::kLanBridge).addresses.size(), 2U);
}

TEST(Networks, APrimaryThatIsGoneIsNoneUntilItComesBack) {
  Machine machine = four_cards();
  machine.become(with_lan_ports("eth0"));
  machine.remove("eth0");
  machine.become(with_lan_ports("eth0"));
  EXPECT_EQ(machine.at(net::kLanBond).bond.primary, 0);
  machine.add("eth0").up = false;
  machine.become(with_lan_ports("eth0"));
  EXPECT_EQ(machine.at(net::kLanBond).bond.primary, machine.at("eth0").index);
  EXPECT_TRUE(machine.at("eth0").up);
}

TEST(Networks, GuestsGetABridgeForEachVlanOnWhatLeadsToTheLan) {
  Machine machine = with_bridge();
  machine.become(with_vlans({7, 4094}));
  EXPECT_TRUE(machine.is_port("scribe-vl7", "scribe-br7"));
  EXPECT_EQ(machine.at("scribe-vl7").lower, machine.at("lan").index);
  EXPECT_EQ(machine.at("scribe-vl4094").vlan, 4094);
  EXPECT_TRUE(machine.at("scribe-vl7").up && machine.at("scribe-br7").up);
  const Lan lan = net::lan_of(with_vlans({}), machine.links());
  EXPECT_EQ(lan.bridge, "br-lan");
  EXPECT_EQ(lan.uplink, "lan");
  machine.become(with_vlans({4094}));
  EXPECT_EQ(machine.find("scribe-vl7"), nullptr);
  EXPECT_EQ(machine.find("scribe-br7"), nullptr);
}

TEST(Networks, ABridgeWithAGuestAtItStaysUntilThatIsGone) {
  Machine machine = with_bridge();
  machine.become(with_vlans({7}));
  machine.add("vnet1", "tun", "scribe-br7");
  machine.become(with_vlans({}));
  EXPECT_NE(machine.find("scribe-br7"), nullptr);
  EXPECT_EQ(machine.find("scribe-vl7"), nullptr) << "it is in a network that nobody is to be in";
  machine.become(with_vlans({7}));
  EXPECT_TRUE(machine.is_port("scribe-vl7", "scribe-br7"));
  machine.remove("vnet1");
  machine.become(with_vlans({}));
  EXPECT_EQ(machine.find("scribe-br7"), nullptr);
}

TEST(Networks, ATagThatTheNodeItselfUsesIsNotTakenFromIt) {
  Machine machine = with_bridge();
  machine.add_vlan("lan.7", "lan", 7);
  machine.become(with_vlans({7, 8}));
  EXPECT_EQ(machine.find("scribe-vl7"), nullptr);
  EXPECT_NE(machine.find("scribe-vl8"), nullptr);
  const Plan plan = net::plan(with_vlans({7}), machine.links());
  EXPECT_NE(plan.problems.at("VLAN 7").find("lan.7 is in use"), std::string::npos);
}

TEST(Networks, AVlanIsOnTheBondWhereTheNodesAddressIsInAnotherVlan) {
  Machine machine;
  machine.add("bond0", "bond");
  machine.add("eth0", "", "bond0");
  machine.add_vlan("bond0.10", "bond0", 10);
  machine.at("bond0.10").addresses = {"10.11.0.1/24"};
  EXPECT_EQ(net::lan_of(with_vlans({}), machine.links()).uplink, "bond0");
  EXPECT_EQ(net::lan_of(with_vlans({}), machine.links()).bridge, "");
  machine.become(with_vlans({7}));
  EXPECT_EQ(machine.at("scribe-vl7").lower, machine.at("bond0").index);
}

TEST(Networks, VlansMoveWithTheUplink) {
  Machine machine = four_cards();
  machine.become(with_vlans({7}));
  EXPECT_EQ(machine.at("scribe-vl7").lower, machine.at("eth0").index);
  Wanted wanted = with_lan_ports();
  wanted.vlans = {7};
  machine.become(wanted);
  EXPECT_EQ(machine.at("scribe-vl7").lower, machine.at(net::kLanBond).index);
  EXPECT_TRUE(machine.is_port("scribe-vl7", "scribe-br7"));
}

TEST(Networks, WhereThereIsNoWayOutThatIsSaid) {
  Machine machine = four_cards();
  Wanted wanted = with_vlans({7});
  wanted.lan = "10.99.0.1";
  EXPECT_NE(net::plan(wanted, machine.links()).problems.at("VLANs of guests").find("10.99.0.1"),
            std::string::npos);
  wanted.lan = "127.0.0.1";
  EXPECT_TRUE(net::plan(wanted, machine.links()).steps.empty());
  EXPECT_EQ(net::lan_of(wanted, machine.links()).uplink, "");
  Machine twice = with_bridge();
  twice.add("eth7", "", "br-lan");
  EXPECT_NE(net::lan_of(with_vlans({}), twice.links()).problem.find("several"), std::string::npos);
}

TEST(Networks, TheCardsBehindAnAddressAreFound) {
  Machine machine = with_bridge();
  machine.at("lan").bond.active = machine.at("eth1").index;
  const auto ports = net::ports_of("10.11.0.1", machine.links());
  ASSERT_EQ(ports.size(), 2U);
  EXPECT_EQ(ports[0].name, "eth0");
  EXPECT_EQ(net::active_port(with_vlans({}), machine.links()), machine.at("eth1").index);
  EXPECT_EQ(net::ports_of("10.12.0.1", four_cards().links()).at(0).name, "eth2");
  EXPECT_TRUE(net::ports_of("10.99.0.1", machine.links()).empty());
  // An address is not one that it begins.
  EXPECT_TRUE(net::ports_of("10.11.0.", machine.links()).empty());
}

Machine any_machine() {
  Machine out;
  const bool bond = *rc::gen::arbitrary<bool>();
  const bool bridge = *rc::gen::arbitrary<bool>();
  const int first = *rc::gen::inRange(0, 2);
  if (bridge) out.add("br-lan", "bridge");
  if (bond) out.add("lan", "bond", bridge ? "br-lan" : "").bond.mode = net::kActiveBackup;
  for (int i = 0; i < 4; i++) {
    const bool in_bond = bond && i < 2 && *rc::gen::arbitrary<bool>();
    const bool in_bridge = bridge && !bond && i == first;
    out.add("eth" + std::to_string(i), "",
            in_bond     ? "lan"
            : in_bridge ? "br-lan"
                        : "")
        .up = *rc::gen::arbitrary<bool>();
  }
  const std::string top = bridge ? "br-lan" : bond ? "lan" : "eth0";
  out.at(top).addresses = {"10.11.0.1/24"};
  out.at(top).up = true;
  out.at("eth2").addresses = {"10.12.0.1/24"};
  out.at("eth2").up = true;
  if (*rc::gen::arbitrary<bool>()) out.add_vlan("eth3.9", "eth3", 9);
  return out;
}

RC_GTEST_PROP(Networks, WhateverThereWasAndWhereverItStoppedItBecomesWhatIsWanted, ()) {
  Machine machine = any_machine();
  for (int round = 0; round < 3; round++) {
    Wanted wanted = with_lan_ports(*rc::gen::element<std::string>("", "eth0", "eth1"));
    if (*rc::gen::arbitrary<bool>()) wanted.backplane_ports = Uplink{{"eth2", "eth3"}, "eth3"};
    for (const uint16_t tag : {7, 9})
      if (*rc::gen::arbitrary<bool>()) wanted.vlans.insert(tag);
    const auto steps = net::plan(wanted, machine.links()).steps;
    const auto stop = *rc::gen::inRange<size_t>(0, steps.size() + 1);
    for (size_t i = 0; i < stop; i++) {
      machine.apply(steps[i]);
      RC_ASSERT(machine.has("10.11.0.1/24"));
      RC_ASSERT(machine.has("10.12.0.1/24"));
    }
    if (round < 2) continue;
    for (const Step& step : net::plan(wanted, machine.links()).steps) {
      machine.apply(step);
      RC_ASSERT(machine.has("10.11.0.1/24"));
    }
    RC_ASSERT(net::plan(wanted, machine.links()).steps.empty());
    for (const uint16_t tag : wanted.vlans)
      RC_ASSERT(machine.is_port(net::link_of(tag), net::bridge_of(tag)));
    RC_ASSERT(!net::lan_of(wanted, machine.links()).bridge.empty());
  }
}

net::Watch::Time at(int seconds) {
  return net::Watch::Time() + std::chrono::hours(1) + std::chrono::seconds(seconds);
}

TEST(Watch, APortWithoutCarrierIsToldOfAndAWhileLonger) {
  Machine machine = with_bridge();
  net::Watch watch;
  EXPECT_TRUE(watch.look(with_vlans({}), machine.links(), at(0)).conditions.empty());
  machine.at("eth1").carrier = false;
  const auto down = watch.look(with_vlans({}), machine.links(), at(1)).conditions;
  ASSERT_EQ(down.size(), 1U);
  EXPECT_NE(down.at("link eth1").find("the LAN without a carrier"), std::string::npos);
  EXPECT_EQ(down.at("link eth1").find("no other"), std::string::npos);
  machine.at("eth1").carrier = true;
  const auto back = watch.look(with_vlans({}), machine.links(), at(2)).conditions;
  ASSERT_EQ(back.size(), 1U);
  EXPECT_NE(back.at("link eth1").find("has it again"), std::string::npos);
  EXPECT_EQ(watch.look(with_vlans({}), machine.links(), at(60)).conditions.size(), 1U);
  EXPECT_TRUE(watch.look(with_vlans({}), machine.links(), at(62)).conditions.empty());
}

TEST(Watch, OneThatFlapsForAnHourIsOneCondition) {
  Machine machine = with_bridge();
  net::Watch watch;
  for (int second = 0; second < 3600; second += 7) {
    machine.at("eth0").carrier = second % 2 == 0;
    EXPECT_EQ(
        watch.look(with_vlans({}), machine.links(), at(second)).conditions.contains("link eth0"),
        second > 0)
        << second;
  }
}

TEST(Watch, TheLastPortIsSaidToBeThat) {
  Machine machine = with_bridge();
  machine.at("eth0").carrier = false;
  machine.at("eth1").carrier = false;
  net::Watch watch;
  EXPECT_NE(watch.look(with_vlans({}), machine.links(), at(0))
                .conditions.at("link eth0")
                .find("there is no other"),
            std::string::npos);
}

TEST(Watch, NamedPortsAreWatchedWhateverTheyAreIn) {
  Machine machine = four_cards();
  machine.at("eth1").carrier = false;
  net::Watch watch;
  EXPECT_TRUE(watch.look(with_vlans({}), machine.links(), at(0)).conditions.empty());
  EXPECT_TRUE(
      watch.look(with_lan_ports(), machine.links(), at(1)).conditions.contains("link eth1"));
}

TEST(Watch, ASwitchOverIsSeenOnce) {
  Machine machine = with_bridge();
  net::Watch watch;
  const auto use = [&](const char* port) {
    machine.at("lan").bond.active = *port == 0 ? 0 : machine.at(port).index;
    return watch.look(with_vlans({}), machine.links(), at(0)).switched;
  };
  EXPECT_FALSE(use("eth0"));
  EXPECT_FALSE(use("eth0"));
  EXPECT_TRUE(use("eth1"));
  EXPECT_FALSE(use("eth1"));
  // None for a moment, then the other: the switches do not know of that one.
  EXPECT_FALSE(use(""));
  EXPECT_TRUE(use("eth0"));
}

// With the kernel

// Networks of this process alone, which only root may have: as root it is an error not to get them.
class Netlink : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root may have networks of its own";
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << std::strerror(errno);
  }
};

const Link* named(const std::vector<Link>& links, const std::string& name) {
  const auto at =
      std::find_if(links.begin(), links.end(), [&](const Link& one) { return one.name == name; });
  return at == links.end() ? nullptr : &*at;
}

TEST_F(Netlink, ABridgeIsMadeSeenUsedAndRemoved) {
  auto netlink = net::Netlink::open();
  ASSERT_TRUE(netlink);
  ASSERT_TRUE((*netlink)->apply({What::add_bridge, "scribe-br7", "", 0, {}}));
  ASSERT_TRUE((*netlink)->apply({What::set_up, "scribe-br7", "", 0, {}}));
  auto links = (*netlink)->links();
  ASSERT_TRUE(links);
  const Link* bridge = named(*links, "scribe-br7");
  ASSERT_NE(bridge, nullptr);
  EXPECT_EQ(bridge->kind, "bridge");
  EXPECT_TRUE(bridge->up);
  EXPECT_EQ(bridge->mac.size(), 17U);
  const auto again = (*netlink)->apply({What::add_bridge, "scribe-br7", "", 0, {}});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, core::Code::conflict);
  EXPECT_NE(again.error().text.find("scribe-br7"), std::string::npos);
  ASSERT_TRUE((*netlink)->apply({What::remove, "scribe-br7", "", 0, {}}));
  EXPECT_EQ((*netlink)->apply({What::remove, "scribe-br7", "", 0, {}}).error().code,
            core::Code::not_found);
  EXPECT_EQ(named(*(*netlink)->links(), "scribe-br7"), nullptr);
}

TEST_F(Netlink, WhatChangesWhileItIsListedIsListedAnew) {
  auto reader = net::Netlink::open();
  auto writer = net::Netlink::open();
  ASSERT_TRUE(reader && writer);
  // More than one message holds.
  for (int i = 0; i < 60; i++)
    ASSERT_TRUE((*writer)->apply({What::add_bridge, "many" + std::to_string(i), "", 0, {}}));
  std::atomic<bool> over{false};
  std::jthread changes([&] {
    for (int i = 0; i < 100; i++) {
      const std::string name = "br" + std::to_string(i % 7);
      EXPECT_TRUE((*writer)->apply({What::add_bridge, name, "", 0, {}}));
      EXPECT_TRUE((*writer)->apply({What::remove, name, "", 0, {}}));
    }
    over = true;
  });
  while (!over) {
    const auto links = (*reader)->links();
    ASSERT_TRUE(links) << links.error().text;
    EXPECT_NE(named(*links, "lo"), nullptr);
  }
}

TEST_F(Netlink, AddressesAndRoutesMoveToAnotherLink) {
  auto netlink = net::Netlink::open();
  ASSERT_TRUE(netlink);
  for (const char* name : {"a", "b"}) {
    ASSERT_TRUE((*netlink)->apply({What::add_bridge, name, "", 0, {}}));
    ASSERT_TRUE((*netlink)->apply({What::set_up, name, "", 0, {}}));
  }
  ASSERT_EQ(std::system("ip address add 10.11.0.1/24 dev a && ip address add 10.11.0.9/24 dev a && "
                        "ip route add default via 10.11.0.254 && "
                        "ip route add 10.50.0.0/16 via 10.11.0.253 metric 7"),
            0);
  ASSERT_TRUE((*netlink)->apply({What::move_addresses, "a", "b", 0, {}}));
  const auto links = (*netlink)->links();
  ASSERT_TRUE(links);
  EXPECT_TRUE(named(*links, "a")->addresses.empty());
  EXPECT_EQ(named(*links, "b")->addresses,
            (std::vector<std::string>{"10.11.0.1/24", "10.11.0.9/24"}));
  EXPECT_EQ(std::system("ip route show default | grep -q 'via 10.11.0.254 dev b' && "
                        "ip route show 10.50.0.0/16 | grep -q 'dev b metric 7' && "
                        "! ip route | grep -q 'dev a'"),
            0);
  // Nothing to move is done at once.
  EXPECT_TRUE((*netlink)->apply({What::move_addresses, "a", "b", 0, {}}));
}

}  // namespace
