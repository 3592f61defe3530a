// SPDX-License-Identifier: GPL-2.0
// Virtual machines: snapshots, clones and templates of them in the metadata.
#include <gtest/gtest.h>

#include "policy_vms.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Vms;

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

}  // namespace
