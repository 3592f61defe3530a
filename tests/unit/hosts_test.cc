// SPDX-License-Identifier: GPL-2.0
// Which node runs a guest, and whether all would find room were one lost.
#include "policy/hosts.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace {

using policy::Guest;
using policy::Host;

Host host(uint64_t node, uint64_t memory, uint64_t cpus) {
  Host out;
  out.node = {node};
  out.name = "n" + std::to_string(node);
  out.memory_mib = memory;
  out.cpus = cpus;
  return out;
}

Guest guest_of(uint64_t memory, uint64_t node = 0, const std::string& name = "g") {
  Guest out;
  out.name = name;
  out.memory_mib = memory;
  out.vcpus = 1;
  out.priority = 4;
  out.node = {node};
  return out;
}

RC_GTEST_PROP(Hosts, MemoryIsNeverGivenTwice, ()) {
  std::vector<Host> hosts;
  for (uint64_t node = 1; node <= 3; node++)
    hosts.push_back(host(node, *rc::gen::inRange<uint64_t>(0, 8192), *rc::gen::inRange(1, 9)));
  for (int i = 0; i < 20; i++) {
    Guest guest = guest_of(*rc::gen::inRange<uint64_t>(1, 4096));
    guest.vcpus = *rc::gen::inRange<uint64_t>(1, 9);
    const auto chosen = policy::choose_host(hosts, guest);
    const bool fits = std::any_of(hosts.begin(), hosts.end(), [&](const Host& one) {
      return one.memory_mib >= one.used_memory_mib + guest.memory_mib && one.cpus >= guest.vcpus;
    });
    RC_ASSERT(chosen.has_value() == fits);
    if (!chosen) continue;
    for (Host& one : hosts) {
      if (one.node != *chosen) continue;
      one.used_memory_mib += guest.memory_mib;
      one.used_vcpus += guest.vcpus;
      RC_ASSERT(one.used_memory_mib <= one.memory_mib);
    }
  }
}

TEST(Hosts, OfNodesWithEqualMemoryTheOneWithFewerVcpusInUseIsChosen) {
  std::vector<Host> hosts = {host(1, 4096, 4), host(2, 4096, 4)};
  hosts[0].used_vcpus = 2;
  EXPECT_EQ(policy::choose_host(hosts, guest_of(1024)).value().value, 2U);
}

TEST(Hosts, WishesCountMoreThanMemoryAndLessThanRoom) {
  std::vector<Host> hosts = {host(1, 4096, 4), host(2, 3072, 4), host(3, 2048, 4)};
  const auto chosen = [&](Guest guest) {
    guest.memory_mib = 1024;
    guest.vcpus = 1;
    return policy::choose_host(hosts, guest).value().value;
  };
  Guest guest;
  EXPECT_EQ(chosen(guest), 1U);
  guest.preferred = {3};
  EXPECT_EQ(chosen(guest), 3U);
  hosts[2].used_memory_mib = 2000;
  EXPECT_EQ(chosen(guest), 1U) << "there is no room on the one that is preferred";
  hosts[2].used_memory_mib = 0;
  hosts[1].together = {"shop"};
  guest.together = "shop";
  EXPECT_EQ(chosen(guest), 2U) << "together is more than preferred";
  hosts[1].apart = {"dns"};
  guest.apart = "dns";
  EXPECT_EQ(chosen(guest), 3U) << "apart is more than together, then the preferred one";
  for (Host& one : hosts) one.apart = {"dns"};
  EXPECT_EQ(chosen(guest), 2U) << "nowhere is it alone: it runs all the same";
}

TEST(Hosts, GuestsThatAreToBeApartAreSpreadAsTheyAreRestarted) {
  const std::vector<Host> hosts = {host(1, 8192, 4), host(2, 4096, 4), host(3, 2048, 4)};
  std::vector<Guest> guests = {guest_of(1024, 1, "a"), guest_of(1024, 1, "b"),
                               guest_of(2600, 1, "c")};
  guests[0].priority = guests[1].priority = 9;
  // Both on node 2 they leave no room for c there.
  ASSERT_EQ(policy::without_headroom(hosts, guests).size(), 1U);
  guests[0].apart = guests[1].apart = "dns";
  EXPECT_TRUE(policy::without_headroom(hosts, guests).empty());
}

TEST(Hosts, WhatFailedOnOneNodeIsTriedOnTheNext) {
  std::vector<Host> hosts = {host(1, 4096, 4), host(2, 2048, 4), host(3, 512, 4)};
  const Guest guest = guest_of(1024);
  std::vector<uint64_t> tried;
  for (uint64_t failures = 0; failures < 4; failures++)
    tried.push_back(policy::choose_host(hosts, guest, failures).value().value);
  EXPECT_EQ(tried, (std::vector<uint64_t>{1, 2, 1, 2}));
}

TEST(Hosts, WhatWouldNotFitWereANodeLostIsSaid) {
  std::vector<Host> hosts = {host(1, 4096, 4), host(2, 3600, 4)};
  std::vector<Guest> guests = {guest_of(3072, 1, "a"), guest_of(400, 2, "b")};
  hosts[0].used_memory_mib = 3072;
  hosts[1].used_memory_mib = 400;
  EXPECT_TRUE(policy::without_headroom(hosts, guests).empty());
  guests.push_back(guest_of(600, 1, "c"));
  guests.back().priority = 9;
  hosts[0].used_memory_mib += 600;
  const auto wrong = policy::without_headroom(hosts, guests);
  ASSERT_EQ(wrong.size(), 1U);
  EXPECT_EQ(wrong[0], "were node n1 lost, there would be no room for a")
      << "c is the one that is restarted first";
}

}  // namespace
