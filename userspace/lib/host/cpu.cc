// SPDX-License-Identifier: GPL-2.0
#include "host/cpu.h"

#include <xxhash.h>

#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>

namespace host {

namespace {

std::string without_blanks(const std::string& text) {
  const size_t from = text.find_first_not_of(" \t");
  return from == std::string::npos ? ""
                                   : text.substr(from, text.find_last_not_of(" \t") - from + 1);
}

}  // namespace

// The first of them speaks for all.
std::string cpu_kind(const std::string& cpuinfo) {
  std::istringstream lines(cpuinfo);
  std::string out;
  std::set<std::string> flags;
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string name = without_blanks(line.substr(0, colon));
    const std::string value = without_blanks(line.substr(colon + 1));
    if (name == "vendor_id" || name == "cpu family" || name == "model")
      out += (out.empty() ? "" : "-") + value;
    if (name != "flags") continue;
    std::istringstream words(value);
    for (std::string word; words >> word;) flags.insert(word);
  }
  if (out.empty()) return "";
  std::string all;
  for (const std::string& flag : flags) all += flag + " ";
  std::string text(17, '\0');
  std::snprintf(text.data(), text.size(), "%016llx",
                static_cast<unsigned long long>(XXH64(all.data(), all.size(), 0)));
  text.pop_back();
  return out + "-" + text;
}

std::string cpu_kind() {
  std::ifstream file("/proc/cpuinfo");
  std::ostringstream text;
  text << file.rdbuf();
  return cpu_kind(text.str());
}

}  // namespace host
