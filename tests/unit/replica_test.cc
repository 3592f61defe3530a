// SPDX-License-Identifier: GPL-2.0
// Two nodes on one log in memory, whose leader dies at each step of a proposal's way.
#include "replica/replica.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

#include "journal/record.h"
#include "meta/cluster.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using core::Code;
using core::Error;
using core::NodeId;
using core::Result;
using journal::Entry;
using replica::Clock;
using replica::Replica;
using replica::Served;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kPatience{60};

enum class Death { never, before_append, after_append, before_answer };

// What etcd is to the nodes.
struct Shared {
  std::mutex mutex;
  std::vector<Entry> entries;
  NodeId leader;
  uint64_t first = 1;
};

class MemoryLog final : public journal::Log {
 public:
  MemoryLog(Shared& shared, NodeId node, std::atomic<Death>& death)
      : shared_(shared), node_(node), death_(death) {}

  Result<journal::View> tend(uint64_t) override {
    const std::lock_guard lock(shared_.mutex);
    return journal::View{shared_.leader == node_, shared_.leader};
  }
  Result<Entry> append(uint64_t index, uint64_t prev_hash, std::string payload) override {
    const std::lock_guard lock(shared_.mutex);
    if (death_ == Death::before_append) return Error{Code::unknown, "killed"};
    if (shared_.leader != node_ || index != shared_.entries.size() + 1)
      return Error{Code::conflict, "another leads"};
    const std::string record = journal::encode_record(index, prev_hash, payload);
    shared_.entries.push_back(
        {index, prev_hash, journal::decode_record(record, 0)->hash, std::move(payload)});
    if (death_ == Death::after_append) return Error{Code::unknown, "killed"};
    return shared_.entries.back();
  }
  Result<std::vector<Entry>> read_from(uint64_t index, size_t limit) override {
    const std::lock_guard lock(shared_.mutex);
    if (index < shared_.first) return Error{Code::stale, "trimmed"};
    std::vector<Entry> out;
    for (; index <= shared_.entries.size() && out.size() < limit; index++)
      out.push_back(shared_.entries[index - 1]);
    return out;
  }
  Result<void> trim(uint64_t) override { return {}; }

 private:
  Shared& shared_;
  const NodeId node_;
  std::atomic<Death>& death_;
};

class Node {
 public:
  Node(Shared& shared, uint64_t id, const fs::path& dir, std::map<uint64_t, Node*>& nodes)
      : id_{id}, path_(dir / ("db-" + std::to_string(id))) {
    replica_ = std::make_unique<Replica>(
        id_, meta::Database::open(path_).value(), std::make_unique<MemoryLog>(shared, id_, death_),
        [&nodes](NodeId leader, const std::vector<policy::Proposal>& proposals) -> Result<Served> {
          Node* node = nodes.at(leader.value);
          if (node == nullptr || node->ended_) return Error{Code::unknown, "unreachable"};
          auto served = node->replica_->serve(proposals, Clock::now() + seconds(2));
          if (node->death_ == Death::before_answer) return Error{Code::unknown, "no answer"};
          return served;
        },
        [](bool) {},
        [this](const meta::Position& at) {
          auto view = meta::Database::open_reader(path_).value();
          EXPECT_TRUE(view->hold());
          const std::lock_guard lock(views_mutex_);
          views_[at.index] = std::move(view);
        });
    thread_ = std::jthread([this](const std::stop_token& stop) {
      result_ = replica_->run(stop);
      ended_ = true;
    });
  }
  ~Node() { stop(); }

  Replica& replica() { return *replica_; }
  void die_at(Death death) { death_ = death; }
  bool ended() const { return ended_; }
  Result<void> stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    return result_;
  }
  uint64_t digest() { return meta::Database::open_reader(path_).value()->digest().value(); }
  /// What this node's database was at an audited entry; nothing where it did not come by.
  std::optional<uint64_t> digest_at(uint64_t index) {
    const std::lock_guard lock(views_mutex_);
    const auto view = views_.find(index);
    if (view == views_.end()) return {};
    return view->second->digest().value();
  }
  /// Behind the log's back, while it is stopped.
  void change(const std::string& statement) {
    replica_.reset();
    meta::Database::open(path_).value()->sql().exec(statement);
  }
  /// Overwrites the pages of a table, while it is stopped.
  void damage(const std::string& table) {
    replica_.reset();
    int64_t page = 0;
    int64_t bytes = 0;
    {
      auto database = meta::Database::open(path_).value();
      database->sql().exec("PRAGMA wal_checkpoint(TRUNCATE)");
      page = database->sql()
                 .execAndGet("SELECT rootpage FROM sqlite_master WHERE name = '" + table + "'")
                 .getInt64();
      bytes = database->sql().execAndGet("PRAGMA page_size").getInt64();
    }
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp((page - 1) * bytes);
    file << std::string(static_cast<size_t>(bytes), 'x');
  }
  size_t vsds() {
    auto reader = meta::Database::open_reader(path_).value();
    return meta::Cluster(*reader).vsds()->size();
  }

 private:
  const NodeId id_;
  const fs::path path_;
  std::atomic<Death> death_{Death::never};
  std::atomic<bool> ended_{false};
  std::mutex views_mutex_;
  std::map<uint64_t, std::unique_ptr<meta::Database>> views_;
  std::unique_ptr<Replica> replica_;
  Result<void> result_;
  std::jthread thread_;
};

class ReplicaTest : public testing::TestWithParam<Death> {
 protected:
  ReplicaTest()
      : dir_(fs::temp_directory_path() / ("scribe-replica-" + std::to_string(::getpid()))) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    shared_.leader = {1};
    start(1);
    start(2);
  }
  ~ReplicaTest() override {
    owned_.clear();
    fs::remove_all(dir_);
  }
  void start(uint64_t id) {
    owned_.erase(id);
    owned_[id] = std::make_unique<Node>(shared_, id, dir_, nodes_);
    nodes_[id] = owned_[id].get();
  }
  void lead(uint64_t id) {
    const std::lock_guard lock(shared_.mutex);
    shared_.leader = {id};
  }
  static json::object create(const std::string& name) {
    return {{"op", "vsd_create"}, {"name", name}, {"sectors", 2048}, {"replicas", 2}};
  }

  const fs::path dir_;
  Shared shared_;
  std::map<uint64_t, Node*> nodes_{{1, nullptr}, {2, nullptr}};
  std::map<uint64_t, std::unique_ptr<Node>> owned_;
};

TEST_P(ReplicaTest, AProposalIsDecidedOnceThoughItsLeaderDiesAndAnotherLeads) {
  nodes_[2]->replica().propose(create("first"), Clock::now() + kPatience).value();
  nodes_[1]->die_at(GetParam());
  std::thread successor([&] {
    std::this_thread::sleep_for(milliseconds(700));
    lead(2);
  });
  auto answer = nodes_[2]->replica().propose(create("second"), Clock::now() + kPatience);
  successor.join();
  ASSERT_TRUE(answer) << answer.error().text;
  EXPECT_TRUE(answer->contains("vsd"));
  EXPECT_EQ(nodes_[2]->vsds(), 2U);

  // The dead one comes back: what it had not committed itself it finds in the log.
  nodes_[1]->stop().has_error();
  start(1);
  const uint64_t index = nodes_[2]->replica().applied().index;
  ASSERT_TRUE(nodes_[1]->replica().wait_applied(index, Clock::now() + kPatience));
  EXPECT_EQ(nodes_[1]->digest(), nodes_[2]->digest());
  EXPECT_EQ(nodes_[1]->replica().applied(), nodes_[2]->replica().applied());
}

INSTANTIATE_TEST_SUITE_P(EachStep, ReplicaTest,
                         testing::Values(Death::never, Death::before_append, Death::after_append,
                                         Death::before_answer));

TEST_F(ReplicaTest, ManyProposersGetTheirOwnAnswers) {
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; i++) {
        const std::string name = std::to_string(t) + "-" + std::to_string(i);
        auto made = nodes_[1 + t % 2]->replica().propose(create(name), Clock::now() + kPatience);
        auto again = nodes_[1]->replica().propose(create(name), Clock::now() + kPatience);
        good += made && !again && again.error().code == Code::conflict;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 80);
  EXPECT_EQ(nodes_[1]->vsds(), 80U);
}

TEST_F(ReplicaTest, WhatDoesNotFitIntoAnEntryIsRefusedAndTheRestGoesOn) {
  json::object huge = {{"op", "disk_add"}, {"node", 1},
                       {"uuid", "u"},      {"serial", std::string(4 << 20, 'x')},
                       {"tier", "hdd"},    {"slots", 5}};
  nodes_[1]
      ->replica()
      .propose({{"op", "cluster_create"},
                {"cluster", "c"},
                {"uuid", "u"},
                {"name", "n"},
                {"lan", "a"},
                {"backplane", "b"}},
               Clock::now() + kPatience)
      .value();
  std::thread other([&] {
    EXPECT_TRUE(nodes_[1]->replica().propose(create("small"), Clock::now() + kPatience));
  });
  auto refused = nodes_[2]->replica().propose(std::move(huge), Clock::now() + kPatience);
  other.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid);
  EXPECT_TRUE(nodes_[2]->replica().propose(create("after"), Clock::now() + kPatience));
  EXPECT_EQ(nodes_[1]->vsds(), 2U);
}

TEST_F(ReplicaTest, WithoutALeaderAProposalEndsUnknownAtItsDeadline) {
  lead(0);
  nodes_[1]->replica().propose(create("a"), Clock::now() + seconds(1)).has_error();
  auto answer = nodes_[2]->replica().propose(create("b"), Clock::now() + seconds(1));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Code::unknown);
  lead(1);
  EXPECT_TRUE(nodes_[2]->replica().propose(create("c"), Clock::now() + kPatience));
}

TEST_F(ReplicaTest, ADatabaseThatTheLogNoLongerReachesAsksForACopy) {
  nodes_[1]->replica().propose(create("a"), Clock::now() + kPatience).value();
  nodes_[2]->stop().value();
  nodes_[1]->replica().propose(create("b"), Clock::now() + kPatience).value();
  nodes_[1]->replica().propose(create("c"), Clock::now() + kPatience).value();
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.first = 3;
  }
  start(2);
  while (!nodes_[2]->ended()) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(nodes_[2]->stop().error().code, Code::stale);
}

TEST_F(ReplicaTest, ADatabaseWithAnotherHistoryStopsInsteadOfGoingOn) {
  nodes_[2]->replica().propose(create("a"), Clock::now() + kPatience).value();
  nodes_[2]->stop().value();
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.entries.push_back({2, 12345, 6789, ""});
  }
  start(2);
  while (!nodes_[2]->ended()) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(nodes_[2]->stop().error().code, Code::corrupt);
}

TEST_F(ReplicaTest, AnAuditComparesTheDatabasesAsTheyWereAtItsEntry) {
  std::atomic<bool> done{false};
  std::thread other([&] {
    for (int i = 0; !done; i++)
      nodes_[2]
          ->replica()
          .propose(create("o" + std::to_string(i)), Clock::now() + kPatience)
          .value();
  });
  for (int i = 0; i < 10; i++) {
    auto asked = nodes_[1 + i % 2]->replica().propose({{"op", "audit"}}, Clock::now() + kPatience);
    const uint64_t index = asked.value().at("index").to_number<uint64_t>();
    for (Node* node : {nodes_[1], nodes_[2]})
      ASSERT_TRUE(node->replica().wait_applied(index + 1, Clock::now() + kPatience));
    ASSERT_TRUE(nodes_[1]->digest_at(index).has_value());
    EXPECT_EQ(nodes_[1]->digest_at(index), nodes_[2]->digest_at(index));
    EXPECT_NE(nodes_[1]->digest_at(index), nodes_[1]->digest());
  }
  done = true;
  other.join();
}

TEST_F(ReplicaTest, ARowThatChangedBesideTheLogDiffersInTheNextAudit) {
  nodes_[2]->replica().propose(create("a"), Clock::now() + kPatience).value();
  nodes_[2]->stop().value();
  nodes_[2]->change("UPDATE vsd SET sectors = sectors + 2048");
  start(2);
  auto asked = nodes_[2]->replica().propose({{"op", "audit"}}, Clock::now() + kPatience);
  const uint64_t index = asked.value().at("index").to_number<uint64_t>();
  EXPECT_NE(nodes_[1]->digest_at(index), nodes_[2]->digest_at(index));
}

TEST_F(ReplicaTest, ADamagedDatabaseAsksForACopyInsteadOfLeading) {
  nodes_[2]->replica().propose(create("a"), Clock::now() + kPatience).value();
  lead(2);
  nodes_[2]->replica().propose(create("b"), Clock::now() + kPatience).value();
  nodes_[2]->stop().value();
  nodes_[2]->damage("vsd");
  start(2);
  auto answer = nodes_[2]->replica().propose(create("c"), Clock::now() + seconds(2));
  EXPECT_FALSE(answer);
  while (!nodes_[2]->ended()) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(nodes_[2]->stop().error().code, Code::corrupt);
  // Nothing of it was decided.
  lead(1);
  EXPECT_TRUE(nodes_[1]->replica().propose(create("c"), Clock::now() + kPatience));
}

TEST(RetentionTest, EntriesAreKeptByNumberAndBySizeWhicheverIsLess) {
  replica::Retention by_number(10, 1000);
  for (uint64_t index = 1; index <= 10; index++) by_number.add(index, 1);
  EXPECT_EQ(by_number.trimmable(), 0U);
  by_number.add(11, 1);
  EXPECT_EQ(by_number.trimmable(), 1U);
  by_number.add(12, 995);
  EXPECT_EQ(by_number.trimmable(), 6U);
  by_number.add(13, 2000);  // larger than all: it alone stays
  EXPECT_EQ(by_number.trimmable(), 12U);
}

TEST(RetentionTest, AfterARestartOlderEntriesCountThoughTheirSizesAreNotKnown) {
  replica::Retention retention(10, 1000);
  retention.add(100, 1);
  EXPECT_EQ(retention.trimmable(), 90U);
  for (uint64_t index = 101; index <= 120; index++) retention.add(index, 100);
  EXPECT_EQ(retention.trimmable(), 110U);
}

}  // namespace
