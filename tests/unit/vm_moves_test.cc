// SPDX-License-Identifier: GPL-2.0
// Virtual machines: how the metadata follows them from node to node.
#include <gtest/gtest.h>

#include "policy_vms.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Vms;

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

}  // namespace
