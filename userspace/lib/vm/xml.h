// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <pugixml.hpp>
#include <sstream>
#include <string>
#include <string_view>

// What this folder's files share that write and read libvirt's XML; for them alone.
namespace vm {

/// Of the channel to a guest's qemu-guest-agent.
inline constexpr const char* kAgent = "org.qemu.guest_agent.0";

inline bool is_agent(const pugi::xml_node& channel) {
  return std::string_view(channel.child("target").attribute("name").value()) == kAgent;
}

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
