// SPDX-License-Identifier: GPL-2.0
#include "policy/audit.h"

namespace policy {

using core::NodeId;

std::vector<NodeId> majority(const std::map<NodeId, uint64_t>& digests) {
  std::map<uint64_t, std::vector<NodeId>> groups;
  for (const auto& [node, digest] : digests) groups[digest].push_back(node);
  std::vector<NodeId> best;
  bool tied = false;
  for (const auto& [digest, nodes] : groups) {
    if (nodes.size() > best.size()) {
      best = nodes;
      tied = false;
    } else {
      tied = tied || nodes.size() == best.size();
    }
  }
  return tied ? std::vector<NodeId>{} : best;
}

}  // namespace policy
