// SPDX-License-Identifier: GPL-2.0
// What the metadata's smallest steps cost, each beside the least that could be done instead.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <map>
#include <random>

#include "core/segments.h"
#include "meta/map.h"
#include "policy/hosts.h"
#include "policy/placement.h"
#include "policy/proposals.h"

namespace {

namespace json = boost::json;

constexpr uint64_t kMappedMib = 4096;
constexpr uint64_t kAtOnce = 64;
constexpr uint64_t kPieceSectors = 8;

// A chunk in so many pieces, none of which continues another.
core::Segments pieces(uint64_t count) {
  core::Segments out;
  for (uint64_t i = 0; i < count; i++)
    out = core::splice(out,
                       {static_cast<uint16_t>(2 * i * kPieceSectors), kPieceSectors, 0, {i + 1}});
  return out;
}

void a_piece_into_a_chunk(benchmark::State& state) {
  const core::Segments chunk = pieces(static_cast<uint64_t>(state.range(0)));
  uint16_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(core::splice(chunk, {at, kPieceSectors, 0, {99}}));
    at = static_cast<uint16_t>((at + 3 * kPieceSectors) % core::kChunkSectors);
  }
}
BENCHMARK(a_piece_into_a_chunk)->Arg(1)->Arg(16)->Arg(63);

void a_chunk_to_its_row_and_back(benchmark::State& state) {
  const core::Segments chunk = pieces(static_cast<uint64_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(core::unpack(core::pack(chunk)));
}
BENCHMARK(a_chunk_to_its_row_and_back)->Arg(1)->Arg(16)->Arg(63);

// A leader alone with its database, in memory as far as sqlite goes: no disk is measured here.
class Leader {
 public:
  Leader()
      : directory_(std::filesystem::temp_directory_path() /
                   ("scribe-micro-bench-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(directory_);
    database_ = meta::Database::open(path()).value();
    database_->sql().exec("PRAGMA synchronous = OFF");
    proposals_.emplace(*database_);
    say({{"op", "cluster_create"},
         {"cluster", "b"},
         {"uuid", "u"},
         {"name", "n1"},
         {"lan", ""},
         {"backplane", ""}});
    for (uint64_t node = 2; node <= 3; node++) {
      const std::string name = "n" + std::to_string(node);
      say({{"op", "token_add"}, {"hash", name}, {"expires", 10}});
      say({{"op", "node_add"}, {"name", name}, {"lan", ""}, {"backplane", ""}, {"token", name}});
    }
    for (uint64_t node = 1; node <= 3; node++) {
      say({{"op", "node_up"}, {"node", node}, {"life", node}, {"version", "1"}});
      say({{"op", "disk_add"},
           {"node", node},
           {"uuid", std::to_string(node)},
           {"serial", ""},
           {"tier", "ssd"},
           {"slots", 1 << 20}});
      say({{"op", "disk_up"}, {"disk", node}, {"life", 1}, {"slots", 1 << 20}});
    }
    say({{"op", "vsd_create"},
         {"name", "v"},
         {"sectors", kMappedMib * core::kChunkSectors},
         {"replicas", 2}});
    say({{"op", "lease_take"}, {"vsd", 1}, {"node", 1}, {"life", 1}});
    for (uint64_t chunk = 0; chunk < kMappedMib; chunk += kAtOnce)
      commit(chunk, 0, core::kChunkSectors, reserve());
  }
  Leader(const Leader&) = delete;
  Leader& operator=(const Leader&) = delete;
  ~Leader() {
    proposals_.reset();
    database_.reset();
    std::error_code gone;
    std::filesystem::remove_all(directory_, gone);
  }

  json::object say(json::object body) {
    sequence_++;
    std::vector<policy::Answer> answers;
    const policy::Proposal proposal{{1}, 1, sequence_, sequence_ - 1, std::move(body)};
    proposals_->prepare({&proposal, 1}, sequence_, 1, answers).value();
    database_->commit({sequence_, 0}).value();
    proposals_->committed();
    return policy::from_answer(answers.front()).value();
  }
  std::vector<uint64_t> reserve() {
    const auto got = say({{"op", "reserve"}, {"node", 1}, {"life", 1}, {"count", kAtOnce}});
    std::vector<uint64_t> out;
    for (const json::value& extent : got.at("extents").as_array())
      out.push_back(extent.at(0).to_number<uint64_t>());
    return out;
  }
  // One change in each of neighbouring chunks.
  void commit(uint64_t chunk, uint64_t start, uint64_t len, const std::vector<uint64_t>& extents) {
    json::array ops;
    for (const uint64_t extent : extents)
      ops.push_back(json::array{chunk++, start, len, 0, extent});
    say({{"op", "commit"},
         {"vsd", 1},
         {"node", 1},
         {"life", 1},
         {"epoch", 1},
         {"ops", std::move(ops)},
         {"stales", json::array{}}});
  }
  [[nodiscard]] std::string path() const { return directory_ / "m.db"; }

 private:
  std::filesystem::path directory_;
  std::unique_ptr<meta::Database> database_;
  std::optional<policy::Proposals> proposals_;
  uint64_t sequence_ = 0;
};

void a_leaf_of_the_map(benchmark::State& state) {
  const Leader leader;
  const auto reader = meta::Database::open_reader(leader.path()).value();
  meta::Map map(*reader);
  std::minstd_rand draw(1);  // NOLINT(cert-msc51-cpp): each run shall look at the same leaves
  for (auto _ : state)
    benchmark::DoNotOptimize(map.leaf({1}, draw() % (kMappedMib / core::kLeafChunks)).value());
}
BENCHMARK(a_leaf_of_the_map);

// A changeset of so many changes of the map: proposed, applied, and taken out of the session.
void changes_of_the_map(benchmark::State& state) {
  Leader leader;
  uint64_t at = 0;
  for (auto _ : state) {
    state.PauseTiming();
    std::vector<uint64_t> extents = leader.reserve();
    extents.resize(static_cast<size_t>(state.range(0)));
    state.ResumeTiming();
    leader.commit(at % (kMappedMib - kAtOnce), at / kMappedMib % 32 * 2 * kPieceSectors,
                  kPieceSectors, extents);
    at += kAtOnce;
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(changes_of_the_map)->Arg(1)->Arg(64);

void a_change_of_a_setting(benchmark::State& state) {
  Leader leader;
  uint64_t value = 900;
  for (auto _ : state)
    leader.say({{"op", "set"}, {"name", "grace_seconds"}, {"value", value++ % 2 + 900}});
}
BENCHMARK(a_change_of_a_setting);

void places_for_an_extent(benchmark::State& state) {
  std::vector<policy::Candidate> disks;
  for (int64_t i = 0; i < state.range(0); i++)
    disks.push_back({{static_cast<uint64_t>(i + 1)},
                     {static_cast<uint64_t>(i % 8 + 1)},
                     i % 4 == 0,
                     static_cast<uint64_t>(1000 + i),
                     2000});
  uint64_t seed = 0;
  for (auto _ : state) benchmark::DoNotOptimize(policy::place(disks, 2, false, seed++));
}
BENCHMARK(places_for_an_extent)->Arg(3)->Arg(24)->Arg(96);

void headroom_of_a_cluster(benchmark::State& state) {
  std::vector<policy::Host> hosts;
  std::vector<policy::Guest> guests;
  constexpr uint64_t kNodes = 8;
  for (uint64_t node = 1; node <= kNodes; node++) {
    hosts.push_back({});
    hosts.back().node = {node};
    hosts.back().name = "n" + std::to_string(node);
    hosts.back().memory_mib = 1 << 18;
    hosts.back().cpus = 64;
  }
  for (int64_t i = 0; i < state.range(0); i++) {
    guests.push_back({});
    guests.back().id = static_cast<uint64_t>(i + 1);
    guests.back().memory_mib = static_cast<uint64_t>(1024 + i % 7 * 512);
    guests.back().vcpus = 2;
    guests.back().node = {static_cast<uint64_t>(i) % kNodes + 1};
  }
  for (auto _ : state) benchmark::DoNotOptimize(policy::without_headroom(hosts, guests));
}
BENCHMARK(headroom_of_a_cluster)->Arg(16)->Arg(256);

}  // namespace

BENCHMARK_MAIN();
