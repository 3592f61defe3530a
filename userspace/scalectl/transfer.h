// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>

#include "commands.h"

namespace scalectl {

inline constexpr std::chrono::milliseconds kLook{500};  // between looks at what is waited for

/// Sends a file, the first argument, as a medium, from where an earlier attempt got to, and waits
/// until it is checked; what it is then, as the API shows it.
boost::json::object upload(const Words& words, const Ask& ask);

/// The other way: a medium, the first argument, into a file, the second. A part that is there
/// already is not fetched again; the file has its name when all of it is there and is right.
boost::json::object download(const Words& words, const Ask& ask);

/// The same, in parts, for commands that do more.
boost::json::object upload_file(const Ask& ask, const std::string& path, const std::string& name,
                                const std::string& digest);
boost::json::object wait_until_checked(const Ask& ask, boost::json::object medium);
boost::json::object download_file(const Ask& ask, const std::string& name, const std::string& to);
/// One call; its answer, or error.
boost::json::object call(const Ask& ask, const std::string& method, const std::string& path,
                         const boost::json::object& body = {});

}  // namespace scalectl
