// SPDX-License-Identifier: GPL-2.0
#include "agent.h"

#include <poll.h>
#include <scribe_netlink.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "host/dm.h"
#include "host/reset.h"
#include "meta/map.h"

namespace scaled {

namespace json = boost::json;
using control::Kernel;
using control::Work;
using core::NodeId;
using core::VsdId;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kServiceTick{1'000};  // the module's list, without an event
constexpr seconds kLeaseHeldAtLeast{1};
constexpr seconds kReleaseTimeout{30};
constexpr seconds kNoSpaceRest{2};
constexpr seconds kPatience{10};  // with another node that has a lease
// At once: an answer that comes too late leaves them reserved until this life ends, so it is to be
// quick rather than much.
constexpr uint64_t kMaxReserve = 64;
constexpr const char* kVersion = "0.1.0";

std::string pool_subject(uint64_t copies) {
  return copies == 2 ? "pool" : "pool, " + std::to_string(copies) + " copies";
}

std::string no_space_text(uint64_t copies) {
  return copies == 2
             ? "no space for two copies on different nodes: add disks or delete virtual disks"
             : "no space for three copies on different nodes: new data has two for now";
}

json::object commit_body(const control::ClosedBatch& closed, NodeId node, uint64_t life) {
  json::array ops;
  for (const meta::Op& op : closed.batch.ops)
    ops.push_back(json::array{op.chunk, op.segment.start, op.segment.len, op.segment.off,
                              op.segment.extent.value});
  json::array stales;
  for (const meta::Stale& stale : closed.batch.stales)
    stales.push_back(json::array{stale.extent.value, stale.disk.value, stale.suspect});
  return {{"op", "commit"},
          {"vsd", closed.batch.vsd.value},
          {"node", node.value},
          {"life", life},
          {"epoch", closed.batch.epoch},
          {"ops", std::move(ops)},
          {"stales", std::move(stales)}};
}

}  // namespace

Agent::Agent(const Paths& paths, const Config& config, replica::Replica& replica, Peers& peers,
             std::function<void()> removed)
    : paths_(paths),
      config_(config),
      replica_(replica),
      peers_(peers),
      removed_(std::move(removed)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      mover_(paths, config, replica, *this) {}

void Agent::run() {
  threads_.emplace_back([this](const std::stop_token& stop) { serve(stop); });
  threads_.emplace_back([this](const std::stop_token& stop) { keep_house(stop); });
  threads_.emplace_back([this](const std::stop_token& stop) { keep_devices(stop); });
  threads_.emplace_back([this](const std::stop_token& stop) { mover_.run(stop); });
}

Agent::~Agent() {
  for (auto& thread : threads_) thread.request_stop();
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
  askers_.clear();
  granters_.clear();
  ::close(wake_);
}

void Agent::wake_service() {
  const uint64_t one = 1;
  if (::write(wake_, &one, sizeof(one)) < 0) return;  // full: it is awake
}

void Agent::poke() {
  const std::lock_guard lock(mutex_);
  changes_++;
  changed_.notify_all();
  wake_service();  // a lease that waits may be free now
}

void Agent::wait(const std::stop_token& stop, uint64_t& seen, milliseconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, limit, [&] { return changes_ != seen; });
  seen = changes_;
}

void Agent::set_condition(const std::string& subject, const std::string& text) {
  const std::lock_guard lock(mutex_);
  auto at = conditions_.find(subject);
  if (text.empty()) {
    if (at != conditions_.end()) {
      spdlog::info("{}: no longer: {}", subject, at->second);
      conditions_.erase(at);
    }
  } else if (at == conditions_.end() || at->second != text) {
    spdlog::warn("{}: {}", subject, text);
    conditions_[subject] = text;
  }
}

std::map<std::string, std::string> Agent::conditions() const {
  const std::lock_guard lock(mutex_);
  return conditions_;
}

Result<json::object> Agent::propose(json::object body) {
  return replica_.propose(std::move(body), Clock::now() + kProposeFor);
}

// Service

void Agent::serve(const std::stop_token& stop) {
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<meta::Database> database;
  int events = -1;
  while (!stop.stop_requested()) {
    if (!kernel) {
      auto opened = Kernel::open();
      auto reader = meta::Database::open_reader(paths_.database());
      auto subscribed = opened ? (*opened)->subscribe() : Result<int>(opened.error());
      set_condition("module", subscribed ? "" : subscribed.error().text);
      if (!subscribed || !reader) {
        std::this_thread::sleep_for(kServiceTick);
        continue;
      }
      kernel = std::move(*opened);
      database = std::move(*reader);
      events = *subscribed;
    }
    if (life_ == 0) {
      start(*kernel);
      if (life_ == 0) std::this_thread::sleep_for(kServiceTick);
      continue;
    }
    serve_work(*kernel, *database);
    std::array<pollfd, 2> ready = {{{events, POLLIN, 0}, {wake_, POLLIN, 0}}};
    ::poll(ready.data(), ready.size(), static_cast<int>(kServiceTick.count()));
    uint64_t count = 0;
    if (::read(wake_, &count, sizeof(count)) < 0) count = 0;
    kernel->drain();
  }
}

// Says who this node is, to the module and to the cluster.
void Agent::start(Kernel& kernel) {
  auto life = kernel.hello(config_.node, config_.uuid);
  set_condition("module", life ? "" : life.error().text);
  if (!life) return;
  auto up = propose(
      {{"op", "node_up"}, {"node", config_.node.value}, {"life", *life}, {"version", kVersion}});
  set_condition("membership", up ? "" : up.error().text);
  if (!up) {
    if (up.error().code == Code::not_found) removed_();
    if (declared_dead(*life)) {
      spdlog::critical("this node was declared dead by the others and resets itself");
      host::reset_machine();
    }
    return;
  }
  // What an earlier run of this daemon had the kernel copy has ended then.
  if (auto ended = kernel.barrier(); !ended) {
    set_condition("module", ended.error().text);
    return;
  }
  drop_unused_leases(kernel, *life);
  life_ = *life;
  spdlog::info("node {} is up, life {:016x}", config_.node.value, *life);
  poke();
}

// Leases of this life that the kernel knows nothing of: an earlier run of this daemon minded them,
// or ended between the kernel's release and saying so.
void Agent::drop_unused_leases(Kernel& kernel, uint64_t life) {
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return;
  auto vsds = meta::Cluster(**database).vsds();
  if (!vsds) return;
  for (const meta::Vsd& vsd : *vsds) {
    if (vsd.lease_node != config_.node || vsd.lease_life != life) continue;
    if (kernel.set_extents(vsd.id, vsd.epoch, {})) {
      note_granted(vsd.id, vsd.epoch, 0);
      continue;
    }
    if (auto done = propose({{"op", "lease_drop"},
                             {"vsd", vsd.id.value},
                             {"node", config_.node.value},
                             {"epoch", vsd.epoch},
                             {"clean", false}});
        !done)
      spdlog::info("VSD {}: {}", vsd.name, done.error().text);
  }
}

// Whether the others went on without this life of the module: after a daemon's restart, perhaps
// long after.
bool Agent::declared_dead(uint64_t life) const {
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return false;
  auto nodes = meta::Cluster(**database).nodes();
  return nodes && std::any_of(nodes->begin(), nodes->end(), [&](const meta::Node& node) {
           return node.id == config_.node && node.life == life && node.state == "down";
         });
}

void Agent::serve_work(Kernel& kernel, meta::Database& database) {
  const Moment asked = moment();
  auto work = kernel.work();
  if (!work) {
    set_condition("module", work.error().text);
    return;
  }
  // Leaves first: they need no agreement. Then all that does, together.
  std::vector<json::object> bodies;
  std::vector<VsdId> leases;
  std::vector<control::ClosedBatch> batches;
  std::vector<uint64_t> reserves;  // of how many copies
  for (const Work& item : *work) {
    if (item.type == SCRIBE_WORK_LEAF_WANTED) put_leaf(kernel, database, item);
    if (item.type == SCRIBE_WORK_LEASE_WANTED && calm_since({item.vsd}, asked) && !retiring_)
      leases.push_back({item.vsd});
    if (item.type == SCRIBE_WORK_BATCH_READY) {
      auto batch = kernel.get_batch({item.vsd});
      if (batch) batches.push_back(std::move(*batch));
    }
  }
  drop_lost_writes(database, *work);
  const std::vector<IntentChange> intents = collect_intents(kernel, database, *work);
  bodies.reserve(work->size());
  for (const auto& batch : batches) bodies.push_back(commit_body(batch, config_.node, life_));
  for (const VsdId vsd : leases)
    bodies.push_back({{"op", "lease_take"},
                      {"vsd", vsd.value},
                      {"node", config_.node.value},
                      {"life", life_.load()}});
  for (const IntentChange& change : intents)
    bodies.push_back({{"op", "intent"},
                      {"vsd", change.vsd.value},
                      {"node", config_.node.value},
                      {"life", life_.load()},
                      {"epoch", change.epoch},
                      {"add", json::value_from(change.add)},
                      {"drop", json::value_from(change.drop)}});
  for (const Work& item : *work) {
    if (item.type == SCRIBE_WORK_RESERVE_LOW && Clock::now() >= no_space_until_[item.vsd] &&
        in_use(database, item.vsd)) {
      reserves.push_back(item.vsd);
      bodies.push_back({{"op", "reserve"},
                        {"node", config_.node.value},
                        {"life", life_.load()},
                        {"copies", item.vsd},
                        {"count", std::min<uint64_t>(item.arg, kMaxReserve)}});
    }
  }
  // Last, for nothing is done with their answers: housekeeping sees the rows.
  for (const Work& item : *work)
    if (item.type == SCRIBE_WORK_DISK_FAILED)
      bodies.push_back({{"op", "disk_failed"}, {"disk", item.id}, {"life", item.arg}});
  if (bodies.empty()) return;
  const auto answers = replica_.propose_all(std::move(bodies), Clock::now() + kProposeFor);
  size_t at = 0;
  for (const auto& batch : batches) commit(kernel, batch, answers[at++]);
  for (const VsdId vsd : leases) take_lease(kernel, vsd, answers[at++]);
  for (const IntentChange& change : intents) {
    const auto& answer = answers[at++];
    Result<void> told;
    if (answer)
      told = kernel.add_intent(change.vsd, change.epoch,
                               json::value_to<std::vector<uint64_t>>(answer->at("added")));
    // The module asks for what it did not get.
    if (!answer || !told)
      spdlog::info("VSD {}: intent: {}", change.vsd.value,
                   answer ? told.error().text : answer.error().text);
  }
  for (const uint64_t copies : reserves) add_reservations(kernel, copies, answers[at++]);
}

// A flush waits for a copy of what was written before it. Where none of them can come back, its VSD
// goes on from what was flushed, as after a power cut, and who writes it is told.
void Agent::drop_lost_writes(meta::Database& database, const std::vector<Work>& work) {
  std::map<VsdId, bool> gone;
  meta::Cluster cluster(database);
  for (const Work& item : work) {
    if (item.type != SCRIBE_WORK_FLUSH_STUCK) continue;
    auto disks = cluster.disks();
    if (!disks) return;
    const auto disk = std::find_if(disks->begin(), disks->end(),
                                   [&](const meta::Disk& one) { return one.id.value == item.id; });
    gone.try_emplace({item.vsd}, true).first->second &=
        disk == disks->end() || disk->state == "failed" || disk->state == "removed" ||
        (disk->state == "ok" && disk->life != item.arg);
  }
  for (const auto& [vsd, lost] : gone) {
    auto row = cluster.vsd(vsd);
    if (lost && row && *row && (*row)->lease_node == config_.node && (*row)->lease_life == life_)
      relet(vsd, (*row)->epoch, "all disks with what was not flushed have failed or restarted");
  }
}

// I/O under way ends first, and one of the disks may be slow: not in the service thread. A release
// may be under way, and waits for the flush; what the mover proposes in that epoch is refused.
void Agent::relet(VsdId vsd, uint64_t epoch, const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (!recovering_.begin(vsd)) return;
  spdlog::critical("VSD {}: {}: it goes on from what was flushed, and the next flush fails",
                   vsd.value, why);
  // Joins the one before, which has nothing left to do.
  granters_[vsd] = std::jthread([this, vsd, epoch] {
    auto kernel = Kernel::open();
    auto done = kernel ? (*kernel)->fail_lease(vsd, epoch, true) : Result<void>(kernel.error());
    const json::object drop{{"op", "lease_drop"},
                            {"vsd", vsd.value},
                            {"node", config_.node.value},
                            {"epoch", epoch},
                            {"clean", false}};
    if (done)
      if (auto dropped = propose(drop); !dropped) done = dropped.error();
    if (!done) spdlog::warn("VSD {}: epoch {}: {}", vsd.value, epoch, done.error().text);
    {
      const std::lock_guard inner(mutex_);
      recovering_.end(vsd);
    }
    wake_service();
  });
}

// What is dropped is dropped in the module first: it never writes in place where the metadata does
// not know of it.
std::vector<Agent::IntentChange> Agent::collect_intents(Kernel& kernel, meta::Database& database,
                                                        const std::vector<Work>& work) {
  std::map<VsdId, IntentChange> changes;
  for (const Work& item : work) {
    if (item.type == SCRIBE_WORK_INTENT_WANTED) changes[{item.vsd}].add.push_back(item.arg);
    if (item.type == SCRIBE_WORK_INTENT_IDLE) changes[{item.vsd}].drop.push_back(item.arg);
  }
  std::vector<IntentChange> out;
  meta::Cluster cluster(database);
  for (auto& [vsd, change] : changes) {
    auto row = cluster.vsd(vsd);
    if (!row || !*row || (*row)->lease_node != config_.node || (*row)->lease_life != life_)
      continue;
    change.vsd = vsd;
    change.epoch = (*row)->epoch;
    if (!change.drop.empty()) {
      auto dropped = kernel.drop_intent(vsd, change.epoch, change.drop);
      change.drop = dropped ? std::move(*dropped) : std::vector<uint64_t>{};
    }
    if (!change.add.empty() || !change.drop.empty()) out.push_back(std::move(change));
  }
  return out;
}

// Whether this node is to have a VSD open: without one it writes nothing, and in a pool without
// space each question for some is an entry of the log.
bool Agent::in_use(meta::Database& database, uint64_t copies) {
  meta::Cluster cluster(database);
  auto opened = cluster.opened();
  // Two copies are the way out for who wants three.
  const bool any = !opened || std::any_of(opened->begin(), opened->end(), [&](const auto& row) {
    if (row.node != config_.node) return false;
    const auto vsd = cluster.vsd(row.vsd);
    return vsd && *vsd && (*vsd)->replicas >= copies;
  });
  if (!any) set_condition(pool_subject(copies), "");
  return any;
}

void Agent::put_leaf(Kernel& kernel, meta::Database& database, const Work& work) {
  const std::lock_guard telling(telling_);
  // The row and the leaf from one state of the database.
  auto done = meta::guarded([&]() -> Result<void> {
    const SQLite::Transaction snapshot(database.sql());
    auto vsd = meta::Cluster(database).vsd({work.vsd});
    if (!vsd) return vsd.error();
    if (!*vsd || (*vsd)->lease_node != config_.node || (*vsd)->lease_life != life_)
      return Error{Code::stale, "the lease is elsewhere"};
    auto leaf = meta::Map(database).leaf({work.vsd}, work.arg);
    if (!leaf) return leaf.error();
    return kernel.put_leaf({work.vsd}, (*vsd)->epoch, work.arg, *leaf);
  });
  if (!done && done.error().code != Code::stale)
    spdlog::error("VSD {}: leaf {}: {}", work.vsd, work.arg, done.error().text);
}

void Agent::take_lease(Kernel& kernel, VsdId vsd, const Result<json::object>& answer) {
  const std::string subject = "vsd " + std::to_string(vsd.value);
  if (!answer) {
    // That another node has it for a moment is nothing to tell of.
    const auto since = waits_since_.try_emplace(vsd, Clock::now()).first->second;
    if (answer.error().code != Code::conflict || Clock::now() - since > kPatience)
      set_condition(subject, answer.error().text);
    if (answer.error().code == Code::conflict) ask_for_release(vsd);
    if (answer.error().code == Code::not_found) {
      if (auto done = kernel.fail_lease(vsd, 0); !done)
        spdlog::error("VSD {}: {}", vsd.value, done.error().text);
    }
    return;
  }
  waits_since_.erase(vsd);
  set_condition(subject, "");
  const uint64_t epoch = answer->at("epoch").to_number<uint64_t>();
  if (epoch == 0) {
    wake_service();  // more was left undone than fits into one entry
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    granted_[vsd].since = Clock::now();
  }
  const auto copies = answer->at("copies").to_number<uint32_t>();
  if (answer->at("recover").as_bool()) {
    grant_recovered(vsd, epoch, copies);
    return;
  }
  auto done = kernel.grant_lease(vsd, epoch, copies);
  if (done) note_granted(vsd, epoch, copies);
  if (!done) spdlog::warn("VSD {}: epoch {}: {}", vsd.value, epoch, done.error().text);
}

void Agent::note_granted(VsdId vsd, uint64_t epoch, uint32_t copies) {
  const std::lock_guard lock(mutex_);
  granted_[vsd].epoch = epoch;
  granted_[vsd].copies = copies;
}

// Whoever wants it meanwhile waits: what is asked for in the middle would count as not flushed.
bool Agent::changes_hands(VsdId vsd) const {
  const std::lock_guard lock(mutex_);
  return recovering_.change(vsd) || releasing_.change(vsd);
}

Agent::Moment Agent::moment() const {
  const std::lock_guard lock(mutex_);
  return {recovering_.moment(), releasing_.moment()};
}

bool Agent::calm_since(VsdId vsd, const Moment& moment) const {
  const std::lock_guard lock(mutex_);
  return recovering_.calm_since(vsd, moment.recovering) &&
         releasing_.calm_since(vsd, moment.releasing);
}

// The disks are flushed for it, and one of them may be slow: not in the service thread.
void Agent::grant_recovered(VsdId vsd, uint64_t epoch, uint32_t copies) {
  const std::lock_guard lock(mutex_);
  recovering_.begin(vsd);
  // Joins the one before, which has nothing left to do.
  granters_[vsd] = std::jthread([this, vsd, epoch, copies] {
    auto kernel = Kernel::open();
    auto done = kernel ? (*kernel)->flush_disks() : Result<void>(kernel.error());
    if (done) done = (*kernel)->grant_lease(vsd, epoch, copies);
    if (!done) spdlog::warn("VSD {}: epoch {}: {}", vsd.value, epoch, done.error().text);
    if (done) note_granted(vsd, epoch, copies);
    {
      const std::lock_guard inner(mutex_);
      recovering_.end(vsd);
    }
    wake_service();
  });
}

// Another live node holds it: any node uses any VSD, one after the other.
void Agent::ask_for_release(VsdId vsd) {
  auto database = meta::Database::open_reader(paths_.database());
  if (!database) return;
  auto row = meta::Cluster(**database).vsd(vsd);
  if (!row || !*row || !(*row)->lease_node || (*row)->lease_node == config_.node) return;
  const NodeId holder = (*row)->lease_node;
  const uint64_t epoch = (*row)->epoch;
  const std::lock_guard lock(mutex_);
  if (!asked_.insert(vsd).second) return;
  // Joins the one before, which has nothing left to do.
  askers_[vsd] = std::jthread([this, vsd, holder, epoch] {
    auto done = peers_.call(holder, "/peer/release", {{"vsd", vsd.value}, {"epoch", epoch}},
                            kReleaseTimeout);
    if (!done) spdlog::info("VSD {}: node {}: {}", vsd.value, holder.value, done.error().text);
    {
      const std::lock_guard inner(mutex_);
      asked_.erase(vsd);
    }
    wake_service();
  });
}

Result<void> Agent::release(VsdId vsd, uint64_t epoch) {
  auto granted = [&] {
    const std::lock_guard lock(mutex_);
    return granted_[vsd];
  };
  std::this_thread::sleep_until(granted().since + kLeaseHeldAtLeast);
  auto kernel = Kernel::open();
  if (!kernel) return kernel.error();
  const auto paused = mover_.pause(vsd);
  // Given back before the kernel has it, it would be granted to the kernel behind that.
  if (paused.minded != epoch && granted().epoch != epoch) {
    const auto known = (*kernel)->set_extents(vsd, epoch, {});
    if (!known && known.error().code != Code::not_found)
      return Error{Code::conflict, "the lease is being taken at this moment"};
  }
  {
    const std::lock_guard lock(mutex_);
    releasing_.begin(vsd);
  }
  auto done = give_back(**kernel, vsd, epoch);
  {
    const std::lock_guard lock(mutex_);
    releasing_.end(vsd);
  }
  wake_service();
  return done;
}

bool Agent::has_users() {
  auto database = meta::Database::open_reader(paths_.database());
  auto opened = database ? meta::Cluster(**database).opened()
                         : Result<std::vector<meta::Opened>>(database.error());
  return opened && std::any_of(opened->begin(), opened->end(), [&](const meta::Opened& row) {
           if (row.node != config_.node) return false;
           const auto device = host::find_device(row.vsd);
           return device && *device && (*device)->in_use;
         });
}

size_t Agent::retire(Clock::time_point until) {
  retiring_ = true;
  for (;;) {
    size_t left = 0;
    auto database = meta::Database::open_reader(paths_.database());
    auto vsds = database ? meta::Cluster(**database).vsds()
                         : Result<std::vector<meta::Vsd>>(database.error());
    if (!vsds) return 1;
    for (const meta::Vsd& vsd : *vsds) {
      if (vsd.lease_node != config_.node || vsd.lease_life != life_) continue;
      auto done = Clock::now() < until ? release(vsd.id, vsd.epoch) : Result<void>();
      if (!done) spdlog::info("VSD {}: {}", vsd.name, done.error().text);
      left++;
    }
    // Another look, for what was under way when the flag was set, and what was refused.
    if (left == 0 || Clock::now() >= until) return left;
    std::this_thread::sleep_for(kCalm);
  }
}

Result<void> Agent::give_back(Kernel& kernel, VsdId vsd, uint64_t epoch) {
  auto done = kernel.release_lease(vsd, epoch);
  // Without a device here there is nothing to flush; whether it was, is not known.
  if (!done && done.error().code != Code::not_found) return done;
  auto dropped = propose({{"op", "lease_drop"},
                          {"vsd", vsd.value},
                          {"node", config_.node.value},
                          {"epoch", epoch},
                          {"clean", static_cast<bool>(done)}});
  if (!dropped) return dropped.error();
  return {};
}

void Agent::commit(Kernel& kernel, const control::ClosedBatch& closed,
                   const Result<json::object>& answer) {
  const VsdId vsd = closed.batch.vsd;
  if (answer) {
    if (auto done = kernel.batch_done(vsd, closed.batch.epoch, closed.number); !done)
      spdlog::warn("VSD {}: batch {}: {}", vsd.value, closed.number, done.error().text);
    return;
  }
  spdlog::error("VSD {}: batch {}: {}", vsd.value, closed.number, answer.error().text);
  if (answer.error().code == Code::conflict) {
    if (auto done = kernel.batch_refused(vsd, closed.batch.epoch, closed.number); !done)
      spdlog::warn("VSD {}: batch {}: {}", vsd.value, closed.number, done.error().text);
    return;
  }
  // An outcome that is not known is asked for again; a lease that is over fails what is held.
  if (answer.error().code != Code::stale) return;
  if (auto done = kernel.fail_lease(vsd, closed.batch.epoch); !done)
    spdlog::error("VSD {}: {}", vsd.value, done.error().text);
}

void Agent::add_reservations(Kernel& kernel, uint64_t copies, const Result<json::object>& answer) {
  if (!answer) {
    spdlog::warn("no reservations: {}", answer.error().text);
    return;
  }
  std::vector<meta::MappedExtent> extents;
  for (const json::value& value : answer->at("extents").as_array()) {
    const json::array& extent = value.as_array();
    meta::MappedExtent out{{extent.at(0).to_number<uint64_t>()}, true, {}};
    for (const json::value& place : extent.at(1).as_array())
      out.copies.push_back({{place.as_array().at(0).to_number<uint64_t>()},
                            place.as_array().at(1).to_number<uint32_t>(),
                            false});
    extents.push_back(std::move(out));
  }
  const bool full = extents.empty();
  set_condition(pool_subject(copies), full ? no_space_text(copies) : "");
  if (full) no_space_until_[copies] = Clock::now() + kNoSpaceRest;
  if (auto done = kernel.add_reservations(extents, static_cast<uint32_t>(copies), full); !done)
    spdlog::warn("reservations: {}", done.error().text);
}

}  // namespace scaled
