// SPDX-License-Identifier: GPL-2.0
// What a node does about a VM, and what libvirt is given, or gives, of one.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "vm/cpus.h"
#include "vm/domain.h"
#include "vm/import.h"
#include "vm/lifecycle.h"
#include "vm/search.h"

namespace {

using core::Code;
using vm::Act;
using vm::Seen;
using vm::View;

// What a node does

TEST(Lifecycle, EachWishAndSightHasItsAct) {
  struct Case {
    const char* wanted;
    const char* how;
    const char* state;
    View view;
    Act act;
  };
  const auto at = [](Seen seen, bool open = true) {
    return View{true, seen != Seen::absent, false, open, seen};
  };
  const std::vector<Case> cases = {
      {"running", "", "starting", at(Seen::absent, false), Act::nothing},
      {"running", "", "starting", at(Seen::absent), Act::create},
      {"running", "", "starting", at(Seen::running), Act::say},
      {"running", "", "running", at(Seen::running), Act::nothing},
      {"running", "", "running", at(Seen::absent), Act::say_ended},
      {"running", "", "paused", at(Seen::absent), Act::say_ended},
      {"running", "", "running", at(Seen::no_space), Act::resume},
      {"running", "", "paused", at(Seen::paused), Act::resume},
      {"running", "", "running", at(Seen::ending), Act::nothing},
      {"paused", "", "running", at(Seen::running), Act::suspend},
      {"paused", "", "running", at(Seen::paused), Act::say},
      {"paused", "", "paused", at(Seen::paused), Act::nothing},
      {"paused", "", "paused", at(Seen::no_space), Act::nothing},
      {"paused", "", "starting", at(Seen::absent), Act::create},
      {"off", "shutdown", "running", at(Seen::running), Act::shutdown},
      {"off", "shutdown", "paused", at(Seen::paused), Act::resume},
      {"off", "shutdown", "running", at(Seen::ending), Act::nothing},
      {"off", "stop", "running", at(Seen::running), Act::destroy},
      {"off", "stop", "paused", at(Seen::paused), Act::destroy},
      {"off", "stop", "running", at(Seen::absent), Act::say_ended},
      {"off", "shutdown", "starting", at(Seen::absent), Act::say_ended},
      {"running", "", "running", {false, true, false, false, Seen::running}, Act::destroy},
      {"running", "", "running", {true, false, false, false, Seen::running}, Act::destroy},
      {"running", "", "running", {false, false, false, false, Seen::paused}, Act::destroy},
      {"running", "", "running", {false, false, false, false, Seen::absent}, Act::nothing},
      {"running", "", "running", {true, true, true, true, Seen::running}, Act::suspend},
      {"running", "", "running", {true, true, true, true, Seen::paused}, Act::nothing},
      {"running", "", "starting", {true, false, true, true, Seen::absent}, Act::nothing},
      {"off", "stop", "running", {true, true, true, true, Seen::paused}, Act::nothing},
      {"running", "", "running", {false, true, true, true, Seen::running}, Act::destroy},
  };
  for (const Case& one : cases) {
    meta::Vm vm;
    vm.wanted = one.wanted;
    vm.how = one.how;
    vm.state = one.state;
    EXPECT_EQ(vm::next_act(vm, one.view), one.act)
        << one.wanted << " " << one.how << " " << one.state << " seen "
        << static_cast<int>(one.view.seen);
  }
}

// Where it moves from here, to an open and living target but for what a case says.
TEST(Lifecycle, EachStepOfAMoveHasItsAct) {
  struct Case {
    const char* move;
    const char* wanted;
    View view;
    Act act;
  };
  const auto at = [](Seen seen, bool busy) {
    View out{true, seen != Seen::absent, false, true, seen};
    out.busy = busy;
    out.target_open = true;
    return out;
  };
  const auto with = [](View view, bool View::*field, bool value = true) {
    view.*field = value;
    return view;
  };
  const std::vector<Case> cases = {
      {"preparing", "running", at(Seen::running, false), Act::migrate},
      {"preparing", "paused", at(Seen::paused, false), Act::migrate},
      {"preparing", "running", at(Seen::paused, false), Act::resume},
      {"preparing", "running", with(at(Seen::running, false), &View::target_open, false),
       Act::nothing},
      {"preparing", "running", with(at(Seen::running, false), &View::target_lost), Act::stays},
      {"preparing", "running", with(at(Seen::running, false), &View::held), Act::suspend},
      {"preparing", "running", at(Seen::absent, false), Act::say_ended},
      {"moving", "running", at(Seen::running, true), Act::nothing},
      {"moving", "running", at(Seen::moving, true), Act::nothing},
      {"moving", "running", at(Seen::absent, true), Act::nothing},
      {"moving", "paused", at(Seen::paused, true), Act::nothing},
      {"moving", "running", at(Seen::paused, true), Act::abort},
      {"moving", "running", with(at(Seen::running, true), &View::held), Act::abort},
      {"moving", "running", with(at(Seen::running, true), &View::target_lost), Act::abort},
      {"moving", "running", at(Seen::absent, false), Act::moved},
      {"moving", "running", with(at(Seen::absent, false), &View::held), Act::nothing},
      {"moving", "running", at(Seen::running, false), Act::stays},
      {"moving", "running", at(Seen::moving, false), Act::stays},
      {"cancelled", "running", at(Seen::running, true), Act::abort},
      {"cancelled", "running", at(Seen::running, false), Act::stays},
      {"cancelled", "running", at(Seen::absent, false), Act::moved},
      {"cancelled", "off", at(Seen::running, true), Act::abort},
      {"cancelled", "off", at(Seen::running, false), Act::stays},
  };
  for (const Case& one : cases) {
    meta::Vm vm;
    vm.wanted = one.wanted;
    vm.state = one.wanted == std::string("off") ? "running" : one.wanted;
    vm.to_node = {2};
    vm.move = one.move;
    EXPECT_EQ(vm::next_act(vm, one.view), one.act)
        << one.move << " " << one.wanted << " seen " << static_cast<int>(one.view.seen) << " busy "
        << one.view.busy;
  }
}

TEST(Lifecycle, WhatArrivesStandsStillUntilItsRowIsHere) {
  meta::Vm vm;
  vm.wanted = "running";
  vm.state = "running";
  View view{false, false, false, false, Seen::paused};
  view.arrives = true;
  for (const auto& [seen, act] : {std::pair{Seen::paused, Act::nothing},
                                  {Seen::moving, Act::nothing},
                                  {Seen::running, Act::suspend},
                                  {Seen::ending, Act::nothing}}) {
    view.seen = seen;
    EXPECT_EQ(vm::next_act(vm, view), act);
  }
  vm.state = "arriving";
  for (const auto& [seen, act] : {std::pair{Seen::paused, Act::resume},
                                  {Seen::moving, Act::nothing},
                                  {Seen::running, Act::say},
                                  {Seen::absent, Act::say_ended}})
    EXPECT_EQ(vm::next_act(vm, {true, seen != Seen::absent, false, true, seen}), act);
  vm.wanted = "paused";
  EXPECT_EQ(vm::next_act(vm, {true, true, false, true, Seen::paused}), Act::say);
  EXPECT_EQ(vm::next_act(vm, {true, true, true, true, Seen::paused}), Act::nothing);
}

// Its domain

meta::Vm some_vm() {
  meta::Vm vm;
  vm.id = 7;
  vm.run = 3;
  vm.name = "mail";
  vm.uuid = "00000000-0000-0000-0000-000000000007";
  vm.vcpus = 2;
  vm.memory_mib = 512;
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  return vm;
}

TEST(Search, ItFindsWhatIsAllOfThat) {
  meta::Vm vm = some_vm();
  vm.description = "Handles the post\nof https://example.org";
  vm.tags = {"web", "prod"};
  vm.node = {2};
  const auto found = [&](const vm::Search& search) { return vm::matches(vm, "running", search); };
  EXPECT_TRUE(found({}));
  EXPECT_TRUE(found({"MAIL", {}, "", {}}));
  EXPECT_TRUE(found({"example.ORG", {"web"}, "running", {2}}));
  EXPECT_TRUE(found({"", {"prod", "web"}, "", {}}));
  EXPECT_FALSE(found({"", {"prod", "db"}, "", {}}));
  EXPECT_FALSE(found({"", {"we"}, "", {}}));
  EXPECT_FALSE(found({"", {}, "off", {}}));
  EXPECT_FALSE(found({"", {}, "", {1}}));
  EXPECT_FALSE(found({"nothing like it", {}, "", {}}));
}

TEST(Domain, ItSaysWhichRunOfWhichVmItIs) {
  const std::string xml =
      vm::domain_xml(some_vm(), {{"/dev/mapper/scribe-mail-0", "virtio", "vsd-1"}}, "br-lan");
  const auto of = vm::domain_of(xml);
  ASSERT_TRUE(of);
  EXPECT_EQ(of->vm, 7U);
  EXPECT_EQ(of->run, 3U);
}

TEST(Domain, WhatPeopleWriteStaysText) {
  meta::Vm vm = some_vm();
  vm.description = "</description><devices><disk type='file'/></devices> & \"x\"";
  const std::string xml = vm::domain_xml(vm, {}, "br-lan");
  EXPECT_EQ(xml.find("<disk"), std::string::npos);
  EXPECT_TRUE(vm::domain_of(xml));
}

TEST(Domain, AsAnotherRunItIsTheSame) {
  const std::string xml =
      vm::domain_xml(some_vm(), {{"/dev/mapper/x", "virtio", "vsd-1"}}, "br-lan");
  const std::string other = vm::as_run(xml, 4).value();
  EXPECT_EQ(vm::domain_of(other)->run, 4U);
  EXPECT_EQ(vm::domain_of(other)->vm, 7U);
  EXPECT_EQ(vm::as_run(other, 3).value(), vm::as_run(xml, 3).value());
  EXPECT_NE(other.find("/dev/mapper/x"), std::string::npos);
  EXPECT_EQ(vm::as_run("<domain/>", 1).error().code, Code::not_found);
}

std::string with(const std::string& from, const std::string& to) {
  std::string xml =
      vm::domain_xml(some_vm(), {{"/dev/mapper/scribe-mail-0", "virtio", "vsd-1"}}, "br-lan");
  if (from.empty()) return xml;
  const size_t at = xml.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return xml.replace(at, from.size(), to);
}

TEST(Import, WhatIsExportedComesBack) {
  meta::Vm vm = some_vm();
  vm.description = "a <description> & more";
  vm.nics = {{0, "52:54:00:01:02:03", "br-dmz", 0, "e1000e", false}};
  for (const char* cpu : {"host", "baseline"}) {
    vm.cpu = cpu;
    const auto back =
        vm::from_xml(vm::domain_xml(vm,
                                    {{"/dev/mapper/scribe-mail-0", "scsi", "vsd-1"},
                                     {"/dev/mapper/scribe-mail-1", "virtio", "vsd-2"}},
                                    "br-lan"));
    ASSERT_TRUE(back) << back.error().text;
    EXPECT_EQ(back->vm.name, vm.name);
    EXPECT_EQ(back->vm.uuid, vm.uuid);
    EXPECT_EQ(back->vm.description, vm.description);
    EXPECT_EQ(back->vm.vcpus, vm.vcpus);
    EXPECT_EQ(back->vm.memory_mib, vm.memory_mib);
    EXPECT_EQ(back->vm.cpu, vm.cpu);
    EXPECT_EQ(back->vm.machine, vm.machine);
    ASSERT_EQ(back->vm.nics.size(), 1U);
    EXPECT_EQ(back->vm.nics[0].mac, "52:54:00:01:02:03");
    EXPECT_EQ(back->vm.nics[0].bridge, "br-dmz");
    EXPECT_FALSE(back->vm.nics[0].connected);
    EXPECT_EQ(back->vm.nics[0].model, "e1000e");
    ASSERT_EQ(back->disks.size(), 2U);
    EXPECT_EQ(back->disks[0].vsd, "mail-0");
    EXPECT_EQ(back->disks[0].bus, "scsi");
    EXPECT_EQ(back->disks[1].vsd, "mail-1");
  }
}

TEST(Import, ADomainOfAnotherToolIsTakenAndWhatChangesIsSaid) {
  const auto got = vm::from_xml(R"(<?xml version="1.0"?>
    <domain type='kvm' id='4'><name>web</name><memory>1048576</memory><currentMemory unit='KiB'>524288</currentMemory>
    <vcpu>4</vcpu><os><type arch='x86_64' machine='pc-q35-6.2'>hvm</type><boot dev='hd'/></os>
    <features><acpi/><apic/><hyperv mode='custom'/></features><cpu mode='host-model'/><clock offset='localtime'/>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/mapper/scribe-web'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/></interface>
    <interface type='bridge'><source bridge='br1'/><link state='down'/></interface>
    <graphics type='vnc' port='-1'/><video><model type='virtio'/></video></devices></domain>)");
  ASSERT_TRUE(got) << got.error().text;
  EXPECT_EQ(got->vm.memory_mib, 1024U);
  EXPECT_EQ(got->vm.machine, "pc-q35-6.2");
  EXPECT_EQ(got->vm.nics[0].mac, "52:54:00:aa:bb:cc");
  EXPECT_EQ(got->vm.nics[0].model, "virtio");
  std::string said;
  for (const std::string& one : got->left_out) said += one + "; ";
  for (const char* word : {"hyperv", "host here", "UTC", "graphics", "video", "all of its memory"})
    EXPECT_NE(said.find(word), std::string::npos) << word << " in " << said;
  EXPECT_FALSE(got->vm.nics[1].connected);
  EXPECT_EQ(got->vm.cdroms.size(), 1U);
}

TEST(Import, WhatLeadsOutOfThePoolIsRefused) {
  const std::string disk = "<source dev=\"/dev/mapper/scribe-mail-0\" />";
  const std::string end = "</devices>";
  const std::vector<std::tuple<std::string, std::string, const char*>> cases = {
      {disk, "<source dev='/dev/sda'/>", "no virtual disk"},
      {disk, "<source dev='/dev/mapper/scribe-../sda'/>", "no virtual disk"},
      {disk, "<source dev='/dev/mapper/scribe-'/>", "no virtual disk"},
      {disk, "<source file='/etc/shadow'/>", "no virtual disk"},
      {"type=\"block\"", "type='file'", "no virtual disk"},
      {"type=\"block\"", "type='network'", "no virtual disk"},
      {"device=\"disk\"", "device='lun'", "no virtual disk"},
      {"type=\"raw\"", "type='qcow2'", "not raw"},
      {disk, disk + "<shareable/>", "<shareable>"},
      {disk, disk + "<backingStore type='file'><source file='/x'/></backingStore>", "backing"},
      {end, "<disk type='file' device='cdrom'><source file='/etc/shadow'/></disk></devices>",
       "no medium"},
      {end, "<interface type='ethernet'><script path='/x'/></interface></devices>", "<script>"},
      {end, "<interface type='network'><source network='x'/></interface></devices>", "network"},
      {end, "<hostdev mode='subsystem' type='pci'/></devices>", "<hostdev>"},
      {end, "<filesystem type='mount'/></devices>", "<filesystem>"},
      {end, "<redirdev bus='usb' type='tcp'/></devices>", "<redirdev>"},
      {end, "<shmem name='x'/></devices>", "<shmem>"},
      {end, "<tpm model='tpm-tis'/></devices>", "<tpm>"},
      {end, "<serial type='file'><source path='/x'/></serial></devices>", "file"},
      {end, "<channel type='tcp'/></devices>", "tcp"},
      {end, "</devices><qemu:commandline><qemu:arg value='-x'/></qemu:commandline>",
       "<qemu:commandline>"},
      {"<os>", "<os><loader>/x</loader>", "<loader>"},
      {"<os>", "<os><kernel>/x</kernel>", "<kernel>"},
      {"<os>", "<os><boot dev='network'/>", "<boot>"},
      {"hvm", "xen", "hvm"},
      {"x86_64", "aarch64", "x86_64"},
      {"pc-q35-7.2", "pc-i440fx-7.2", "q35"},
      {"domain type=\"kvm\"", "domain type='lxc'", "lxc"},
      {">512<", ">9999999999999999<", "too large"},
      {">512<", ">-1<", "no number"},
      {"unit=\"MiB\"", "unit='parsec'", "parsec"},
      {"unit=\"MiB\"", "unit='KiB'", "multiple"},
      {"current=\"2\"", "current=\"two\"", "no number"},
      {"</domain>", "", "byte"}};
  ASSERT_TRUE(vm::from_xml(with("", ""))) << vm::from_xml(with("", "")).error().text;
  for (const auto& [from, to, words] : cases) {
    const auto got = vm::from_xml(with(from, to));
    EXPECT_FALSE(got) << to;
    if (got) continue;
    EXPECT_EQ(got.error().code, Code::invalid);
    if (std::string(words) != "<disk") {
      EXPECT_NE(got.error().text.find(words), std::string::npos) << to << ": " << got.error().text;
    }
  }
  EXPECT_FALSE(vm::from_xml(""));
  EXPECT_FALSE(vm::from_xml("<network/>"));
  EXPECT_FALSE(vm::from_xml(std::string(vm::kMaxXmlBytes + 1, ' ')));
  EXPECT_FALSE(
      vm::from_xml("<!DOCTYPE x [<!ENTITY a SYSTEM '/etc/shadow'>]><domain type='kvm'>"
                   "<name>&a;</name></domain>"));
}

RC_GTEST_PROP(Import, BytesOfWhateverKindAreTakenOrRefused, ()) {
  std::string xml = with("", "");
  const auto at = *rc::gen::inRange<size_t>(0, xml.size());
  const auto bytes = *rc::gen::arbitrary<std::string>();
  const auto cut = *rc::gen::inRange<size_t>(0, 64);
  xml.replace(at, std::min(cut, xml.size() - at), bytes);
  const auto got = vm::from_xml(xml);
  if (!got) RC_ASSERT(got.error().code == Code::invalid);
}

TEST(Domain, AStrangersDomainIsNoneOfOurs) {
  for (const char* xml : {"", "<domain/>", "<domain><metadata/></domain>", "no xml",
                          "<domain><metadata><scribe:vm xmlns:scribe='urn:else' id='1' "
                          "run='1'/></metadata></domain>",
                          "<domain><metadata><scribe:vm xmlns:scribe='urn:scribe:domain:1' id='x' "
                          "run='1'/></metadata></domain>",
                          "<domain><metadata><scribe:vm xmlns:scribe='urn:scribe:domain:1' "
                          "id='1'/></metadata></domain>"})
    EXPECT_EQ(vm::domain_of(xml).error().code, Code::not_found) << xml;
}

TEST(Domain, ItHasRoomForMoreVcpusThanItHas) {
  meta::Vm vm = some_vm();
  const std::string before = vm::domain_xml(vm, {}, "br-lan");
  EXPECT_EQ(vm::vcpus_of(before), 2U);
  EXPECT_NE(before.find("current=\"2\">8</vcpu>"), std::string::npos);
  EXPECT_NE(before.find("cores=\"8\""), std::string::npos);
  EXPECT_EQ(vm::from_xml(before)->vm.vcpus, 2U);
  // A domain that is described while it runs is the one that it began as.
  vm.run_vcpus = 2;
  vm.vcpus = 5;
  EXPECT_NE(vm::domain_xml(vm, {}, "br-lan").find("current=\"5\">8</vcpu>"), std::string::npos);
  vm.run_vcpus = 0;
  vm.vcpus = vm::kMaxVcpus;
  EXPECT_EQ(vm::most_vcpus(vm), vm::kMaxVcpus);
  EXPECT_EQ(vm::vcpus_of("<domain><vcpu>3</vcpu></domain>"), 3U);
  EXPECT_EQ(vm::vcpus_of("none"), 0U);
}

TEST(Domain, MemoryIsPluggedInWhereItsMostIsMore) {
  meta::Vm vm = some_vm();
  const std::string without = vm::domain_xml(vm, {}, "br-lan");
  EXPECT_EQ(without.find("maxMemory"), std::string::npos);
  EXPECT_EQ(without.find("<numa>"), std::string::npos)
      << "to no guest's loss that has no use for it";
  vm.memory_mib = 1024;
  vm.max_memory_mib = 4096;
  const std::string xml = vm::domain_xml(vm, {}, "br-lan");
  for (const char* part : {"<maxMemory slots=\"32\" unit=\"MiB\">4096</maxMemory>",
                           "<cell id=\"0\" cpus=\"0-7\" memory=\"1024\" unit=\"MiB\" />"})
    EXPECT_NE(xml.find(part), std::string::npos) << part << "\n" << xml;
  const auto back = vm::from_xml(xml);
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(back->vm.memory_mib, 1024U);
  EXPECT_EQ(back->vm.max_memory_mib, 4096U);
  EXPECT_TRUE(back->left_out.empty());
  EXPECT_EQ(vm::memory_of("<domain><memory unit='KiB'>1179648</memory></domain>"), 1152U);
  EXPECT_EQ(vm::memory_of("<domain><memory unit='furlong'>1</memory></domain>"), 0U);
  EXPECT_EQ(vm::memory_of("none"), 0U);
  const std::string more = vm::memory_xml(128);
  for (const char* part :
       {"<memory model=\"dimm\">", "<size unit=\"MiB\">128</size>", "<node>0</node>"})
    EXPECT_NE(more.find(part), std::string::npos) << part << "\n" << more;
  // One that was exported by libvirt while it had that.
  const auto plugged = [&](const std::string& device) {
    std::string out = xml;
    return vm::from_xml(out.insert(out.find("</devices>"), device));
  };
  EXPECT_TRUE(plugged(more));
  EXPECT_FALSE(
      plugged("<memory model='nvdimm'><source><path>/etc/shadow</path></source></memory>"));
  EXPECT_FALSE(plugged("<memory model='dimm'><source><path>/etc/shadow</path></source></memory>"));
}

TEST(Cpus, TheNewestThatAllHaveIsTheBaseline) {
  EXPECT_EQ(vm::usable_models(R"(<domainCapabilities><cpu>
      <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC-Rome</model></mode>
      <mode name='custom' supported='yes'>
        <model usable='yes' vendor='unknown'>qemu64</model>
        <model usable='no' vendor='AMD'>EPYC-Milan</model>
        <model usable='yes' vendor='AMD'>EPYC</model>
      </mode></cpu></domainCapabilities>)"),
            (std::vector<std::string>{"qemu64", "EPYC"}));
  EXPECT_TRUE(vm::usable_models("none").empty());
  EXPECT_TRUE(vm::usable_models("").empty());
  EXPECT_EQ(vm::baseline_of({}), vm::kOldestCpu);
  EXPECT_EQ(vm::baseline_of({{"Nehalem", "Haswell-noTSX", "EPYC"}}), "EPYC")
      << "AMD's can give some of Intel's models";
  EXPECT_EQ(vm::baseline_of({{"Nehalem", "Haswell-noTSX", "EPYC"}, {"Haswell-noTSX", "Nehalem"}}),
            "Haswell-noTSX");
  EXPECT_EQ(vm::baseline_of({{"Nehalem"}, {"Haswell-noTSX"}}), vm::kOldestCpu);
}

TEST(Domain, ABaselineIsTheModelThatItsRunBeganWith) {
  meta::Vm vm = some_vm();
  vm.cpu = "baseline";
  vm.run_cpu = "Haswell-noTSX";
  const std::string xml = vm::domain_xml(vm, {}, "br-lan");
  EXPECT_NE(xml.find("<model>Haswell-noTSX</model>"), std::string::npos) << xml;
  EXPECT_EQ(vm::from_xml(xml)->vm.cpu, "baseline");
}

TEST(Domain, AnAgentIsThereWhereItListens) {
  meta::Vm vm;
  vm.name = "a";
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  vm.uuid = "12345678-1234-4234-8234-123456789abc";
  vm.memory_mib = 64;
  const std::string xml = vm::domain_xml(vm, {}, "br-lan");
  EXPECT_FALSE(vm::has_agent(xml)) << "nobody has said yet that it does";
  const std::string target = "name=\"org.qemu.guest_agent.0\"";
  ASSERT_NE(xml.find(target), std::string::npos);
  const auto with = [&](const std::string& state) {
    std::string out = xml;
    return out.replace(out.find(target), target.size(), target + " state='" + state + "'");
  };
  EXPECT_TRUE(vm::has_agent(with("connected")));
  EXPECT_FALSE(vm::has_agent(with("disconnected")));
  EXPECT_FALSE(
      vm::has_agent("<domain><devices><channel><target name='another' state='connected'/>"
                    "</channel></devices></domain>"));
  EXPECT_FALSE(vm::has_agent("none"));
  EXPECT_TRUE(vm::from_xml(xml)->left_out.empty());
}

TEST(Domain, NetworkInterfacesAreAtBridges) {
  meta::Vm vm = some_vm();
  vm.nics = {{0, "52:54:00:00:00:01", "br-dmz", 0, "virtio", true},
             {1, "52:54:00:00:00:02", "br0", 0, "e1000e", true}};
  const std::string xml = vm::domain_xml(vm, {}, "br-lan");
  for (const char* part : {"<interface type=\"bridge\">", "address=\"52:54:00:00:00:01\"",
                           "bridge=\"br-dmz\"", "type=\"e1000e\""})
    EXPECT_NE(xml.find(part), std::string::npos) << part << "\n" << xml;
}

TEST(Domain, DisksAreBlockDevicesInTheirOrderPastThePageCache) {
  const std::string xml = vm::domain_xml(some_vm(),
                                         {{"/dev/mapper/scribe-a", "virtio", "vsd-1"},
                                          {"/dev/mapper/scribe-b", "scsi", "vsd-2"},
                                          {"/dev/mapper/scribe-c", "virtio", "vsd-3"},
                                          {"/dev/mapper/scribe-d", "sata", "vsd-4"}},
                                         "br-lan");
  for (const char* part :
       {"dev=\"vda\" bus=\"virtio\"", "dev=\"sda\" bus=\"scsi\"", "dev=\"vdb\" bus=\"virtio\"",
        "dev=\"sdb\" bus=\"sata\"", "cache=\"none\"", "io=\"native\"", "discard=\"unmap\"",
        "error_policy=\"enospace\"", "model=\"virtio-scsi\"", "<boot order=\"1\" />"})
    EXPECT_NE(xml.find(part), std::string::npos) << part << "\n" << xml;
  EXPECT_EQ(xml.find("type=\"file\""), std::string::npos);
}

}  // namespace
