// SPDX-License-Identifier: GPL-2.0
// What was done to the cluster, by whom and when.
#include "policy/events.h"

#include <gtest/gtest.h>

#include "policy_leader.h"
#include "vm/domain.h"

namespace {

namespace json = boost::json;
using meta::Event;
using policy_tests::Leader;

class Events : public ::testing::Test {
 protected:
  Events() { leader.found(2); }
  std::vector<Event> all(const std::string& about = "", uint64_t most = 100) {
    return leader.cluster().events(about, most).value();
  }
  uint64_t create(const std::string& name) {
    return leader
        .say({{"op", "vm_create"},
              {"name", name},
              {"uuid", "uuid-of-" + name},
              {"machine", vm::kMachine},
              {"vcpus", 1},
              {"memory_mib", 512},
              {"disks", json::array{}},
              {"by", "somebody"}},
             2)
        ->at("vm")
        .to_number<uint64_t>();
  }

  Leader leader;
};

TEST_F(Events, EachNamesWhoDidWhatToWhatAndHow) {
  leader.now = 1000;
  const uint64_t id = create("a");
  const Event made = all().front();
  EXPECT_EQ(made.what, "vm create");
  EXPECT_EQ(made.object, "VM a");
  EXPECT_EQ(all("a").size(), 1U);
  EXPECT_EQ(made.who, "somebody");
  EXPECT_EQ(made.at, 1000);
  EXPECT_EQ(made.details.find("uuid"), std::string::npos);
  EXPECT_NE(made.details.find("memory_mib=512"), std::string::npos);
  leader.say({{"op", "vm_delete"}, {"vm", id}, {"keep_disks", true}}, 2).value();
  const Event gone = all().front();
  EXPECT_EQ(gone.object, "VM a") << "its name is known though it is gone";
  EXPECT_EQ(gone.who, "node n2");
}

TEST_F(Events, ObjectsAreCalledByTheirNames) {
  const uint64_t vsd = leader.make_vsd();
  EXPECT_EQ(all().front().object, "VSD v");
  leader.say({{"op", "open"}, {"vsd", vsd}, {"node", 2}}).value();
  EXPECT_EQ(all().front().object, "VSD v");
  EXPECT_EQ(all().front().details, "node=2");
  leader.say({{"op", "snapshot"}, {"name", "s"}, {"vsds", json::array{json::object{{"vsd", vsd}}}}})
      .value();
  EXPECT_EQ(all().front().object, "VSD v@s");
  EXPECT_EQ(all("v").size(), 2U);
  EXPECT_EQ(all("VSD v").size(), 2U);
  leader.say({{"op", "node_drain"}, {"node", 2}, {"drain", "on"}}).value();
  EXPECT_EQ(all().front().object, "node n2");
  EXPECT_EQ(all().front().details, "drain=on");
  EXPECT_TRUE(all("%").empty());
}

TEST_F(Events, WhatWasRefusedOrRepeatedIsNotNoted) {
  const size_t before = all().size();
  create("a");
  EXPECT_FALSE(leader.say({{"op", "vm_create"},
                           {"name", "a"},
                           {"uuid", "x"},
                           {"machine", vm::kMachine},
                           {"vcpus", 1},
                           {"memory_mib", 512},
                           {"disks", json::array{}}}));
  EXPECT_FALSE(leader.say({{"op", "vm_delete"}, {"vm", 77}, {"keep_disks", true}}));
  // Not one that makes no sense, either.
  EXPECT_EQ(leader.refusal({{"op", "snapshot"}, {"name", 7}, {"vsds", "all"}}),
            core::Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "vm_create"}, {"name", 7}}), core::Code::invalid);
  EXPECT_EQ(leader.refusal({{"op", "vm_delete"}, {"vm", -1}}), core::Code::invalid);
  EXPECT_EQ(all().size(), before + 1);
}

TEST_F(Events, SecretsAndWhatGoesOnAllTheTimeAreNotThere) {
  const size_t before = all().size();
  leader.say({{"op", "token_add"}, {"hash", "deadbeef"}, {"expires", 2'000'000'000}}).value();
  leader.say({{"op", "seen"}, {"node", 1}, {"index", 3}}).value();
  ASSERT_EQ(all().size(), before + 1);
  EXPECT_EQ(all().front().what, "cluster token");
  EXPECT_EQ(all().front().details, "");
}

TEST_F(Events, WhatAGuestIsGivenIsNotThere) {
  leader
      .say({{"op", "vm_edit"},
            {"vm", create("a")},
            {"user_data", "#cloud-config\npassword: secret\n"},
            {"by", "somebody"}},
           2)
      .value();
  EXPECT_EQ(all().front().details, "user_data=(31 bytes)");
}

TEST_F(Events, WhatIsTriedAgainAndAgainIsNotThere) {
  leader
      .say({{"op", "capacity"},
            {"node", 1},
            {"life", 100},
            {"memory_mib", 1024},
            {"cpus", 4},
            {"cpu", "a kind"},
            {"problem", ""},
            {"lan_bridge", ""},
            {"uplink", ""},
            {"lan_problem", ""},
            {"models", ""}})
      .value();
  const uint64_t id = create("a");
  leader.say({{"op", "vm_start"}, {"vm", id}, {"on", 1}}).value();
  leader.say({{"op", "node_down"}, {"node", 1}, {"life", 100}}).value();
  leader.say({{"op", "fenced"}, {"node", 1}, {"life", 100}, {"witness", 2}}, 2).value();
  for (int i = 0; i < 3; i++) {
    leader.now += 1000;
    leader.say({{"op", "vm_recover"}, {"vm", id}}, 2).value();
  }
  EXPECT_EQ(leader.cluster().vms()->at(0).state, "waiting");
  EXPECT_EQ(all("a").front().what, "vm start");
}

TEST_F(Events, WhatSchedulesDoIsNotThere) {
  const uint64_t vsd = leader.make_vsd();
  leader.say({{"op", "snapshot"}, {"name", "s"}, {"vsds", json::array{json::object{{"vsd", vsd}}}}})
      .value();
  const uint64_t snapshot = leader.cluster().snapshots()->at(0).id.value;
  const size_t before = all().size();
  leader.say({{"op", "snapshot_delete"}, {"snapshot", snapshot}}).value();
  EXPECT_EQ(all().size(), before);
  leader.say({{"op", "snapshot"}, {"name", "t"}, {"vsds", json::array{json::object{{"vsd", vsd}}}}})
      .value();
  leader
      .say({{"op", "snapshot_delete"},
            {"snapshot", leader.cluster().snapshots()->at(0).id.value},
            {"by", "somebody"}})
      .value();
  EXPECT_EQ(all().front().what, "snapshot delete");
  EXPECT_EQ(all().front().object, "VSD v@t");
}

TEST_F(Events, TheNewestAreKeptAndFoundByWhatTheyAreAbout) {
  create("a");
  for (uint64_t i = 0; i < policy::kEventsKept + 5; i += 50) {
    std::vector<policy::Proposal> many;
    leader.now++;
    for (uint64_t j = 0; j < 50; j++)
      many.push_back({{1},
                      5000 + i,
                      j + 1,
                      j,
                      {{"op", "set"}, {"name", "grace_seconds"}, {"value", (i + j) % 100}}});
    leader.entry(many);
  }
  EXPECT_EQ(all("", 2 * policy::kEventsKept).size(), policy::kEventsKept);
  EXPECT_TRUE(all("a").empty()) << "that one is too old";
  EXPECT_EQ(all("grace_seconds", 3).size(), 3U);
}

TEST_F(Events, ALongOneIsCut) {
  const uint64_t id = create("a");
  leader.say({{"op", "vm_edit"}, {"vm", id}, {"description", std::string(4000, 'x')}}).value();
  EXPECT_LT(all().front().details.size(), 400U);
  // Wherever it is cut, what is left is text: Boost.JSON reads nothing else.
  for (size_t before = 0; before < 4; before++) {
    std::string text(before, 'x');
    text += "a\nb";
    for (int i = 0; i < 500; i++) text += "\xe2\x82\xac";
    leader.say({{"op", "vm_edit"}, {"vm", id}, {"description", text}}).value();
    const std::string details = all().front().details;
    EXPECT_LT(details.size(), 400U);
    EXPECT_EQ(details.find('\n'), std::string::npos);
    EXPECT_NO_THROW(json::parse(json::serialize(json::value(details)))) << before;
  }
}

}  // namespace
