// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "policy/context.h"

namespace policy {

/// What a proposal is about, before it is executed: afterwards that may be gone. Empty where nobody
/// is to be told of it later.
[[nodiscard]] std::string event_object(Context& c, const json::object& body);

/// Notes that it was done, by whom and how: a row of the same entry. `node` proposed it; where the
/// body has "by", somebody else wanted it. The newest of them are kept.
void note_event(Context& c, NodeId node, const json::object& body, const std::string& object,
                const json::object& answer);

inline constexpr uint64_t kEventsKept = 10'000;

}  // namespace policy
