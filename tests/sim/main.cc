// SPDX-License-Identifier: GPL-2.0
// sim: simulated clusters, many schedules of each; one whose promise is broken is told with the
// seed that replays it.
#include <unistd.h>

#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "node.h"
#include "world.h"

namespace {

namespace options = boost::program_options;
using Clock = std::chrono::steady_clock;

struct Totals {
  uint64_t schedules = 0;
  uint64_t steps = 0;
  uint64_t entries = 0;
  uint64_t writes = 0;
  uint64_t reads = 0;
  uint64_t promises = 0;
  uint64_t snapshots = 0;
  uint64_t injected = 0;
  uint64_t gathered = 0;
  uint64_t refused = 0;
  uint64_t dropped = 0;
};

// False where a promise was broken.
bool run_one(const sim::Options& how, Totals& totals) {
  sim::World world(how);
  try {
    world.run();
  } catch (const std::exception& err) {
    for (const std::string& line : world.said()) std::cerr << "  " << line << "\n";
    std::cerr << "seed " << how.seed << ", step " << world.scheduler.now() << ": " << err.what()
              << "\n";
    return false;
  }
  totals.schedules++;
  totals.steps += world.scheduler.now();
  totals.entries += world.entries;
  totals.writes += world.oracle.writes;
  totals.reads += world.oracle.reads;
  totals.promises += world.oracle.promises;
  totals.snapshots += world.oracle.snapshots;
  totals.injected += world.injected;
  totals.gathered += world.gathered;
  totals.refused += world.refused;
  totals.dropped += world.dropped;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kUsage = 2;
  uint64_t seed = 0;
  uint64_t count = 0;
  uint64_t seconds = 0;
  std::string without;
  options::options_description known("sim [OPTION...]: schedules of a simulated cluster");
  known.add_options()("help", "this")("seed", options::value(&seed)->default_value(1),
                                      "the first schedule; the others count up")(
      "count", options::value(&count)->default_value(0), "so many, at most; 0: no limit")(
      "seconds", options::value(&seconds)->default_value(0), "for so long; 0: no limit")(
      "trace", "say what happens")("dense", "short ones, with faults one upon another")(
      "without", options::value(&without),
      "leave a rule out; with the name 'list' say which there are");
  options::variables_map words;
  try {
    options::store(options::parse_command_line(argc, argv, known), words);
    options::notify(words);
  } catch (const options::error& err) {
    std::cerr << "sim: " << err.what() << "\n";
    return kUsage;
  }
  if (words.contains("help")) {
    std::cout << known;
    return 0;
  }
  if (without == "list") {
    for (const auto& [name, rule] : sim::rules()) std::cout << name << "\n";
    return 0;
  }
  const auto rule = sim::rules().find(without);
  if (!without.empty() && rule == sim::rules().end()) {
    std::cerr << "sim: there is no rule '" << without << "'; see: sim --without list\n";
    return kUsage;
  }
  if (count == 0 && seconds == 0) count = 1;
  const auto began = Clock::now();
  auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - began).count(); };
  Totals totals;
  for (uint64_t i = 0; count == 0 || i < count; i++) {
    if (seconds != 0 && elapsed() > static_cast<double>(seconds)) break;
    const sim::Options how{seed + i, words.contains("trace"),
                           without.empty() ? sim::Rule::none : rule->second,
                           words.contains("dense")};
    if (!run_one(how, totals)) return 1;
  }
  std::cout << totals.schedules << " schedules in " << static_cast<uint64_t>(elapsed())
            << " s: " << totals.injected << " faults, " << totals.entries << " entries, "
            << totals.writes << " writes, " << totals.promises << " flushes, " << totals.snapshots
            << " snapshots, " << totals.refused << " batches refused, " << totals.dropped
            << " times all copies gone, " << totals.gathered << " chunks gathered, " << totals.reads
            << " reads, " << totals.steps << " steps\n";
  return 0;
}
