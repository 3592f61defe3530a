// SPDX-License-Identifier: GPL-2.0
#include "console.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "transfer.h"
#include "words.h"

namespace scalectl {

json::object serial_console(const Words& words, const Ask& ask) {
  json::object answer =
      call(ask, "POST", "vm/" + path_word(words.arguments[0]) + "/console", {{"kind", "serial"}});
  if (answer.contains("error") || words.has("json")) return answer;
  const auto uuid = json::value_to<std::string>(answer.at("uuid"));
  const std::string uri =
      "qemu+unix:///system?socket=" + json::value_to<std::string>(answer.at("socket"));
  ::execlp("virsh", "virsh", "-c", uri.c_str(), "console", uuid.c_str(), nullptr);
  return {{"error",
           {{"code", "storage"},
            {"text", std::string("virsh: ") + std::strerror(errno) +
                         "; it is in the package libvirt-clients"}}}};
}

std::string show_screen(const json::object& answer) {
  const auto socket = json::value_to<std::string>(answer.at("socket"));
  return "a VNC viewer on this node finds it at the local socket " + socket +
         ",\nfor a minute, and as long as somebody is there; from another machine:\n"
         "  ssh -L 5900:" +
         socket + " root@THIS-NODE    and a viewer of localhost:5900\n";
}

}  // namespace scalectl
