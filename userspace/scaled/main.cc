// SPDX-License-Identifier: GPL-2.0
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <systemd/sd-daemon.h>

#include <boost/program_options.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <iostream>
#include <thread>

#include "daemon.h"
#include "host/reset.h"
#include "host/watchdog.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr std::chrono::seconds kShutdownAtMost{45};  // half of what systemd waits for
constexpr std::chrono::seconds kRestartAtMost{3};

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

// Guests' writes wait for this process: it must not wait for memory that only writing them frees.
void guard_against_reclaim() {
  if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
    spdlog::warn("cannot lock memory: {}", std::strerror(errno));
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
    spdlog::warn("cannot become an I/O flusher: {}", std::strerror(errno));
}

// A run may end at any instruction, by a power cut or a kill; to end it slowly, waiting for calls
// under way, would only take longer of the node's lease. That it ends is known, so that the machine
// need not be reset for it.
[[noreturn]] void leave(host::Watchdog& watchdog, int code) {
  watchdog.disarm(true);
  spdlog::shutdown();
  std::_Exit(code);
}

// What a run that ends on purpose does for the others, as far as it gets in time. A mere restart of
// the daemon leaves this node's leases as they are: its users do not notice it.
void step_down(scaled::Daemon& daemon) {
  const bool for_long = host::shutting_down();
  std::promise<void> done;
  auto ended = done.get_future();
  std::thread([&daemon, for_long, done = std::move(done)]() mutable {
    daemon.leave(for_long);
    done.set_value();
  }).detach();
  if (ended.wait_for(for_long ? kShutdownAtMost : kRestartAtMost) != std::future_status::ready)
    spdlog::warn("ends before all is flushed and given back");
}

// Copies of the database that an earlier run was about to send.
void clear_leftovers(const scaled::Paths& paths) {
  std::error_code err;
  for (const auto& entry : std::filesystem::directory_iterator(paths.state, err))
    if (entry.path().filename().string().starts_with("copy-"))
      std::filesystem::remove(entry.path(), err);
}

[[noreturn]] void run(const scaled::Paths& paths) {
  std::error_code err;
  std::filesystem::create_directories(paths.state, err);
  std::filesystem::create_directories(std::filesystem::path(paths.socket).parent_path(), err);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  guard_against_reclaim();
  host::Watchdog watchdog;
  // One that was killed left it armed; it may take long until this one is a member again.
  watchdog.disarm(false);
  if (scaled::put_aside_where_removed(paths)) leave(watchdog, kExitFailed);
  clear_leftovers(paths);
  scaled::Daemon daemon(paths, watchdog);
  if (auto started = daemon.start(); !started) {
    spdlog::critical("{}", started.error().text);
    leave(watchdog, kExitFailed);
  }
  sd_notify(0, "READY=1");
  const timespec tick{1, 0};
  while (sigtimedwait(&signals, nullptr, &tick) < 0) {
    if (daemon.failure()) leave(watchdog, kExitFailed);  // systemd starts it anew
    sd_notify(0, "WATCHDOG=1");
  }
  sd_notify(0, "STOPPING=1");
  step_down(daemon);
  leave(watchdog, 0);
}

}  // namespace

int main(int argc, char** argv) {
  namespace po = boost::program_options;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("scaled"));
  spdlog::set_pattern("%v");  // journald knows the time
  scaled::Paths paths;
  std::string state = paths.state;
  po::options_description options("scaled, the daemon of a scribe node. Options");
  options.add_options()("help,h", "this text")(
      "state", po::value(&state)->value_name("DIRECTORY")->default_value(state),
      "what this node keeps")(
      "socket", po::value(&paths.socket)->value_name("PATH")->default_value(paths.socket),
      "where scalectl finds it");
  po::variables_map values;
  try {
    po::store(po::command_line_parser(argc, argv).options(options).positional({}).run(), values);
    po::notify(values);
  } catch (const po::error& err) {
    std::cerr << "scaled: " << err.what() << "; see scaled --help\n";
    return kExitUsage;
  }
  if (values.contains("help")) {
    std::cout << options;
    return 0;
  }
  paths.state = state;
  try {
    run(paths);
  } catch (const std::exception& err) {
    spdlog::critical("{}", err.what());
    return kExitFailed;
  }
}
