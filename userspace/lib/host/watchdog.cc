// SPDX-License-Identifier: GPL-2.0
#include "host/watchdog.h"

#include <fcntl.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

namespace host {

using core::Code;
using core::Error;

namespace {

constexpr const char* kSoftware = "Software Watchdog";
constexpr char kMagicClose = 'V';  // closed after this, it does not reset the machine

struct Device {
  std::string name;
  std::string identity;
};

// Hardware first.
std::vector<Device> devices(const std::string& sys) {
  std::vector<Device> found;
  std::error_code err;
  for (const auto& entry : std::filesystem::directory_iterator(sys, err)) {
    Device device{entry.path().filename(), ""};
    std::ifstream in(entry.path() / "identity");
    std::getline(in, device.identity);
    found.push_back(std::move(device));
  }
  std::sort(found.begin(), found.end(), [](const Device& a, const Device& b) {
    return std::pair(a.identity == kSoftware, a.name) < std::pair(b.identity == kSoftware, b.name);
  });
  return found;
}

}  // namespace

Watchdog::~Watchdog() {
  if (fd_ >= 0) ::close(fd_);
}

core::Result<void> Watchdog::arm(std::chrono::seconds timeout) {
  const std::lock_guard lock(mutex_);
  if (fd_ >= 0 || over_) return {};
  Error why{Code::not_found,
            "this machine has no watchdog, so that it is not reset where it hangs"};
  for (const Device& device : devices(sys_)) {
    const std::string path = dev_ + "/" + device.name;
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) {
      why = {Code::conflict, "the watchdog " + path + " (" + device.identity +
                                 ") cannot be used: " + std::strerror(errno)};
      continue;
    }
    int seconds = static_cast<int>(timeout.count());
    if (::ioctl(fd_, WDIOC_SETTIMEOUT, &seconds) == 0) {
      identity_ = device.identity;
      return {};
    }
    why = {Code::invalid, "the watchdog " + path + " (" + device.identity +
                              ") knows no timeout of " + std::to_string(timeout.count()) +
                              " s: " + std::strerror(errno)};
    close_device();
  }
  return why;
}

void Watchdog::pet() {
  const std::lock_guard lock(mutex_);
  if (fd_ >= 0) ::ioctl(fd_, WDIOC_KEEPALIVE, 0);
}

void Watchdog::disarm(bool for_good) {
  const std::lock_guard lock(mutex_);
  over_ = over_ || for_good;
  if (fd_ >= 0) return close_device();
  // To open one arms it, so only those that run already.
  for (const Device& device : devices(sys_)) {
    std::string state;
    std::ifstream(sys_ + "/" + device.name + "/state") >> state;
    if (state != "active") continue;
    fd_ = ::open((dev_ + "/" + device.name).c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ >= 0) close_device();
  }
}

std::string Watchdog::in_use() const {
  const std::lock_guard lock(mutex_);
  return identity_;
}

// Under the lock.
void Watchdog::close_device() {
  // Where it does not take that, it resets the machine, as if it hung: nothing else can be done.
  while (::write(fd_, &kMagicClose, 1) < 0 && errno == EINTR) continue;
  ::close(fd_);
  fd_ = -1;
  identity_.clear();
}

}  // namespace host
