// SPDX-License-Identifier: GPL-2.0
#include "policy/hosts.h"

#include <algorithm>
#include <array>
#include <map>

#include "vm/cpus.h"

namespace policy {

namespace {

uint64_t free_memory(const Host& host) {
  return host.memory_mib - std::min(host.memory_mib, host.used_memory_mib);
}

// Why a host does not take a guest; empty where it does.
std::string refusal(const Host& host, const Guest& guest) {
  if (!host.problem.empty()) return host.problem;
  if (guest.vcpus > host.cpus) return "has " + std::to_string(host.cpus) + " CPUs";
  if (guest.memory_mib > free_memory(host))
    return "has " + std::to_string(free_memory(host)) + " MiB of memory left";
  if ((guest.on_lan && !host.has_lan) || (guest.in_vlan && !host.has_vlans))
    return "has not its networks (" + host.lan_problem + ")";
  if (guest.model.empty() || guest.model == vm::kOldestCpu) return "";
  if (host.models.empty()) return "has not said yet which CPUs it can give to guests";
  if (std::find(host.models.begin(), host.models.end(), guest.model) == host.models.end())
    return "has no CPU like " + guest.model;
  return "";
}

// How far a host is from what is wished for, the most important first.
std::array<bool, 3> misses(const Host& host, const Guest& guest) {
  return {!guest.apart.empty() && host.apart.contains(guest.apart),
          !guest.together.empty() && !host.together.contains(guest.together),
          guest.preferred && host.node != guest.preferred};
}

void put_on(Host& host, const Guest& guest) {
  host.used_memory_mib += guest.memory_mib;
  host.used_vcpus += guest.vcpus;
  if (!guest.apart.empty()) host.apart.insert(guest.apart);
  if (!guest.together.empty()) host.together.insert(guest.together);
}

bool is_better(const Host& a, const Host& b, const Guest& guest) {
  const auto a_misses = misses(a, guest);
  const auto b_misses = misses(b, guest);
  if (a_misses != b_misses) return a_misses < b_misses;
  if (free_memory(a) != free_memory(b)) return free_memory(a) > free_memory(b);
  if (a.used_vcpus * b.cpus != b.used_vcpus * a.cpus)
    return a.used_vcpus * b.cpus < b.used_vcpus * a.cpus;
  return a.node < b.node;
}

// In the order in which they are restarted: by priority, then the large ones, which fit less
// easily.
std::vector<Guest> in_order(std::vector<Guest> guests) {
  std::sort(guests.begin(), guests.end(), [](const Guest& a, const Guest& b) {
    if (a.priority != b.priority) return a.priority > b.priority;
    if (a.memory_mib != b.memory_mib) return a.memory_mib > b.memory_mib;
    return a.id < b.id;
  });
  return guests;
}

}  // namespace

Guest guest_of(const meta::Vm& vm) {
  Guest out;
  out.id = vm.id;
  out.name = vm.name;
  out.memory_mib = vm.memory_mib;
  out.vcpus = vm.vcpus;
  out.model = vm.run_cpu;
  out.priority = vm.priority;
  out.node = vm.node;
  out.preferred = vm.preferred;
  out.apart = vm.apart;
  out.together = vm.together;
  for (const meta::VmNic& nic : vm.nics) {
    out.on_lan = out.on_lan || (nic.bridge.empty() && nic.vlan == 0);
    out.in_vlan = out.in_vlan || nic.vlan != 0;
  }
  return out;
}

std::vector<Host> hosts_of(const std::vector<meta::Node>& nodes,
                           const std::vector<meta::Capacity>& capacities,
                           const std::vector<meta::Vm>& vms, uint64_t without_vm) {
  std::vector<Host> out;
  for (const meta::Node& node : nodes) {
    if (node.state == "removed" || node.state == "new") continue;
    Host host;
    host.node = node.id;
    host.name = node.name;
    const auto has = std::find_if(capacities.begin(), capacities.end(),
                                  [&](const auto& one) { return one.node == node.id; });
    if (node.state != "up") {
      host.problem = "is down";
    } else if (node.leaving) {
      host.problem = "leaves the cluster";
    } else if (!node.drain.empty()) {
      host.problem = "is drained";
    } else if (has == capacities.end() || has->life != node.life) {
      host.problem = "has not said yet what it can run";
    } else {
      host.problem = has->problem;
      host.memory_mib = has->memory_mib;
      host.cpus = has->cpus;
      host.has_lan = !has->lan_bridge.empty();
      host.has_vlans = !has->uplink.empty();
      host.lan_problem = has->lan_problem;
      host.models = has->models;
    }
    for (const meta::Vm& vm : vms) {
      if ((vm.node != node.id && vm.to_node != node.id) || vm.id == without_vm) continue;
      put_on(host, guest_of(vm));
    }
    out.push_back(std::move(host));
  }
  return out;
}

core::Result<core::NodeId> choose_host(const std::vector<Host>& hosts, const Guest& guest,
                                       uint64_t failures) {
  std::vector<const Host*> fit;
  std::string why;
  for (const Host& host : hosts) {
    const std::string no = refusal(host, guest);
    if (no.empty())
      fit.push_back(&host);
    else
      why += (why.empty() ? "" : "; ") + host.name + " " + no;
  }
  std::sort(fit.begin(), fit.end(),
            [&](const Host* a, const Host* b) { return is_better(*a, *b, guest); });
  if (!fit.empty()) return fit[failures % fit.size()]->node;
  return core::Error{core::Code::no_space, "no node has room for VM " + guest.name + " (" +
                                               std::to_string(guest.memory_mib) + " MiB, " +
                                               std::to_string(guest.vcpus) +
                                               " vCPUs): " + (why.empty() ? "there is none" : why)};
}

std::vector<std::string> without_headroom(const std::vector<Host>& hosts,
                                          const std::vector<Guest>& guests) {
  std::vector<std::string> out;
  for (const Host& lost : hosts) {
    std::vector<Host> rest = hosts;
    std::erase_if(rest, [&](const Host& one) { return one.node == lost.node; });
    std::vector<Guest> homeless = guests;
    std::erase_if(homeless, [&](const Guest& one) { return one.node != lost.node; });
    std::string names;
    for (Guest& guest : in_order(homeless)) {
      guest.model.clear();  // it would be started anew
      const auto chosen = choose_host(rest, guest);
      if (!chosen) {
        names += (names.empty() ? "" : ", ") + guest.name;
        continue;
      }
      for (Host& host : rest) {
        if (host.node == *chosen) put_on(host, guest);
      }
    }
    if (!names.empty())
      out.push_back("were node " + lost.name + " lost, there would be no room for " + names);
  }
  return out;
}

std::vector<std::string> not_apart(const std::vector<meta::Node>& nodes,
                                   const std::vector<meta::Vm>& vms) {
  std::map<std::pair<std::string, core::NodeId>, std::vector<std::string>> crowds;
  for (const meta::Vm& vm : vms)
    if (!vm.apart.empty() && vm.node && !vm.to_node) crowds[{vm.apart, vm.node}].push_back(vm.name);
  std::vector<std::string> out;
  for (const auto& crowd : crowds) {
    if (crowd.second.size() < 2) continue;
    const auto& [group, on] = crowd.first;
    std::string text;
    for (const std::string& name : crowd.second) text += (text.empty() ? "" : ", ") + name;
    text.append(" are to be apart (").append(group).append("), and are on node ");
    const auto node = std::find_if(nodes.begin(), nodes.end(),
                                   [&](const auto& one) { return one.id == crowd.first.second; });
    out.push_back(text.append(node == nodes.end() ? std::to_string(on.value) : node->name));
  }
  return out;
}

}  // namespace policy
