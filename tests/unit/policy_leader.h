// SPDX-License-Identifier: GPL-2.0
// What tests of proposals have in common: a leader that decides them, and an extent whose copies
// move.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/proposals.h"

namespace policy_tests {

namespace json = boost::json;
using core::Code;
using core::DiskId;
using core::NodeId;
using policy::Answer;
using policy::Proposal;

// A leader's database, with a follower that sees its patches.
class Leader {
 public:
  Leader()
      : db_(meta::Database::open(":memory:").value()),
        follower_(meta::Database::open(":memory:").value()),
        decisions_(*db_) {}

  std::vector<Answer> entry(const std::vector<Proposal>& proposals) {
    std::vector<Answer> answers;
    auto patch = decisions_.prepare(proposals, index_ + 1, now, answers).value();
    index_++;
    db_->commit({index_, 0}).value();
    decisions_.committed();
    follower_->apply({index_, 0}, patch).value();
    EXPECT_EQ(db_->digest().value(), follower_->digest().value());
    return answers;
  }
  core::Result<json::object> say(json::object body, uint64_t node = 1) {
    Proposal p{{node}, 1000 + node, ++sequence_[node], sequence_[node] - 1, std::move(body)};
    return policy::from_answer(entry({p}).front());
  }
  Code refusal(json::object body) {
    auto answer = say(std::move(body));
    EXPECT_FALSE(answer);
    return answer ? Code::unknown : answer.error().code;
  }

  /// A cluster of `nodes` that are up in life node * 100, with one disk each.
  void found(uint64_t nodes) {
    say({{"op", "cluster_create"},
         {"cluster", "c"},
         {"uuid", "u"},
         {"name", "n1"},
         {"lan", "a"},
         {"backplane", "b"}})
        .value();
    for (uint64_t node = 2; node <= nodes; node++) {
      const std::string name = "n" + std::to_string(node);
      say({{"op", "token_add"}, {"hash", name}, {"expires", now + 10}}).value();
      EXPECT_EQ(say({{"op", "node_add"},
                     {"name", name},
                     {"lan", "a"},
                     {"backplane", "b"},
                     {"token", name}})
                    ->at("node")
                    .to_number<uint64_t>(),
                node);
    }
    for (uint64_t node = 1; node <= nodes; node++) {
      up(node, node * 100).value();
      add_disk(node);
    }
  }
  void add_disk(uint64_t node) {
    disks_++;
    const std::string uuid = "uuid-" + std::to_string(disks_);
    say({{"op", "disk_add"},
         {"node", node},
         {"uuid", uuid},
         {"serial", uuid},
         {"tier", "hdd"},
         {"slots", 20}})
        .value();
    say({{"op", "disk_up"}, {"disk", disks_}, {"life", 5}, {"slots", 20}}).value();
  }
  core::Result<json::object> up(uint64_t node, uint64_t life) {
    return say({{"op", "node_up"}, {"node", node}, {"life", life}, {"version", "1"}});
  }
  core::Result<json::object> lease(uint64_t vsd, uint64_t node, uint64_t life) {
    return say({{"op", "lease_take"}, {"vsd", vsd}, {"node", node}, {"life", life}});
  }
  core::Result<json::object> fenced(uint64_t node, uint64_t life, uint64_t witness) {
    return say({{"op", "fenced"}, {"node", node}, {"life", life}, {"witness", witness}});
  }
  uint64_t make_vsd() {
    return say({{"op", "vsd_create"}, {"name", "v"}, {"sectors", 2048 * 64}, {"replicas", 2}})
        ->at("vsd")
        .to_number<uint64_t>();
  }
  json::array reserve(uint64_t node, uint64_t count) {
    return say({{"op", "reserve"}, {"node", node}, {"life", node * 100}, {"count", count}})
        ->at("extents")
        .as_array();
  }

  meta::Cluster cluster() { return meta::Cluster(*db_); }
  meta::Database& db() { return *db_; }
  uint64_t index() const { return index_; }
  int64_t now = 1000;

 private:
  std::unique_ptr<meta::Database> db_;
  std::unique_ptr<meta::Database> follower_;
  policy::Proposals decisions_;
  uint64_t index_ = 0;
  uint64_t disks_ = 0;
  std::map<uint64_t, uint64_t> sequence_;
};

// Three nodes with a disk each, and an extent of VSD v that is mapped in two copies. Node 1 holds
// the lease.
class Moves : public ::testing::Test {
 protected:
  Moves() {
    leader.found(3);
    vsd = leader.make_vsd();
    leader.lease(vsd, 1, 100).value();
    extent = leader.reserve(1, 1)[0].as_array()[0].to_number<uint64_t>();
    commit({}).value();
  }
  json::object about(const char* op, uint64_t epoch = 1) {
    return {{"op", op}, {"vsd", vsd}, {"node", 1}, {"life", 100}, {"epoch", epoch}};
  }
  core::Result<json::object> commit(const std::vector<uint64_t>& stale) {
    json::array stales;
    for (const uint64_t disk : stale) stales.push_back(json::array{extent, disk});
    json::object body = about("commit");
    body["ops"] = json::array{json::array{0, 0, 8, 0, extent}};
    body["stales"] = std::move(stales);
    return leader.say(std::move(body));
  }
  core::Result<json::object> place(uint64_t epoch = 1) {
    json::object body = about("place", epoch);
    body["extents"] = json::array{extent};
    return leader.say(std::move(body));
  }
  bool moved(uint64_t from, uint64_t to, uint64_t since, uint64_t drop = 0) {
    json::object body = about("moved");
    body["items"] = json::array{json::array{extent, from, to, since, drop}};
    return leader.say(std::move(body))->at("done").as_array()[0].as_bool();
  }
  /// The extent is unmapped, and its slots are free when all have seen that.
  void free_all() {
    json::object body = about("commit");
    body["ops"] = json::array{json::array{0, 0, 8, 0, 0}};
    body["stales"] = json::array{};
    leader.say(std::move(body)).value();
    const uint64_t index = leader.index();
    for (const uint64_t node : {1, 2, 3})
      leader.say({{"op", "seen"}, {"node", node}, {"index", index}}).value();
    EXPECT_NE(leader.say({{"op", "collect"}})->at("freed").to_number<int>(), 0);
  }
  std::vector<meta::CopyRow> copies() { return leader.cluster().copies({extent}).value(); }
  /// The disks of its copies, stale ones as negative numbers.
  std::set<int64_t> lie() {
    std::set<int64_t> out;
    for (const meta::CopyRow& row : copies())
      out.insert(static_cast<int64_t>(row.disk.value) * (row.stale != 0 ? -1 : 1));
    return out;
  }
  uint64_t since(uint64_t disk) {
    for (const meta::CopyRow& row : copies())
      if (row.disk.value == disk) return row.stale;
    return 0;
  }
  core::Result<json::object> fail(uint64_t disk) {
    return leader.say({{"op", "disk_failed"}, {"disk", disk}, {"life", 5}});
  }
  core::Result<json::object> leave(uint64_t disk, bool leaving = true) {
    return leader.say({{"op", "disk_leave"}, {"disk", disk}, {"leaving", leaving}});
  }
  core::Result<json::object> remove(uint64_t disk) {
    return leader.say({{"op", "disk_remove"}, {"disk", disk}});
  }
  size_t ailing() {
    meta::AilingAt at;
    std::set<core::ExtentId> found;
    while (!at.end)
      for (const meta::Owned& one : leader.cluster().ailing(at, 1).value())
        found.insert(one.extent);
    return found.size();
  }
  uint64_t other(uint64_t a, uint64_t b) { return 6 - a - b; }

  Leader leader;
  uint64_t vsd = 0;
  uint64_t extent = 0;
};

}  // namespace policy_tests
