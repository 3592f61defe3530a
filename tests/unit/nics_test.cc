// SPDX-License-Identifier: GPL-2.0
// Network interfaces of virtual machines: rows, what a domain has of them, and where they can be.
#include "vm/nics.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "policy_leader.h"
#include "vm/domain.h"
#include "vm/import.h"

namespace {

using vm::NicChange;

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;

// Three nodes, each with a bridge on its LAN, and a VM without any interface.
class Nics : public ::testing::Test {
 protected:
  Nics() {
    leader.found(3);
    for (uint64_t node = 1; node <= 3; node++) say_networks(node, "br-lan", "lan");
    id = create("a").value();
  }
  void say_networks(uint64_t node, const std::string& bridge, const std::string& uplink) {
    leader
        .say({{"op", "capacity"},
              {"node", node},
              {"life", node * 100},
              {"memory_mib", 4096},
              {"cpus", 4},
              {"cpu", "a kind"},
              {"problem", ""},
              {"lan_bridge", bridge},
              {"uplink", uplink},
              {"lan_problem", bridge.empty() || uplink.empty() ? "the cable is out" : ""},
              {"models", ""}})
        .value();
  }
  core::Result<uint64_t> create(const std::string& name, json::array nics = {}) {
    auto made = leader.say({{"op", "vm_create"},
                            {"name", name},
                            {"uuid", "uuid-of-" + name},
                            {"machine", vm::kMachine},
                            {"vcpus", 1},
                            {"memory_mib", 512},
                            {"disks", json::array{}},
                            {"nics", std::move(nics)}});
    if (!made) return made.error();
    return made->at("vm").to_number<uint64_t>();
  }
  meta::Vm row(uint64_t vm = 0) {
    for (const meta::Vm& one : leader.cluster().vms().value())
      if (one.id == (vm == 0 ? id : vm)) return one;
    return {};
  }
  core::Result<json::object> say(const char* op, json::object body) {
    body["op"] = op;
    body["vm"] = id;
    return leader.say(std::move(body));
  }
  core::Result<json::object> start(uint64_t on = 0) {
    return leader.say({{"op", "vm_start"}, {"vm", id}, {"on", on}});
  }

  Leader leader;
  uint64_t id = 0;
};

TEST_F(Nics, TheyComeAndGoOneByOneAndKeepTheirNumbersAndMacs) {
  EXPECT_EQ(say("vm_nic_add", {})->at("nic").to_number<uint64_t>(), 0U);
  say("vm_nic_add", {{"vlan", 7}, {"mac", "52:54:00:00:00:01"}, {"model", "e1000e"}}).value();
  say("vm_nic_add", {{"bridge", "br-dmz"}, {"connected", false}}).value();
  const meta::Vm all = row();
  ASSERT_EQ(all.nics.size(), 3U);
  EXPECT_EQ(all.nics[1].vlan, 7U);
  EXPECT_EQ(all.nics[1].mac, "52:54:00:00:00:01");
  EXPECT_EQ(all.nics[2].bridge, "br-dmz");
  EXPECT_FALSE(all.nics[2].connected);
  EXPECT_EQ(leader.cluster().vlans().value(), std::vector<uint64_t>{7});
  say("vm_nic_remove", {{"slot", 1}}).value();
  ASSERT_EQ(row().nics.size(), 2U);
  EXPECT_EQ(row().nics[1].slot, 2U);
  EXPECT_EQ(row().nics[1].mac, all.nics[2].mac);
  EXPECT_TRUE(leader.cluster().vlans()->empty());
  // The lowest number that is free.
  EXPECT_EQ(say("vm_nic_add", {})->at("nic").to_number<uint64_t>(), 1U);
  EXPECT_EQ(say("vm_nic_remove", {{"slot", 5}}).error().code, Code::not_found);
}

TEST_F(Nics, OneIsPutElsewhereAndItsCableIsPulledWhileItRuns) {
  say("vm_nic_add", {{"bridge", "br-dmz"}}).value();
  start(1).value();
  const std::string mac = row().nics[0].mac;
  say("vm_nic_change", {{"slot", 0}, {"bridge", ""}, {"vlan", 9}}).value();
  EXPECT_EQ(row().nics[0].bridge, "");
  EXPECT_EQ(row().nics[0].vlan, 9U);
  say("vm_nic_change", {{"slot", 0}, {"connected", false}}).value();
  EXPECT_FALSE(row().nics[0].connected);
  EXPECT_EQ(row().nics[0].vlan, 9U);
  say("vm_nic_change", {{"slot", 0}, {"bridge", "br-x"}}).value();
  EXPECT_EQ(row().nics[0].vlan, 0U) << "a tag is of the LAN";
  EXPECT_EQ(row().nics[0].mac, mac);
}

TEST_F(Nics, WhatNoneCanBeIsRefusedAndChangesNothing) {
  say("vm_nic_add", {{"mac", "52:54:00:00:00:01"}}).value();
  const auto refused = [&](json::object body) {
    return say("vm_nic_add", std::move(body)).error().code == Code::invalid;
  };
  EXPECT_TRUE(refused({{"vlan", 4095}}));
  EXPECT_TRUE(refused({{"bridge", "br0"}, {"vlan", 7}}));
  EXPECT_TRUE(refused({{"bridge", "a/b"}}));
  EXPECT_TRUE(refused({{"bridge", "a-name-too-long-"}}));
  EXPECT_TRUE(refused({{"model", "ne2k"}}));
  EXPECT_TRUE(refused({{"mac", "52:54:00:00:00:01"}}));
  EXPECT_TRUE(refused({{"mac", "01:00:5e:00:00:01"}})) << "that is a group's";
  EXPECT_TRUE(refused({{"mac", "52:54:00:00:00"}}));
  EXPECT_EQ(row().nics.size(), 1U);
  const uint64_t other = create("b").value();
  EXPECT_EQ(leader.refusal({{"op", "vm_nic_add"}, {"vm", other}, {"mac", "52:54:00:00:00:01"}}),
            Code::conflict);
  for (size_t i = 1; i < vm::kMaxNics; i++) say("vm_nic_add", {}).value();
  EXPECT_TRUE(refused({}));
  EXPECT_EQ(row().nics.size(), vm::kMaxNics);
}

TEST_F(Nics, AVmWithoutItsNetworksRunsElsewhereOrNowhere) {
  say("vm_nic_add", {}).value();
  say("vm_nic_add", {{"vlan", 7}}).value();
  say_networks(1, "", "lan");
  say_networks(2, "br-lan", "");
  EXPECT_EQ(start(1).error().code, Code::no_space);
  EXPECT_NE(start(2).error().text.find("the cable is out"), std::string::npos);
  start().value();
  EXPECT_EQ(row().node.value, 3U);
  // Bridges of the administrator's are tried.
  id = create("b", {json::object{{"bridge", "br-dmz"}}}).value();
  EXPECT_TRUE(start(2));
}

TEST_F(Nics, WhileItMovesItsNetworkStaysWhatItIs) {
  say("vm_nic_add", {}).value();
  start(1).value();
  leader
      .say({{"op", "vm_state"},
            {"vm", id},
            {"node", 1},
            {"life", 100},
            {"run", row().run},
            {"state", "running"}})
      .value();
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 2}}).value();
  EXPECT_EQ(say("vm_nic_change", {{"slot", 0}, {"vlan", 7}}).error().code, Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vm_edit"}, {"vm", id}, {"nics", json::array{}}}),
            Code::conflict);
  EXPECT_EQ(row().nics[0].vlan, 0U);
}

TEST_F(Nics, ANodesPortsAreNamedOnceEach) {
  const auto bond = [&](uint64_t node, const char* network, json::array ports,
                        const char* primary = "") {
    const auto done = leader.say({{"op", "node_bond"},
                                  {"node", node},
                                  {"network", network},
                                  {"ports", std::move(ports)},
                                  {"preferred", primary}});
    return done ? std::string() : done.error().text;
  };
  EXPECT_EQ(bond(1, "lan", {"eth0", "eth1"}, "eth1"), "");
  EXPECT_EQ(bond(2, "lan", {"eth0", "eth1"}), "");
  EXPECT_NE(bond(1, "backplane", {"eth1", "eth2"}).find("one of the lan"), std::string::npos);
  EXPECT_NE(bond(1, "lan", {"eth0", "eth0"}).find("twice"), std::string::npos);
  EXPECT_NE(bond(1, "lan", {"eth0"}, "eth7").find("none of the ports"), std::string::npos);
  EXPECT_NE(bond(1, "lan", {"../eth0"}).find("no name"), std::string::npos);
  EXPECT_NE(bond(1, "lan", {"a b"}).find("no name"), std::string::npos);
  EXPECT_NE(bond(1, "wan", {"eth0"}).find("no network"), std::string::npos);
  EXPECT_NE(bond(9, "lan", {"eth0"}).find("no node"), std::string::npos);
  const auto bonds = leader.cluster().bonds().value();
  ASSERT_EQ(bonds.size(), 2U);
  EXPECT_EQ(bonds[0].ports, (std::vector<std::string>{"eth0", "eth1"}));
  EXPECT_EQ(bonds[0].preferred, "eth1");
  EXPECT_EQ(bond(1, "lan", {}), "");
  EXPECT_EQ(leader.cluster().bonds()->size(), 1U);
}

// Domains

meta::VmNic nic(uint64_t slot, const std::string& bridge, uint64_t vlan = 0) {
  return {slot, "52:54:00:00:00:0" + std::to_string(slot), bridge, vlan, "virtio", true};
}

std::string nic_domain(const std::vector<meta::VmNic>& nics) {
  meta::Vm vm;
  vm.name = "a";
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.memory_mib = 512;
  vm.nics = nics;
  return vm::domain_xml(vm, {}, "br-lan");
}

std::vector<NicChange::What> changes(const std::vector<meta::VmNic>& from,
                                     const std::vector<meta::VmNic>& to,
                                     const std::string& lan_bridge = "br-lan") {
  std::vector<NicChange::What> out;
  for (const auto& one : vm::nic_changes(nic_domain(from), to, lan_bridge).value())
    out.push_back(one.what);
  return out;
}

TEST(DomainNics, EachIsAtTheBridgeOfItsNetwork) {
  EXPECT_EQ(vm::bridge_of(nic(0, ""), "br-lan"), "br-lan");
  EXPECT_EQ(vm::bridge_of(nic(0, "", 7), "br-lan"), "scribe-br7");
  EXPECT_EQ(vm::bridge_of(nic(0, "br-dmz"), "br-lan"), "br-dmz");
}

TEST(DomainNics, OnlyWhatDiffersIsChanged) {
  const auto a = nic(0, "");
  const auto b = nic(1, "br-dmz");
  meta::VmNic pulled = a;
  pulled.connected = false;
  meta::VmNic other_model = a;
  other_model.model = "e1000e";
  EXPECT_EQ(changes({a, b}, {a, b}), std::vector<NicChange::What>{});
  EXPECT_EQ(changes({a}, {a, b}), std::vector<NicChange::What>{NicChange::What::attach});
  EXPECT_EQ(changes({a, b}, {b}), std::vector<NicChange::What>{NicChange::What::detach});
  EXPECT_EQ(changes({a, b}, {nic(0, "", 7), b}),
            std::vector<NicChange::What>{NicChange::What::update});
  EXPECT_EQ(changes({a}, {pulled}), std::vector<NicChange::What>{NicChange::What::update});
  EXPECT_EQ(changes({pulled}, {a}), std::vector<NicChange::What>{NicChange::What::update});
  EXPECT_EQ(changes({a}, {a}, "scribe-br0"), std::vector<NicChange::What>{NicChange::What::update});
  EXPECT_EQ(changes({a}, {other_model}), std::vector<NicChange::What>{NicChange::What::detach});
  EXPECT_FALSE(vm::nic_changes("none", {}, ""));
}

TEST(DomainNics, OnAnotherNodeTheyAreAtItsBridges) {
  const std::string there =
      vm::with_bridges(nic_domain({nic(0, ""), nic(1, "br-dmz"), nic(2, "", 7)}),
                       {nic(0, ""), nic(1, "br-dmz"), nic(2, "", 7)}, "scribe-br0")
          .value();
  for (const char* bridge : {"'scribe-br0'", "\"scribe-br0\"", "\"br-dmz\"", "\"scribe-br7\""})
    EXPECT_EQ(there.find(bridge) != std::string::npos, bridge[0] == '"') << bridge;
  EXPECT_EQ(there.find("br-lan"), std::string::npos);
}

RC_GTEST_PROP(DomainNics, WhatIsExportedAndImportedIsTheSame, ()) {
  std::vector<meta::VmNic> nics;
  const auto count = *rc::gen::inRange<uint64_t>(0, 8);
  for (uint64_t slot = 0; slot < count; slot++) {
    meta::VmNic one = nic(slot, *rc::gen::element<std::string>("", "br-dmz"));
    if (one.bridge.empty()) one.vlan = *rc::gen::inRange<uint64_t>(0, 4095);
    one.connected = *rc::gen::arbitrary<bool>();
    one.model = *rc::gen::element<std::string>("virtio", "e1000e");
    nics.push_back(one);
  }
  meta::Vm vm;
  vm.name = "a";
  vm.uuid = "00000000-0000-0000-0000-000000000007";
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.memory_mib = 512;
  vm.nics = nics;
  const auto back = vm::from_xml(vm::domain_xml(vm, {}, "scribe-br0"));
  RC_ASSERT(back.has_value());
  RC_ASSERT(back->vm.nics.size() == nics.size());
  for (size_t i = 0; i < nics.size(); i++) {
    const meta::VmNic& now = back->vm.nics[i];
    RC_ASSERT(now.mac == nics[i].mac && now.bridge == nics[i].bridge && now.vlan == nics[i].vlan &&
              now.model == nics[i].model && now.connected == nics[i].connected);
  }
}

}  // namespace
