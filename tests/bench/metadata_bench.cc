// SPDX-License-Identifier: GPL-2.0
// What a big disk, its snapshots and clones cost the metadata: metadata_bench DIRECTORY [MIB]
//
// Maps a disk of MIB (default 1 TiB) as a leader does, 64 reservations and one commit at a time,
// each a transaction that is synced; then looks its map up. Beside it: the same rows in the same
// database, put there by plain SQL, transactions as large and synced as well, without proposals,
// patches and the tree's rules. The ratio is what those cost.
//
// Then 5000 snapshots of it, with a write of 4 KiB behind each, and clones of clones; what the last
// of them cost, beside the first.
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string>

#include "meta/map.h"
#include "policy/proposals.h"
#include "policy/rows.h"

namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kAtOnce = 64;
constexpr uint64_t kDisks = 9;
constexpr uint64_t kNodes = 3;
constexpr uint64_t kLooks = 1000;
constexpr uint64_t kLeafChunks = 16;
constexpr uint64_t kSnapshots = 5000;
constexpr uint64_t kCompared = 100;  // snapshots at each end, of which the median counts
constexpr uint64_t kDepth = 100;     // of clones of clones

double since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

class Leader {
 public:
  explicit Leader(meta::Database& database) : database_(database), proposals_(database) {}

  json::object say(json::object body) {
    sequence_++;
    std::vector<policy::Answer> answers;
    const policy::Proposal proposal{{1}, 1, sequence_, sequence_ - 1, std::move(body)};
    proposals_.prepare({&proposal, 1}, sequence_, 1, answers).value();
    database_.commit({sequence_, 0}).value();
    proposals_.committed();
    return policy::from_answer(answers.front()).value();
  }

 private:
  meta::Database& database_;
  policy::Proposals proposals_;
  uint64_t sequence_ = 0;
};

void found(Leader& leader, uint64_t mib) {
  for (uint64_t node = 1; node <= kNodes; node++) {
    const std::string name = "n" + std::to_string(node);
    if (node == 1) {
      leader.say({{"op", "cluster_create"},
                  {"cluster", "bench"},
                  {"uuid", "u"},
                  {"name", name},
                  {"lan", ""},
                  {"backplane", ""}});
    } else {
      leader.say({{"op", "token_add"}, {"hash", name}, {"expires", 10}});
      leader.say(
          {{"op", "node_add"}, {"name", name}, {"lan", ""}, {"backplane", ""}, {"token", name}});
    }
    leader.say({{"op", "node_up"}, {"node", node}, {"life", node}, {"version", "1"}});
  }
  const uint64_t slots = mib + 2 * kSnapshots;  // what is written behind snapshots, too
  for (uint64_t disk = 1; disk <= kDisks; disk++) {
    leader.say({{"op", "disk_add"},
                {"node", 1 + disk % kNodes},
                {"uuid", std::to_string(disk)},
                {"serial", ""},
                {"tier", "hdd"},
                {"slots", slots}});
    leader.say({{"op", "disk_up"}, {"disk", disk}, {"life", 1}, {"slots", slots}});
  }
  leader.say({{"op", "vsd_create"}, {"name", "big"}, {"sectors", mib * 2048}, {"replicas", 2}});
  leader.say({{"op", "lease_take"}, {"vsd", 1}, {"node", 1}, {"life", 1}});
}

double map_all(Leader& leader, uint64_t mib) {
  const auto began = Clock::now();
  for (uint64_t chunk = 0; chunk < mib; chunk += kAtOnce) {
    auto got = leader.say({{"op", "reserve"}, {"node", 1}, {"life", 1}, {"count", kAtOnce}});
    json::array ops;
    for (const json::value& extent : got.at("extents").as_array())
      ops.push_back(json::array{chunk + ops.size(), 0, 2048, 0, extent.at(0)});
    leader.say({{"op", "commit"},
                {"vsd", 1},
                {"node", 1},
                {"life", 1},
                {"epoch", 1},
                {"ops", std::move(ops)},
                {"stales", json::array{}}});
  }
  return static_cast<double>(mib) / since(began);
}

double map_plainly(meta::Database& database, uint64_t mib) {
  const auto began = Clock::now();
  const std::string body(16, 'x');
  for (uint64_t chunk = 0; chunk < mib;) {
    SQLite::Transaction transaction(database.sql());
    for (uint64_t i = 0; i < kAtOnce; i++, chunk++) {
      const auto id = static_cast<int64_t>(chunk + 1);
      policy::run(database, "INSERT INTO extent VALUES(?, 1, 1, 1)", id);
      policy::run(database, "INSERT INTO copy VALUES(?, ?, ?, 0)", id % 3, id, id);
      policy::run(database, "INSERT INTO copy VALUES(?, ?, ?, 0)", 3 + id % 3, id, id);
      policy::run(database, "INSERT INTO tree VALUES(?, 0, 1, ?)", id, body);
    }
    transaction.commit();
  }
  return static_cast<double>(mib) / since(began);
}

double median_us(std::vector<double> seconds) {
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2),
                   seconds.end());
  return seconds[seconds.size() / 2] * 1e6;
}

// Extents, a few in each entry, so that what they cost is not measured.
class Stock {
 public:
  explicit Stock(Leader& leader) : leader_(leader) {}

  json::value take() {
    if (left_.empty())
      left_ = leader_.say({{"op", "reserve"}, {"node", 1}, {"life", 1}, {"count", kAtOnce}})
                  .at("extents")
                  .as_array();
    if (left_.empty()) throw std::runtime_error("no space is left");
    json::value id = left_.back().at(0);
    left_.pop_back();
    return id;
  }

 private:
  Leader& leader_;
  json::array left_;
};

json::object commit_4k(uint64_t vsd, uint64_t epoch, uint64_t chunk, const json::value& extent) {
  return {{"op", "commit"},
          {"vsd", vsd},
          {"node", 1},
          {"life", 1},
          {"epoch", epoch},
          {"ops", {json::array{chunk, 0, 8, 0, extent}}},
          {"stales", json::array{}}};
}

// The first and the last of many snapshots, and of the writes behind them.
json::object snapshots(Leader& leader, Stock& stock, uint64_t mib) {
  std::minstd_rand draw(2);  // NOLINT(cert-msc51-cpp): each run shall write to the same places
  std::vector<double> takes;
  std::vector<double> writes;
  uint64_t epoch = 1;
  for (uint64_t i = 0; i < kSnapshots; i++) {
    const json::object held{{"vsd", 1}, {"node", 1}, {"life", 1}, {"epoch", epoch}};
    const json::value extent = stock.take();
    auto began = Clock::now();
    leader.say({{"op", "snapshot"}, {"name", "s" + std::to_string(i)}, {"vsds", {held}}});
    takes.push_back(since(began));
    epoch++;
    began = Clock::now();
    leader.say(commit_4k(1, epoch, draw() % mib, extent));
    writes.push_back(since(began));
  }
  leader.say({{"op", "lease_drop"}, {"vsd", 1}, {"node", 1}, {"epoch", epoch}, {"clean", true}});
  auto ends = [](const std::vector<double>& of) {
    const auto few = static_cast<int64_t>(kCompared);
    return json::array{median_us({of.begin(), of.begin() + few}),
                       median_us({of.end() - few, of.end()})};
  };
  return {
      {"snapshots", kSnapshots}, {"snapshot_us", ends(takes)}, {"write_behind_us", ends(writes)}};
}

// A clone of a clone and so on, each written to; the last one.
uint64_t clone_deep(Leader& leader, Stock& stock, uint64_t mib) {
  uint64_t vsd = 1;
  for (uint64_t depth = 0; depth < kDepth; depth++) {
    const std::string name = "d" + std::to_string(depth);
    vsd = leader.say({{"op", "snapshot"}, {"clone", name}, {"vsds", {json::object{{"vsd", vsd}}}}})
              .at("taken")
              .at(0)
              .at("clone")
              .to_number<uint64_t>();
    leader.say({{"op", "lease_take"}, {"vsd", vsd}, {"node", 1}, {"life", 1}});
    leader.say(commit_4k(vsd, 1, depth % mib, stock.take()));
    leader.say({{"op", "lease_drop"}, {"vsd", vsd}, {"node", 1}, {"epoch", 1}, {"clean", true}});
  }
  return vsd;
}

// The mean of many leaves.
double look_up_leaves(const std::string& path, uint64_t vsd, uint64_t mib) {
  auto database = meta::Database::open_reader(path).value();
  meta::Map map(*database);
  std::minstd_rand draw(1);  // NOLINT(cert-msc51-cpp): each run shall look at the same leaves
  const auto began = Clock::now();
  for (uint64_t i = 0; i < kLooks; i++) map.leaf({vsd}, draw() % (mib / kLeafChunks)).value();
  return since(began) / kLooks;
}

// Seconds from a closed database to its first leaf.
double open_and_look(const std::string& path, uint64_t mib) {
  const auto began = Clock::now();
  auto database = meta::Database::open_reader(path).value();
  meta::Map map(*database);
  map.leaf({1}, mib / kLeafChunks - 1).value();
  return since(began);
}

int run(const std::filesystem::path& directory, uint64_t mib) {
  const std::string path = directory / "big.db";
  const std::string plain = directory / "plain.db";
  for (const std::string& file : {path, plain})
    for (const char* side : {"", "-wal", "-shm"}) std::filesystem::remove(file + side);
  double rate = 0;
  uint64_t deepest = 0;
  json::object taken;
  uintmax_t before = 0;
  {
    auto database = meta::Database::open(path).value();
    Leader leader(*database);
    found(leader, mib);
    rate = map_all(leader, mib);
    database->sql().exec("PRAGMA wal_checkpoint(TRUNCATE)");
    before = std::filesystem::file_size(path);
    Stock stock(leader);
    taken = snapshots(leader, stock, mib);
    deepest = clone_deep(leader, stock, mib);
  }
  double plain_rate = 0;
  {
    auto database = meta::Database::open(plain).value();
    plain_rate = map_plainly(*database, mib / 16);
  }
  const double first = open_and_look(path, mib);
  const double mean = look_up_leaves(path, 1, mib);
  const double deep = look_up_leaves(path, deepest, mib);
  const auto walked = Clock::now();
  auto reader = meta::Database::open_reader(path).value();
  meta::Map(*reader).spread({1}).value();
  const double walk = since(walked);
  const auto after = std::filesystem::file_size(path);
  json::object out{{"mapped_mib", mib},
                   {"extents_per_s", rate},
                   {"plain_sql_extents_per_s", plain_rate},
                   {"of_plain_sql", rate / plain_rate},
                   {"open_to_first_leaf_ms", first * 1e3},
                   {"leaf_us", mean * 1e6},
                   {"leaf_of_clone_us", deep * 1e6},
                   {"clone_depth", kDepth},
                   {"whole_map_s", walk},
                   {"database_mib", before >> 20},
                   {"kib_per_snapshot", static_cast<double>(after - before) / 1024 / kSnapshots}};
  for (auto& [name, value] : taken) out[name] = value;
  std::printf("%s\n", json::serialize(out).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "metadata_bench DIRECTORY [MIB]\n");
    return 2;
  }
  try {
    return run(argv[1], argc > 2 ? std::stoull(argv[2]) : uint64_t{1} << 20);
  } catch (const std::exception& err) {
    std::fprintf(stderr, "metadata_bench: %s\n", err.what());
    return 1;
  }
}
