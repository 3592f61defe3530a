// SPDX-License-Identifier: GPL-2.0
#include "host/reset.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace host {

namespace {

constexpr size_t kStateBytes = 64;

}  // namespace

void reset_machine() {
  const int fd = ::open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
  while (fd < 0 || ::write(fd, "b", 1) != 1) ::pause();
  for (;;) ::pause();
}

bool shutting_down() {
  // Not over D-Bus, which may have ended by now: systemctl asks systemd itself.
  FILE* pipe = ::popen("systemctl is-system-running", "re");
  if (pipe == nullptr) return false;
  std::array<char, kStateBytes> state{};
  const bool read = std::fgets(state.data(), state.size(), pipe) != nullptr;
  ::pclose(pipe);
  return read && std::strcmp(state.data(), "stopping\n") == 0;
}

bool unload_module(const char* name) {
  return ::syscall(SYS_delete_module, name, O_NONBLOCK) == 0 || errno == ENOENT;
}

}  // namespace host
