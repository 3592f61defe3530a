// SPDX-License-Identifier: GPL-2.0
// Virtual machines: what the metadata says of them, and where they run.
#include <gtest/gtest.h>

#include "policy/hosts.h"
#include "policy_vms.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Vms;

TEST_F(Vms, AVmIsMadeWithItsDisksAndGoesWithThem) {
  EXPECT_EQ(row().state, "off");
  ASSERT_EQ(row().disks.size(), 1U);
  EXPECT_EQ(leader.cluster().vsd(row().disks[0].vsd).value()->name, "a-0");
  EXPECT_EQ(create("a", 1024).error().code, Code::conflict);
  EXPECT_EQ(leader.cluster().vsds()->size(), 1U) << "nothing is left of what was refused";
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", false}}).value();
  EXPECT_TRUE(leader.cluster().vms()->empty());
  EXPECT_TRUE(leader.cluster().vsds()->empty());
}

TEST_F(Vms, ADiskOfAVmIsNotDeletedAndNotAnothersToo) {
  const uint64_t vsd = row().disks[0].vsd.value;
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd}}), Code::conflict);
  EXPECT_EQ(create("b", 1024, {json::object{{"bus", "scsi"}, {"vsd", vsd}}}).error().code,
            Code::conflict);
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", true}}).value();
  EXPECT_TRUE(create("b", 1024, {json::object{{"bus", "scsi"}, {"vsd", vsd}}}));
}

TEST_F(Vms, WhatNoVmCanBeIsRefusedInWords) {
  EXPECT_EQ(create("a b", 1024).error().code, Code::invalid);
  EXPECT_EQ(create("../a", 1024).error().code, Code::invalid);
  EXPECT_EQ(create(std::string(60, 'a'), 1024).error().code, Code::invalid);
  EXPECT_EQ(create("b", 1).error().code, Code::invalid);
  EXPECT_EQ(create("b", vm::kMaxMemoryMib + 1).error().code, Code::invalid);
  EXPECT_EQ(create("b", 1024, {json::object{{"bus", "ide"}, {"sectors", 2048}, {"replicas", 2}}})
                .error()
                .code,
            Code::invalid);
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, json::value>>{
           {"vcpus", 0},
           {"vcpus", vm::kMaxVcpus + 1},
           {"cpu", "best"},
           {"tags", json::array{"two words"}},
           {"tags", json::array{""}},
           {"description", "a\tb"},
           {"name", ""}})
    EXPECT_EQ(leader.refusal({{"op", "vm_edit"}, {"vm", id}, {name, value}}), Code::invalid)
        << name;
  EXPECT_EQ(row().vcpus, 1U);
}

TEST_F(Vms, WhatTheDomainIsMadeOfChangesWhileItIsOff) {
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"memory_mib", 2048}, {"name", "mail"}}).value();
  EXPECT_EQ(row().memory_mib, 2048U);
  start().value();
  EXPECT_EQ(leader.refusal({{"op", "vm_edit"}, {"vm", id}, {"memory_mib", 1024}}), Code::conflict);
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"tags", json::array{"web", "x"}}}).value();
  EXPECT_EQ(row().tags, (std::vector<std::string>{"web", "x"}));
}

TEST_F(Vms, MoreVcpusComeWhileItRunsAsFarAsItsDomainAndItsNodeHaveThem) {
  const auto wish = [&](uint64_t count) {
    return leader.say({{"op", "vm_edit"}, {"vm", id}, {"vcpus", count}});
  };
  say_capacity(2, 8192, 8);
  start().value();
  EXPECT_EQ(row().run_vcpus, 1U);
  EXPECT_NE(wish(5).error().text.find("4 vCPUs as long as it runs"), std::string::npos);
  wish(3).value();
  EXPECT_EQ(row().vcpus, 3U);
  EXPECT_NE(wish(2).error().text.find("fewer while it is off"), std::string::npos);
  wish(4).value();
  EXPECT_EQ(vm::most_vcpus(row()), 4U) << "what it began with decides";
  // From then on it begins with those.
  runs().value();
  want("off", "stop").value();
  ended("shutdown").value();
  close_all();
  EXPECT_EQ(row().state, "off");
  wish(8).value();
  EXPECT_EQ(vm::most_vcpus(row()), 32U) << "what an earlier run had room for says nothing now";
  wish(2).value();
  start().value();
  EXPECT_EQ(row().run_vcpus, 2U);
  say_capacity(2, 8192, 3);
  EXPECT_NE(wish(4).error().text.find("has 3 CPUs"), std::string::npos);
  EXPECT_EQ(row().vcpus, 2U);
}

TEST_F(Vms, WhileItMovesItsVcpusAndMemoryAreWhatTheyAre) {
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"max_memory_mib", 2048}}).value();
  start().value();
  runs().value();
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 0}}).value();
  EXPECT_EQ(leader.refusal({{"op", "vm_edit"}, {"vm", id}, {"vcpus", 2}}), Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vm_edit"}, {"vm", id}, {"memory_mib", 2048}}), Code::conflict);
}

TEST_F(Vms, MoreMemoryComesWhileItRunsAsFarAsItMayAndItsNodeHasSome) {
  const auto wish = [&](const char* field, uint64_t mib) {
    return leader.say({{"op", "vm_edit"}, {"vm", id}, {field, mib}});
  };
  start(2).value();
  EXPECT_NE(wish("memory_mib", 1152).error().text.find("max-memory: none"), std::string::npos);
  EXPECT_EQ(wish("max_memory_mib", 4096).error().code, Code::conflict);
  runs().value();
  want("off", "stop").value();
  ended("shutdown").value();
  close_all();
  EXPECT_EQ(wish("max_memory_mib", 512).error().code, Code::invalid) << "it has more already";
  EXPECT_EQ(wish("max_memory_mib", uint64_t{1} << 40).error().code, Code::invalid);
  wish("max_memory_mib", 8192).value();
  start(2).value();
  EXPECT_NE(wish("memory_mib", 1100).error().text.find("128 MiB"), std::string::npos);
  EXPECT_EQ(wish("memory_mib", 512).error().code, Code::conflict);
  EXPECT_EQ(wish("memory_mib", 8320).error().code, Code::invalid) << "more than its most";
  wish("memory_mib", 2048).value();
  EXPECT_EQ(row().memory_mib, 2048U);
  // What another has is not given to it, and what it has is its own.
  const uint64_t other = create("b", 1024).value();
  start(2, other).value();
  EXPECT_EQ(wish("memory_mib", 3200).error().code, Code::no_space);
  wish("memory_mib", 3072).value();
  // Nothing else comes to a node that is drained; who is there gets what that has.
  say_capacity(2, 4352, 4);
  leader.say({{"op", "node_drain"}, {"node", 2}, {"drain", "on"}}).value();
  EXPECT_NE(wish("memory_mib", 3456).error().text.find("has 256 MiB of memory left"),
            std::string::npos);
  wish("memory_mib", 3200).value();
  EXPECT_EQ(row().memory_mib, 3200U);
}

TEST_F(Vms, ABaselineIsTheNewestCpuThatEachNodeCanGive) {
  const auto say = [&](uint64_t node, const std::string& models) {
    say_capacity(node, 4096, 4, "", 0, "a kind", models);
  };
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"cpu", "baseline"}}).value();
  EXPECT_TRUE(start()->contains("again")) << "none has said what it has";
  EXPECT_EQ(row().state, "off");
  say(1, "qemu64 Nehalem Westmere IvyBridge EPYC");
  say(2, "qemu64 Nehalem Westmere IvyBridge Haswell-noTSX");
  const auto unknown = start(3);
  EXPECT_NE(unknown.error().text.find("n3 has not said yet which CPUs"), std::string::npos)
      << unknown.error().text;
  start(2).value();
  EXPECT_EQ(row().run_cpu, "IvyBridge");
  runs().value();
  // What comes later and has less gets it when it begins anew.
  say(3, "qemu64 Nehalem Westmere");
  const auto moved = leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 3}});
  EXPECT_NE(moved.error().text.find("no CPU like IvyBridge"), std::string::npos);
  want("off", "stop").value();
  ended("shutdown").value();
  close_all();
  EXPECT_EQ(row().run_cpu, "");
  start(3).value();
  EXPECT_EQ(row().run_cpu, "Westmere");
  runs().value();
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 1}}).value();
}

TEST_F(Vms, NodesWithNoCpuInCommonHaveTheOldestOfAll) {
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"cpu", "baseline"}}).value();
  say_capacity(1, 4096, 4, "", 0, "a kind", "Nehalem");
  say_capacity(2, 4096, 4, "", 0, "a kind", "something-new");
  start(1).value();
  EXPECT_EQ(row().run_cpu, "qemu64");
  runs().value();
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 3}}).value();
}

TEST_F(Vms, AVmRunsWhereMostMemoryIsFreeWithItsDisksOpenThere) {
  say_capacity(2, 8192, 4);
  EXPECT_EQ(start()->at("node").to_number<uint64_t>(), 2U);
  EXPECT_EQ(row().state, "starting");
  EXPECT_EQ(opened_on(2), 1U);
  EXPECT_EQ(start().error().code, Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "close"}, {"vsd", row().disks[0].vsd.value}, {"node", 2}}),
            Code::conflict);
  runs().value();
  EXPECT_EQ(row().state, "running");
  want("off", "shutdown").value();
  ended("shutdown").value();
  EXPECT_EQ(row().state, "off");
  EXPECT_EQ(opened_on(2), 0U);
  EXPECT_EQ(row().node.value, 0U);
}

TEST_F(Vms, AVmThatFitsNowhereIsRefusedWithTheReasonOfEachNode) {
  say_capacity(1, 512, 4);
  say_capacity(2, 4096, 4, "has no libvirt");
  leader.say({{"op", "node_down"}, {"node", 3}, {"life", 300}}).value();
  const auto refused = start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::no_space);
  for (const char* part : {"n1 has 512 MiB of memory left", "n2 has no libvirt", "n3 is down"})
    EXPECT_NE(refused.error().text.find(part), std::string::npos) << refused.error().text;
  EXPECT_EQ(row().state, "off");
}

TEST_F(Vms, ALostNodesVmBeginsAnewElsewhereWhenThatIsFenced) {
  start(2).value();
  runs().value();
  const uint64_t run = row().run;
  EXPECT_EQ(recover().error().code, Code::conflict) << "its node is up";
  lose(2);
  EXPECT_EQ(recover().error().code, Code::conflict) << "it may still run there";
  fence(2);
  recover().value();
  EXPECT_NE(row().node.value, 2U);
  EXPECT_EQ(row().run, run + 1);
  EXPECT_EQ(row().state, "starting");
  EXPECT_EQ(opened_on(2), 0U) << "when it comes back it opens nothing";
  EXPECT_EQ(opened_on(row().node.value), 1U);
}

TEST_F(Vms, AFastRebootIsALossToo) {
  start(2).value();
  runs().value();
  leader.up(2, 201).value();
  recover().value();
  EXPECT_EQ(row().state, "starting");
  EXPECT_NE(row().node.value, 2U) << "it has not said yet what it can run";
}

TEST_F(Vms, ANodeThatRunsAVmLeavesWhenThatHasMovedAway) {
  const uint64_t other = create("b", 512).value();
  start(2).value();
  runs().value();
  leader.say({{"op", "node_leave"}, {"node", 2}, {"leaving", true}}).value();
  EXPECT_NE(start(2, other).error().text.find("leaves the cluster"), std::string::npos);
  const auto gone = [&] { return leader.say({{"op", "node_gone"}, {"node", 2}}); };
  const auto early = gone();
  ASSERT_FALSE(early);
  EXPECT_NE(early.error().text.find("runs a VM"), std::string::npos) << early.error().text;
  const uint64_t vsd = row().disks[0].vsd.value;
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 0}}).value();
  leader.say(of_run("vm_moving")).value();
  EXPECT_FALSE(gone());
  leader.say(of_run("vm_moved")).value();
  EXPECT_FALSE(gone()) << "its disk is being closed there";
  leader.say({{"op", "closed"}, {"vsd", vsd}, {"node", 2}, {"error", ""}}).value();
  EXPECT_TRUE(gone());
}

TEST_F(Vms, WhatElseIsOpenOnANodeKeepsItFromLeaving) {
  start(2).value();
  const uint64_t vsd = leader.make_vsd();
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 2}}).value();
  const auto refused = leader.say({{"op", "node_leave"}, {"node", 2}, {"leaving", true}});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text.find("VSD v is open"), std::string::npos);
}

TEST_F(Vms, WhatAnEarlierRunSaysCountsForNothing) {
  start(2).value();
  runs().value();
  json::object late = of_run("vm_ended");
  late["how"] = "failed";
  late["reason"] = "late";
  lose(2);
  fence(2);
  recover().value();
  EXPECT_EQ(leader.refusal(late), Code::stale);
  EXPECT_EQ(row().state, "starting");
}

TEST_F(Vms, AVmThatWasToBeStoppedDoesNotBeginAnewWhenItsNodeIsLost) {
  start(2).value();
  runs().value();
  want("off", "shutdown").value();
  lose(2);
  fence(2);
  recover().value();
  EXPECT_EQ(row().state, "off");
}

TEST_F(Vms, AVmThatKeepsFailingIsTriedAgainLaterAndLater) {
  start().value();
  int64_t before = 0;
  for (int i = 0; i < 9; i++) {
    ended("failed").value();
    EXPECT_EQ(row().state, "waiting");
    EXPECT_EQ(row().reason, "because");
    const int64_t pause = row().retry_at - leader.now;
    EXPECT_GE(pause, before);
    before = pause;
    EXPECT_EQ(recover().error().code, Code::conflict) << "it is not time yet";
    leader.now = row().retry_at;
    close_all();
    recover().value();
    EXPECT_EQ(row().state, "starting");
  }
  EXPECT_EQ(before, 600);
  runs().value();
  leader.now += 3600;
  ended("crashed").value();
  EXPECT_EQ(row().retry_at - leader.now, 10) << "it ran well for an hour";
}

TEST_F(Vms, WhileAnotherNodeHasItsDiskOpenItIsNotBegun) {
  start(1).value();
  runs().value();
  const uint64_t vsd = row().disks[0].vsd.value;
  say_capacity(1, 512, 4);
  ended("failed").value();
  leader.now = row().retry_at;
  recover().value();
  EXPECT_EQ(row().state, "waiting") << "what runs there, if anything, keeps it from being closed";
  EXPECT_NE(row().reason.find("still open on node 1"), std::string::npos) << row().reason;
  leader.say({{"op", "closed"}, {"vsd", vsd}, {"node", 1}, {"error", "in use"}}).value();
  leader.now = row().retry_at;
  recover().value();
  EXPECT_EQ(row().state, "waiting");
  lose(1);
  fence(1);
  leader.now = row().retry_at;
  recover().value();
  EXPECT_EQ(row().state, "starting");
  EXPECT_EQ(opened_on(1), 0U);
}

TEST_F(Vms, AGuestThatPowersOffStaysOff) {
  start().value();
  runs().value();
  ended("shutdown").value();
  EXPECT_EQ(row().state, "off");
  EXPECT_EQ(row().wanted, "off");
  EXPECT_TRUE(start());
}

TEST_F(Vms, AVmThatWaitsForANodeSaysWhyAndRunsWhenThereIsOne) {
  for (uint64_t node = 1; node <= 3; node++) say_capacity(node, node == 2 ? 4096 : 512, 4);
  start().value();
  runs().value();
  lose(2);
  fence(2);
  recover().value();
  EXPECT_EQ(row().state, "waiting");
  EXPECT_NE(row().reason.find("n2 is down"), std::string::npos) << row().reason;
  say_capacity(1, 4096, 4);
  leader.now = row().retry_at;
  recover().value();
  EXPECT_EQ(row().node.value, 1U);
}

TEST_F(Vms, AWishThatIsTakenBackEndsItsTask) {
  start().value();
  runs().value();
  want("paused").value();
  want("off", "stop").value();
  ended("failed").value();
  const auto tasks = leader.cluster().tasks().value();
  for (const meta::Task& task : tasks)
    EXPECT_TRUE(task.state != "running" || !task.what.starts_with("vm ")) << task.what;
}

TEST_F(Vms, AVmThatWaitsIsOffAtOnceWhenItIsStopped) {
  start().value();
  ended("failed").value();
  want("off", "stop").value();
  EXPECT_EQ(row().state, "off");
  EXPECT_EQ(recover().error().code, Code::conflict);
}

// Where it runs; which node is chosen is in hosts_test.cc

TEST_F(Vms, WhereItIsToBeIsKeptAndChecked) {
  const auto edit = [&](json::object body) {
    body["op"] = "vm_edit";
    body["vm"] = id;
    return leader.say(std::move(body));
  };
  edit({{"preferred", 3}, {"apart", "dns"}, {"together", "shop"}}).value();
  EXPECT_EQ(row().preferred.value, 3U);
  EXPECT_EQ(row().apart, "dns");
  EXPECT_EQ(edit({{"apart", "a b"}}).error().code, Code::invalid);
  start().value();
  EXPECT_EQ(row().node.value, 3U);
  const uint64_t other = create("b", 512).value();
  leader.say({{"op", "vm_edit"}, {"vm", other}, {"preferred", 3}, {"apart", "dns"}}).value();
  start(0, other).value();
  EXPECT_NE(row(other).node.value, 3U);
  const uint64_t third = create("c", 512).value();
  leader.say({{"op", "vm_edit"}, {"vm", third}, {"apart", "dns"}}).value();
  start(3, third).value();
  const auto nodes = leader.cluster().nodes().value();
  const auto said = policy::not_apart(nodes, leader.cluster().vms().value());
  ASSERT_EQ(said.size(), 1U);
  EXPECT_EQ(said[0], "a, c are to be apart (dns), and are on node n3");
}

}  // namespace
