// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace scalectl {

/// What the command line said, after it was checked against the command's table entry.
struct Words {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> options;  ///< without "--"; "" for one without a value

  [[nodiscard]] bool has(const std::string& option) const { return options.contains(option); }
};

struct Call {
  std::string method;
  std::string path;
  boost::json::object body;
};

struct Option {
  std::string name;
  std::string value;  ///< what to call its value; empty where it takes none
  std::string help;
  bool needed = false;  ///< the command does not go without it, and says so
};

struct UsageError {
  std::string text;
};

/// What scaled answers: JSON, or a piece of a file.
struct Answer {
  std::string body;
  bool is_json = true;
};
/// It does not, for that reason.
struct Unreachable {
  std::string text;
};
/// One call of the API; throws Unreachable.
using Ask = std::function<Answer(const std::string& method, const std::string& path,
                                 const std::string& body)>;

/// One line of the command table, which drives parsing, help and completion.
struct Command {
  std::string noun;
  std::string verb;
  std::vector<std::string> arguments;
  std::vector<Option> options;
  std::string help;
  std::string example;
  std::function<Call(const Words&)> call;                              ///< throws UsageError
  std::function<std::string(const boost::json::object& answer)> show;  ///< for people
  /// Whether the answer is good news; where it is not, the exit code is 1. None: it always is.
  std::function<bool(const boost::json::object& answer)> good = {};
  /// Instead of `call`, where it takes several: the last answer.
  std::function<boost::json::object(const Words&, const Ask&)> transfer = {};
};

[[nodiscard]] const std::vector<Command>& commands();

}  // namespace scalectl
