// SPDX-License-Identifier: GPL-2.0
// Virtual machines: what the metadata says of them, where they run, and where they move.
#include <gtest/gtest.h>

#include "policy/hosts.h"
#include "policy_leader.h"
#include "vm/domain.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;

// Three nodes with 4096 MiB and 4 CPUs each, and VM "a" with a disk of its own.
class Vms : public ::testing::Test {
 protected:
  Vms() {
    leader.found(3);
    for (uint64_t node = 1; node <= 3; node++) say_capacity(node, 4096, 4);
    id = create("a", 1024).value();
  }
  void say_capacity(uint64_t node, uint64_t memory, uint64_t cpus, const std::string& problem = "",
                    uint64_t life = 0, const std::string& cpu = "a kind",
                    const std::string& models = "") {
    leader
        .say({{"op", "capacity"},
              {"node", node},
              {"life", life == 0 ? node * 100 : life},
              {"memory_mib", memory},
              {"cpus", cpus},
              {"cpu", cpu},
              {"problem", problem},
              {"lan_bridge", "br-lan"},
              {"uplink", "lan"},
              {"lan_problem", ""},
              {"models", models}})
        .value();
  }
  core::Result<uint64_t> create(const std::string& name, uint64_t memory,
                                json::array disks = {json::object{
                                    {"bus", "virtio"}, {"sectors", 2048}, {"replicas", 2}}}) {
    auto made = leader.say({{"op", "vm_create"},
                            {"name", name},
                            {"uuid", "uuid-of-" + name},
                            {"machine", vm::kMachine},
                            {"vcpus", 1},
                            {"memory_mib", memory},
                            {"disks", std::move(disks)}});
    if (!made) return made.error();
    return made->at("vm").to_number<uint64_t>();
  }
  meta::Vm row(uint64_t vm = 0) {
    const auto vms = leader.cluster().vms().value();
    for (const meta::Vm& one : vms)
      if (one.id == (vm == 0 ? id : vm)) return one;
    return {};
  }
  core::Result<json::object> start(uint64_t on = 0, uint64_t vm = 0) {
    return leader.say({{"op", "vm_start"}, {"vm", vm == 0 ? id : vm}, {"on", on}});
  }
  core::Result<json::object> want(const std::string& wanted, const std::string& how = "") {
    return leader.say({{"op", "vm_want"}, {"vm", id}, {"wanted", wanted}, {"how", how}});
  }
  json::object of_run(const char* op) {
    const meta::Vm now = row();
    return {{"op", op}, {"vm", id}, {"node", now.node.value}, {"life", now.life}, {"run", now.run}};
  }
  core::Result<json::object> runs() {
    json::object body = of_run("vm_state");
    body["state"] = "running";
    return leader.say(std::move(body));
  }
  core::Result<json::object> ended(const std::string& how) {
    json::object body = of_run("vm_ended");
    body["how"] = how;
    body["reason"] = "because";
    return leader.say(std::move(body));
  }
  core::Result<json::object> recover() { return leader.say({{"op", "vm_recover"}, {"vm", id}}); }
  void close_all() {
    const auto opened = leader.cluster().opened().value();
    for (const meta::Opened& one : opened)
      if (one.state == "closing")
        leader
            .say(
                {{"op", "closed"}, {"vsd", one.vsd.value}, {"node", one.node.value}, {"error", ""}})
            .value();
  }
  void lose(uint64_t node) {
    leader.say({{"op", "node_down"}, {"node", node}, {"life", node * 100}}).value();
  }
  void fence(uint64_t node) {
    for (uint64_t witness = 1; witness <= 3; witness++)
      if (witness != node) leader.fenced(node, node * 100, witness).value();
  }
  size_t opened_on(uint64_t node) {
    size_t count = 0;
    const auto opened = leader.cluster().opened().value();
    for (const meta::Opened& one : opened)
      count += one.node.value == node && one.state != "closing";
    return count;
  }

  Leader leader;
  uint64_t id = 0;
};

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

// Snapshots

// VM "a" runs on node 1.
class VmMoves : public Vms {
 protected:
  VmMoves() {
    start(1).value();
    runs().value();
  }
  core::Result<json::object> migrate(uint64_t on = 2) {
    return leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", on}});
  }
  core::Result<json::object> cancel() {
    return leader.say({{"op", "vm_migrate_cancel"}, {"vm", id}});
  }
  core::Result<json::object> stays() {
    json::object body = of_run("vm_stays");
    body["reason"] = "because";
    return leader.say(std::move(body));
  }
  std::string task_state() {
    const auto tasks = leader.cluster().tasks().value();
    for (const meta::Task& one : tasks)
      if (one.what == "vm move") return one.state;
    return "";
  }
};

TEST_F(VmMoves, ItIsWhereItWasUntilAllOfItIsThere) {
  migrate().value();
  EXPECT_EQ(row().node.value, 1U);
  EXPECT_EQ(row().to_node.value, 2U);
  EXPECT_EQ(opened_on(1), 1U);
  EXPECT_EQ(opened_on(2), 1U);
  EXPECT_EQ(leader.say(of_run("vm_moved")).error().code, Code::conflict) << "it has not begun";
  leader.say(of_run("vm_moving")).value();
  EXPECT_EQ(leader.say(of_run("vm_moving")).error().code, Code::conflict) << "once";
  const json::object before = of_run("vm_moved");
  leader.say(json::object(before)).value();
  EXPECT_EQ(row().node.value, 2U);
  EXPECT_EQ(row().life, 200U);
  EXPECT_EQ(row().run, 2U);
  EXPECT_FALSE(row().to_node);
  EXPECT_EQ(row().state, "arriving");
  EXPECT_EQ(task_state(), "running");
  EXPECT_EQ(leader.say(json::object(before)).error().code, Code::stale) << "said again";
  close_all();
  EXPECT_EQ(opened_on(1), 0U);
  runs().value();
  EXPECT_EQ(row().state, "running");
  EXPECT_EQ(task_state(), "done");
}

TEST_F(VmMoves, WhereItDoesNotGetThereItStaysAndTheNextAttemptIsAnotherRun) {
  migrate().value();
  leader.say(of_run("vm_moving")).value();
  const uint64_t first = row().runs;
  stays().value();
  EXPECT_EQ(row().node.value, 1U);
  EXPECT_EQ(row().run, 1U);
  EXPECT_FALSE(row().to_node);
  EXPECT_EQ(task_state(), "failed");
  close_all();
  EXPECT_EQ(opened_on(2), 0U);
  EXPECT_EQ(opened_on(1), 1U);
  EXPECT_EQ(leader.say(of_run("vm_moved")).error().code, Code::conflict);
  migrate().value();
  EXPECT_GT(row().runs, first);
  leader.say(of_run("vm_moving")).value();
  leader.say(of_run("vm_moved")).value();
  EXPECT_EQ(row().run, first + 1);
}

TEST_F(VmMoves, WhatCannotMoveIsRefused) {
  EXPECT_EQ(migrate(1).error().code, Code::conflict) << "it is there";
  EXPECT_EQ(migrate(9).error().code, Code::not_found);
  EXPECT_EQ(cancel().error().code, Code::conflict);
  say_capacity(2, 100, 4);
  const auto small = migrate(2);
  EXPECT_EQ(small.error().code, Code::no_space);
  EXPECT_NE(small.error().text.find("100 MiB"), std::string::npos) << small.error().text;
  EXPECT_EQ(opened_on(2), 0U);
  migrate(3).value();
  EXPECT_EQ(migrate(3).error().code, Code::conflict) << "it moves";
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", row().disks[0].vsd.value}}),
            Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "close"}, {"vsd", row().disks[0].vsd.value}, {"node", 3}}),
            Code::conflict);
  stays().value();
  want("off", "stop").value();
  EXPECT_EQ(migrate(3).error().code, Code::conflict) << "it is being stopped";
  ended("shutdown").value();
  EXPECT_EQ(migrate(3).error().code, Code::conflict) << "it is off";
}

TEST_F(VmMoves, ItsMemoryIsTakenOnBothNodes) {
  say_capacity(2, 1500, 4);
  migrate(2).value();
  const uint64_t other = create("b", 600).value();
  EXPECT_EQ(start(2, other).error().code, Code::no_space);
  stays().value();
  EXPECT_TRUE(start(2, other));
}

TEST_F(VmMoves, AGuestWithAllOfItsNodesCpuGoesOnlyWhereThatIsTheSame) {
  say_capacity(2, 4096, 4, "", 0, "another");
  const auto refused = migrate(2);
  EXPECT_EQ(refused.error().code, Code::no_space);
  EXPECT_NE(refused.error().text.find("CPU"), std::string::npos);
  EXPECT_EQ(migrate(0)->at("node").to_number<uint64_t>(), 3U);
  stays().value();
  want("off", "stop").value();
  ended("shutdown").value();
  close_all();
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"cpu", "baseline"}}).value();
  for (const uint64_t node : {1, 2})
    say_capacity(node, 4096, 4, "", 0, node == 1 ? "a kind" : "another", "Nehalem");
  start(1).value();
  runs().value();
  EXPECT_TRUE(migrate(2));
}

TEST_F(VmMoves, WhereTheNodeThatItLeavesIsLostItBeginsAnewWhereItWasToGo) {
  migrate(2).value();
  leader.say(of_run("vm_moving")).value();
  lose(1);
  EXPECT_EQ(recover().error().code, Code::conflict) << "it may still run";
  fence(1);
  recover().value();
  EXPECT_EQ(row().node.value, 2U);
  EXPECT_EQ(row().state, "starting");
  EXPECT_GT(row().run, 2U) << "what came over by then is of no use";
  EXPECT_FALSE(row().to_node);
  EXPECT_EQ(opened_on(2), 1U);
  EXPECT_EQ(task_state(), "failed");
}

TEST_F(VmMoves, WhereTheNodeToWhichItWentIsLostMeanwhileItBeginsAnew) {
  migrate(2).value();
  leader.say(of_run("vm_moving")).value();
  lose(2);
  leader.say(of_run("vm_moved")).value();
  EXPECT_EQ(row().state, "waiting");
  EXPECT_FALSE(row().node);
  EXPECT_FALSE(row().to_node);
  EXPECT_EQ(task_state(), "failed");
}

TEST_F(VmMoves, WhatElseIsWantedMeanwhileCancelsIt) {
  migrate(2).value();
  leader.say(of_run("vm_moving")).value();
  want("off", "shutdown").value();
  EXPECT_EQ(row().move, "cancelled");
  stays().value();
  EXPECT_EQ(row().wanted, "off");
  EXPECT_EQ(row().move, "");
  EXPECT_EQ(task_state(), "failed");
}

TEST_F(VmMoves, OneThatIsCancelledTooLateHasMoved) {
  migrate(2).value();
  leader.say(of_run("vm_moving")).value();
  cancel().value();
  leader.say(of_run("vm_moved")).value();
  EXPECT_EQ(row().node.value, 2U);
  runs().value();
  EXPECT_EQ(task_state(), "done");
}

TEST_F(VmMoves, ADrainedNodesVmsMoveAndItGetsNoOthers) {
  const auto drain = [&](const char* how) {
    return leader.say({{"op", "node_drain"}, {"node", 1}, {"drain", how}});
  };
  const auto task = [&] {
    const auto tasks = leader.cluster().tasks().value();
    for (const meta::Task& one : tasks)
      if (one.what == "node drain" && one.state != "done") return one.state + " " + one.error;
    return std::string();
  };
  const uint64_t big = create("big", 3000).value();
  start(1, big).value();
  say_capacity(2, 1500, 4);
  say_capacity(3, 100, 4);
  const auto begun = drain("restart").value();
  EXPECT_EQ(row().to_node.value, 2U);
  ASSERT_EQ(begun.at("stay").as_array().size(), 1U);
  EXPECT_EQ(begun.at("stay").as_array()[0].as_object().at("vm"), "big");
  EXPECT_EQ(task(), "running ");
  leader.say(of_run("vm_moving")).value();
  leader.say(of_run("vm_moved")).value();
  EXPECT_EQ(task(), "failed 1 of its VMs are still there");
  EXPECT_EQ(row().node.value, 2U);
  runs().value();
  const auto back = migrate(1);
  EXPECT_NE(back.error().text.find("is drained"), std::string::npos) << back.error().text;
  leader.up(1, 100).value();
  EXPECT_FALSE(migrate(1)) << "its daemon was restarted, not the machine";
  leader.up(1, 101).value();
  say_capacity(1, 4096, 4, "", 101);
  EXPECT_TRUE(migrate(1));
  stays().value();
  close_all();
  drain("on").value();
  leader.up(1, 102).value();
  say_capacity(1, 4096, 4, "", 102);
  EXPECT_FALSE(migrate(1)) << "until it is taken back";
  drain("").value();
  EXPECT_TRUE(migrate(1));
}

TEST_F(VmMoves, AGuestThatPowersOffOnItsWayIsOff) {
  migrate(2).value();
  leader.say(of_run("vm_moving")).value();
  ended("shutdown").value();
  EXPECT_EQ(row().state, "off");
  EXPECT_FALSE(row().to_node);
  close_all();
  EXPECT_EQ(opened_on(1) + opened_on(2), 0U);
}

class VmSnapshots : public Vms {
 protected:
  core::Result<json::object> snapshot(const std::string& name) {
    json::array items;
    const meta::Vm now = row();
    for (const meta::VmDisk& disk : now.disks)
      items.push_back(json::object{{"vsd", disk.vsd.value}});
    return leader.say({{"op", "snapshot"}, {"name", name}, {"vm", id}, {"vsds", items}});
  }
  std::vector<meta::VmSnapshot> all() { return leader.cluster().vm_snapshots().value(); }
  core::Result<json::object> clone(uint64_t of, const std::string& name, bool drop = false) {
    return leader.say({{"op", "vm_clone"},
                       {"vm_snapshot", of},
                       {"name", name},
                       {"uuid", "uuid-of-" + name},
                       {"drop", drop}});
  }
};

TEST_F(VmSnapshots, OneIsOfAllDisksAndOfWhatTheVmIsMadeOf) {
  snapshot("s").value();
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"memory_mib", 2048}}).value();
  ASSERT_EQ(all().size(), 1U);
  EXPECT_EQ(all()[0].was.memory_mib, 1024U);
  ASSERT_EQ(all()[0].disks.size(), 1U);
  EXPECT_EQ(snapshot("s").error().code, Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "snapshot"},
                            {"name", "t"},
                            {"vm", id},
                            {"vsds", json::array{json::object{{"vsd", leader.make_vsd()}}}}}),
            Code::conflict)
      << "those are not its disks";
  EXPECT_EQ(all().size(), 1U);
}

TEST_F(VmSnapshots, OneOfAGuestThatIsOffIsAtRestAndOneOfOneThatRunsWhenThatIsSaid) {
  snapshot("off").value();
  leader.say({{"op", "vm_start"}, {"vm", id}, {"on", 0}}).value();
  snapshot("runs").value();
  ASSERT_EQ(all().size(), 2U);
  EXPECT_TRUE(all()[0].at_rest);
  EXPECT_FALSE(all()[1].at_rest);
  const json::object rested{{"op", "vm_snapshot_rested"}, {"vm_snapshot", all()[1].id}};
  leader.say(rested).value();
  leader.say(rested).value();
  EXPECT_TRUE(all()[1].at_rest);
  leader.say({{"op", "vm_snapshot_delete"}, {"vm_snapshot", all()[1].id}}).value();
  EXPECT_EQ(leader.refusal(rested), Code::not_found);
}

TEST_F(VmSnapshots, ItsPartsGoWithItAlone) {
  snapshot("s").value();
  EXPECT_EQ(
      leader.refusal({{"op", "snapshot_delete"}, {"snapshot", all()[0].disks[0].snapshot.value}}),
      Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", true}}),
            Code::conflict);
  leader.say({{"op", "vm_snapshot_delete"}, {"vm_snapshot", all()[0].id}}).value();
  EXPECT_TRUE(all().empty());
  EXPECT_TRUE(leader.cluster().snapshots()->empty());
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", false}}).value();
}

TEST_F(VmSnapshots, ARevertedVmIsWhatItWasAndKeepsWhatItIs) {
  snapshot("s").value();
  leader
      .say({{"op", "vm_edit"},
            {"vm", id},
            {"memory_mib", 2048},
            {"max_memory_mib", 3072},
            {"name", "b"}})
      .value();
  const uint64_t s = all()[0].id;
  start().value();
  const json::object revert{{"op", "vm_revert"}, {"vm_snapshot", s}, {"keep", "before"}};
  EXPECT_EQ(leader.refusal(revert), Code::conflict) << "it runs";
  want("off", "stop").value();
  ended("failed").value();
  EXPECT_EQ(leader.refusal(revert), Code::conflict) << "its disks are being closed";
  leader.say({{"op", "closed"}, {"vsd", row().disks[0].vsd.value}, {"node", 1}, {"error", ""}})
      .value();
  leader.say(revert).value();
  EXPECT_EQ(row().memory_mib, 1024U);
  EXPECT_EQ(row().max_memory_mib, 0U);
  EXPECT_EQ(row().name, "b") << "its name is not its state";
  ASSERT_EQ(all().size(), 2U);
  EXPECT_EQ(all()[1].name, "before");
  EXPECT_EQ(all()[1].was.memory_mib, 2048U);
  EXPECT_EQ(all()[1].was.max_memory_mib, 3072U);
  EXPECT_EQ(leader.refusal(revert), Code::conflict) << "there is one of that name";
}

TEST_F(VmSnapshots, ACloneIsAnotherMachineWithDisksOfItsOwn) {
  snapshot("s").value();
  const uint64_t s = all()[0].id;
  const uint64_t made = clone(s, "c")->at("vm").to_number<uint64_t>();
  EXPECT_NE(row(made).uuid, row().uuid);
  EXPECT_EQ(row(made).memory_mib, 1024U);
  ASSERT_EQ(row(made).disks.size(), 1U);
  EXPECT_NE(row(made).disks[0].vsd, row().disks[0].vsd);
  EXPECT_EQ(leader.cluster().vsd(row(made).disks[0].vsd).value()->name, "c-0");
  EXPECT_EQ(clone(s, "c").error().code, Code::conflict);
  EXPECT_EQ(clone(s, "no name").error().code, Code::invalid);
  EXPECT_EQ(leader.cluster().vms()->size(), 2U);
  clone(s, "d", true).value();
  EXPECT_TRUE(all().empty()) << "it was taken for that";
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
}

TEST_F(VmSnapshots, ACloneIsWhatIsSaidOfItAndElseWhatItWas) {
  snapshot("s").value();
  json::object body{{"op", "vm_clone"},    {"vm_snapshot", all()[0].id},
                    {"name", "c"},         {"uuid", "uuid-of-c"},
                    {"drop", false},       {"memory_mib", 512},
                    {"description", "it"}, {"nics", json::array{json::object{{"vlan", 7}}}}};
  const uint64_t made = leader.say(body)->at("vm").to_number<uint64_t>();
  EXPECT_EQ(row(made).memory_mib, 512U);
  EXPECT_EQ(row(made).description, "it");
  EXPECT_EQ(row(made).vcpus, row().vcpus);
  ASSERT_EQ(row(made).nics.size(), 1U);
  EXPECT_EQ(row(made).nics[0].vlan, 7U);
  body["name"] = "d";
  body["uuid"] = "uuid-of-d";
  body["memory_mib"] = 1;
  EXPECT_EQ(leader.refusal(body), Code::invalid);
  EXPECT_EQ(leader.cluster().vms()->size(), 2U);
}

TEST_F(VmSnapshots, AScheduleSeesToEachOfItsVmsOnceAtATime) {
  json::object body{{"op", "schedule_create"}, {"name", "n"},          {"rule", "FREQ=DAILY"},
                    {"zone", "UTC"},           {"starts", 0},          {"keep", 1},
                    {"keep_seconds", 0},       {"vsds", json::array{}}};
  EXPECT_EQ(leader.refusal(body), Code::invalid) << "of nothing";
  body["vms"] = json::array{99};
  EXPECT_EQ(leader.refusal(body), Code::not_found);
  body["vms"] = json::array{id};
  const uint64_t schedule = leader.say(body)->at("schedule").to_number<uint64_t>();
  const auto take = [&](const std::string& name, int64_t time) {
    json::array items;
    const meta::Vm now = row();
    for (const meta::VmDisk& disk : now.disks)
      items.push_back(json::object{{"vsd", disk.vsd.value}});
    return leader.say({{"op", "snapshot"},
                       {"name", name},
                       {"vm", id},
                       {"vsds", items},
                       {"schedule", schedule},
                       {"time", time}});
  };
  take("a", leader.now).value();
  EXPECT_EQ(all().at(0).schedule, schedule);
  EXPECT_EQ(leader.cluster().snapshots()->at(0).schedule, 0U) << "it goes with the whole";
  EXPECT_EQ(take("b", leader.now).error().code, Code::conflict) << "said twice";
  EXPECT_EQ(leader.cluster().schedules()->at(0).vms.at(0).done, leader.now);
  leader.now += 100;
  take("b", leader.now).value();
  // What was seen to is not seen to again when the schedule changes.
  leader.now -= 50;
  body["op"] = "schedule_set";
  body["schedule"] = schedule;
  leader.say(body).value();
  EXPECT_EQ(leader.cluster().schedules()->at(0).vms.at(0).done, leader.now + 50);
  leader.say({{"op", "schedule_delete"}, {"schedule", schedule}}).value();
  EXPECT_EQ(all().at(0).schedule, 0U) << "it is nobody's now";
  EXPECT_EQ(all().size(), 2U);
}

TEST_F(VmSnapshots, ATemplateIsClonedAndNotStarted) {
  const auto edit = [&](bool is) {
    return leader.say({{"op", "vm_edit"}, {"vm", id}, {"template", is}});
  };
  start().value();
  EXPECT_EQ(edit(true).error().code, Code::conflict) << "it runs";
  want("off", "stop").value();
  ended("failed").value();
  edit(true).value();
  EXPECT_EQ(start().error().code, Code::conflict);
  leader.say({{"op", "closed"}, {"vsd", row().disks[0].vsd.value}, {"node", 1}, {"error", ""}})
      .value();
  snapshot("s").value();
  const uint64_t made = clone(all()[0].id, "c", true)->at("vm").to_number<uint64_t>();
  EXPECT_FALSE(row(made).is_template);
  leader.say({{"op", "vm_start"}, {"vm", made}, {"on", 0}}).value();
  edit(false).value();
  start().value();
}

TEST_F(VmSnapshots, AMachineKeepsItsMacsAndItsCloneGetsOthers) {
  auto edit = [&](json::array nics) {
    return leader.say({{"op", "vm_edit"}, {"vm", id}, {"nics", std::move(nics)}});
  };
  const json::object lan{{"bridge", "br-lan"}, {"model", "virtio"}};
  edit({lan, lan}).value();
  ASSERT_EQ(row().nics.size(), 2U);
  const std::string mac = row().nics[0].mac;
  EXPECT_NE(mac, row().nics[1].mac);
  EXPECT_EQ(mac.substr(0, 9), "52:54:00:");
  edit({lan}).value();
  EXPECT_EQ(row().nics[0].mac, mac);
  snapshot("s").value();
  const uint64_t made = clone(all()[0].id, "c")->at("vm").to_number<uint64_t>();
  ASSERT_EQ(row(made).nics.size(), 1U);
  EXPECT_NE(row(made).nics[0].mac, mac);
  edit({}).value();
  EXPECT_TRUE(row().nics.empty());
  leader.say({{"op", "vm_revert"}, {"vm_snapshot", all()[0].id}, {"keep", "k"}}).value();
  ASSERT_EQ(row().nics.size(), 1U);
  EXPECT_EQ(row().nics[0].mac, mac);
  EXPECT_EQ(edit({json::object{{"bridge", "a b"}, {"model", "virtio"}}}).error().code,
            Code::invalid);
  EXPECT_EQ(edit({json::object{{"bridge", "br0"}, {"model", "ne2k"}}}).error().code, Code::invalid);
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
