// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "commands.h"

namespace scalectl {

/// Fields of an answer, which has them.
inline std::string text(const boost::json::object& answer, const char* name) {
  return boost::json::value_to<std::string>(answer.at(name));
}
inline uint64_t number(const boost::json::object& answer, const char* name) {
  return answer.at(name).to_number<uint64_t>();
}

namespace json = boost::json;

inline constexpr const char* kRoot = "/rest/v1/";

/// What was written on a command line, taken for what it should be; UsageError where it is not.

/// A name in a path: only what names may have, and `more`, so that nothing needs quoting.
std::string path_word(const std::string& word, const std::string& more = "");
/// VSD@NAME or VM@NAME; deleted:ID:VSD@NAME where the VSD is deleted.
std::string snapshot_word(const std::string& word);
std::vector<std::string> split_at_commas(const std::string& word);
/// In bytes, from "4GiB".
uint64_t size_of(const std::string& word);
uint64_t count_of(const std::string& word, const char* option);

/// Options that are fields of the same name.
void take(json::object& body, const Words& words, std::initializer_list<const char*> names);
Call get(const std::string& path);
/// The same with options as its query.
Call with_query(Call call, const Words& words, std::initializer_list<const char*> names);

/// Of the table of commands, those about virtual machines.
std::vector<Command> vm_commands();

}  // namespace scalectl
