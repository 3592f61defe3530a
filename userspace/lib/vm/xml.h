// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <pugixml.hpp>
#include <sstream>
#include <string>

namespace vm {

/// <name>text</name> at the end of a node.
inline void put(pugi::xml_node at, const char* name, const std::string& text) {
  at.append_child(name).text().set(text.c_str());
}

/// A node and all below it, as XML.
inline std::string text_of(const pugi::xml_node& node) {
  std::ostringstream out;
  node.print(out, "  ", pugi::format_default);
  return out.str();
}

}  // namespace vm
