// SPDX-License-Identifier: GPL-2.0
#include "vm/nics.h"

#include <algorithm>
#include <pugixml.hpp>
#include <sstream>

#include "net/plan.h"
#include "vm/xml.h"

namespace vm {

namespace {

using core::Code;
using core::Error;
using core::Result;

std::string mac_of(const pugi::xml_node& nic) {
  return nic.child("mac").attribute("address").value();
}

bool is_connected(const pugi::xml_node& nic) {
  return std::string_view(nic.child("link").attribute("state").value()) != "down";
}

Result<void> load(pugi::xml_document& document, const std::string& xml) {
  if (!document.load_string(xml.c_str(), pugi::parse_default | pugi::parse_ws_pcdata_single))
    return Error{Code::invalid, "libvirt's XML is none"};
  return {};
}

}  // namespace

std::string bridge_of(const meta::VmNic& nic, const std::string& lan_bridge) {
  if (!nic.bridge.empty()) return nic.bridge;
  return nic.vlan == 0 ? lan_bridge : net::bridge_of(static_cast<uint16_t>(nic.vlan));
}

std::string nic_xml(const meta::VmNic& nic, const std::string& lan_bridge) {
  pugi::xml_document document;
  pugi::xml_node out = document.append_child("interface");
  out.append_attribute("type") = "bridge";
  out.append_child("mac").append_attribute("address") = nic.mac.c_str();
  out.append_child("source").append_attribute("bridge") = bridge_of(nic, lan_bridge).c_str();
  out.append_child("model").append_attribute("type") = nic.model.c_str();
  if (!nic.connected) out.append_child("link").append_attribute("state") = "down";
  return text_of(out);
}

Result<std::vector<NicChange>> nic_changes(const std::string& domain,
                                           const std::vector<meta::VmNic>& wanted,
                                           const std::string& lan_bridge) {
  pugi::xml_document document;
  CORE_TRY(load(document, domain));
  std::vector<NicChange> out;
  std::vector<std::string> has;
  for (const pugi::xml_node nic : document.child("domain").child("devices").children("interface")) {
    has.push_back(mac_of(nic));
    const auto at = std::find_if(wanted.begin(), wanted.end(),
                                 [&](const meta::VmNic& one) { return one.mac == has.back(); });
    if (at == wanted.end() || at->model != nic.child("model").attribute("type").value())
      out.push_back({NicChange::What::detach, text_of(nic)});
    else if (bridge_of(*at, lan_bridge) != nic.child("source").attribute("bridge").value() ||
             at->connected != is_connected(nic))
      out.push_back({NicChange::What::update, nic_xml(*at, lan_bridge)});
  }
  for (const meta::VmNic& nic : wanted)
    if (std::find(has.begin(), has.end(), nic.mac) == has.end())
      out.push_back({NicChange::What::attach, nic_xml(nic, lan_bridge)});
  return out;
}

Result<std::map<std::string, std::string>> macs_by_target(const std::string& domain) {
  pugi::xml_document document;
  CORE_TRY(load(document, domain));
  std::map<std::string, std::string> out;
  for (const pugi::xml_node nic : document.child("domain").child("devices").children("interface"))
    out[nic.child("target").attribute("dev").value()] = mac_of(nic);
  return out;
}

Result<std::string> with_bridges(const std::string& domain, const std::vector<meta::VmNic>& nics,
                                 const std::string& lan_bridge) {
  pugi::xml_document document;
  CORE_TRY(load(document, domain));
  for (const pugi::xml_node nic : document.child("domain").child("devices").children("interface"))
    for (const meta::VmNic& one : nics)
      if (one.mac == mac_of(nic))
        nic.child("source").attribute("bridge") = bridge_of(one, lan_bridge).c_str();
  std::ostringstream out;
  document.save(out, "  ", pugi::format_default | pugi::format_no_declaration);
  return out.str();
}

}  // namespace vm
