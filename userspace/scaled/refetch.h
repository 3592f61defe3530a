// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config.h"
#include "peers.h"

namespace scaled {

/// Asks the daemon's next start to begin with a copy of another node's database; `from` the named
/// ones alone, any where none is named.
[[nodiscard]] Result<void> ask_for_refetch(const Paths& paths, const std::string& why,
                                           const std::vector<core::NodeId>& from = {});

/// Does what was asked for, if it was. Code::unknown where no node gives its database now.
[[nodiscard]] Result<void> refetch_where_asked(const Paths& paths, const Config& config,
                                               Peers& peers);

/// Keeps the nodes' addresses beside the database, for when that cannot be read.
[[nodiscard]] Result<void> remember_addresses(const Paths& paths,
                                              const std::map<core::NodeId, std::string>& addresses);

}  // namespace scaled
