// SPDX-License-Identifier: GPL-2.0
#include "host/command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

extern char** environ;

namespace host {

namespace {

using core::Code;
using core::Error;
using core::Result;

constexpr int kLookMs = 500;
constexpr size_t kMostOutput = size_t{1} << 20;
constexpr int kNotRun = 126;
constexpr int kNotFound = 127;
constexpr int kSignalled = 128;

struct Pipe {
  int in = -1;
  int out = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return;
    in = ends[0];
    out = ends[1];
  }
  ~Pipe() {
    close_out();
    if (in >= 0) ::close(in);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_out() {
    if (out >= 0) ::close(out);
    out = -1;
  }
};

// What a command has written so far; the beginning of very much.
struct Output {
  std::string text;
  void take(int fd) {
    std::array<char, 4096> buffer{};
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got <= 0 || text.size() >= kMostOutput) return;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
};

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const size_t at = text.find_last_of("\r\n");
  return at == std::string::npos ? text : text.substr(at + 1);
}

}  // namespace

Result<std::string> run_command(const std::vector<std::string>& command,
                                const std::function<bool(const std::string& output)>& goes_on) {
  Pipe output;
  Pipe errors;
  if (output.in < 0 || errors.in < 0) return Error{Code::storage, "no pipe"};
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output.out, 1);
  posix_spawn_file_actions_adddup2(&actions, errors.out, 2);
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return Error{Code::storage, command[0] + ": " + std::strerror(failed)};
  output.close_out();
  errors.close_out();
  Output out;
  Output why;
  bool ended = false;
  bool stopped = false;
  int status = 0;
  while (!ended) {
    std::array<pollfd, 2> ready = {{{output.in, POLLIN, 0}, {errors.in, POLLIN, 0}}};
    ::poll(ready.data(), ready.size(), kLookMs);
    if ((ready[0].revents & POLLIN) != 0) out.take(output.in);
    if ((ready[1].revents & POLLIN) != 0) why.take(errors.in);
    const bool silent = ((ready[0].revents | ready[1].revents) & POLLIN) == 0;
    if (!stopped && goes_on && !goes_on(out.text)) {
      stopped = true;
      ::kill(pid, SIGKILL);
    }
    // What it wrote last is read before that it has ended is seen.
    if (silent) ended = ::waitpid(pid, &status, WNOHANG) == pid;
  }
  if (stopped) return Error{Code::conflict, "it was ended"};
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    const std::string text = last_line(why.text);
    // Not of the command itself, or ended by somebody: that says nothing of what it was given.
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : kSignalled + WTERMSIG(status);
    const bool begun = code != kNotRun && code != kNotFound && code != kSignalled + SIGTERM &&
                       code != kSignalled + SIGKILL;
    return Error{begun ? Code::invalid : Code::storage,
                 text.empty() ? command[0] + " ended before it was done" : text};
  }
  return std::move(out.text);
}

}  // namespace host
