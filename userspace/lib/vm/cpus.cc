// SPDX-License-Identifier: GPL-2.0
#include "vm/cpus.h"

#include <algorithm>
#include <array>
#include <pugixml.hpp>
#include <string_view>

namespace vm {

namespace {

// The newest first, of each maker; AMD's first, for its machines can give some of Intel's models,
// and never the other way round. Without TSX, which updates of microcode take away: a guest that
// was started with it could not move to where it is gone.
constexpr std::array kCpuModels = {"EPYC-Milan",
                                   "EPYC-Rome",
                                   "EPYC-IBPB",
                                   "EPYC",
                                   "Opteron_G5",
                                   "Opteron_G4",
                                   "Opteron_G3",
                                   "SapphireRapids",
                                   "Icelake-Server-noTSX",
                                   "Cascadelake-Server-noTSX",
                                   "Skylake-Server-noTSX-IBRS",
                                   "Skylake-Client-noTSX-IBRS",
                                   "Broadwell-noTSX-IBRS",
                                   "Broadwell-noTSX",
                                   "Haswell-noTSX-IBRS",
                                   "Haswell-noTSX",
                                   "IvyBridge-IBRS",
                                   "IvyBridge",
                                   "SandyBridge-IBRS",
                                   "SandyBridge",
                                   "Westmere-IBRS",
                                   "Westmere",
                                   "Nehalem-IBRS",
                                   "Nehalem",
                                   "Penryn",
                                   "Conroe",
                                   "kvm64"};

}  // namespace

std::vector<std::string> usable_models(const std::string& capabilities) {
  std::vector<std::string> out;
  pugi::xml_document document;
  if (!document.load_string(capabilities.c_str())) return out;
  for (const pugi::xml_node mode : document.child("domainCapabilities").child("cpu").children()) {
    if (std::string_view(mode.attribute("name").value()) != "custom") continue;
    for (const pugi::xml_node model : mode.children("model"))
      if (std::string_view(model.attribute("usable").value()) == "yes")
        out.emplace_back(model.text().get());
  }
  return out;
}

std::string baseline_of(const std::vector<std::vector<std::string>>& hosts) {
  for (const char* model : kCpuModels)
    if (!hosts.empty() && std::all_of(hosts.begin(), hosts.end(), [&](const auto& one) {
          return std::find(one.begin(), one.end(), model) != one.end();
        }))
      return model;
  return kOldestCpu;
}

}  // namespace vm
