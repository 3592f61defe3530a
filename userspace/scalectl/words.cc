// SPDX-License-Identifier: GPL-2.0
#include "words.h"

#include <boost/url.hpp>
#include <sstream>

#include "table.h"

namespace scalectl {

std::string path_word(const std::string& word, const std::string& more) {
  const std::string marks = "-_." + more;
  for (const char c : word)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && marks.find(c) == std::string::npos)
      throw UsageError{"'" + word + "' is no name: letters, digits, '-', '_' and '.'"};
  if (word.empty()) throw UsageError{"a name is empty"};
  return word;
}

std::string snapshot_word(const std::string& word) {
  const size_t at = word.find('@');
  if (at == std::string::npos) throw UsageError{"'" + word + "' is no snapshot; write VSD@NAME"};
  return path_word(word.substr(0, at), ":") + "@" + path_word(word.substr(at + 1));
}

std::vector<std::string> split_at_commas(const std::string& word) {
  std::vector<std::string> out;
  std::istringstream in(word);
  for (std::string part; std::getline(in, part, ',');) out.push_back(part);
  return out;
}

uint64_t size_of(const std::string& word) {
  uint64_t out = 0;
  if (!parse_bytes(word, out) || out == 0)
    throw UsageError{"'" + word + "' is no size; write 4GiB, 512MiB or a number of bytes"};
  return out;
}

uint64_t count_of(const std::string& word, const char* option) {
  uint64_t out = 0;
  const bool digits = word.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || !parse_bytes(word, out)) throw UsageError{std::string(option) + " takes a number"};
  return out;
}

void take(json::object& body, const Words& words, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const auto at = words.options.find(name); at != words.options.end())
      body[name] = at->second;
}

Call with_query(Call call, const Words& words, std::initializer_list<const char*> names) {
  boost::urls::url url;
  for (const char* name : names)
    if (words.has(name)) url.params().append({name, words.options.at(name)});
  if (url.has_query()) call.path += "?" + std::string(url.encoded_query());
  return call;
}

Call get(const std::string& path) { return {"GET", kRoot + path, {}}; }

}  // namespace scalectl
