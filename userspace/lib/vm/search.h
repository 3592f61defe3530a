// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

#include "meta/cluster.h"

namespace vm {

/// Which VMs somebody looks for: those that are all of that.
struct Search {
  std::string text;  ///< in the name or the description, whatever its case; empty: any
  std::vector<std::string> tags;
  std::string state;  ///< as it is shown; empty: any
  core::NodeId node;  ///< that runs it; 0: any
};

/// `state`: as this VM's is shown.
[[nodiscard]] bool matches(const meta::Vm& vm, const std::string& state, const Search& search);

}  // namespace vm
