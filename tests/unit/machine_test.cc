// SPDX-License-Identifier: GPL-2.0
// What a VM's machine keeps for itself: the variables of its UEFI, its TPM, what cloud-init reads.
#include <gtest/gtest.h>

#include "policy_leader.h"
#include "vm/domain.h"
#include "vm/import.h"

namespace {

namespace json = boost::json;
using core::Code;
using policy_tests::Leader;

class Machine : public ::testing::Test {
 protected:
  Machine() {
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
                {"lan_bridge", "br-lan"},
                {"uplink", "lan"},
                {"lan_problem", ""},
                {"models", ""}})
          .value();
    id = create("a", {{"firmware", "uefi-secure"},
                      {"tpm", true},
                      {"user_data", "#cloud-config\n"},
                      {"network_config", "version: 2\n"}})
             ->at("vm")
             .to_number<uint64_t>();
  }
  core::Result<json::object> create(const std::string& name, const json::object& more) {
    json::object body{{"op", "vm_create"},
                      {"name", name},
                      {"uuid", "uuid-of-" + name},
                      {"machine", vm::kMachine},
                      {"vcpus", 1},
                      {"memory_mib", 1024},
                      {"disks", json::array{json::object{
                                    {"bus", "virtio"}, {"sectors", 2048}, {"replicas", 3}}}}};
    for (const auto& [field, value] : more) body[field] = value;
    return leader.say(std::move(body));
  }
  core::Result<json::object> edit(const json::object& what) {
    json::object body{{"op", "vm_edit"}, {"vm", id}};
    for (const auto& [field, value] : what) body[field] = value;
    return leader.say(std::move(body));
  }
  meta::Vm row(uint64_t of = 0) {
    const auto vms = leader.cluster().vms().value();
    for (const meta::Vm& one : vms)
      if (one.id == (of == 0 ? id : of)) return one;
    return {};
  }
  /// The names of the VSDs that a VM has, in order, with their numbers.
  std::string has(uint64_t of = 0) {
    std::string out;
    const meta::Vm vm = row(of);
    for (const meta::VmDisk& disk : vm.disks)
      out += (out.empty() ? "" : " ") + std::to_string(disk.slot) + "=" +
             leader.cluster().vsd(disk.vsd).value()->name;
    return out;
  }
  std::vector<std::string> vsds() {
    std::vector<std::string> out;
    const auto all = leader.cluster().vsds().value();
    for (const meta::Vsd& one : all)
      if (!one.deleted) out.push_back(one.name);
    std::sort(out.begin(), out.end());
    return out;
  }
  meta::Vsd vsd(const std::string& name) {
    const auto all = leader.cluster().vsds().value();
    for (const meta::Vsd& one : all)
      if (one.name == name) return one;
    return {};
  }
  core::Result<json::object> snapshot(const std::string& name) {
    json::array items;
    const meta::Vm now = row();
    for (const meta::VmDisk& disk : now.disks)
      if (disk.slot != meta::kSeedSlot) items.push_back(json::object{{"vsd", disk.vsd.value}});
    return leader.say({{"op", "snapshot"}, {"name", name}, {"vm", id}, {"vsds", items}});
  }
  core::Result<json::object> clone(const std::string& name, const json::object& more = {}) {
    json::object body{{"op", "vm_clone"},
                      {"vm_snapshot", leader.cluster().vm_snapshots()->at(0).id},
                      {"name", name},
                      {"uuid", "uuid-of-" + name},
                      {"drop", false}};
    for (const auto& [field, value] : more) body[field] = value;
    return leader.say(std::move(body));
  }

  Leader leader;
  uint64_t id = 0;
};

TEST_F(Machine, WhatItKeepsIsOnVsdsThatComeAndGoWithTheVm) {
  EXPECT_EQ(has(), "0=a-0 100=a-uefi 101=a-tpm 102=a-seed");
  EXPECT_EQ(vsd("a-tpm").replicas, 3U) << "as its disks";
  EXPECT_EQ(leader.cluster().seed(id).value()->user_data, "#cloud-config\n");
  EXPECT_EQ(leader.cluster().device_sectors(vsd("a-uefi")).value(), meta::kFlashSectors);
  EXPECT_EQ(leader.cluster().device_sectors(vsd("a-0")).value(), 2048U);
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", true}}).value();
  EXPECT_EQ(vsds(), std::vector<std::string>{"a-0"}) << "the others are of no use to anybody";
  EXPECT_FALSE(leader.cluster().seed(id).value());
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
}

TEST_F(Machine, AVmThatSaysNothingHasABiosAndNothingElse) {
  const uint64_t b = create("b", {})->at("vm").to_number<uint64_t>();
  EXPECT_EQ(has(b), "0=b-0");
  EXPECT_EQ(row(b).firmware, "bios");
}

TEST_F(Machine, WhatNoMachineCanBeIsRefusedAndNothingIsMade) {
  const std::vector<std::string> before = vsds();
  const auto refused = [&](const json::object& what) {
    const auto made = create("b", what);
    return made ? "made" : made.error().text;
  };
  EXPECT_NE(refused({{"firmware", "coreboot"}}).find("bios, uefi or uefi-secure"),
            std::string::npos);
  EXPECT_NE(refused({{"user_data", "hello"}}).find("#cloud-config"), std::string::npos);
  EXPECT_NE(refused({{"user_data", "#" + std::string(64 << 10, 'x')}}).find("64 KiB"),
            std::string::npos);
  EXPECT_NE(refused({{"user_data", std::string("#\0", 2)}}).find("zeroes"), std::string::npos);
  EXPECT_NE(refused({{"network_config", "version: 2"}}).find("user data"), std::string::npos);
  EXPECT_EQ(vsds(), before);
  EXPECT_EQ(leader.cluster().vms()->size(), 1U);
}

TEST_F(Machine, ItChangesWhileItIsOffAndBeginsAnewThen) {
  const core::VsdId flash = vsd("a-uefi").id;
  const core::VsdId tpm = vsd("a-tpm").id;
  edit({{"firmware", "uefi"}, {"user_data", ""}, {"network_config", ""}}).value();
  EXPECT_EQ(has(), "0=a-0 100=a-uefi 101=a-tpm");
  EXPECT_NE(vsd("a-uefi").id, flash) << "another firmware has other variables";
  EXPECT_EQ(vsd("a-tpm").id, tpm);
  edit({{"firmware", "bios"}, {"tpm", false}}).value();
  EXPECT_EQ(has(), "0=a-0");
  edit({{"user_data", "#!/bin/sh\n"}}).value();
  edit({{"screen", false}}).value();
  EXPECT_FALSE(row().screen);
  leader.say({{"op", "vm_start"}, {"vm", id}, {"on", 1}}).value();
  EXPECT_EQ(edit({{"screen", true}}).error().code, Code::conflict);
  EXPECT_EQ(edit({{"tpm", true}}).error().code, Code::conflict);
  EXPECT_EQ(edit({{"firmware", "uefi"}}).error().code, Code::conflict);
  EXPECT_EQ(edit({{"user_data", "#!/bin/sh\ntrue\n"}}).error().code, Code::conflict);
  edit({{"user_data", "#!/bin/sh\n"}, {"description", "as it was"}}).value();
  EXPECT_EQ(has(), "0=a-0 102=a-seed");
}

TEST_F(Machine, WhereANameIsTakenItGetsAnother) {
  leader.say({{"op", "vsd_create"}, {"name", "b-tpm"}, {"sectors", 2048}, {"replicas", 2}}).value();
  const uint64_t b = create("b", {{"tpm", true}})->at("vm").to_number<uint64_t>();
  EXPECT_EQ(has(b), "0=b-0 101=b-tpm-2");
}

TEST_F(Machine, ItIsOpenedWhereTheVmRunsAndIsNoDiskThatCouldBeTakenOut) {
  leader.say({{"op", "vm_start"}, {"vm", id}, {"on", 2}}).value();
  EXPECT_EQ(leader.cluster().opened()->size(), 4U);
  for (const uint64_t slot : {meta::kFlashSlot, meta::kTpmSlot, meta::kSeedSlot})
    EXPECT_EQ(leader.refusal({{"op", "vm_disk_remove"}, {"vm", id}, {"slot", slot}}),
              Code::not_found);
  EXPECT_EQ(leader.refusal({{"op", "vsd_delete"}, {"vsd", vsd("a-tpm").id.value}}), Code::conflict);
  EXPECT_EQ(
      leader.refusal({{"op", "vsd_resize"}, {"vsd", vsd("a-uefi").id.value}, {"sectors", 4096}}),
      Code::conflict);
  EXPECT_EQ(vsd("a-uefi").sectors, 2048U);
}

TEST_F(Machine, ASnapshotHasItButForWhatIsMadeAnewAndIsGoneBackTo) {
  snapshot("s").value();
  EXPECT_EQ(leader.cluster().vm_snapshots()->at(0).disks.size(), 3U);
  EXPECT_EQ(leader.cluster().vm_snapshots()->at(0).was.firmware, "uefi-secure");
  EXPECT_TRUE(leader.cluster().vm_snapshots()->at(0).was.tpm);
  const json::object revert{{"op", "vm_revert"},
                            {"vm_snapshot", leader.cluster().vm_snapshots()->at(0).id},
                            {"keep", "k"}};
  edit({{"user_data", ""}, {"network_config", ""}}).value();
  leader.say(revert).value();
  EXPECT_EQ(has(), "0=a-0 100=a-uefi 101=a-tpm");
  edit({{"tpm", false}}).value();
  json::object again = revert;
  again["keep"] = "l";
  EXPECT_EQ(leader.refusal(again), Code::conflict) << "what its TPM kept is gone";
  EXPECT_EQ(meta::Map(leader.db()).verify().value(), std::vector<std::string>{});
}

TEST_F(Machine, ACloneHasItsVariablesAndATpmOfItsOwn) {
  snapshot("s").value();
  const uint64_t c = clone("c")->at("vm").to_number<uint64_t>();
  EXPECT_EQ(has(c), "0=c-0 100=c-uefi 101=c-tpm 102=c-seed");
  EXPECT_NE(vsd("c-tpm").id, vsd("a-tpm").id);
  EXPECT_EQ(leader.cluster().seed(c).value()->network_config, "version: 2\n");
  const uint64_t d =
      clone("d", {{"firmware", "bios"}, {"tpm", false}, {"user_data", "#!/bin/sh\n"}})
          ->at("vm")
          .to_number<uint64_t>();
  EXPECT_EQ(has(d), "0=d-0 102=d-seed");
  EXPECT_EQ(leader.cluster().seed(d).value()->user_data, "#!/bin/sh\n");
  EXPECT_EQ(leader.cluster().seed(id).value()->user_data, "#cloud-config\n");
}

// As a domain

meta::Vm some_vm(const std::string& firmware, bool tpm) {
  meta::Vm vm;
  vm.id = 7;
  vm.run = 3;
  vm.name = "mail";
  vm.uuid = "00000000-0000-0000-0000-000000000007";
  vm.memory_mib = 512;
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.firmware = firmware;
  vm.tpm = tpm;
  return vm;
}

TEST(MachineAsDomain, HasWhatItKeepsOnItsDevices) {
  const std::string xml =
      vm::domain_xml(some_vm("uefi-secure", true), {}, "", {},
                     {"/dev/mapper/scribe-mail-uefi", "/run/tpm.sock", "/dev/mapper/scribe-seed"});
  EXPECT_NE(xml.find("<source dev=\"/dev/mapper/scribe-mail-uefi\""), std::string::npos) << xml;
  EXPECT_NE(xml.find("secure=\"yes\""), std::string::npos);
  EXPECT_NE(xml.find("<smm state=\"on\""), std::string::npos);
  EXPECT_NE(xml.find("path=\"/run/tpm.sock\""), std::string::npos);
  EXPECT_NE(xml.find("<readonly"), std::string::npos);
  // What keeps its disks as they should be has nothing to do with them.
  EXPECT_TRUE(vm::disk_changes(xml, {})->empty());
  EXPECT_EQ(vm::domain_xml(some_vm("uefi", false), {}, "").find("<smm"), std::string::npos);
}

TEST(MachineAsDomain, ThatIsExportedComesBackAndSaysWhatIsNotAsItWas) {
  for (const char* firmware : {"bios", "uefi", "uefi-secure"}) {
    for (const bool tpm : {false, true}) {
      for (const bool here : {false, true}) {
        const auto back = vm::from_xml(vm::domain_xml(
            some_vm(firmware, tpm), {}, "", {},
            here ? vm::DomainMachine{"/dev/mapper/scribe-mail-uefi", "/run/tpm.sock", "/dev/seed"}
                 : vm::DomainMachine{}));
        ASSERT_TRUE(back) << back.error().text;
        EXPECT_EQ(back->vm.firmware, firmware);
        EXPECT_EQ(back->vm.tpm, tpm);
        EXPECT_TRUE(back->disks.empty());
        EXPECT_EQ(back->left_out.size(),
                  (std::string(firmware) == "bios" ? 0U : 1U) + (tpm ? 1U : 0U) + (here ? 1U : 0U));
      }
    }
  }
}

TEST(MachineAsDomain, ItsScreenIsAtASocketThatLibvirtKeepsOrNowhere) {
  meta::Vm vm = some_vm("bios", false);
  const std::string with = vm::domain_xml(vm, {}, "");
  EXPECT_NE(with.find("<listen type=\"socket\""), std::string::npos);
  EXPECT_TRUE(vm::from_xml(with)->vm.screen);
  EXPECT_TRUE(vm::from_xml(with)->left_out.empty());
  vm.screen = false;
  const std::string without = vm::domain_xml(vm, {}, "");
  for (const char* word : {"<graphics", "<video", "<input"})
    EXPECT_EQ(without.find(word), std::string::npos) << word;
  EXPECT_FALSE(vm::from_xml(without)->vm.screen);
}

TEST(MachineAsDomain, WhatIsNotItsOwnIsRefused) {
  const auto refused = [](const std::string& os, const std::string& devices) {
    const auto read = vm::from_xml(
        "<domain type='kvm'><name>m</name><memory>65536</memory><os><type arch='x86_64' "
        "machine='q35'>hvm</type>" +
        os + "</os><devices>" + devices + "</devices></domain>");
    return read ? "taken" : read.error().text;
  };
  EXPECT_EQ(refused("", ""), "taken");
  EXPECT_NE(refused("<loader type='rom'>/etc/shadow</loader>", "").find("pflash"),
            std::string::npos);
  EXPECT_NE(refused("<kernel>/etc/shadow</kernel>", "").find("<kernel>"), std::string::npos);
  EXPECT_NE(
      refused("", "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>")
          .find("passthrough"),
      std::string::npos);
  EXPECT_NE(refused("", "<tpm><backend type='emulator' version='1.2'/></tpm>").find("1.2"),
            std::string::npos);
}

}  // namespace
