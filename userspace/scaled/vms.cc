// SPDX-License-Identifier: GPL-2.0
#include "vms.h"

#include <spdlog/spdlog.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <set>

#include "core/rest.h"
#include "daemon.h"
#include "host/cpu.h"
#include "host/reset.h"
#include "policy/hosts.h"
#include "vm/cpus.h"
#include "vm/domain.h"
#include "vm/nics.h"
#include "vm_machine.h"

namespace scaled {

namespace json = boost::json;
using core::Code;
using core::Result;
using std::chrono::seconds;
using vm::Act;
using vm::Seen;

namespace {

constexpr seconds kLookEvery{1};
constexpr std::chrono::milliseconds kGuardEvery{250};
constexpr std::chrono::milliseconds kAbortEvery{100};
constexpr seconds kTellPauseFor{60};
// From a node at once: they share its network, and each that ends frees memory.
constexpr ptrdiff_t kMovesAtOnce = 2;
// A guest that was asked to power off, or to go on with a full disk, is asked again.
constexpr seconds kAskEvery{10};
// What there was no room for, or did not get through, is tried again.
constexpr seconds kLeaveEvery{30};
constexpr seconds kTidyEvery{10};
constexpr std::chrono::milliseconds kTpmTimeout{30'000};
// For an agent's answer. Guests with much to write first need longer, and are left as they are.
constexpr seconds kAgentLimit{5};
static_assert(kAgentLimit < hypervisor::Freezes::kAtMost);
constexpr const char* kSocket = "/run/libvirt/libvirt-sock";
constexpr const char* kKvm = "/dev/kvm";
constexpr uint64_t kMib = uint64_t{1} << 20;

// What the node itself needs: an eighth, a GiB at least, of a small machine half.
uint64_t memory_for_guests() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return 0;
  const uint64_t total = uint64_t{info.totalram} * info.mem_unit / kMib;
  return total - std::min(total / 2, std::max(total / 8, uint64_t{1024}));
}

std::string what_is_missing() {
  std::error_code err;
  if (!std::filesystem::exists(kKvm, err))
    return "has no hardware virtualisation (" + std::string(kKvm) + ")";
  if (!std::filesystem::exists(kSocket, err))
    return "has no libvirt (packages libvirt-daemon-system and qemu-system-x86)";
  return "";
}

Seen seen_of(hypervisor::State state) {
  switch (state) {
    case hypervisor::State::running:
      return Seen::running;
    case hypervisor::State::paused:
      return Seen::paused;
    case hypervisor::State::io_error:
      return Seen::no_space;
    case hypervisor::State::moving:
      return Seen::moving;
    default:
      return Seen::ending;
  }
}

std::string reason_of(const std::string& how) {
  if (how == "crashed") return "the guest crashed";
  if (how.empty()) return "it ended while nobody watched";
  return "QEMU ended; see /var/log/libvirt/qemu on its node";
}

Result<void> ask_to_freeze(const std::string& uuid) {
  auto opened = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!opened) return opened.error();
  return (*opened)->freeze(uuid, kAgentLimit);
}

Result<void> ask_to_thaw(const std::string& uuid) {
  auto opened = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!opened) return opened.error();
  return (*opened)->thaw(uuid, kAgentLimit);
}

void say_frozen(const std::string& uuid, const std::string& why, bool given_up) {
  if (given_up)
    spdlog::error("guest {}: its file systems may still be frozen; reset it if so: {}", uuid, why);
  else
    spdlog::warn("guest {}: its file systems may be frozen, and it is asked again: {}", uuid, why);
}

// A connection to the libvirt that has that run.
Result<std::unique_ptr<hypervisor::Hypervisor>> open_run(const std::string& uuid, uint64_t run,
                                                         std::string* xml_out = nullptr) {
  auto opened = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!opened) return opened;
  auto xml = (*opened)->xml(uuid);
  if (!xml) return xml.error();
  const auto of = vm::domain_of(*xml);
  if (!of || of->run != run) return core::Error{Code::stale, "it runs elsewhere, or anew"};
  if (xml_out != nullptr) *xml_out = std::move(*xml);
  return opened;
}

}  // namespace

Vms::Vms(Member& member)
    : member_(member),
      devices_(member),
      consoles_(member.paths().socket + ".console-"),
      freezes_(member.paths().frozen(), {ask_to_freeze, ask_to_thaw, say_frozen}),
      thread_([this](const std::stop_token& stop) { run(stop); }),
      guard_([this](const std::stop_token& stop) { guard(stop); }) {}

// A migration's thread waits for libvirt: that gives up when it is told to.
Vms::~Vms() {
  thread_.request_stop();
  thread_.join();
  for (const auto& [uuid, move] : moves_) {
    while (!move->result()) {
      // Refused until libvirt has begun.
      if (watch_.open()) (void)watch_.hypervisor->abort(uuid);
      std::this_thread::sleep_for(kAbortEvery);
    }
  }
  moves_.clear();
}

void Vms::poke() {
  const std::lock_guard lock(mutex_);
  changed_ = true;
  poked_.notify_all();
}

void Vms::rest(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  poked_.wait_until(lock, stop, Clock::now() + kLookEvery, [&] { return moving_ && changed_; });
  changed_ = false;
}

Result<void> Vms::restart(const std::string& uuid, uint64_t run, const std::string& how) {
  const auto opened = open_run(uuid, run);
  if (!opened) return opened.error();
  if (member_.expired()) return core::Error{Code::conflict, "its node is cut off from the others"};
  return how == "reset" ? (*opened)->reset(uuid) : (*opened)->reboot(uuid);
}

Result<int> screen_of(const std::string& uuid, uint64_t run) {
  const auto opened = open_run(uuid, run);
  if (!opened) return opened.error();
  return (*opened)->screen(uuid);
}

Result<uint64_t> Vms::freeze(const std::string& uuid, uint64_t run) {
  std::string xml;
  CORE_TRY(open_run(uuid, run, &xml));
  if (!vm::has_agent(xml)) return core::Error{Code::not_found, "its guest has no agent"};
  if (member_.expired()) return core::Error{Code::conflict, "its node is cut off from the others"};
  return freezes_.freeze(uuid);
}

Result<std::string> Vms::console(const meta::Vm& vm, bool screen) {
  const core::NodeId node = vm.node;
  if (!screen && node == member_.config().node) return std::string(kSocket);
  return consoles_.open([this, node, uuid = vm.uuid, run = vm.run, screen]() -> Result<int> {
    auto socket = !screen                         ? member_.peers().connect_libvirt(node)
                  : node == member_.config().node ? screen_of(uuid, run)
                                                  : member_.peers().connect_screen(node, uuid, run);
    if (!socket) spdlog::warn("console of VM {}: {}", uuid, socket.error().text);
    return socket;
  });
}

std::optional<hypervisor::Hypervisor::Progress> Vms::progress(const std::string& uuid) {
  auto opened = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!opened) return std::nullopt;
  const auto progress = (*opened)->progress(uuid);
  return progress ? *progress : std::nullopt;
}

Result<json::object> Vms::propose(json::object body) {
  return member_.replica().propose(std::move(body), Clock::now() + kProposeFor);
}

void Vms::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    rest(stop);
    if (stop.stop_requested()) return;
    if (member_.agent().life() == 0) continue;
    if (!database_) {
      auto reader = meta::Database::open_reader(member_.paths().database());
      if (!reader) continue;
      database_ = std::move(*reader);
    }
    const auto vms = meta::Cluster(*database_).vms();
    if (!vms) continue;
    report_capacity(*vms);
    if (connect(!vms->empty())) serve(*vms);
    end_moves();
    say_pauses(*vms);
    const core::NodeId self = member_.config().node;
    moving_ = !moves_.empty() || !left_.empty() ||
              std::any_of(vms->begin(), vms->end(), [&](const meta::Vm& vm) {
                return vm.to_node == self || (vm.node == self && vm.state == "arriving");
              });
    if (member_.replica().leading())
      lead(*vms);
    else
      forget();
  }
}

// Asked of libvirt when there is somebody to whom it matters: it runs QEMU to find out.
void Vms::learn_models(const std::vector<meta::Vm>& vms) {
  if (!models_.empty() || !what_is_missing().empty() ||
      std::none_of(vms.begin(), vms.end(), [](const auto& vm) { return vm.cpu == "baseline"; }))
    return;
  if (!connect(true)) return;
  const auto capabilities = watch_.hypervisor->capabilities();
  member_.agent().set_condition("CPUs of guests", capabilities ? "" : capabilities.error().text);
  if (!capabilities) return;
  models_ = vm::kOldestCpu;
  for (const std::string& model : vm::usable_models(*capabilities))
    if (model != models_) models_ += " " + model;
}

void Vms::report_capacity(const std::vector<meta::Vm>& vms) {
  learn_models(vms);
  const uint64_t life = member_.agent().life();
  const std::string problem = ends_ ? "is being shut down" : what_is_missing();
  const net::Lan lan = member_.networks().lan();
  const std::string networks = lan.bridge + "/" + lan.uplink + "/" + lan.problem;
  if (told_life_ == life && told_problem_ == problem && told_lan_ == networks &&
      told_models_ == models_)
    return;
  const auto cpus = static_cast<uint64_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  const auto said = propose({{"op", "capacity"},
                             {"node", member_.config().node.value},
                             {"life", life},
                             {"memory_mib", memory_for_guests()},
                             {"cpus", cpus},
                             {"cpu", host::cpu_kind()},
                             {"problem", problem},
                             {"lan_bridge", lan.bridge},
                             {"uplink", lan.uplink},
                             {"lan_problem", lan.problem},
                             {"models", models_}});
  if (!said) return;
  told_lan_ = networks;
  told_models_ = models_;
  told_life_ = life;
  told_problem_ = problem;
}

Result<void> Vms::Watch::open() {
  if (hypervisor && hypervisor->alive()) return {};
  known.clear();
  hypervisor.reset();
  auto opened = hypervisor::Hypervisor::open(hypervisor::kSystem);
  if (!opened) return opened.error();
  hypervisor = std::move(*opened);
  return {};
}

Result<std::vector<Vms::Ours>> Vms::Watch::ours() {
  auto domains = hypervisor->domains();
  if (!domains) return domains.error();
  std::vector<Ours> out;
  decltype(known) now;
  for (const hypervisor::Domain& domain : *domains) {
    const auto key = std::pair(domain.uuid, domain.id);
    auto at = known.find(key);
    if (at == known.end()) {
      const auto xml = hypervisor->xml(domain.uuid);
      if (!xml && xml.error().code == Code::not_found) continue;  // it ended just now
      if (!xml) return xml.error();
      const auto of = vm::domain_of(*xml);
      at = known.insert({key, of ? std::pair(of->vm, of->run) : std::pair<uint64_t, uint64_t>()})
               .first;
    }
    now.insert(*at);
    if (at->second.first != 0)
      out.push_back({domain.uuid, at->second.first, at->second.second, domain.state});
  }
  known = std::move(now);
  return out;
}

// Not needed where there is no VM: libvirt is started by whoever asks for it.
bool Vms::connect(bool needed) {
  if (!watch_.hypervisor && (!needed || !told_problem_.empty())) {
    member_.agent().set_condition("hypervisor", "");
    return false;
  }
  const auto opened = watch_.open();
  member_.agent().set_condition("hypervisor", opened ? "" : opened.error().text);
  return static_cast<bool>(opened);
}

// Others may declare this node dead now, and run its VMs: these stand still until it is renewed, or
// the node resets itself. run() lets them go on.
void Vms::guard(const std::stop_token& stop) {
  Watch watch;
  bool told = false;
  while (!stop.stop_requested()) {
    core::rest_until(stop, Clock::now() + kGuardEvery);
    if (stop.stop_requested()) return;
    if (!guests_ || !watch.open()) continue;
    const bool expired = member_.expired();
    if (!expired) {
      told = false;
      continue;
    }
    const auto domains = watch.ours();
    if (!domains) continue;
    for (const Ours& domain : *domains) {
      if (domain.state != hypervisor::State::running) continue;
      if (!told) spdlog::warn("this node's lease is over: its guests are held");
      told = true;
      if (auto done = watch.hypervisor->suspend(domain.uuid); !done)
        spdlog::error("{}", done.error().text);
    }
  }
}

// Nothing: not all of them yet; an error: one of them cannot be.
Result<bool> Vms::disks_open(const meta::Vm& vm) {
  meta::Cluster cluster(*database_);
  const auto opened = cluster.opened();
  const auto devices = cluster.devices_of(vm, member_.config().node);
  if (!opened || !devices) return false;
  size_t count = 0;
  for (const core::VsdId vsd : *devices)
    for (const meta::Opened& row : *opened) {
      if (row.node != member_.config().node || row.vsd != vsd) continue;
      if (row.state == "failed") return core::Error{Code::conflict, "a disk: " + row.error};
      count += row.state == "open";
    }
  return count == devices->size();
}

void Vms::serve(const std::vector<meta::Vm>& vms) {
  const bool assigned = std::any_of(vms.begin(), vms.end(), [&](const meta::Vm& vm) {
    return vm.node == member_.config().node && vm.life == member_.agent().life();
  });
  if (assigned) guests_ = true;
  const auto domains = watch_.ours();
  if (!domains) {
    spdlog::warn("{}", domains.error().text);
    return;
  }
  guests_ = assigned || !domains->empty();
  const bool held = member_.expired();
  std::set<uint64_t> seen;
  std::set<std::string> here;
  for (const Ours& domain : *domains) {
    seen.insert(domain.vm);
    here.insert(domain.uuid);
    const auto at =
        std::find_if(vms.begin(), vms.end(), [&](const auto& one) { return one.id == domain.vm; });
    meta::Vm vm = at == vms.end() ? meta::Vm{} : *at;
    if (at == vms.end()) vm.uuid = domain.uuid;
    failed_.erase(domain.uuid);
    const vm::View view = view_of(vm, &domain, at != vms.end());
    act(vm, view);
    if (view.here && view.this_run && !held && !vm.to_node && vm.state != "arriving")
      devices_.keep(vm, *watch_.hypervisor, *database_);
  }
  for (const meta::Vm& vm : vms) {
    if (vm.node != member_.config().node || vm.life != member_.agent().life() ||
        seen.contains(vm.id))
      continue;
    const auto open = disks_open(vm);
    const auto failed = failed_.find(vm.uuid);
    if (failed != failed_.end() && failed->second.first == vm.run && !held)
      say_ended(vm, "failed", failed->second.second);
    else if (!open && vm.state == "starting" && !held)
      say_ended(vm, "failed", open.error().text);
    else
      act(vm, view_of(vm, nullptr, true));
  }
  devices_.forget_but(here);
  if (Clock::now() < tidy_) return;
  tidy_ = Clock::now() + kTidyEvery;
  meta::Cluster cluster(*database_);
  stop_tpms(cluster, vms, member_.config().node);
  consoles_.tidy();
}

vm::View Vms::view_of(const meta::Vm& vm, const Ours* domain, bool known) {
  const core::NodeId self = member_.config().node;
  const uint64_t life = member_.agent().life();
  vm::View view;
  view.here = known && vm.node == self && vm.life == life;
  view.held = member_.expired();
  if (domain != nullptr) {
    view.this_run = domain->run == vm.run;
    view.arrives = known && vm.to_node == self && vm.to_life == life && domain->run == vm.runs;
    view.seen = seen_of(domain->state);
  } else {
    const auto open = disks_open(vm);
    view.disks_open = open && *open;
  }
  if (view.here && vm.to_node) look_at_target(vm, view);
  return view;
}

void Vms::look_at_target(const meta::Vm& vm, vm::View& view) {
  const auto move = moves_.find(vm.uuid);
  const auto result = move == moves_.end() ? std::nullopt : move->second->result();
  const bool ours = move != moves_.end() && !result;
  // It has gone since it was seen here: that is seen next time.
  const bool gone = result && *result && view.seen != Seen::absent;
  // One that an earlier run of this daemon began goes on in libvirt. Of a domain that is gone, or
  // of which libvirt says nothing, none is known.
  const auto progress = ours || gone || view.seen == Seen::absent
                            ? Result<std::optional<hypervisor::Hypervisor::Progress>>(std::nullopt)
                            : watch_.hypervisor->progress(vm.uuid);
  view.busy = ours || gone || !progress || progress->has_value();
  meta::Cluster cluster(*database_);
  const auto nodes = cluster.nodes();
  const auto opened = cluster.opened();
  const auto devices = cluster.devices_of(vm, vm.to_node);
  if (!nodes || !opened || !devices) return;
  view.target_lost = std::none_of(nodes->begin(), nodes->end(), [&](const meta::Node& one) {
    return one.id == vm.to_node && one.life == vm.to_life && one.state == "up";
  });
  size_t open = 0;
  for (const core::VsdId vsd : *devices)
    for (const meta::Opened& row : *opened) {
      if (row.node != vm.to_node || row.vsd != vsd) continue;
      open += row.state == "open";
      view.target_lost = view.target_lost || row.state == "failed";
    }
  view.target_open = open == devices->size();
}

// What guests on the LAN are at on another node.
std::string Vms::bridge_there(core::NodeId node) {
  const auto capacities = meta::Cluster(*database_).capacities();
  if (!capacities) return "";
  for (const meta::Capacity& one : *capacities)
    if (one.node == node) return one.lan_bridge;
  return "";
}

void Vms::act(const meta::Vm& vm, const vm::View& view) {
  const Act next = vm::next_act(vm, view);
  // A guest is free to take its time, and a disk to be full for long.
  const bool patient = next == Act::shutdown || view.seen == Seen::no_space;
  if (!patient) asked_.erase(vm.uuid);
  if (patient) {
    Clock::time_point& asked = asked_[vm.uuid];
    if (Clock::now() - asked < kAskEvery) return;
    asked = Clock::now();
  }
  Result<void> done;
  switch (next) {
    case Act::nothing:
      break;
    case Act::create:
      done = create(vm);
      // Told when libvirt has answered that there is no such domain: it may run all the same.
      if (!done) failed_[vm.uuid] = {vm.run, done.error().text};
      break;
    case Act::resume:
      done = watch_.hypervisor->resume(vm.uuid);
      break;
    case Act::suspend:
      done = watch_.hypervisor->suspend(vm.uuid);
      break;
    case Act::shutdown:
      done = watch_.hypervisor->shutdown(vm.uuid);
      break;
    case Act::destroy:
      done = watch_.hypervisor->destroy(vm.uuid);
      break;
    case Act::say:
      done = say_state(vm, vm::row_state(view.seen));
      break;
    case Act::migrate:
      done = migrate(vm);
      break;
    case Act::abort:
      done = watch_.hypervisor->abort(vm.uuid);
      break;
    case Act::moved:
      done = say_moved(vm);
      break;
    case Act::stays:
      done = say_stays(vm, view);
      break;
    case Act::say_ended: {
      const std::string how = watch_.hypervisor->ended(vm.uuid);
      // It was not the guest that wanted to be off: it begins anew, and not here.
      ends_ = ends_ || host::shutting_down();
      if (ends_)
        say_ended(vm, "failed", "its node was shut down");
      else
        say_ended(vm, how, reason_of(how));
      break;
    }
  }
  if (!done) spdlog::warn("VM {}: {}", vm.name, done.error().text);
}

// That it begins is said first: what a daemon that ended meanwhile leaves behind is never taken for
// the beginning of another attempt.
Result<void> Vms::migrate(const meta::Vm& vm) {
  if (std::count_if(moves_.begin(), moves_.end(),
                    [](const auto& one) { return !one.second->result(); }) >= kMovesAtOnce)
    return {};
  meta::Cluster cluster(*database_);
  const auto tpm = tpm_of(cluster, vm);
  if (!tpm) return tpm.error();
  // For a snapshot; that is over in seconds.
  if (!freezes_.may_move(vm.uuid)) return {};
  const auto said = propose(of_run("vm_moving", vm));
  if (!said) {
    freezes_.moved(vm.uuid);
    return said.error();
  }
  (void)watch_.hypervisor->ended(vm.uuid);
  (void)watch_.hypervisor->stopped_to_move(vm.uuid);
  const core::NodeId to = vm.to_node;
  const std::string path =
      member_.paths().socket + "." + std::to_string(vm.id) + "-" + std::to_string(vm.runs);
  moves_[vm.uuid] = std::make_unique<Migration>(
      vm, bridge_there(to), path,
      [this, to, vm_id = vm.id, run = vm.runs, tpm = *tpm]() -> Result<void> {
        if (!tpm.empty())
          CORE_TRY(
              member_.peers().call(to, "/peer/tpm", {{"vm", vm_id}, {"run", run}}, kTpmTimeout));
        return {};
      },
      [this, to] {
        auto socket = member_.peers().connect_libvirt(to);
        if (!socket) spdlog::warn("libvirt of node {}: {}", to.value, socket.error().text);
        return socket;
      },
      [this] { poke(); });
  moving_ = true;
  return {};
}

// It ends with its QEMU; this waits for that, so that what it keeps can be closed. Where that
// cannot be waited for the guest is not kept waiting: with QEMU gone nobody tells the TPM anything.
void Vms::quit_tpm(const meta::Vm& vm) {
  meta::Cluster cluster(*database_);
  if (const auto done = end_tpm(cluster, vm); !done) spdlog::warn("{}", done.error().text);
}

// It is not here any more. Where its guest powered off, or QEMU ended, it did not go anywhere.
Result<void> Vms::say_moved(const meta::Vm& vm) {
  const std::string how = watch_.hypervisor->ended(vm.uuid);
  if (!how.empty() && how != "migrated") {
    say_ended(vm, how, reason_of(how));
    return {};
  }
  const auto stopped = watch_.hypervisor->stopped_to_move(vm.uuid);
  quit_tpm(vm);
  const auto said = propose(of_run("vm_moved", vm));
  if (!said && said.error().code != Code::stale) return said.error();
  if (said && stopped) left_.push_back({vm, *stopped});
  if (said) spdlog::info("VM {}: has moved to node {}", vm.name, vm.to_node.value);
  return {};
}

Result<void> Vms::say_stays(const meta::Vm& vm, const vm::View& view) {
  const auto move = moves_.find(vm.uuid);
  std::string why = "its node's daemon was restarted";
  if (move != moves_.end() && move->second->run() == vm.runs) {
    const auto result = move->second->result();
    if (result && !*result) why = result->error().text;
  }
  if (view.target_lost)
    why = "node " + std::to_string(vm.to_node.value) + " was lost, or has not its disks";
  if (vm.move == "cancelled") why = "it was cancelled";
  json::object body = of_run("vm_stays", vm);
  body["reason"] = why;
  const auto said = propose(std::move(body));
  if (!said && said.error().code != Code::stale) return said.error();
  spdlog::warn("VM {}: does not move: {}", vm.name, why);
  return {};
}

// Those that have ended and of which the cluster knows.
void Vms::end_moves() {
  const auto vms = meta::Cluster(*database_).vms();
  if (!vms) return;
  std::erase_if(moves_, [&](const auto& one) {
    const bool over =
        one.second->result() && std::none_of(vms->begin(), vms->end(), [&](const auto& vm) {
          return vm.uuid == one.first && vm.to_node && vm.runs == one.second->run();
        });
    if (over) freezes_.moved(one.first);
    return over;
  });
}

// By this node's clock alone: from when its guest stood still to when the cluster says that it
// runs.
void Vms::say_pauses(const std::vector<meta::Vm>& vms) {
  std::erase_if(left_, [&](const Left& left) {
    const auto at = std::find_if(vms.begin(), vms.end(),
                                 [&](const meta::Vm& vm) { return vm.id == left.vm.id; });
    if (at == vms.end() || at->runs != left.vm.runs || Clock::now() - left.at > kTellPauseFor)
      return true;
    if (at->run != left.vm.runs || at->state == "arriving") return false;
    if (at->state != "running") return true;  // it was paused by somebody
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - left.at).count();
    spdlog::info("VM {}: its guest stood still for {} ms", at->name, ms);
    (void)propose({{"op", "vm_paused_for"},
                   {"vm", at->id},
                   {"run", at->run},
                   {"ms", static_cast<uint64_t>(ms)}});
    return true;
  });
}

Result<void> Vms::create(const meta::Vm& vm) {
  meta::Cluster cluster(*database_);
  const auto disks = domain_disks(cluster, vm);
  if (!disks) return disks.error();
  const auto cdroms = domain_cdroms(cluster, vm);
  if (!cdroms) return cdroms.error();
  // What an earlier run ended with is not this one's end.
  watch_.hypervisor->ended(vm.uuid);
  CORE_TRY(member_.networks().ready(vm));
  const std::string lan_bridge = member_.networks().lan().bridge;
  CORE_TRY(prepare_machine(cluster, vm));
  const auto machine = domain_machine(cluster, vm);
  if (!machine) return machine.error();
  CORE_TRY(watch_.hypervisor->create(vm::domain_xml(vm, *disks, lan_bridge, *cdroms, *machine)));
  spdlog::info("VM {}: run {} began", vm.name, vm.run);
  return {};
}

Result<void> Vms::say_state(const meta::Vm& vm, const char* state) {
  json::object body = of_run("vm_state", vm);
  body["state"] = state;
  const auto said = propose(std::move(body));
  if (!said) return said.error();
  return {};
}

void Vms::say_ended(const meta::Vm& vm, const std::string& how, const std::string& reason) {
  quit_tpm(vm);
  json::object body = of_run("vm_ended", vm);
  body["how"] = how;
  body["reason"] = reason;
  const auto said = propose(std::move(body));
  if (!said && said.error().code != Code::stale)
    spdlog::warn("VM {}: {}", vm.name, said.error().text);
  if (said && vm.wanted != "off") spdlog::warn("VM {}: run {} ended: {}", vm.name, vm.run, reason);
}

// The leader's

// Another node leads, and has the conditions.
void Vms::forget() {
  for (const auto& [subject, text] : noted_) member_.agent().set_condition(subject, "");
  noted_.clear();
  leaving_.clear();
}

void Vms::note(const std::string& subject, const std::string& text) {
  member_.agent().set_condition(subject, text);
  if (text.empty())
    noted_.erase(subject);
  else
    noted_[subject] = text;
}

// From nodes that are drained, or leave the cluster, as there is room elsewhere.
void Vms::move_away(const std::vector<meta::Vm>& vms, const std::vector<meta::Node>& nodes,
                    std::set<std::string>& wrong) {
  std::set<uint64_t> still;
  for (const meta::Vm& vm : vms) {
    const bool leaves = std::any_of(nodes.begin(), nodes.end(), [&](const meta::Node& node) {
      return node.id == vm.node && node.state == "up" && (node.leaving || !node.drain.empty());
    });
    if (!leaves || vm.to_node || vm.wanted == "off" ||
        (vm.state != "running" && vm.state != "paused"))
      continue;
    still.insert(vm.id);
    Leaving& leaving = leaving_[vm.id];
    if (Clock::now() >= leaving.next) {
      leaving.next = Clock::now() + kLeaveEvery;
      const auto done = propose({{"op", "vm_migrate"}, {"vm", vm.id}, {"on", 0}});
      leaving.why = done ? "" : done.error().text;
    }
    if (leaving.why.empty()) continue;
    wrong.insert("vm " + vm.name);
    note("vm " + vm.name, "it is to leave its node, and cannot: " + leaving.why);
  }
  std::erase_if(leaving_, [&](const auto& one) { return !still.contains(one.first); });
}

// Disks that could not be closed where a VM has run, or was to go, as something still had them: it
// could begin nowhere else.
void Vms::close_left(const std::vector<meta::Vm>& vms) {
  if (Clock::now() < close_left_) return;
  close_left_ = Clock::now() + kLeaveEvery;
  const auto opened = meta::Cluster(*database_).opened();
  if (!opened) return;
  for (const meta::Opened& row : *opened) {
    // An error of one that is open says why it was not closed.
    if (row.state != "open" || row.error.empty()) continue;
    const bool left = std::any_of(vms.begin(), vms.end(), [&](const meta::Vm& vm) {
      return vm.node != row.node && vm.to_node != row.node &&
             std::any_of(vm.disks.begin(), vm.disks.end(),
                         [&](const meta::VmDisk& disk) { return disk.vsd == row.vsd; });
    });
    if (left) (void)propose({{"op", "close"}, {"vsd", row.vsd.value}, {"node", row.node.value}});
  }
}

void Vms::lead(const std::vector<meta::Vm>& vms) {
  close_left(vms);
  meta::Cluster cluster(*database_);
  const auto nodes = cluster.nodes();
  const auto capacities = cluster.capacities();
  if (!nodes || !capacities) return;
  std::vector<meta::Vm> ordered = vms;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.priority > b.priority; });
  std::set<std::string> wrong;
  for (const meta::Vm& vm : ordered) {
    const bool lost = vm.node && std::none_of(nodes->begin(), nodes->end(), [&](const auto& one) {
                        return one.id == vm.node && one.life == vm.life && one.state == "up";
                      });
    const bool due = vm.state == "waiting" && std::time(nullptr) >= vm.retry_at;
    if (lost || due) {
      const auto done = propose({{"op", "vm_recover"}, {"vm", vm.id}});
      if (done && done->contains("node") && done->at("node").to_number<uint64_t>() != 0)
        spdlog::info("VM {}: begins anew on node {}", vm.name,
                     done->at("node").to_number<uint64_t>());
    }
    if (vm.state != "waiting") continue;
    wrong.insert("vm " + vm.name);
    note("vm " + vm.name, "it does not run: " + vm.reason);
  }
  move_away(ordered, *nodes, wrong);
  std::vector<policy::Guest> guests;
  guests.reserve(vms.size());
  for (const meta::Vm& vm : vms) guests.push_back(policy::guest_of(vm));
  std::string room;
  const auto hosts = policy::hosts_of(*nodes, *capacities, vms, 0);
  for (const std::string& one : policy::without_headroom(hosts, guests))
    room += (room.empty() ? "" : "; ") + one;
  if (!room.empty()) {
    wrong.insert("headroom");
    note("headroom", room);
  }
  std::string crowds;
  for (const std::string& one : policy::not_apart(*nodes, vms))
    crowds += (crowds.empty() ? "" : "; ") + one;
  if (!crowds.empty()) {
    wrong.insert("apart");
    note("apart", crowds + ": say vm migrate, where there is room");
  }
  for (auto at = noted_.begin(); at != noted_.end();) {
    const std::string subject = (at++)->first;
    if (!wrong.contains(subject)) note(subject, "");
  }
}

}  // namespace scaled
