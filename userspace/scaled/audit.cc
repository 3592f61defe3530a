// SPDX-License-Identifier: GPL-2.0
#include "audit.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <sstream>

#include "core/rest.h"
#include "policy/audit.h"

namespace scaled {

using core::NodeId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

namespace {

constexpr seconds kEvery{3600};
constexpr seconds kTick{1};
constexpr seconds kAuditAskEvery{1};
constexpr seconds kOthersTakeAtMost{600};  // longer than this node took
constexpr milliseconds kAuditTimeout{2'000};
constexpr int kNice = 19;

boost::json::object to_json(const Audit::Digest& digest) {
  return {{"audit_index", digest.index}, {"audit_digest", digest.hex()}};
}

// Nothing where a node of another version answers what makes no sense here.
std::optional<Audit::Digest> digest_of(const boost::json::object& status) {
  try {
    const std::string hex(status.at("audit_digest").as_string());
    Audit::Digest out{status.at("audit_index").to_number<uint64_t>(), {}};
    if (!hex.empty()) out.value = std::stoull(hex, nullptr, 16);
    return out;
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace

std::string Audit::Digest::hex() const {
  if (!value) return "";
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << *value;
  return out.str();
}

Audit::Audit(const Paths& paths, const Config& config, Peers& peers,
             std::function<void(const std::string&)> note,
             std::function<void(const Error&, const std::vector<NodeId>&)> wrong)
    : paths_(paths),
      config_(config),
      peers_(peers),
      note_(std::move(note)),
      wrong_(std::move(wrong)) {
  // The nodes that asked may not have heard yet what this one found before it copied another's
  // metadata, for which its daemon was started anew.
  std::error_code err;
  if (!std::filesystem::exists(paths_.audited(), err)) return;
  auto text = read_file(paths_.audited());
  boost::system::error_code unreadable;
  const boost::json::value before = text ? boost::json::parse(*text, unreadable) : nullptr;
  if (const auto* found = before.if_object()) last_ = digest_of(*found).value_or(Digest{});
  std::filesystem::remove(paths_.audited(), err);
}

Audit::~Audit() {
  thread_.request_stop();
  const std::lock_guard lock(mutex_);
  if (busy_ != nullptr) busy_->interrupt();
}

void Audit::begin(const meta::Position& at) {
  auto view = meta::Database::open_reader(paths_.database());
  auto held = view ? (*view)->hold() : Result<void>(view.error());
  if (!held) {
    spdlog::error("audit at change {}: {}", at.index, held.error().text);
    return;
  }
  const std::lock_guard lock(mutex_);
  view_ = std::move(*view);
  last_ = {at.index, {}};
  wake_.notify_all();
}

void Audit::run(replica::Replica& replica) {
  thread_ = std::jthread([this, &replica](const std::stop_token& stop) {
    // In Linux a thread has a nice value of its own.
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
    work(stop, replica);
  });
}

void Audit::work(const std::stop_token& stop, replica::Replica& replica) {
  auto next = steady_clock::now() + kEvery;
  while (!stop.stop_requested()) {
    std::unique_ptr<meta::Database> view;
    uint64_t index = 0;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, kTick, [&] { return view_ != nullptr; });
      view = std::move(view_);
      busy_ = view.get();
      index = last_.index;
    }
    if (view) {
      look(stop, std::move(view), index);
    } else if (!config_.single && replica.leading() && steady_clock::now() >= next) {
      next = steady_clock::now() + kEvery;
      auto asked = replica.propose({{"op", "audit"}}, steady_clock::now() + kProposeFor);
      if (!asked) spdlog::warn("audit: {}", asked.error().text);
    }
  }
}

void Audit::look(const std::stop_token& stop, std::unique_ptr<meta::Database> view,
                 uint64_t index) {
  auto digest = view->digest();
  {
    const std::lock_guard lock(mutex_);
    busy_ = nullptr;
    if (digest && last_.index == index) last_.value = *digest;
  }
  auto nodes = meta::Cluster(*view).nodes();
  view.reset();  // a log of the database grows behind it
  if (stop.stop_requested()) return;
  if (!digest || !nodes) {
    const Error why = digest ? nodes.error() : digest.error();
    spdlog::error("audit at change {}: {}", index, why.text);
    if (why.code == Code::corrupt) wrong_(why, {});
    return;
  }
  judge(index, collect(index, *nodes, steady_clock::now() + kOthersTakeAtMost, stop));
}

Audit::Digest Audit::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

boost::json::object Audit::status() const { return to_json(last()); }

Audit::Digests Audit::collect(uint64_t index, const std::vector<meta::Node>& nodes,
                              steady_clock::time_point deadline, const std::stop_token& stop) {
  Digests out;
  for (;;) {
    bool all = true;
    for (const meta::Node& node : nodes) {
      if (node.state != "up") continue;
      auto& known = out[node.id];
      if (known && known->index >= index && known->value) continue;
      if (node.id == config_.node) {
        known = last();
      } else {
        auto status = peers_.call(node.id, "/peer/status", {}, kAuditTimeout);
        known = status ? digest_of(*status) : std::nullopt;
      }
      all = all && known && known->index >= index && known->value;
    }
    if (all || stop.stop_requested() || steady_clock::now() >= deadline) return out;
    core::rest_until(stop, steady_clock::now() + kAuditAskEvery);
  }
}

void Audit::judge(uint64_t index, const Digests& digests) {
  std::map<NodeId, uint64_t> at_index;
  for (const auto& [node, digest] : digests)
    if (digest && digest->index == index && digest->value) at_index[node] = *digest->value;
  const auto own = at_index.find(config_.node);
  // A later audit began meanwhile: that one counts.
  if (own == at_index.end()) return;
  std::string others;
  for (const auto& [node, digest] : at_index)
    if (digest != own->second) others += " " + std::to_string(node.value);
  const auto right = policy::majority(at_index);
  if (others.empty()) {
    spdlog::info("audit at change {}: {} nodes have equal metadata", index, at_index.size());
    note_("");
    return;
  }
  const std::string text = "at change " + std::to_string(index) +
                           " the metadata here differs from that of node" + others;
  spdlog::critical("{}", text);
  if (right.empty()) {
    note_(text +
          "; no majority tells who is right: run 'scalectl cluster audit' when all nodes "
          "are up");
  } else if (std::find(right.begin(), right.end(), config_.node) == right.end()) {
    if (auto kept = write_file(paths_.audited(),
                               boost::json::serialize(to_json(*digests.at(config_.node))), 0600);
        !kept)
      spdlog::error("{}", kept.error().text);
    wrong_({Code::corrupt, text}, right);
  } else {
    note_(text + ", which is about to copy it from here");
  }
}

}  // namespace scaled
