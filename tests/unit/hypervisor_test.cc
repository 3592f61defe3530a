// SPDX-License-Identifier: GPL-2.0
// The adapter of libvirt, with the driver that libvirt has for tests.
#include "hypervisor/hypervisor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "vm/domain.h"

namespace {

using hypervisor::Hypervisor;
using hypervisor::State;

constexpr const char* kUuid = "12345678-1234-4234-8234-123456789abc";

std::string xml() {
  meta::Vm vm;
  vm.id = 5;
  vm.run = 2;
  vm.name = "guest";
  vm.uuid = kUuid;
  vm.memory_mib = 64;
  vm.machine = vm::kMachine;
  vm.cpu = "host";
  std::string out =
      vm::domain_xml(vm, {{"/dev/mapper/scribe-guest-0", "virtio", "vsd-1"}}, "br-lan");
  // Its driver runs domains of its own kind alone.
  return out.replace(out.find("type=\"kvm\""), 10, "type=\"test\"");
}

std::string become(Hypervisor& hypervisor, const std::string& how) {
  for (int i = 0; i < 600; i++) {
    if (hypervisor.ended(kUuid) == how) return how;
    usleep(50'000);
  }
  return "nothing";
}

State state(Hypervisor& hypervisor) {
  const auto all = hypervisor.domains().value();
  for (const auto& one : all)
    if (one.uuid == kUuid) return one.state;
  return State::ending;
}

TEST(Hypervisor, ADomainIsRunHeldAndEnded) {
  auto libvirt = Hypervisor::open("test:///default").value();
  EXPECT_TRUE(libvirt->alive());
  const size_t before = libvirt->domains()->size();
  libvirt->create(xml()).value();
  EXPECT_EQ(libvirt->domains()->size(), before + 1);
  EXPECT_EQ(state(*libvirt), State::running);
  EXPECT_EQ(vm::domain_of(libvirt->xml(kUuid).value())->run, 2U) << "it kept what we wrote into it";
  libvirt->suspend(kUuid).value();
  EXPECT_EQ(state(*libvirt), State::paused);
  libvirt->resume(kUuid).value();
  EXPECT_EQ(state(*libvirt), State::running);
  libvirt->reboot(kUuid).value();
  EXPECT_EQ(state(*libvirt), State::running);
  EXPECT_TRUE(libvirt->stats(kUuid));
  EXPECT_EQ(libvirt->stats("12345678-1234-4234-8234-000000000000").error().code,
            core::Code::not_found);
  EXPECT_FALSE(libvirt->progress(kUuid)) << "this driver moves none";
  EXPECT_EQ(libvirt->stopped_to_move(kUuid), std::nullopt);
  libvirt->destroy(kUuid).value();
  EXPECT_EQ(libvirt->domains()->size(), before);
  EXPECT_EQ(become(*libvirt, "failed"), "failed");
  EXPECT_EQ(libvirt->ended(kUuid), "") << "that was said";
}

TEST(Hypervisor, ADomainGetsMoreVcpusAsFarAsItHasRoomForThem) {
  auto libvirt = Hypervisor::open("test:///default").value();
  libvirt->create(xml()).value();
  EXPECT_EQ(vm::vcpus_of(libvirt->xml(kUuid).value()), 1U);
  libvirt->set_vcpus(kUuid, 3).value();
  EXPECT_EQ(vm::vcpus_of(libvirt->xml(kUuid).value()), 3U);
  EXPECT_FALSE(libvirt->set_vcpus(kUuid, 5));
  libvirt->destroy(kUuid).value();
}

TEST(Hypervisor, AGuestThatPowersOffIsToldFromOneThatIsEnded) {
  auto libvirt = Hypervisor::open("test:///default").value();
  libvirt->create(xml()).value();
  libvirt->shutdown(kUuid).value();
  EXPECT_EQ(become(*libvirt, "shutdown"), "shutdown");
}

TEST(Hypervisor, ErrorsSayWhatLibvirtSays) {
  auto libvirt = Hypervisor::open("test:///default").value();
  const auto bad = libvirt->create("<domain/>");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().text.find("libvirt: "), std::string::npos);
  EXPECT_EQ(libvirt->destroy(kUuid).error().code, core::Code::not_found);
  EXPECT_EQ(libvirt->xml(kUuid).error().code, core::Code::not_found);
  EXPECT_FALSE(Hypervisor::open("nothing:///here"));
}

}  // namespace
