// SPDX-License-Identifier: GPL-2.0
#include "policy/capacity.h"

#include <map>

namespace policy {

namespace {

struct Space {
  uint64_t used = 0;
  uint64_t free = 0;
};

}  // namespace

std::optional<core::NodeId> too_big_to_lose(const std::vector<meta::Disk>& disks,
                                            const std::vector<meta::DiskUse>& use) {
  std::map<core::DiskId, const meta::DiskUse*> by_disk;
  for (const meta::DiskUse& one : use) by_disk[one.disk] = &one;
  std::map<core::NodeId, Space> nodes;
  uint64_t free = 0;
  for (const meta::Disk& disk : disks) {
    const auto at = by_disk.find(disk.id);
    if (disk.state != "ok" || at == by_disk.end()) continue;
    Space& space = nodes[disk.node];
    space.used += at->second->used;
    // A slot in quarantine is free soon.
    const uint64_t left = disk.leaving ? 0 : disk.slots - at->second->used;
    space.free += left;
    free += left;
  }
  if (nodes.size() < 3) return std::nullopt;
  std::optional<core::NodeId> worst;
  uint64_t most = 0;
  for (const auto& [node, space] : nodes) {
    const uint64_t room = free - space.free;
    if (space.used <= room || space.used - room <= most) continue;
    most = space.used - room;
    worst = node;
  }
  return worst;
}

}  // namespace policy
