// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "http/http.h"

namespace scaled {

class Daemon;

/// Answers a request of the REST API (Documentation/openapi.json) or of another node. Errors are
/// {"error": {"code", "text"}} with the status that fits the code.
[[nodiscard]] http::Response handle(Daemon& daemon, const http::Request& request);

}  // namespace scaled
