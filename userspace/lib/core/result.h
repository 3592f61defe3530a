// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/system/result.hpp>
#include <stdexcept>
#include <string>
#include <utility>

namespace core {

enum class Code {
  invalid,    ///< the request makes no sense, whatever the state
  not_found,  ///< what it names does not exist
  conflict,   ///< it exists already, or the state forbids it now
  stale,      ///< made under a lease, life or index that is over
  no_space,   ///< the pool has not enough eligible space
  corrupt,    ///< stored data contradicts itself
  storage,    ///< the database or its file system failed; nothing was changed
  unknown,    ///< it may or may not have happened: ask before trying again
};

/// Why something did not work, in words for the administrator.
struct Error {
  Code code;
  std::string text;
};

template <class T>
using Result = boost::system::result<T, Error>;

/// What Result::value() throws on an error; only tests and main() use value().
[[noreturn]] inline void throw_exception_from_error(const Error& error,
                                                    const boost::source_location&) {
  throw std::runtime_error(error.text);
}

}  // namespace core

/// Leaves the function with the error of an expression, else goes on.
#define CORE_TRY(expression)                                                                   \
  do {                                                                                         \
    if (auto core_try_result = (expression); !core_try_result) return core_try_result.error(); \
  } while (false)
