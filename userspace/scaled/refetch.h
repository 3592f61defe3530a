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

/// Gets the copy that was asked for, without touching the database: that may take minutes, while
/// this node's lease goes on. Code::unknown where no node gives its database now.
[[nodiscard]] Result<void> fetch_copy(const Paths& paths, const Config& config, Peers& peers);

/// Where a copy was asked for, puts it in the database's place; gets it first where it is not there
/// yet. Nobody may have the database open.
[[nodiscard]] Result<void> refetch_where_asked(const Paths& paths, const Config& config,
                                               Peers& peers);

/// Keeps the nodes' addresses beside the database, for when that cannot be read.
[[nodiscard]] Result<void> remember_addresses(const Paths& paths,
                                              const std::map<core::NodeId, std::string>& addresses);

}  // namespace scaled
