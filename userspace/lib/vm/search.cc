// SPDX-License-Identifier: GPL-2.0
#include "vm/search.h"

#include <algorithm>
#include <cctype>

namespace vm {

namespace {

bool contains(const std::string& text, const std::string& part) {
  const auto equal = [](unsigned char a, unsigned char b) {
    return std::tolower(a) == std::tolower(b);
  };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), equal) != text.end() ||
         part.empty();
}

}  // namespace

bool matches(const meta::Vm& vm, const std::string& state, const Search& search) {
  return (contains(vm.name, search.text) || contains(vm.description, search.text)) &&
         (search.state.empty() || state == search.state) &&
         (!search.node || vm.node == search.node) &&
         std::all_of(search.tags.begin(), search.tags.end(), [&](const std::string& tag) {
           return std::find(vm.tags.begin(), vm.tags.end(), tag) != vm.tags.end();
         });
}

}  // namespace vm
