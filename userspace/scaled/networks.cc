// SPDX-License-Identifier: GPL-2.0
#include "networks.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent.h"
#include "vm/nics.h"

namespace scaled {

using core::Code;
using core::Error;
using core::Result;

namespace {

constexpr std::chrono::milliseconds kLinksLookEvery{1'000};
constexpr std::chrono::milliseconds kLinksCalm{100};  // a link that comes up changes several times
constexpr const char* kSubject = "networks";

const char* word_of(net::Step::What what) {
  using What = net::Step::What;
  switch (what) {
    case What::add_bond:
      return "a bond is made";
    case What::add_bridge:
      return "a bridge is made";
    case What::add_vlan:
      return "a VLAN is made";
    case What::set_bond:
      return "a bond is set";
    case What::set_master:
      return "becomes a port";
    case What::set_up:
      return "up";
    case What::set_down:
      return "down";
    case What::move_addresses:
      return "its addresses and routes move";
    case What::remove:
      return "removed";
  }
  return "";
}

}  // namespace

Networks::Networks(const Paths& paths, const Config& config) : paths_(paths), config_(config) {
  if (const auto kept = keep(); !kept) spdlog::error("networks: {}", kept.error().text);
}

void Networks::run(Agent& agent) {
  thread_ = std::jthread([this, &agent](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto kept = keep();
      say(agent, kept ? *kept : Conditions{{kSubject, kept.error().text}});
      if (netlink_)
        netlink_->wait(kLinksLookEvery);
      else
        std::this_thread::sleep_for(kLinksLookEvery);
      std::this_thread::sleep_for(kLinksCalm);
    }
  });
}

void Networks::say(Agent& agent, const Conditions& conditions) {
  for (const auto& [subject, text] : said_)
    if (!conditions.contains(subject)) agent.set_condition(subject, "");
  for (const auto& [subject, text] : conditions) agent.set_condition(subject, text);
  said_ = conditions;
}

// What the metadata of this node says, which may be behind: then it is done a moment later.
Result<void> Networks::read(net::Wanted& wanted) {
  wanted.lan = config_.lan;
  wanted.backplane = config_.backplane;
  meta::Cluster cluster(*database_);
  const auto bonds = cluster.bonds();
  if (!bonds) return bonds.error();
  for (const meta::Bond& bond : *bonds) {
    if (bond.node != config_.node) continue;
    (bond.network == "lan" ? wanted.lan_ports : wanted.backplane_ports) =
        net::Uplink{bond.ports, bond.preferred};
  }
  std::string named;
  for (const auto& uplink : {wanted.lan_ports, wanted.backplane_ports}) {
    named += "/";
    if (uplink)
      for (const std::string& port : uplink->ports) named += port + " ";
  }
  // Said anew, they are tried anew.
  if (named != named_) refused_.clear();
  named_ = named;
  wanted.refused = refused_;
  const auto vlans = cluster.vlans();
  if (!vlans) return vlans.error();
  for (const uint64_t tag : *vlans) wanted.vlans.insert(static_cast<uint16_t>(tag));
  return {};
}

Result<Networks::Conditions> Networks::make(const net::Wanted& wanted) {
  const net::Plan plan = net::plan(wanted, links_);
  Conditions out = plan.problems;
  for (const net::Step& step : plan.steps) {
    const auto done = netlink_->apply(step);
    if (done) {
      spdlog::info("{}{}: {}", step.link, step.other.empty() ? "" : " (" + step.other + ")",
                   word_of(step.what));
      continue;
    }
    // What is behind it relies on it. It is planned anew.
    out["link " + step.link] = word_of(step.what) + (": " + done.error().text);
    take_back(step, done.error().text);
    break;
  }
  if (plan.steps.empty()) return out;
  auto links = netlink_->links();
  if (!links) return links.error();
  links_ = std::move(*links);
  return out;
}

// The node is to be reached as before, and not to be cut off once more each second.
void Networks::take_back(const net::Step& failed, const std::string& why) {
  const auto links = netlink_->links();
  if (!links) return;
  const auto steps = net::undo(failed, *links);
  if (failed.what == net::Step::What::set_master) refused_[failed.link] = why;
  for (const net::Step& step : steps) {
    const auto done = netlink_->apply(step);
    spdlog::warn("{}: {} again{}", step.link, word_of(step.what),
                 done ? "" : ": " + done.error().text);
  }
}

Result<Networks::Conditions> Networks::keep() {
  const std::lock_guard lock(mutex_);
  if (!netlink_) {
    auto opened = net::Netlink::open();
    if (!opened) return opened.error();
    netlink_ = std::move(*opened);
  }
  if (!database_) {
    auto opened = meta::Database::open_reader(paths_.database());
    if (!opened) return opened.error();
    database_ = std::move(*opened);
  }
  net::Wanted wanted;
  CORE_TRY(read(wanted));
  auto links = netlink_->links();
  if (!links) return links.error();
  links_ = std::move(*links);
  auto out = make(wanted);
  if (!out) return out;
  lan_ = net::lan_of(wanted, links_);
  const auto seen = watch_.look(wanted, links_, std::chrono::steady_clock::now());
  out->insert(seen.conditions.begin(), seen.conditions.end());
  if (seen.switched) announce();
  return out;
}

// The bond itself tells of the node's own address alone. A switch that was not told sends what is
// for a guest to the port that was used before, until the guest says something.
void Networks::announce() {
  const auto vms = meta::Cluster(*database_).vms();
  if (!vms) return;
  size_t told = 0;
  for (const meta::Vm& vm : *vms) {
    if (vm.node != config_.node) continue;
    for (const meta::VmNic& nic : vm.nics) {
      const std::string bridge = vm::bridge_of(nic, lan_.bridge);
      if (!nic.connected || (nic.vlan == 0 && bridge != lan_.bridge)) continue;
      const std::string by =
          nic.vlan == 0 ? lan_.uplink : net::link_of(static_cast<uint16_t>(nic.vlan));
      if (const auto done = net::announce(by, nic.mac))
        told++;
      else
        spdlog::warn("VM {}: {}", vm.name, done.error().text);
    }
  }
  spdlog::info("another port of the LAN is used: told of {} network interfaces of guests", told);
}

Result<void> Networks::ready(const meta::Vm& vm) {
  if (vm.nics.empty()) return {};
  const auto kept = keep();
  if (!kept) return kept.error();
  const std::lock_guard lock(mutex_);
  for (const meta::VmNic& nic : vm.nics) {
    const std::string bridge = vm::bridge_of(nic, lan_.bridge);
    if (bridge.empty()) return Error{Code::conflict, lan_.problem};
    if (std::any_of(links_.begin(), links_.end(), [&](const net::Link& link) {
          return link.name == bridge && link.kind == "bridge";
        }))
      continue;
    if (nic.vlan == 0) return Error{Code::conflict, "there is no bridge " + bridge};
    const auto why = kept->find("VLAN " + std::to_string(nic.vlan));
    return Error{Code::conflict, "VLAN " + std::to_string(nic.vlan) + ": " +
                                     (why != kept->end()    ? why->second
                                      : lan_.uplink.empty() ? lan_.problem
                                                            : "is not there")};
  }
  return {};
}

net::Lan Networks::lan() const {
  const std::lock_guard lock(mutex_);
  return lan_;
}

}  // namespace scaled
