// SPDX-License-Identifier: GPL-2.0
// What tests of virtual machines have in common: a cluster that has one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "policy_leader.h"
#include "vm/domain.h"

namespace policy_tests {

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

}  // namespace policy_tests
