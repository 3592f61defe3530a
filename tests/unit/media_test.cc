// SPDX-License-Identifier: GPL-2.0
// Media: uploads, checks, drives and disks that are made of them; what is open where follows.
#include <gtest/gtest.h>

#include <random>

#include "policy_leader.h"
#include "vm/domain.h"
#include "vm/import.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;

const std::string kDigest(64, 'a');

// Three nodes that can run VMs.
class Media : public ::testing::Test {
 protected:
  Media() {
    leader.found(3);
    for (uint64_t node = 1; node <= 3; node++) {
      leader.add_disk(node);
      capacity(node, node * 100);
    }
  }
  void capacity(uint64_t node, uint64_t life) {
    leader
        .say({{"op", "capacity"},
              {"node", node},
              {"life", life},
              {"memory_mib", 4096},
              {"cpus", 4},
              {"cpu", "a kind"},
              {"problem", ""},
              {"lan_bridge", ""},
              {"uplink", ""},
              {"lan_problem", ""},
              {"models", ""}})
        .value();
  }
  uint64_t create(const std::string& name, uint64_t bytes = 5000, const std::string& digest = "") {
    return leader
        .say({{"op", "medium_create"}, {"name", name}, {"bytes", bytes}, {"sha256", digest}})
        ->at("medium")
        .to_number<uint64_t>();
  }
  core::Result<json::object> say(const char* op, uint64_t medium, uint64_t node,
                                 json::object body = {}) {
    body["op"] = op;
    body["medium"] = medium;
    body["node"] = node;
    body["life"] = node * 100;
    return leader.say(std::move(body));
  }
  core::Result<json::object> piece(uint64_t medium, uint64_t node, uint64_t offset,
                                   uint64_t bytes) {
    return say("medium_received", medium, node, {{"offset", offset}, {"bytes", bytes}});
  }
  core::Result<json::object> checked(uint64_t medium, uint64_t node, const std::string& format,
                                     const std::string& problem = "") {
    return say(
        "medium_checked", medium, node,
        {{"sha256", kDigest}, {"format", format}, {"disk_bytes", 3 << 20}, {"problem", problem}});
  }
  /// One that is ready.
  uint64_t ready(const std::string& name, const std::string& format = "iso", uint64_t node = 1) {
    const uint64_t medium = create(name);
    say("medium_take", medium, node).value();
    settle();
    piece(medium, node, 0, 5000).value();
    settle();
    say("medium_sealed", medium, node).value();
    settle();
    checked(medium, node, format).value();
    settle();
    return medium;
  }
  /// What nodes do with devices.
  void settle() {
    for (const meta::Opened& row : leader.cluster().opened().value()) {
      json::object body{{"vsd", row.vsd.value}, {"node", row.node.value}, {"error", ""}};
      if (row.state == "opening") {
        body["op"] = "opened";
        body["state"] = "open";
      } else if (row.state == "closing" && !dead.contains(row.node.value)) {
        body["op"] = "closed";
      } else {
        continue;
      }
      if (!dead.contains(row.node.value)) leader.say(std::move(body)).value();
    }
  }
  meta::Medium row(uint64_t medium) {
    for (meta::Medium& one : *leader.cluster().media())
      if (one.id == medium) return one;
    return {};
  }
  /// The nodes on which a VSD is, or is to be, open.
  std::set<uint64_t> nodes_of(core::VsdId vsd) {
    std::set<uint64_t> out;
    for (const meta::Opened& one : leader.cluster().opened().value())
      if (one.vsd == vsd && one.state != "closing") out.insert(one.node.value);
    return out;
  }
  /// Those on which a medium is read.
  std::set<uint64_t> read_on(uint64_t medium) {
    std::set<uint64_t> out;
    for (const meta::Vsd& vsd : leader.cluster().vsds().value())
      if (vsd.view && vsd.view == row(medium).snapshot) out.merge(nodes_of(vsd.id));
    return out;
  }
  uint64_t make_vm(const std::string& name, const std::vector<uint64_t>& media) {
    json::array cdroms;
    for (const uint64_t medium : media) cdroms.push_back(json::object{{"medium", medium}});
    return leader
        .say({{"op", "vm_create"},
              {"name", name},
              {"uuid", "uuid-of-" + name},
              {"machine", vm::kMachine},
              {"vcpus", 1},
              {"memory_mib", 512},
              {"disks", json::array{}},
              {"cdroms", std::move(cdroms)}})
        ->at("vm")
        .to_number<uint64_t>();
  }
  meta::Vm vm(uint64_t id) {
    for (meta::Vm& one : *leader.cluster().vms())
      if (one.id == id) return one;
    return {};
  }
  core::Result<json::object> of_run(const char* op, uint64_t id, json::object body = {}) {
    const meta::Vm now = vm(id);
    body["op"] = op;
    body["vm"] = id;
    body["node"] = now.node.value;
    body["life"] = now.life;
    body["run"] = now.run;
    return leader.say(std::move(body));
  }
  void run(uint64_t id, uint64_t node) {
    leader.say({{"op", "vm_start"}, {"vm", id}, {"on", node}}).value();
    settle();
    of_run("vm_state", id, {{"state", "running"}}).value();
  }
  void stop(uint64_t id) {
    leader.say({{"op", "vm_want"}, {"vm", id}, {"wanted", "off"}, {"how", "stop"}}).value();
    of_run("vm_ended", id, {{"how", "stop"}, {"reason", ""}}).value();
    settle();
  }
  core::Result<json::object> insert(uint64_t id, uint64_t medium, uint64_t slot = 0) {
    return leader.say({{"op", "vm_cdrom_change"}, {"vm", id}, {"slot", slot}, {"medium", medium}});
  }
  void has(uint64_t id, uint64_t medium) {
    of_run("vm_cdrom_has", id, {{"slot", 0}, {"medium", medium}}).value();
    settle();
  }
  core::Result<json::object> remove(uint64_t medium) {
    return leader.say({{"op", "medium_delete"}, {"medium", medium}});
  }
  core::Result<json::object> fill(uint64_t medium, uint64_t node = 1) {
    return say("vsd_fill", medium, node, {{"name", "disk"}, {"replicas", 2}});
  }
  core::Result<json::object> filling(const char* op, uint64_t vsd, uint64_t node,
                                     json::object body = {}) {
    body["op"] = op;
    body["vsd"] = vsd;
    body["node"] = node;
    body["life"] = node * 100;
    return leader.say(std::move(body));
  }
  void lose(uint64_t node) {
    dead.insert(node);
    leader.say({{"op", "node_down"}, {"node", node}, {"life", node * 100}}).value();
    for (const uint64_t witness : {1, 2, 3})
      if (!dead.contains(witness)) leader.fenced(node, node * 100, witness).value();
  }
  Code open_vsd(uint64_t vsd) {
    return leader.refusal({{"op", "open"}, {"vsd", vsd}, {"node", 2}});
  }
  std::string task(const std::string& what) {
    std::string out;
    for (const meta::Task& one : leader.cluster().tasks().value())
      if (one.what == what) out = one.state;
    return out;
  }
  size_t vsds() { return leader.cluster().vsds()->size(); }

  Leader leader;
  std::set<uint64_t> dead;
};

TEST_F(Media, OneIsSealedAndCheckedWhenAllOfItHasComeAndIsReadyThen) {
  const uint64_t medium = create("a.iso", 5000, kDigest);
  EXPECT_EQ(row(medium).state, "uploading");
  EXPECT_FALSE(piece(medium, 1, 0, 512)) << "no node has taken it";
  say("medium_take", medium, 1).value();
  EXPECT_EQ(nodes_of(row(medium).vsd), std::set<uint64_t>{1});
  settle();
  piece(medium, 1, 0, 4096).value();
  EXPECT_FALSE(say("medium_sealed", medium, 1));
  piece(medium, 1, 4096, 904).value();
  EXPECT_EQ(row(medium).state, "sealing");
  EXPECT_FALSE(say("medium_sealed", medium, 1)) << "its device is open still";
  settle();
  say("medium_sealed", medium, 1).value();
  EXPECT_EQ(row(medium).state, "checking");
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{1});
  settle();
  say("medium_progress", medium, 1, {{"done", 4000}}).value();
  EXPECT_EQ(row(medium).done, 4000U);
  checked(medium, 1, "iso").value();
  settle();
  EXPECT_EQ(row(medium).state, "ready");
  EXPECT_EQ(row(medium).sha256, kDigest);
  EXPECT_TRUE(leader.cluster().opened()->empty());
  EXPECT_FALSE(piece(medium, 1, 0, 512)) << "nobody writes to it any more";
}

TEST_F(Media, APieceThatIsNotTheNextOneOrTooLongOrFromAnotherNodeIsRefused) {
  const uint64_t medium = create("a.iso");
  say("medium_take", medium, 1).value();
  settle();
  piece(medium, 1, 0, 1024).value();
  EXPECT_EQ(piece(medium, 1, 0, 1024).error().code, Code::conflict) << "it has come";
  EXPECT_EQ(piece(medium, 1, 2048, 512).error().code, Code::conflict);
  EXPECT_EQ(piece(medium, 1, 1024, 5000 - 1024 + 1).error().code, Code::conflict);
  EXPECT_EQ(piece(medium, 2, 1024, 512).error().code, Code::stale);
  EXPECT_EQ(row(medium).received, 1024U);
}

TEST_F(Media, AnotherNodeGoesOnWithAnUploadAndTheFirstLetsGoOfIt) {
  const uint64_t medium = create("a.iso");
  say("medium_take", medium, 1).value();
  settle();
  piece(medium, 1, 0, 1024).value();
  say("medium_take", medium, 2).value();
  EXPECT_EQ(nodes_of(row(medium).vsd), std::set<uint64_t>{2});
  EXPECT_EQ(piece(medium, 1, 1024, 512).error().code, Code::stale);
  // A piece of the first is under way: its device is in use, and is tried again.
  leader.say({{"op", "closed"}, {"vsd", row(medium).vsd.value}, {"node", 1}, {"error", "in use"}})
      .value();
  EXPECT_EQ(nodes_of(row(medium).vsd), (std::set<uint64_t>{1, 2}));
  leader.say({{"op", "media_tidy"}}).value();
  EXPECT_EQ(nodes_of(row(medium).vsd), std::set<uint64_t>{2});
  settle();
  piece(medium, 2, 1024, 512).value();
}

TEST_F(Media, ADeviceThatWasInUseAndIsNeededAgainIsOpenAsEver) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium});
  run(id, 1);
  const core::VsdId view = leader.cluster().devices_of(vm(id), {1}).value().at(0);
  insert(id, 0).value();
  of_run("vm_cdrom_has", id, {{"slot", 0}, {"medium", 0}}).value();
  leader.say({{"op", "closed"}, {"vsd", view.value}, {"node", 1}, {"error", "in use"}}).value();
  insert(id, medium).value();
  for (const meta::Opened& one : *leader.cluster().opened()) {
    EXPECT_EQ(one.vsd, view);
    EXPECT_EQ(one.state, "open");
    EXPECT_EQ(one.error, "") << "nobody waits for its end";
  }
}

TEST_F(Media, WhereTheNodeThatChecksOneIsLostAnotherDoes) {
  const uint64_t medium = create("a.iso");
  say("medium_take", medium, 1).value();
  settle();
  piece(medium, 1, 0, 5000).value();
  settle();
  say("medium_sealed", medium, 1).value();
  EXPECT_EQ(say("medium_take", medium, 2).error().code, Code::conflict) << "it lives";
  lose(1);
  say("medium_take", medium, 2).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{2});
  EXPECT_EQ(checked(medium, 1, "iso").error().code, Code::stale);
  checked(medium, 2, "iso").value();
  EXPECT_EQ(row(medium).state, "ready");
}

TEST_F(Media, OneWithAnotherChecksumOrThatIsNotTakenCanOnlyBeDeleted) {
  for (const bool digest : {true, false}) {
    const uint64_t medium = create("a.iso", 5000, digest ? std::string(64, 'b') : "");
    say("medium_take", medium, 1).value();
    settle();
    piece(medium, 1, 0, 5000).value();
    settle();
    say("medium_sealed", medium, 1).value();
    checked(medium, 1, digest ? "iso" : "", digest ? "" : "the image is encrypted").value();
    EXPECT_EQ(row(medium).state, "refused");
    EXPECT_NE(row(medium).problem.find(digest ? "SHA-256" : "encrypted"), std::string::npos);
    const uint64_t id = make_vm("a" + std::to_string(digest), {0});
    EXPECT_EQ(insert(id, medium).error().code, Code::conflict);
    EXPECT_EQ(fill(medium).error().code, Code::conflict);
    remove(medium).value();
    settle();
    EXPECT_EQ(row(medium).id, 0U);
  }
  EXPECT_EQ(vsds(), 0U);
}

TEST_F(Media, NamesSizesAndChecksumsThatAreNoneAreRefusedAndLeaveNothing) {
  const auto refused = [&](const std::string& name, uint64_t bytes, const std::string& digest) {
    return leader.refusal(
        {{"op", "medium_create"}, {"name", name}, {"bytes", bytes}, {"sha256", digest}});
  };
  for (const char* name : {"", "../a", "a/b", ".a", "-a", "a b", "deleted:1:a"})
    EXPECT_EQ(refused(name, 5, ""), Code::invalid) << name;
  EXPECT_EQ(refused(std::string(129, 'a'), 5, ""), Code::invalid);
  EXPECT_EQ(refused("a", 0, ""), Code::invalid);
  EXPECT_EQ(refused("a", (uint64_t{1} << 50) + 1, ""), Code::invalid);
  for (const std::string& digest : {std::string("x"), std::string(64, 'A'), std::string(65, 'a')})
    EXPECT_EQ(refused("a", 5, digest), Code::invalid) << digest;
  create("a");
  EXPECT_EQ(refused("a", 5, ""), Code::conflict);
  EXPECT_EQ(vsds(), 1U);
}

TEST_F(Media, WhatHoldsOneIsNoVsdThatPeopleKnow) {
  const uint64_t medium = ready("a.iso");
  const uint64_t vsd = row(medium).vsd.value;
  EXPECT_FALSE(leader.cluster().vsd({vsd}).value()->is_listed());
  EXPECT_EQ(open_vsd(vsd), Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd}}), Code::not_found);
  EXPECT_EQ(leader.refusal(
                {{"op", "vsd_create"}, {"name", "medium:7"}, {"sectors", 2048}, {"replicas", 2}}),
            Code::invalid);
}

TEST_F(Media, AMediumIsOpenWhereAVmHasItInItsDriveAndRuns) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium});
  EXPECT_TRUE(read_on(medium).empty());
  leader.say({{"op", "vm_start"}, {"vm", id}, {"on", 2}}).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{2});
  const auto devices = leader.cluster().devices_of(vm(id), {2}).value();
  ASSERT_EQ(devices.size(), 1U);
  EXPECT_EQ(nodes_of(devices[0]), std::set<uint64_t>{2});
  settle();
  of_run("vm_state", id, {{"state", "running"}}).value();
  EXPECT_EQ(remove(medium).error().code, Code::conflict);
  stop(id);
  EXPECT_TRUE(read_on(medium).empty());
  EXPECT_EQ(remove(medium).error().code, Code::conflict) << "it is in its drive still";
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", false}}).value();
  remove(medium).value();
  EXPECT_EQ(vsds(), 0U);
}

TEST_F(Media, TwoVmsOnANodeReadOneMediumUntilTheLastOfThemEnds) {
  const uint64_t medium = ready("a.iso");
  const uint64_t a = make_vm("a", {medium});
  const uint64_t b = make_vm("b", {medium});
  run(a, 1);
  run(b, 1);
  EXPECT_EQ(leader.cluster().opened()->size(), 1U);
  stop(a);
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{1});
  stop(b);
  EXPECT_TRUE(leader.cluster().opened()->empty());
}

TEST_F(Media, WhatIsTakenOutIsHeldUntilTheRunHasLetGoOfIt) {
  const uint64_t first = ready("a.iso");
  const uint64_t second = ready("b.iso");
  const uint64_t id = make_vm("a", {first});
  run(id, 1);
  insert(id, second).value();
  EXPECT_EQ(read_on(first), std::set<uint64_t>{1});
  EXPECT_EQ(read_on(second), std::set<uint64_t>{1});
  EXPECT_EQ(remove(first).error().code, Code::conflict);
  settle();
  has(id, second);
  EXPECT_TRUE(read_on(first).empty());
  remove(first).value();
  insert(id, 0).value();
  EXPECT_EQ(read_on(second), std::set<uint64_t>{1});
  has(id, 0);
  EXPECT_TRUE(leader.cluster().opened()->empty());
}

TEST_F(Media, AMediumIsOpenAtBothEndsWhileItsVmMoves) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium});
  run(id, 1);
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 3}}).value();
  EXPECT_EQ(read_on(medium), (std::set<uint64_t>{1, 3}));
  settle();
  EXPECT_EQ(insert(id, 0).error().code, Code::conflict) << "it moves";
  of_run("vm_stays", id, {{"reason", "for a test"}}).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{1});
  settle();
  leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 3}}).value();
  settle();
  of_run("vm_moving", id).value();
  of_run("vm_moved", id).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{3});
  settle();
  EXPECT_EQ(leader.cluster().opened()->size(), 1U);
}

TEST_F(Media, AVmWhoseNodeIsLostReadsItsMediumElsewhere) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium});
  run(id, 2);
  lose(2);
  leader.say({{"op", "vm_recover"}, {"vm", id}}).value();
  const uint64_t now = vm(id).node.value;
  ASSERT_NE(now, 2U);
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{now});
  settle();
  of_run("vm_state", id, {{"state", "running"}}).value();
  stop(id);
  EXPECT_TRUE(leader.cluster().opened()->empty()) << "what a lost node had open is forgotten";
  insert(id, 0).value();
  remove(medium).value();
  EXPECT_EQ(vsds(), 0U);
}

TEST_F(Media, DrivesComeAndGoWhileAVmIsOffAndThereAreFourAtMost) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {});
  const auto add = [&](uint64_t what) {
    return leader.say({{"op", "vm_cdrom_add"}, {"vm", id}, {"medium", what}});
  };
  for (uint64_t slot = 0; slot < vm::kMaxCdroms; slot++)
    EXPECT_EQ(add(slot == 0 ? medium : 0)->at("cdrom").to_number<uint64_t>(), slot);
  EXPECT_EQ(add(0).error().code, Code::invalid);
  EXPECT_EQ(insert(id, 0, 9).error().code, Code::not_found);
  leader.say({{"op", "vm_cdrom_remove"}, {"vm", id}, {"slot", 1}}).value();
  run(id, 1);
  EXPECT_EQ(add(0).error().code, Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vm_cdrom_remove"}, {"vm", id}, {"slot", 0}}), Code::conflict);
  stop(id);
  EXPECT_EQ(add(0)->at("cdrom").to_number<uint64_t>(), 1U) << "the first number that is free";
}

TEST_F(Media, SnapshotsAndClonesOfAVmHaveItsDrivesAndNotAMediumThatIsGone) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium, 0});
  leader
      .say({{"op", "vm_disk_add"},
            {"vm", id},
            {"bus", "virtio"},
            {"sectors", 2048},
            {"replicas", 2}})
      .value();
  const uint64_t vsd = vm(id).disks.at(0).vsd.value;
  leader
      .say({{"op", "snapshot"},
            {"vm", id},
            {"name", "s"},
            {"vsds", json::array{json::object{{"vsd", vsd}}}}})
      .value();
  const uint64_t snapshot = leader.cluster().vm_snapshots()->at(0).id;
  const auto clone = [&](const std::string& name) {
    return vm(leader
                  .say({{"op", "vm_clone"},
                        {"vm_snapshot", snapshot},
                        {"name", name},
                        {"uuid", "uuid-of-" + name},
                        {"drop", false}})
                  ->at("vm")
                  .to_number<uint64_t>())
        .cdroms;
  };
  auto drives = clone("b");
  ASSERT_EQ(drives.size(), 2U);
  EXPECT_EQ(drives[0].medium, medium);
  insert(id, 0).value();
  insert(vm(id).id + 1, 0).value();
  remove(medium).value();
  drives = clone("c");
  ASSERT_EQ(drives.size(), 2U);
  EXPECT_EQ(drives[0].medium, 0U);
  leader.say({{"op", "vm_revert"}, {"vm_snapshot", snapshot}, {"keep", "before"}}).value();
  EXPECT_EQ(vm(id).cdroms.size(), 2U);
}

TEST_F(Media, ARawOneIsADiskAtOnceWhichStaysWhenTheMediumGoes) {
  const uint64_t medium = ready("a.raw", "raw");
  const auto made = fill(medium).value();
  EXPECT_EQ(made.at("task").to_number<uint64_t>(), 0U);
  const uint64_t vsd = made.at("vsd").to_number<uint64_t>();
  EXPECT_TRUE(leader.cluster().vsd({vsd}).value()->is_listed());
  EXPECT_EQ(leader.cluster().vsd({vsd}).value()->sectors, 2048U);
  EXPECT_EQ(fill(medium).error().code, Code::conflict) << "its name is taken";
  remove(medium).value();
  EXPECT_TRUE(leader.cluster().vsd({vsd}).value()->is_listed());
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 2}}).value();
}

TEST_F(Media, ADiskThatIsMadeOfOneIsNobodysUntilItIsWhole) {
  const uint64_t medium = ready("a.qcow2", "qcow2");
  const auto made = fill(medium, 2).value();
  const uint64_t vsd = made.at("vsd").to_number<uint64_t>();
  EXPECT_EQ(leader.cluster().vsd({vsd}).value()->sectors, uint64_t{3} << 11);
  EXPECT_EQ(nodes_of({vsd}), std::set<uint64_t>{2});
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{2});
  settle();
  EXPECT_EQ(open_vsd(vsd), Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "close"}, {"vsd", vsd}, {"node", 2}}), Code::conflict);
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd}}), Code::conflict);
  EXPECT_EQ(
      leader.refusal(
          {{"op", "snapshot"}, {"name", "s"}, {"vsds", json::array{json::object{{"vsd", vsd}}}}}),
      Code::conflict);
  const uint64_t id = make_vm("a", {});
  EXPECT_EQ(leader.refusal({{"op", "vm_disk_add"}, {"vm", id}, {"bus", "virtio"}, {"vsd", vsd}}),
            Code::conflict);
  EXPECT_EQ(remove(medium).error().code, Code::conflict);
  filling("filling_progress", vsd, 2, {{"done", 500}}).value();
  EXPECT_EQ(leader.cluster().fillings()->at(0).done, 500U);
  EXPECT_EQ(task("vsd import"), "running");
  filling("filled", vsd, 2, {{"problem", ""}}).value();
  EXPECT_EQ(task("vsd import"), "running") << "its device is open still";
  settle();
  EXPECT_EQ(task("vsd import"), "done");
  EXPECT_TRUE(leader.cluster().opened()->empty());
  leader.say({{"op", "vm_disk_add"}, {"vm", id}, {"bus", "virtio"}, {"vsd", vsd}}).value();
  remove(medium).value();
}

TEST_F(Media, WhereTheNodeThatMakesADiskIsLostAnotherBeginsAnew) {
  const uint64_t medium = ready("a.qcow2", "qcow2");
  const uint64_t vsd = fill(medium, 2)->at("vsd").to_number<uint64_t>();
  settle();
  EXPECT_EQ(filling("filling_take", vsd, 3).error().code, Code::conflict) << "it lives";
  lose(2);
  filling("filling_take", vsd, 3).value();
  EXPECT_EQ(nodes_of({vsd}), std::set<uint64_t>{3});
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{3});
  EXPECT_EQ(filling("filled", vsd, 2, {{"problem", ""}}).error().code, Code::stale);
  settle();
  filling("filled", vsd, 3, {{"problem", ""}}).value();
  settle();
  EXPECT_TRUE(leader.cluster().opened()->empty());
}

TEST_F(Media, ADiskThatCouldNotBeMadeOrWasCancelledCanOnlyBeDeleted) {
  const uint64_t medium = ready("a.qcow2", "qcow2");
  for (const bool cancel : {true, false}) {
    const uint64_t vsd = fill(medium, 2)->at("vsd").to_number<uint64_t>();
    settle();
    if (cancel)
      leader.say({{"op", "vsd_fill_cancel"}, {"vsd", vsd}}).value();
    else
      filling("filled", vsd, 2, {{"problem", "the image is damaged"}}).value();
    EXPECT_EQ(task("vsd import"), "failed");
    EXPECT_EQ(filling("filling_progress", vsd, 2, {{"done", 1}}).error().code, Code::stale);
    EXPECT_EQ(leader.refusal({{"op", "vsd_fill_cancel"}, {"vsd", vsd}}), Code::conflict);
    settle();
    EXPECT_TRUE(leader.cluster().opened()->empty());
    EXPECT_EQ(open_vsd(vsd), Code::conflict);
    leader.say({{"op", "vsd_delete"}, {"vsd", vsd}}).value();
    EXPECT_TRUE(leader.cluster().fillings()->empty());
  }
  remove(medium).value();
}

// A VSD with a snapshot of it.
uint64_t snapshot_of(Leader& leader) {
  const uint64_t vsd = leader.make_vsd();
  return leader
      .say({{"op", "snapshot"}, {"name", "s"}, {"vsds", json::array{json::object{{"vsd", vsd}}}}})
      ->at("taken")
      .as_array()
      .at(0)
      .at("snapshot")
      .to_number<uint64_t>();
}

TEST_F(Media, AnExportIsWhatASnapshotWasAndNeedsItNoMore) {
  const uint64_t snapshot = snapshot_of(leader);
  const auto make = [&](const std::string& name, const std::string& format, bool drop = false) {
    return leader.say({{"op", "medium_make"},
                       {"name", name},
                       {"snapshot", snapshot},
                       {"format", format},
                       {"drop", drop},
                       {"node", 2},
                       {"life", 200}});
  };
  EXPECT_EQ(make("a", "vmdk").error().code, Code::invalid);
  EXPECT_EQ(make("../a", "raw").error().code, Code::invalid);
  const uint64_t raw = make("a.raw", "raw")->at("medium").to_number<uint64_t>();
  EXPECT_EQ(make("a.raw", "raw").error().code, Code::conflict);
  EXPECT_EQ(row(raw).state, "checking");
  EXPECT_EQ(row(raw).bytes, uint64_t{64} << 20);
  EXPECT_EQ(read_on(raw), std::set<uint64_t>{2});
  settle();
  checked(raw, 2, "raw").value();
  settle();

  const uint64_t medium = make("a.qcow2", "qcow2", true)->at("medium").to_number<uint64_t>();
  EXPECT_FALSE(leader.cluster().snapshot({snapshot}).value()) << "it was for this alone";
  const uint64_t source = row(medium).source;
  EXPECT_EQ(row(medium).state, "making");
  EXPECT_EQ(nodes_of(row(medium).vsd), std::set<uint64_t>{2});
  EXPECT_EQ(read_on(source), std::set<uint64_t>{2});
  EXPECT_EQ(fill(medium).error().code, Code::conflict);
  settle();
  say("medium_progress", medium, 2, {{"done", 10}}).value();
  // Its node is lost: another makes it anew.
  lose(2);
  say("medium_take", medium, 3).value();
  EXPECT_EQ(read_on(source), std::set<uint64_t>{3});
  EXPECT_EQ(nodes_of(row(medium).vsd), std::set<uint64_t>{3});
  settle();
  EXPECT_EQ(say("medium_made", medium, 2, {{"bytes", 7}, {"problem", ""}}).error().code,
            Code::stale);
  say("medium_made", medium, 3, {{"bytes", 200000}, {"problem", ""}}).value();
  EXPECT_EQ(row(medium).state, "sealing");
  settle();
  EXPECT_EQ(row(source).id, 0U);
  say("medium_sealed", medium, 3).value();
  settle();
  checked(medium, 3, "qcow2").value();
  EXPECT_EQ(row(medium).bytes, 200000U);
  settle();
  for (const uint64_t one : {raw, medium}) remove(one).value();
  settle();
  EXPECT_EQ(vsds(), 1U) << "what was exported";
}

TEST_F(Media, AnExportThatFailsOrIsDeletedLeavesNothing) {
  const uint64_t snapshot = snapshot_of(leader);
  for (const bool fails : {true, false}) {
    const uint64_t medium = leader
                                .say({{"op", "medium_make"},
                                      {"name", "a"},
                                      {"snapshot", snapshot},
                                      {"format", "qcow2"},
                                      {"drop", false},
                                      {"node", 1},
                                      {"life", 100}})
                                ->at("medium")
                                .to_number<uint64_t>();
    settle();
    if (fails) {
      say("medium_made", medium, 1, {{"bytes", 0}, {"problem", "no space"}}).value();
      EXPECT_EQ(row(medium).state, "refused");
    }
    remove(medium).value();
    EXPECT_EQ(say("medium_progress", medium, 1, {{"done", 1}}).has_value(), false);
    settle();
    EXPECT_TRUE(leader.cluster().media()->empty());
    EXPECT_EQ(vsds(), 1U);
  }
}

TEST_F(Media, OneThatIsDownloadedIsOpenUntilNobodyAsksForItAnyMore) {
  const uint64_t medium = ready("a.iso");
  say("medium_read", medium, 3, {{"seconds", 60}}).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{3});
  settle();
  leader.now += 50;
  say("medium_read", medium, 3, {{"seconds", 60}}).value();
  leader.now += 50;
  leader.say({{"op", "media_tidy"}}).value();
  EXPECT_EQ(read_on(medium), std::set<uint64_t>{3});
  leader.now += 20;
  leader.say({{"op", "media_tidy"}}).value();
  EXPECT_TRUE(read_on(medium).empty());
}

TEST_F(Media, OneThatIsDeletedGoesWhenItsDevicesAreClosedAndItsNameIsFreeAtOnce) {
  const uint64_t medium = ready("a.iso");
  say("medium_read", medium, 3, {{"seconds", 60}}).value();
  settle();
  remove(medium).value();
  EXPECT_EQ(row(medium).state, "deleting");
  EXPECT_EQ(leader.cluster().snapshots()->size(), 1U);
  create("a.iso");
  settle();
  EXPECT_EQ(row(medium).id, 0U);
  EXPECT_TRUE(leader.cluster().snapshots()->empty());
  EXPECT_EQ(vsds(), 1U);
}

TEST_F(Media, OneThatIsDeletedWhileALostNodeHasItOpenGoesWhenThatIsFenced) {
  const uint64_t medium = create("a.iso");
  say("medium_take", medium, 2).value();
  settle();
  lose(2);
  remove(medium).value();
  EXPECT_EQ(row(medium).id, 0U);
  EXPECT_EQ(vsds(), 0U);
}

TEST_F(Media, ANodeThatReadsOneMayBeRemoved) {
  const uint64_t medium = ready("a.iso");
  const uint64_t id = make_vm("a", {medium});
  run(id, 3);
  const auto leave = [&] {
    const auto left = leader.say({{"op", "node_leave"}, {"node", 3}, {"leaving", true}});
    return left ? "" : left.error().text;
  };
  EXPECT_EQ(leave(), "");
  leader.say({{"op", "node_leave"}, {"node", 3}, {"leaving", false}}).value();
  const uint64_t vsd = leader.make_vsd();
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 3}}).value();
  EXPECT_NE(leave().find("open on it"), std::string::npos) << "others are in its way";
}

std::string cdrom_domain(const std::vector<vm::DomainCdrom>& cdroms,
                         const std::vector<vm::DomainDisk>& disks = {}) {
  meta::Vm vm;
  vm.name = "a";
  vm.uuid = "00000000-0000-0000-0000-000000000007";
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.memory_mib = 512;
  return vm::domain_xml(vm, disks, "", cdroms);
}

TEST(DomainDrives, GetWhatIsWantedAndStayWhatTheyAre) {
  EXPECT_TRUE(
      vm::cdrom_changes(cdrom_domain({{0, ""}, {1, "/dev/b"}}), {{1, "/dev/b"}, {0, ""}})->empty());
  const auto taken =
      vm::cdrom_changes(cdrom_domain({{0, "/dev/a"}, {1, "/dev/b"}}), {{0, "/dev/a"}, {1, ""}});
  ASSERT_EQ(taken->size(), 1U);
  EXPECT_EQ(taken->at(0).slot, 1U);
  EXPECT_EQ(taken->at(0).xml.find("<source"), std::string::npos);
  const auto other = vm::cdrom_changes(cdrom_domain({{0, "/dev/a"}}), {{0, "/dev/b"}});
  ASSERT_EQ(other->size(), 1U);
  EXPECT_EQ(other->at(0).xml.find("/dev/a"), std::string::npos);
  EXPECT_NE(other->at(0).xml.find("<source dev=\"/dev/b\""), std::string::npos);
  EXPECT_FALSE(vm::cdrom_changes("none", {}));
}

TEST(DomainDrives, AnEmptyOneIsOneOfFilesToLibvirtAndBecomesOneOfDevices) {
  const auto put = vm::cdrom_changes(
      "<domain><devices><disk type='file' device='cdrom'><driver name='qemu' cache='none'/>"
      "<target dev='sda' bus='sata'/><readonly/><serial>drive-0</serial><boot order='3'/>"
      "</disk></devices></domain>",
      {{0, "/dev/a"}});
  ASSERT_EQ(put->size(), 1U);
  for (const char* what : {"type=\"block\"", "dev=\"/dev/a\"", "order=\"3\"", "dev=\"sda\""})
    EXPECT_NE(put->at(0).xml.find(what), std::string::npos) << put->at(0).xml;
}

TEST(DomainDrives, AreNoDisksAndComeBehindThem) {
  const vm::DomainDisk disk{"/dev/d", "scsi", "vsd-1"};
  const std::string xml = cdrom_domain({{0, "/dev/a"}}, {disk});
  EXPECT_NE(xml.find("<target dev=\"sdb\" bus=\"sata\""), std::string::npos) << xml;
  EXPECT_NE(xml.find("<boot order=\"2\""), std::string::npos);
  EXPECT_TRUE(vm::disk_changes(xml, {disk})->empty());
  const auto more = vm::disk_changes(xml, {disk, {"/dev/e", "scsi", "vsd-2"}});
  ASSERT_EQ(more->size(), 1U);
  EXPECT_NE(more->at(0).xml.find("\"sdc\""), std::string::npos) << "that name is the drive's";
}

TEST(DomainDrives, AreImportedEmptyAndNotWithFilesInThem) {
  const auto back = vm::from_xml(cdrom_domain({{0, ""}, {1, "/dev/mapper/scribe-medium:7@whole"}}));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(back->vm.cdroms.size(), 2U);
  EXPECT_EQ(back->vm.cdroms.at(1).medium, 0U);
  EXPECT_EQ(back->left_out, std::vector<std::string>{"what is in the drive sdb"});
  for (const char* path : {"/etc/shadow", "/dev/sda", "/dev/mapper/scribe-x"})
    EXPECT_EQ(vm::from_xml(cdrom_domain({{0, path}})).error().code, Code::invalid) << path;
}

// Whatever happens, what is open is what is needed, and in the end nothing is left.
class MediaLife : public Media, public ::testing::WithParamInterface<unsigned> {};

TEST_P(MediaLife, LeavesNothingOpenThatNobodyNeeds) {
  std::mt19937 random(GetParam());
  const auto pick = [&](uint64_t most) { return random() % most; };
  std::vector<uint64_t> media;
  std::vector<uint64_t> vms;
  for (const char* name : {"a", "b"}) vms.push_back(make_vm(name, {0}));
  for (int turn = 0; turn < 60; turn++) {
    const uint64_t id = vms[pick(2)];
    const uint64_t medium = media.empty() ? 0 : media[pick(media.size())];
    const meta::Vm now = vm(id);
    switch (pick(8)) {
      case 0:
        if (media.size() < 3) media.push_back(ready("m" + std::to_string(turn)));
        break;
      case 1:
        (void)insert(id, pick(3) == 0 ? 0 : medium);
        break;
      case 2:
        if (now.state == "off") run(id, 1 + pick(3));
        break;
      case 3:
        if (now.state == "running" && !now.to_node) stop(id);
        break;
      case 4:
        if (medium != 0 && remove(medium)) std::erase(media, medium);
        break;
      case 5:
        if (now.state == "running" && !now.to_node)
          (void)leader.say({{"op", "vm_migrate"}, {"vm", id}, {"on", 0}});
        break;
      case 6:
        if (now.to_node) (void)of_run("vm_stays", id, {{"reason", "for a test"}});
        break;
      default:
        if (now.node && !now.to_node)
          for (const meta::VmCdrom& cdrom : now.cdroms) has(id, cdrom.medium);
    }
    if (pick(2) == 0) settle();
    // Each that a run has, or is to have, is open where it runs and where it goes.
    for (const uint64_t one : vms)
      for (const meta::VmCdrom& cdrom : vm(one).cdroms)
        for (const uint64_t of : {cdrom.medium, cdrom.held})
          for (const core::NodeId node : {vm(one).node, vm(one).to_node})
            if (of != 0 && node) {
              ASSERT_TRUE(read_on(of).contains(node.value)) << "turn " << turn;
            }
  }
  for (const uint64_t id : vms) {
    if (vm(id).to_node) of_run("vm_stays", id, {{"reason", "for a test"}}).value();
    if (vm(id).node) stop(id);
    insert(id, 0).value();
  }
  for (const uint64_t medium : media) remove(medium).value();
  for (int i = 0; i < 3; i++) settle();
  EXPECT_TRUE(leader.cluster().opened()->empty());
  EXPECT_TRUE(leader.cluster().media()->empty());
  EXPECT_EQ(vsds(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MediaLife, ::testing::Range(1U, 21U));

}  // namespace
