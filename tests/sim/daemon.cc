// SPDX-License-Identifier: GPL-2.0
// A daemon's housekeeping around the real ledger and the real decisions: what userspace/scaled does
// in its threads (agent.cc, mover.cc, liveness.cc), as fibers.
#include <algorithm>

#include "journal/record.h"
#include "node.h"

namespace sim {

using core::Code;

namespace {

constexpr uint64_t kProposeFor = 2500;
constexpr uint64_t kResend = 400;
constexpr uint64_t kTick = 60;
constexpr uint64_t kHouse = 150;
constexpr uint64_t kIntentIdle = 1500;
constexpr uint64_t kLeaderLease = 900;
constexpr size_t kStock = 2;

/// A name in a set for as long as it lives.
class Named {
 public:
  Named(std::set<VsdId>& names, VsdId name) : names_(names), name_(name) { names_.insert(name_); }
  ~Named() { names_.erase(name_); }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

 private:
  std::set<VsdId>& names_;
  const VsdId name_;
};

}  // namespace

// Log

Result<journal::View> SimLog::tend(uint64_t) {
  if (!world_.quorum(node_)) return Error{Code::unknown, "no quorum"};
  Etcd& etcd = world_.etcd;
  const uint64_t now = world_.scheduler.now();
  if (etcd.leader == 0 || now > etcd.leader_until) {
    etcd.leader = node_;
    etcd.session = session_;
  }
  const bool mine = etcd.leader == node_ && etcd.session == session_;
  if (mine) etcd.leader_until = now + kLeaderLease;
  return journal::View{mine, {etcd.leader}};
}

Result<journal::Entry> SimLog::append(uint64_t index, uint64_t prev_hash, std::string payload) {
  if (!world_.quorum(node_)) return Error{Code::unknown, "no quorum"};
  Etcd& etcd = world_.etcd;
  if (etcd.leader != node_ || etcd.session != session_ || index != etcd.log.size() + 1)
    return Error{Code::conflict, "another leads"};
  if (world_.faults && world_.scheduler.one_in(300)) return Error{Code::unknown, "lost on its way"};
  const std::string record = journal::encode_record(index, prev_hash, payload);
  etcd.log.push_back(
      {index, prev_hash, journal::decode_record(record, 0)->hash, std::move(payload)});
  world_.entries++;
  if (world_.faults && world_.scheduler.one_in(300)) return Error{Code::unknown, "no answer"};
  return etcd.log.back();
}

Result<std::vector<journal::Entry>> SimLog::read_from(uint64_t index, size_t limit) {
  if (!world_.quorum(node_)) return Error{Code::unknown, "no quorum"};
  std::vector<journal::Entry> out;
  // Not all at once: followers lag.
  const size_t most = std::min(limit, static_cast<size_t>(1 + world_.scheduler.draw(8)));
  for (; index <= world_.etcd.log.size() && out.size() < most; index++)
    out.push_back(world_.etcd.log[index - 1]);
  return out;
}

Daemon::Daemon(World& world, Node& node, meta::Database& database)
    : world_(world),
      node_(node),
      database_(database),
      cluster_(database),
      session_(world.scheduler.draw(uint64_t{1} << 62) | 1),
      log_(world, node.id, session_),
      ledger_(database, log_, [](const meta::Position&) {}) {
  ledger_.open().value();
}

void Daemon::die(const std::string& why) {
  world_.say("n" + std::to_string(node_.id) + " daemon ends: " + why);
  node_.kill_daemon();
}

void Daemon::start_fibers() {
  world_.scheduler.spawn(this, keep_log());
  world_.scheduler.spawn(this, keep_alive());
  world_.scheduler.spawn(this, start());
}

Co<Done> Daemon::keep_log() {
  for (;;) {
    const bool led = view_.leading;
    auto view = log_.tend(applied());
    view_ = view ? *view : journal::View{};
    if (view && !(led && view_.leading)) {
      const auto more = ledger_.follow();
      if (!more) throw Broken("n" + std::to_string(node_.id) + ": " + more.error().text);
      // A new leader reads to the end before it leads.
      if (*more != 0) {
        if (view_.leading) view_ = {};
        co_await world_.scheduler.turn();
        continue;
      }
    }
    while (view_.leading && !queue_.empty()) {
      const size_t some = std::min(queue_.size(), 1 + world_.scheduler.draw(4));
      const std::vector<std::shared_ptr<Call>> calls(queue_.begin(),
                                                     queue_.begin() + static_cast<ptrdiff_t>(some));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(some));
      std::vector<policy::Proposal> proposals;
      for (const auto& call : calls) proposals.push_back(call->proposal);
      auto done = ledger_.decide(proposals, world_.seconds());
      for (size_t i = 0; i < calls.size(); i++) {
        calls[i]->served = done.served ? Result<replica::Served>(replica::Served{
                                             done.served->index, {done.served->answers[i]}})
                                       : Result<replica::Served>(done.served.error());
        world_.answer(calls[i]);
      }
      if (done.next == replica::Decided::Next::step_down) view_ = {};
      if (done.next == replica::Decided::Next::end) {
        die("append: " + done.served.error().text);
        co_return Done{};
      }
      co_await world_.scheduler.turn();
    }
    if (!view_.leading) {
      for (const auto& call : queue_) {
        call->served = Error{Code::conflict, "this node does not lead"};
        world_.answer(call);
      }
      queue_.clear();
    }
    co_await world_.scheduler.pause(40);
  }
}

void Daemon::serve(const std::shared_ptr<Call>& call) {
  if (view_.leading) {
    queue_.push_back(call);
    return;
  }
  call->served = Error{Code::conflict, "this node does not lead"};
  world_.answer(call);
}

Co<Result<json::object>> Daemon::propose(json::object body) {
  if (world_.traced()) world_.tell("n" + std::to_string(node_.id) + " " + json::serialize(body));
  const uint64_t done = (open_.empty() ? next_sequence_ : *open_.begin()) - 1;
  const policy::Proposal proposal{{node_.id}, session_, next_sequence_++, done, std::move(body)};
  open_.insert(proposal.sequence);
  Result<json::object> result = Error{Code::unknown, "no answer"};
  const uint64_t deadline = world_.scheduler.now() + kProposeFor;
  while (world_.scheduler.now() < deadline) {
    const uint64_t to = view_.leading ? node_.id : view_.leader.value;
    if (to == 0) {
      co_await world_.scheduler.pause(kTick);
      continue;
    }
    auto call = std::make_shared<Call>();
    call->from = node_.id;
    call->to = to;
    call->proposal = proposal;
    world_.send(call);
    const uint64_t again = world_.scheduler.now() + kResend;
    co_await world_.scheduler.until(
        [&] { return call->answered || world_.scheduler.now() > again; });
    if (!call->answered || !call->served) {
      co_await world_.scheduler.pause(kTick);
      continue;
    }
    // A repeated call may yet get another answer.
    const replica::Served served = *call->served;
    const uint64_t index = served.index;
    co_await world_.scheduler.until(
        [&] { return applied() >= index || world_.scheduler.now() > deadline; });
    if (applied() < index) break;
    result = policy::from_answer(served.answers.at(0));
    break;
  }
  open_.erase(proposal.sequence);
  co_return result;
}

Co<Done> Daemon::order(json::object body) {
  auto done = co_await propose(std::move(body));
  co_return Done{};
}

std::string Daemon::describe() const {
  return std::string(view_.leading ? " leading" : "") + (moving_ ? " moving" : "") +
         (looking_ ? " looking" : "") + " queue " + std::to_string(queue_.size()) + " open " +
         std::to_string(open_.size()) + " minded " + std::to_string(minded_.size());
}

// Liveness

Co<Done> Daemon::keep_alive() {
  for (;;) {
    const uint64_t began = world_.scheduler.now();
    co_await world_.scheduler.turn();
    if (life_ != 0 && world_.quorum(node_.id)) {
      if (world_.etcd.dead.contains({node_.id, life_})) {
        world_.say("n" + std::to_string(node_.id) + " was declared dead and resets itself");
        world_.reset(node_.id);
        co_return Done{};
      }
      auto& alive = world_.etcd.alive[node_.id];
      alive = {life_, alive.revision + 1};
      co_await world_.scheduler.turn();  // the answer may be late
      node_.kernel->deadline = began + kLease;
    }
    if (life_ != 0 && world_.quorum(node_.id)) co_await observe();
    co_await world_.scheduler.pause(kLease / 5);
  }
}

Co<Done> Daemon::observe() {
  const uint64_t now = world_.scheduler.now();
  if (now - observed_ > kLease / 2)
    for (auto& [node, seen] : seen_) seen.since += now - observed_;
  observed_ = now;
  auto nodes = cluster_.nodes().value();
  for (const meta::Node& node : nodes) {
    if (node.id.value == node_.id || node.state != "up") {
      seen_.erase(node.id.value);
      continue;
    }
    const auto at = world_.etcd.alive.find(node.id.value);
    const uint64_t revision = at == world_.etcd.alive.end() ? 0 : at->second.revision;
    const bool heard = at != world_.etcd.alive.end() && at->second.life == node.life;
    Seen& seen = seen_[node.id.value];
    if (seen.life != node.life || seen.revision != revision) seen = {node.life, revision, now};
    const uint64_t limit = heard ? kLease + kLease / 4 : kLease * 3;
    if (!view_.leading || now - seen.since <= limit) continue;
    // One transaction of etcd: only where it has not renewed since.
    const auto& alive = world_.etcd.alive[node.id.value];
    if (alive.revision != seen.revision) continue;
    world_.etcd.dead.insert({node.id.value, node.life});
    world_.say("n" + std::to_string(node.id.value) + " is declared dead");
    json::object down{{"op", "node_down"}, {"node", node.id.value}, {"life", node.life}};
    auto said = co_await propose(std::move(down));
    co_return Done{};
  }
  co_return Done{};
}

// Start

Co<Done> Daemon::start() {
  Kernel& kernel = *node_.kernel;
  const uint64_t life = kernel.life();
  for (;;) {
    json::object body{
        {"op", "node_up"}, {"node", node_.id}, {"life", life}, {"version", "simulated"}};
    auto up = co_await propose(std::move(body));
    if (up) break;
    auto nodes = cluster_.nodes().value();
    if (std::any_of(nodes.begin(), nodes.end(), [&](const meta::Node& node) {
          return node.id.value == node_.id && node.life == life && node.state == "down";
        })) {
      world_.reset(node_.id);
      co_return Done{};
    }
    co_await world_.scheduler.pause(kTick);
  }
  co_await kernel.barrier();
  auto vsds = cluster_.vsds().value();
  for (const meta::Vsd& vsd : vsds) {
    if (vsd.lease_node.value != node_.id || vsd.lease_life != life) continue;
    if (kernel.in_epoch(vsd.id, vsd.epoch)) {
      granted_[vsd.id] = vsd.epoch;
      continue;
    }
    json::object drop{{"op", "lease_drop"},
                      {"vsd", vsd.id.value},
                      {"node", node_.id},
                      {"epoch", vsd.epoch},
                      {"clean", false}};
    auto dropped = co_await propose(std::move(drop));
  }
  life_ = life;
  world_.say("n" + std::to_string(node_.id) + " is up");
  world_.scheduler.spawn(this, serve_work());
  world_.scheduler.spawn(this, keep_house());
  world_.scheduler.spawn(this, mover());
  co_return Done{};
}

json::object Daemon::about(const char* op, VsdId vsd, uint64_t epoch) const {
  return {{"op", op}, {"vsd", vsd.value}, {"node", node_.id}, {"life", life_}, {"epoch", epoch}};
}

// Service

Co<Done> Daemon::serve_work() {
  for (;;) {
    for (const VsdId id : world_.vsds) {
      Vsd& vsd = node_.kernel->vsd(id);
      if (vsd.ready) co_await commit(id);
      if (lost_writes(vsd)) world_.scheduler.spawn(this, relet(id, vsd.epoch));
      if (vsd.lease == Vsd::Lease::none && vsd.wanted && !retiring_ && !changing_.contains(id) &&
          !reletting_.contains(id))
        co_await take_lease(id);
      if (vsd.lease != Vsd::Lease::none && vsd.lease != Vsd::Lease::failed && !vsd.loaded) {
        // A lease in a new epoch may be here before the entry that began it: what is shared since
        // would be written in place.
        auto row = cluster_.vsd(id).value();
        auto leaf = meta::Map(database_).leaf(id, 0);
        const bool same = row && row->epoch == vsd.epoch;
        if (leaf && (same || !world_.holds(Rule::leaf_epoch)))
          node_.kernel->put_leaf(id, vsd.epoch, *leaf);
      }
      co_await intents(id);
      const uint64_t copies = vsd.copies;
      if (vsd.lease == Vsd::Lease::owned && node_.kernel->stock[copies].size() < kStock)
        co_await reserve(copies);
      if (vsd.lease == Vsd::Lease::owned && copies > 2 && node_.kernel->no_space[copies] &&
          node_.kernel->stock[2].size() < kStock)
        co_await reserve(2);
    }
    auto vsds = cluster_.vsds().value();
    for (const meta::Vsd& row : vsds)
      if (row.lease_node.value == node_.id && row.lease_life == life_ &&
          node_.kernel->in_epoch(row.id, row.epoch))
        node_.kernel->vsd(row.id).copies = row.replicas;
    co_await world_.scheduler.pause(kTick);
  }
}

// None of the copies that a flush waits for can come back.
bool Daemon::lost_writes(const Vsd& vsd) {
  if (!vsd.stuck || vsd.relet || reletting_.contains(vsd.id)) return false;
  const auto row = cluster_.vsd(vsd.id).value();
  if (row->lease_node.value != node_.id || row->lease_life != life_ || row->epoch != vsd.epoch)
    return false;
  const auto disks = cluster_.disks().value();
  return std::all_of(vsd.stuck->begin(), vsd.stuck->end(), [&](const auto& waits) {
    const auto disk = std::find_if(disks.begin(), disks.end(),
                                   [&](const meta::Disk& one) { return one.id == waits.first; });
    return disk == disks.end() || disk->state == "failed" || disk->state == "removed" ||
           (disk->state == "ok" && disk->life != waits.second);
  });
}

Co<Done> Daemon::relet(VsdId id, uint64_t epoch) {
  const Named reletting(reletting_, id);
  world_.say("n" + std::to_string(node_.id) + " drops what VSD " + std::to_string(id.value) +
             " had not flushed");
  node_.kernel->relet(id, epoch);
  const Vsd& vsd = node_.kernel->vsd(id);
  co_await world_.scheduler.until([&vsd] { return !vsd.relet; });
  if (vsd.lease != Vsd::Lease::none) co_return Done{};
  world_.dropped++;
  json::object body{{"op", "lease_drop"},
                    {"vsd", id.value},
                    {"node", node_.id},
                    {"epoch", epoch},
                    {"clean", false}};
  auto dropped = co_await propose(std::move(body));
  co_return Done{};
}

Co<Done> Daemon::take_lease(VsdId id) {
  json::object body{{"op", "lease_take"}, {"vsd", id.value}, {"node", node_.id}, {"life", life_}};
  auto taken = co_await propose(std::move(body));
  if (!taken) {
    if (taken.error().code != Code::conflict) co_return Done{};
    // Whoever has it gives it up when asked.
    auto row = cluster_.vsd(id).value();
    if (!row || !row->lease_node || row->lease_node.value == node_.id) co_return Done{};
    Node& holder = world_.node(row->lease_node.value);
    if (world_.linked(node_.id, holder.id) && holder.daemon && !holder.daemon_frozen &&
        holder.daemon->up())
      world_.scheduler.spawn(holder.daemon.get(), holder.daemon->release(id, row->epoch));
    co_await world_.scheduler.pause(kResend);
    co_return Done{};
  }
  const auto epoch = taken->at("epoch").to_number<uint64_t>();
  if (epoch == 0) co_return Done{};
  minded_.erase(id);
  const Named changing(changing_, id);
  if (taken->at("recover").as_bool()) co_await node_.kernel->flush_disks();
  node_.kernel->grant(id, epoch, taken->at("copies").to_number<uint32_t>());
  granted_[id] = epoch;
  world_.say("n" + std::to_string(node_.id) + " has VSD " + std::to_string(id.value) +
             " in epoch " + std::to_string(epoch));
  co_return Done{};
}

Co<Done> Daemon::release(VsdId id, uint64_t epoch) {
  if (changing_.contains(id)) co_return Done{};
  co_await world_.scheduler.pause(kResend);
  co_await world_.scheduler.until([this] { return !moving_; });
  const Held moving(moving_);
  if (changing_.contains(id)) co_return Done{};
  const Named changing(changing_, id);
  const auto minded = minded_.find(id);
  const bool was_minded = minded != minded_.end() && minded->second == epoch;
  if (was_minded) minded_.erase(minded);
  if (!was_minded && granted_[id] != epoch) co_return Done{};
  bool clean = true;
  if (!was_minded) clean = co_await node_.kernel->release(id, epoch);
  if (!clean) co_return Done{};
  json::object body{{"op", "lease_drop"},
                    {"vsd", id.value},
                    {"node", node_.id},
                    {"epoch", epoch},
                    {"clean", true}};
  auto dropped = co_await propose(std::move(body));
  co_return Done{};
}

Co<Done> Daemon::retire() {
  retiring_ = true;
  for (;;) {
    bool left = false;
    auto vsds = cluster_.vsds().value();
    for (const meta::Vsd& vsd : vsds) {
      if (vsd.lease_node.value != node_.id || vsd.lease_life != life_) continue;
      left = true;
      co_await release(vsd.id, vsd.epoch);
    }
    if (!left) break;
    co_await world_.scheduler.pause(kTick);
  }
  world_.say("n" + std::to_string(node_.id) + " has given all leases back");
  co_return Done{};
}

// userspace/scaled/holds.cc
Co<Done> Daemon::stand_still(VsdId id, std::shared_ptr<Still> still) {
  co_await world_.scheduler.until([this] { return !moving_; });
  Held moving(moving_);
  if (changing_.contains(id)) {
    still->ended = true;
    co_return Done{};
  }
  const Named changing(changing_, id);
  auto row = cluster_.vsd(id).value();
  uint64_t held = 0;
  still->item = {{"vsd", id.value}};
  still->good = true;
  if (row->lease_node.value == node_.id && row->lease_life == life_) {
    still->item["node"] = node_.id;
    still->item["life"] = life_;
    still->item["epoch"] = row->epoch;
    const auto minded = minded_.find(id);
    const bool was_minded = minded != minded_.end() && minded->second == row->epoch;
    if (was_minded) minded_.erase(minded);
    if (!was_minded) {
      // What is on its way to the kernel would come there behind us.
      still->good = granted_[id] == row->epoch && node_.kernel->in_epoch(id, row->epoch);
      if (still->good) {
        held = row->epoch;
        still->good = co_await node_.kernel->release(id, held);
      }
    }
  }
  moving.release();
  still->ended = true;
  const uint64_t until = world_.scheduler.now() + 2 * kProposeFor;
  co_await world_.scheduler.until(
      [&] { return still->told || world_.scheduler.now() > until || !still->good; });
  co_await go_on(id, held, still);
  co_return Done{};
}

// Where nothing became of it, or nobody says so, what was released is for whoever wants it.
Co<Done> Daemon::go_on(VsdId id, uint64_t before, std::shared_ptr<Still> still) {
  if (still->told && still->epoch != 0) {
    auto row = cluster_.vsd(id).value();
    node_.kernel->grant(id, still->epoch, row->replicas);
    granted_[id] = still->epoch;
    co_return Done{};
  }
  if (before == 0 || node_.kernel->in_epoch(id, before)) co_return Done{};
  json::object body{{"op", "lease_drop"},
                    {"vsd", id.value},
                    {"node", node_.id},
                    {"epoch", before},
                    {"clean", false}};
  auto dropped = co_await propose(std::move(body));
  co_return Done{};
}

Co<Done> Daemon::snapshot(std::vector<VsdId> vsds, std::string name) {
  std::vector<std::pair<uint64_t, std::shared_ptr<Still>>> stills;  // by node
  for (const VsdId id : vsds) {
    auto row = cluster_.vsd(id).value();
    const uint64_t at = row->lease_node.value == 0 ? node_.id : row->lease_node.value;
    Node& holder = world_.node(at);
    auto still = std::make_shared<Still>();
    stills.emplace_back(at, still);
    if (world_.linked(node_.id, at) && holder.daemon && !holder.daemon_frozen &&
        holder.daemon->up())
      world_.scheduler.spawn(holder.daemon.get(), holder.daemon->stand_still(id, still));
    else
      still->item = {{"vsd", id.value}};  // one that died, perhaps, and is fenced
  }
  const uint64_t until = world_.scheduler.now() + kProposeFor;
  co_await world_.scheduler.until([&] {
    return world_.scheduler.now() > until ||
           std::all_of(stills.begin(), stills.end(),
                       [](const auto& one) { return one.second->ended; });
  });
  const bool good = std::all_of(stills.begin(), stills.end(), [](const auto& one) {
    return !one.second->item.empty() && one.second->good == one.second->ended;
  });
  Result<json::object> taken = Error{Code::conflict, "somebody does not stand still"};
  if (good) {
    json::array items;
    for (size_t i = 0; i < vsds.size(); i++) {
      const json::object& item = stills[i].second->item;
      world_.oracle.begin_snapshot(name, vsds[i], item.contains("epoch"));
      items.push_back(item);
    }
    do {
      json::object body{{"op", "snapshot"}, {"name", name}, {"vsds", items}};
      taken = co_await propose(std::move(body));
    } while (taken && taken->contains("again"));
  }
  if (taken) {
    world_.oracle.end_snapshot(name);
    world_.say("snapshot " + name + " of " + std::to_string(vsds.size()) + " VSDs is taken");
  }
  for (size_t i = 0; i < vsds.size(); i++) {
    const auto& [at, still] = stills[i];
    if (taken)
      for (const json::value& one : taken->at("taken").as_array())
        if (one.at("vsd").to_number<uint64_t>() == vsds[i].value)
          still->epoch = one.at("epoch").to_number<uint64_t>();
    if (world_.linked(node_.id, at)) still->told = true;
  }
  co_return Done{};
}

Co<Done> Daemon::commit(VsdId id) {
  Vsd& vsd = node_.kernel->vsd(id);
  const uint64_t epoch = vsd.epoch;
  const uint64_t batch = vsd.batch;
  json::array ops;
  for (const meta::Op& op : vsd.closed.ops)
    ops.push_back(json::array{op.chunk, op.segment.start, op.segment.len, op.segment.off,
                              op.segment.extent.value});
  json::array stales;
  for (const meta::Stale& stale : node_.kernel->stales(vsd))
    stales.push_back(json::array{stale.extent.value, stale.disk.value, stale.suspect});
  json::object body = about("commit", id, epoch);
  body["ops"] = std::move(ops);
  body["stales"] = std::move(stales);
  auto done = co_await propose(std::move(body));
  if (done) {
    node_.kernel->batch_done(id, epoch, batch, false);
    co_return Done{};
  }
  if (done.error().code == Code::unknown) co_return Done{};
  if (done.error().code == Code::conflict) {
    world_.refused++;
    node_.kernel->batch_done(id, epoch, batch, true);
    co_return Done{};
  }
  // Only a life that is over loses its lease; then nothing of it counts.
  if (done.error().code == Code::stale) {
    auto nodes = cluster_.nodes().value();
    for (const meta::Node& node : nodes)
      if (node.id.value == node_.id && node.state == "up" && node.life == life_)
        throw Broken("n" + std::to_string(node_.id) +
                     ": a live owner's commit is refused: " + done.error().text);
    node_.kernel->fail(id, epoch);
    co_return Done{};
  }
  throw Broken("commit: " + done.error().text);
}

Co<Done> Daemon::intents(VsdId id) {
  Vsd& vsd = node_.kernel->vsd(id);
  if (vsd.lease != Vsd::Lease::owned || !vsd.loaded) co_return Done{};
  json::array add;
  json::array drop;
  if (vsd.wants_intent && !vsd.intent) add.push_back(uint64_t{0});
  vsd.wants_intent = false;
  if (vsd.intent && node_.kernel->equal_copies(vsd) &&
      world_.scheduler.now() - vsd.touched > kIntentIdle) {
    vsd.intent = false;
    drop.push_back(uint64_t{0});
  }
  if (add.empty() && drop.empty()) co_return Done{};
  const uint64_t epoch = vsd.epoch;
  const bool wanted = !add.empty();
  json::object body = about("intent", id, epoch);
  body["add"] = std::move(add);
  body["drop"] = std::move(drop);
  auto done = co_await propose(std::move(body));
  if (!done || !wanted || !node_.kernel->in_epoch(id, epoch)) co_return Done{};
  if (done->at("added").as_array().empty()) co_return Done{};
  vsd.intent = vsd.loaded;
  vsd.written_gen = vsd.gen;
  vsd.touched = world_.scheduler.now();
  co_return Done{};
}

Co<Done> Daemon::reserve(uint64_t copies) {
  json::object body{{"op", "reserve"},
                    {"node", node_.id},
                    {"life", life_},
                    {"copies", copies},
                    {"count", uint64_t{kStock}}};
  auto done = co_await propose(std::move(body));
  if (!done) co_return Done{};
  const json::array& extents = done->at("extents").as_array();
  node_.kernel->no_space[copies] = extents.empty();
  for (const json::value& value : extents) {
    auto extent = std::make_shared<Extent>();
    extent->id = {value.as_array().at(0).to_number<uint64_t>()};
    extent->exclusive = true;
    for (const json::value& place : value.as_array().at(1).as_array())
      extent->copies.push_back({{place.as_array().at(0).to_number<uint64_t>()},
                                place.as_array().at(1).to_number<uint32_t>(),
                                false});
    node_.kernel->stock[copies].push_back(extent);
  }
  co_return Done{};
}

// House

Co<Done> Daemon::keep_house() {
  for (;;) {
    co_await keep_disks();
    co_await keep_stock();
    co_await keep_leases();
    co_await keep_fences();
    co_await keep_quarantine();
    if (view_.leading) co_await keep_leader();
    co_await world_.scheduler.pause(kHouse);
  }
}

Co<Done> Daemon::keep_disks() {
  auto disks = cluster_.disks().value();
  for (const meta::Disk& row : disks) {
    if (row.node.value != node_.id) continue;
    Disk& disk = world_.disk(row.id);
    json::object body{{"disk", row.id.value}};
    if (row.state == "removed") {
      if (row.life == 0) continue;
      disk.gone = true;
      body["op"] = "disk_closed";
    } else if (disk.failed && row.state != "failed") {
      body["op"] = "disk_failed";
      body["life"] = row.life;
    } else if (!disk.failed && row.state != "failed" &&
               (row.state != "ok" || row.life != disk.life)) {
      if (row.state == "new") {
        json::object made{{"op", "disk_ready"}, {"disk", row.id.value}};
        auto done = co_await propose(std::move(made));
      }
      body["op"] = "disk_up";
      body["life"] = disk.life;
      body["slots"] = disk.slots;
    } else {
      continue;
    }
    auto done = co_await propose(std::move(body));
  }
  co_return Done{};
}

Co<Done> Daemon::keep_stock() {
  auto disks = cluster_.disks().value();
  for (const meta::Disk& disk : disks) {
    if (!disk.leaving && disk.state != "failed" && disk.state != "lost" && disk.state != "removed")
      continue;
    for (auto& [copies, some] : node_.kernel->stock)
      std::erase_if(some, [&](const std::shared_ptr<Extent>& extent) {
        const bool there = std::any_of(extent->copies.begin(), extent->copies.end(),
                                       [&](const meta::Copy& c) { return c.disk == disk.id; });
        if (there) unused_.insert(extent->id.value);
        return there;
      });
  }
  if (unused_.empty()) co_return Done{};
  const std::vector<uint64_t> some(unused_.begin(), unused_.end());
  json::object body{{"op", "unreserve"}, {"node", node_.id}, {"life", life_}};
  body["extents"] = json::value_from(some);
  auto done = co_await propose(std::move(body));
  if (!done) co_return Done{};
  for (const uint64_t id : some) unused_.erase(id);
  co_return Done{};
}

// Leases of this life that nothing here knows of: the answer that gave them never came.
Co<Done> Daemon::keep_leases() {
  auto vsds = cluster_.vsds().value();
  auto before = std::exchange(unclaimed_, {});
  for (const meta::Vsd& vsd : vsds) {
    if (vsd.lease_node.value != node_.id || vsd.lease_life != life_ || changing_.contains(vsd.id) ||
        moving_ || minded_.contains(vsd.id) || node_.kernel->in_epoch(vsd.id, vsd.epoch))
      continue;
    const auto at = before.find(vsd.id);
    const bool same = at != before.end() && at->second.first == vsd.epoch;
    unclaimed_[vsd.id] = same ? at->second : std::pair{vsd.epoch, world_.scheduler.now()};
    if (world_.scheduler.now() - unclaimed_[vsd.id].second < 2 * kProposeFor) continue;
    json::object body{{"op", "lease_drop"},
                      {"vsd", vsd.id.value},
                      {"node", node_.id},
                      {"epoch", vsd.epoch},
                      {"clean", false}};
    auto done = co_await propose(std::move(body));
  }
  co_return Done{};
}

Co<Done> Daemon::keep_fences() {
  auto lives = cluster_.unfenced({node_.id}).value();
  for (const meta::Life& over : lives) {
    if (over.node.value == node_.id && over.life == life_) continue;
    if (over.node.value != node_.id) {
      node_.kernel->fenced.insert({over.node.value, over.life});
      world_.end_from(node_.id, over.node.value, over.life);
    }
    json::object body{
        {"op", "fenced"}, {"node", over.node.value}, {"life", over.life}, {"witness", node_.id}};
    auto done = co_await propose(std::move(body));
  }
  co_return Done{};
}

Co<Done> Daemon::keep_quarantine() {
  const uint64_t index = looking_ && world_.holds(Rule::quarantine) ? 0 : applied();
  if (index != 0 && cluster_.quarantine_behind(barrier_).value()) {
    tell_gathered(barrier_);
    if (world_.holds(Rule::quarantine)) co_await node_.kernel->barrier();
    json::object body{{"op", "seen"}, {"node", node_.id}, {"index", index}};
    auto done = co_await propose(std::move(body));
    if (done) barrier_ = index;
  }
  if (!view_.leading) co_return Done{};
  if (cluster_.has_garbage().value()) {
    json::object body{{"op", "reap"}};
    auto done = co_await propose(std::move(body));
  }
  if (cluster_.quarantine_over().value()) {
    json::object body{{"op", "collect"}};
    auto done = co_await propose(std::move(body));
  }
  co_return Done{};
}

// What a leader looks after: grace, rebalancing, changed numbers of copies.
Co<Done> Daemon::keep_leader() {
  auto disks = cluster_.disks().value();
  auto nodes = cluster_.nodes().value();
  const int64_t grace = cluster_.setting("grace_seconds", 0).value();
  for (const meta::Disk& disk : disks) {
    if (disk.state != "ok" && disk.state != "absent") continue;
    const bool gone = std::any_of(nodes.begin(), nodes.end(), [&](const meta::Node& node) {
      return node.id == disk.node && node.state == "down" && world_.seconds() - node.since > grace;
    });
    if (!gone) continue;
    json::object body{{"op", "disk_lost"}, {"disk", disk.id.value}};
    auto done = co_await propose(std::move(body));
  }
  if (!cluster_.widening().value().empty()) {
    json::object body{{"op", "widen"}};
    auto done = co_await propose(std::move(body));
  }
  if (cluster_.setting("rebalance", 0).value() != 0 && !cluster_.rebalancing().value()) {
    const auto left = cluster_.redundancy().value();
    if (left.stale + left.lost == 0) {
      json::object body{{"op", "rebalance_some"}};
      auto done = co_await propose(std::move(body));
    }
  }
  co_return Done{};
}

}  // namespace sim
