// SPDX-License-Identifier: GPL-2.0
#include "manual.h"

#include "commands.h"

namespace scalectl {

namespace {

// What roff would take for its own: a backslash, and a control character at a line's start.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return (out.starts_with(".") || out.starts_with("'") ? "\\&" : "") + out;
}

std::string describe(const Command& command) {
  std::string out = ".TP\n.B " + plain(command.noun + " " + command.verb);
  for (const auto& argument : command.arguments) out += " \\fI" + plain(argument) + "\\fP";
  out += "\n" + plain(command.help) + ".\n";
  for (const auto& option : command.options) {
    out += ".RS\n.TP\n.B " + plain("--" + option.name);
    if (!option.value.empty()) out += " \\fI" + plain(option.value) + "\\fP";
    out += "\n" + plain(option.help) + "\n.RE\n";
  }
  return out + ".RS\n.PP\nExample:\n.B " + plain(command.example) + "\n.RE\n";
}

constexpr const char* kBegin = R"(.\" SPDX-License-Identifier: GPL-2.0
.TH SCALECTL 8 "" "scribe" "System administration"
.SH NAME
scalectl \- commands a cluster of scribe nodes
.SH SYNOPSIS
.B scalectl
.I noun verb
[\fIargument\fP...] [\fIoption\fP...]
.SH DESCRIPTION
Talks to
.BR scaled (8)
on this node, which acts for the whole cluster: it does not matter on which node a command is given.
Only root may.
.SH COMMANDS
)";

constexpr const char* kEnd = R"(.SH OPTIONS OF EVERY COMMAND
.TP
.B \-\-json
Print the API's answer.
.TP
.BI \-\-socket " PATH"
Where scaled listens; default /run/scaled/scaled.sock.
.TP
.B \-\-help
What a command takes.
.SH EXIT STATUS
0 done, 1 failed, 2 wrong usage, 3 scaled not reached, 4 not found, 5 conflict, 6 denied, 7 no quorum
or outcome unknown.
.SH SEE ALSO
.BR scaled (8),
.BR dmsetup (8)
)";

}  // namespace

std::string manual() {
  std::string out = kBegin;
  for (const Command& command : commands()) out += describe(command);
  return out + kEnd;
}

}  // namespace scalectl
