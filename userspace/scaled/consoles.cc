// SPDX-License-Identifier: GPL-2.0
#include "consoles.h"

#include <filesystem>

namespace scaled {

using core::Result;

namespace {

constexpr std::chrono::seconds kKeepFor{60};
constexpr size_t kMostConsoles = 64;

}  // namespace

Consoles::Consoles(std::string paths) : paths_(std::move(paths)) {
  namespace fs = std::filesystem;
  const fs::path begin(paths_);
  std::error_code err;
  for (const auto& entry : fs::directory_iterator(begin.parent_path(), err))
    if (entry.path().filename().string().starts_with(begin.filename().string()))
      fs::remove(entry.path(), err);
}

Result<std::string> Consoles::open(host::Tunnel::Connect connect) {
  tidy();
  const std::lock_guard lock(mutex_);
  if (open_.size() >= kMostConsoles)
    return core::Error{core::Code::conflict, "there are " + std::to_string(kMostConsoles) +
                                                 " consoles open on this node; close some"};
  auto tunnel =
      std::make_unique<host::Tunnel>(paths_ + std::to_string(next_++), std::move(connect));
  CORE_TRY(tunnel->listen());
  std::string path = tunnel->path();
  open_.push_back({std::move(tunnel), Clock::now()});
  return path;
}

void Consoles::tidy() {
  std::list<Open> over;  // they wait for their threads, and nobody for them
  const std::lock_guard lock(mutex_);
  for (auto at = open_.begin(); at != open_.end();) {
    const auto one = at++;
    if (!one->tunnel->idle()) one->used = Clock::now();
    if (Clock::now() - one->used >= kKeepFor) over.splice(over.end(), open_, one);
  }
}

}  // namespace scaled
