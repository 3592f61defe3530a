// SPDX-License-Identifier: GPL-2.0
// Disks of virtual machines that come, go and are limited, and what a domain has of them.
#include "vm/disks.h"

#include <gtest/gtest.h>

#include "policy_leader.h"
#include "vm/domain.h"
#include "vm/import.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;
using vm::DomainDisk;

// Three nodes, and a VM "a" with one disk.
class Disks : public ::testing::Test {
 protected:
  Disks() {
    leader.found(3);
    for (uint64_t node = 1; node <= 3; node++)
      leader
          .say({{"op", "capacity"},
                {"node", node},
                {"life", node * 100},
                {"memory_mib", 4096},
                {"cpus", 4},
                {"cpu", "a kind"},
                {"problem", ""},
                {"lan_bridge", ""},
                {"uplink", ""},
                {"lan_problem", ""},
                {"models", ""}})
          .value();
    id = leader
             .say({{"op", "vm_create"},
                   {"name", "a"},
                   {"uuid", "uuid-of-a"},
                   {"machine", vm::kMachine},
                   {"vcpus", 1},
                   {"memory_mib", 512},
                   {"disks", json::array{fresh()}}})
             ->at("vm")
             .to_number<uint64_t>();
  }
  static json::object fresh(const std::string& bus = "virtio") {
    return {{"bus", bus}, {"sectors", 2048}, {"replicas", 2}};
  }
  meta::Vm row() { return leader.cluster().vms()->at(0); }
  std::string name_of(size_t index) {
    return leader.cluster().vsd(row().disks.at(index).vsd).value()->name;
  }
  core::Result<json::object> say(const char* op, json::object body) {
    body["op"] = op;
    body["vm"] = id;
    return leader.say(std::move(body));
  }
  core::Result<json::object> of_run(const char* op, json::object body = {}) {
    const meta::Vm now = row();
    body["node"] = now.node.value;
    body["life"] = now.life;
    body["run"] = now.run;
    return say(op, std::move(body));
  }
  void run(uint64_t node) {
    say("vm_start", {{"on", node}}).value();
    of_run("vm_state", {{"state", "running"}}).value();
  }
  std::string open_on(uint64_t node, core::VsdId vsd) {
    for (const meta::Opened& one : leader.cluster().opened().value())
      if (one.node.value == node && one.vsd == vsd) return one.state;
    return "";
  }
  std::string task() {
    std::string state;
    for (const meta::Task& one : leader.cluster().tasks().value())
      if (one.what == "vm disk-remove") state = one.state;
    return state;
  }

  Leader leader;
  uint64_t id = 0;
};

TEST_F(Disks, OneThatComesIsOpenedWhereTheVmRuns) {
  run(2);
  auto disk = fresh("scsi");
  disk["iops"] = 500;
  EXPECT_EQ(say("vm_disk_add", disk)->at("disk").to_number<uint64_t>(), 1U);
  ASSERT_EQ(row().disks.size(), 2U);
  EXPECT_EQ(name_of(1), "a-1");
  EXPECT_EQ(row().disks[1].iops, 500U);
  EXPECT_EQ(open_on(2, row().disks[1].vsd), "opening");
  EXPECT_EQ(open_on(1, row().disks[1].vsd), "");
}

TEST_F(Disks, OneOfAVmThatIsOffIsOpenedNowhereAndGoesAtOnce) {
  say("vm_disk_add", fresh("sata")).value();
  const core::VsdId vsd = row().disks[1].vsd;
  EXPECT_TRUE(leader.cluster().opened()->empty());
  EXPECT_EQ(say("vm_disk_remove", {{"slot", 1}})->at("task").to_number<uint64_t>(), 0U);
  EXPECT_EQ(row().disks.size(), 1U);
  EXPECT_TRUE(*leader.cluster().vsd(vsd)) << "its data stays";
  // Its name is not free, so the next one is called otherwise.
  EXPECT_EQ(say("vm_disk_add", fresh())->at("disk").to_number<uint64_t>(), 2U);
  EXPECT_EQ(name_of(1), "a-2");
  EXPECT_EQ(
      say("vm_disk_add", {{"bus", "virtio"}, {"vsd", vsd.value}})->at("disk").to_number<uint64_t>(),
      3U);
}

TEST_F(Disks, OneThatGoesIsTheVmsUntilItsGuestHasLetGo) {
  run(2);
  say("vm_disk_add", fresh()).value();
  const core::VsdId vsd = row().disks[1].vsd;
  leader.say({{"op", "opened"}, {"vsd", vsd.value}, {"node", 2}, {"state", "open"}, {"error", ""}})
      .value();
  EXPECT_EQ(of_run("vm_disk_gone", {{"slot", 1}}).error().code, Code::conflict)
      << "nobody wants it to go";
  say("vm_disk_remove", {{"slot", 1}}).value();
  ASSERT_EQ(row().disks.size(), 2U);
  EXPECT_TRUE(row().disks[1].leaving);
  EXPECT_EQ(say("vm_disk_remove", {{"slot", 1}}).error().code, Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "close"}, {"vsd", vsd.value}, {"node", 2}}), Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd.value}}), Code::conflict);
  EXPECT_EQ(task(), "running");
  // An earlier run, or another node, has no say.
  EXPECT_EQ(say("vm_disk_gone", {{"slot", 1}, {"node", 3}, {"life", 300}, {"run", 1}}).error().code,
            Code::stale);
  of_run("vm_disk_gone", {{"slot", 1}}).value();
  EXPECT_EQ(row().disks.size(), 1U);
  EXPECT_EQ(open_on(2, vsd), "closing");
  EXPECT_EQ(task(), "done");
}

TEST_F(Disks, OneThatWasToGoIsGoneWhenTheRunIsOver) {
  run(2);
  say("vm_disk_add", fresh()).value();
  const core::VsdId vsd = row().disks[1].vsd;
  say("vm_disk_remove", {{"slot", 1}}).value();
  of_run("vm_ended", {{"how", "crashed"}, {"reason", "because"}}).value();
  EXPECT_EQ(row().disks.size(), 1U);
  EXPECT_EQ(open_on(2, vsd), "closing");
  EXPECT_EQ(task(), "done");
}

TEST_F(Disks, OneThatWasToGoIsNotOpenedWhereTheVmBeginsAnew) {
  run(2);
  say("vm_disk_add", fresh()).value();
  const core::VsdId vsd = row().disks[1].vsd;
  say("vm_disk_remove", {{"slot", 1}}).value();
  leader.say({{"op", "node_down"}, {"node", 2}, {"life", 200}}).value();
  for (const uint64_t witness : {1, 3})
    leader.say({{"op", "fenced"}, {"node", 2}, {"life", 200}, {"witness", witness}}).value();
  say("vm_recover", {}).value();
  ASSERT_NE(row().node.value, 0U) << row().reason;
  EXPECT_EQ(row().disks.size(), 1U);
  EXPECT_EQ(open_on(row().node.value, row().disks[0].vsd), "opening");
  EXPECT_EQ(open_on(row().node.value, vsd), "");
}

TEST_F(Disks, WhatIsToGoMovesWithItsGuest) {
  run(2);
  say("vm_disk_add", fresh()).value();
  const core::VsdId vsd = row().disks[1].vsd;
  say("vm_disk_remove", {{"slot", 1}}).value();
  say("vm_migrate", {{"on", 3}}).value();
  EXPECT_EQ(open_on(3, vsd), "opening") << "its domain has it still";
  EXPECT_EQ(of_run("vm_disk_gone", {{"slot", 1}}).error().code, Code::conflict);
  EXPECT_EQ(say("vm_disk_add", fresh()).error().code, Code::conflict);
  EXPECT_EQ(say("vm_disk_change", {{"slot", 0}, {"iops", 1}}).error().code, Code::conflict);
}

TEST_F(Disks, WhatNoneCanBeIsRefusedAndLeavesNothing) {
  run(2);
  EXPECT_EQ(say("vm_disk_add", fresh("sata")).error().code, Code::conflict);
  EXPECT_EQ(say("vm_disk_add", fresh("ide")).error().code, Code::invalid);
  EXPECT_EQ(say("vm_disk_add", {{"bus", "virtio"}, {"vsd", row().disks[0].vsd.value}}).error().code,
            Code::conflict);
  EXPECT_EQ(say("vm_disk_remove", {{"slot", 7}}).error().code, Code::not_found);
  EXPECT_EQ(say("vm_disk_change", {{"slot", 7}, {"iops", 1}}).error().code, Code::not_found);
  EXPECT_EQ(say("vm_disk_change", {{"slot", 0}, {"iops", 2'000'000'000}}).error().code,
            Code::invalid);
  EXPECT_EQ(say("vm_disk_change", {{"slot", 0}, {"bytes_per_s", uint64_t{1} << 60}}).error().code,
            Code::invalid);
  EXPECT_EQ(row().disks.size(), 1U);
  EXPECT_EQ(leader.cluster().vsds()->size(), 1U);
  for (size_t i = 1; i < vm::kMaxDisks; i++) say("vm_disk_add", fresh()).value();
  EXPECT_EQ(say("vm_disk_add", fresh()).error().code, Code::invalid);
}

TEST_F(Disks, LimitsAreKeptByClones) {
  say("vm_disk_change", {{"slot", 0}, {"iops", 100}, {"bytes_per_s", 1 << 20}}).value();
  say("vm_disk_change", {{"slot", 0}, {"iops", 200}}).value();
  EXPECT_EQ(row().disks[0].iops, 200U);
  EXPECT_EQ(row().disks[0].bytes_per_s, 1U << 20);
  leader
      .say({{"op", "snapshot"},
            {"name", "s"},
            {"vm", id},
            {"vsds", json::array{json::object{{"vsd", row().disks[0].vsd.value}}}}})
      .value();
  const uint64_t snapshot = leader.cluster().vm_snapshots()->at(0).id;
  leader
      .say({{"op", "vm_clone"},
            {"vm_snapshot", snapshot},
            {"name", "b"},
            {"uuid", "uuid-of-b"},
            {"drop", false}})
      .value();
  const meta::Vm clone = leader.cluster().vms()->at(1);
  EXPECT_EQ(clone.disks.at(0).iops, 200U);
  EXPECT_EQ(clone.disks.at(0).bytes_per_s, 1U << 20);
}

// Domains

DomainDisk disk(const std::string& name, const std::string& bus = "virtio", uint64_t iops = 0) {
  return {"/dev/mapper/scribe-" + name, bus, "vsd-" + name, iops, 0};
}

std::string disk_domain(const std::vector<DomainDisk>& disks) {
  meta::Vm vm;
  vm.name = "a";
  vm.uuid = "00000000-0000-0000-0000-000000000007";
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.memory_mib = 512;
  return vm::domain_xml(vm, disks, "");
}

std::vector<vm::DiskChange> changes(const std::vector<DomainDisk>& from,
                                    const std::vector<DomainDisk>& to) {
  return vm::disk_changes(disk_domain(from), to).value();
}

TEST(DomainDisks, OnlyWhatDiffersIsChanged) {
  EXPECT_TRUE(
      changes({disk("a"), disk("b", "scsi", 5)}, {disk("b", "scsi", 5), disk("a")}).empty());
  const auto more = changes({disk("a")}, {disk("a"), disk("b")});
  ASSERT_EQ(more.size(), 1U);
  EXPECT_EQ(more[0].what, vm::DiskChange::What::attach);
  EXPECT_EQ(more[0].serial, "vsd-b");
  EXPECT_NE(more[0].xml.find("dev=\"vdb\""), std::string::npos);
  EXPECT_EQ(more[0].xml.find("<boot"), std::string::npos) << "another one has that place";
  const auto fewer = changes({disk("a"), disk("b")}, {disk("b")});
  ASSERT_EQ(fewer.size(), 1U);
  EXPECT_EQ(fewer[0].what, vm::DiskChange::What::detach);
  EXPECT_NE(fewer[0].xml.find("scribe-a"), std::string::npos);
  const auto slower = changes({disk("a")}, {disk("a", "virtio", 100)});
  ASSERT_EQ(slower.size(), 1U);
  EXPECT_EQ(slower[0].what, vm::DiskChange::What::limit);
  EXPECT_EQ(slower[0].target, "vda");
  EXPECT_EQ(slower[0].iops, 100U);
  EXPECT_EQ(changes({disk("a", "virtio", 100)}, {disk("a")}).at(0).iops, 0U);
  EXPECT_FALSE(vm::disk_changes("none", {}));
}

TEST(DomainDisks, ANewOneTakesANameThatIsFree) {
  // Of vda, vdb and sda the first is gone from the row, and still in the domain.
  const auto now = changes({disk("a"), disk("b"), disk("c", "scsi")},
                           {disk("b"), disk("c", "scsi"), disk("d"), disk("e", "scsi"), disk("f")});
  ASSERT_EQ(now.size(), 4U);
  EXPECT_EQ(now[0].what, vm::DiskChange::What::detach);
  EXPECT_NE(now[1].xml.find("\"vdc\""), std::string::npos);
  EXPECT_NE(now[2].xml.find("\"sdb\""), std::string::npos);
  EXPECT_NE(now[3].xml.find("\"vdd\""), std::string::npos);
}

TEST(DomainDisks, TheirNamesThereLeadToTheirSerials) {
  const auto all =
      vm::serials_by_target(disk_domain({disk("a"), disk("b", "scsi"), disk("c")})).value();
  EXPECT_EQ(all, (std::map<std::string, std::string>{
                     {"vda", "vsd-a"}, {"sda", "vsd-b"}, {"vdb", "vsd-c"}}));
  EXPECT_FALSE(vm::serials_by_target("none"));
}

TEST(DomainDisks, LimitsAreExportedAndImported) {
  DomainDisk limited = disk("a", "virtio", 100);
  limited.bytes_per_s = 1 << 20;
  const auto back = vm::from_xml(disk_domain({limited, disk("b")}));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(back->disks.at(0).iops, 100U);
  EXPECT_EQ(back->disks.at(0).bytes_per_s, 1U << 20);
  EXPECT_EQ(back->disks.at(1).iops, 0U);
  EXPECT_TRUE(back->left_out.empty());
}

}  // namespace
