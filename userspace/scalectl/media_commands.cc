// SPDX-License-Identifier: GPL-2.0
#include "media_commands.h"

#include "show.h"
#include "transfer.h"
#include "vm_transfer.h"
#include "words.h"

namespace scalectl {

namespace {

Call of_medium(const char* method, const Words& w) {
  return {method, kRoot + ("medium/" + path_word(w.arguments[0])), {}};
}

Call of_drive(const char* method, const Words& w) {
  Call call{method, kRoot + ("vm/" + path_word(w.arguments[0]) + "/cdrom"), {}};
  if (w.arguments.size() > 1) call.body["cdrom"] = count_of(w.arguments[1], "N");
  take(call.body, w, {"medium"});
  return call;
}

}  // namespace

std::vector<Command> media_commands() {
  return {
      {"medium",
       "upload",
       {"FILE"},
       {{"name", "NAME", "default: that of the file"},
        {"sha256", "DIGEST", "what the file must have, as its maker says"},
        {"no-wait", "", "do not wait until it is checked; see: scalectl medium show"}},
       "keep an image of a CD or a disk (iso, raw, qcow2, vmdk, vhdx, ova); again, where it was "
       "cut "
       "off, it goes on",
       "scalectl medium upload debian-12.iso",
       {},
       show_medium,
       {},
       upload},
      {"medium",
       "download",
       {"NAME", "TO"},
       {},
       "write a medium into a new file; again, where it was cut off, it goes on",
       "scalectl medium download debian-12.iso copy.iso",
       {},
       show_medium,
       {},
       download},
      {"medium",
       "list",
       {},
       {},
       "all media",
       "scalectl medium list",
       [](const Words&) { return get("medium"); },
       show_media},
      {"medium",
       "show",
       {"NAME"},
       {},
       "a medium: what it is, its checksum, how far its upload is",
       "scalectl medium show debian-12.iso",
       [](const Words& w) { return of_medium("GET", w); },
       show_medium},
      {"medium",
       "delete",
       {"NAME"},
       {{"yes", "", "yes", true}},
       "delete a medium, also one of which not all has come; disks that were made of it stay",
       "scalectl medium delete debian-12.iso --yes",
       [](const Words& w) {
         if (!w.has("yes"))
           throw UsageError{"medium " + w.arguments[0] + " would be lost; say --yes"};
         return of_medium("DELETE", w);
       },
       nothing},
      {"vsd",
       "import",
       {"NAME"},
       {{"medium", "MEDIUM", "that it is to be made of", true},
        {"copies", "2|3", "on as many nodes; default: 2"}},
       "make a virtual disk of a medium: a raw one at once, others are converted",
       "scalectl vsd import mail-0 --medium debian-12.qcow2",
       [](const Words& w) {
         if (!w.has("medium")) throw UsageError{"of which medium? say --medium"};
         Call call{"POST", kRoot + ("vsd/" + path_word(w.arguments[0]) + "/import"), {}};
         take(call.body, w, {"medium"});
         if (w.has("copies")) call.body["copies"] = count_of(w.options.at("copies"), "--copies");
         return call;
       },
       show_vsd},
      {"vsd",
       "export",
       {"VSD[@SNAPSHOT]", "MEDIUM"},
       {{"format", "qcow2|raw", "default: qcow2"}},
       "make a medium of a virtual disk, also while it is in use, to download it",
       "scalectl vsd export mail-0 mail-0.qcow2",
       [](const Words& w) {
         const bool now = w.arguments[0].find('@') == std::string::npos;
         Call call{"POST",
                   kRoot +
                       (now ? "vsd/" + path_word(w.arguments[0])
                            : "snapshot/" + snapshot_word(w.arguments[0])) +
                       "/export",
                   {{"medium", path_word(w.arguments[1])}}};
         take(call.body, w, {"format"});
         return call;
       },
       show_medium},
      {"vsd",
       "import-cancel",
       {"NAME"},
       {},
       "do not make a virtual disk of a medium any further; delete it then",
       "scalectl vsd import-cancel mail-0",
       [](const Words& w) {
         return Call{"DELETE", kRoot + ("vsd/" + path_word(w.arguments[0]) + "/import"), {}};
       },
       nothing},
      {"vm",
       "export",
       {"VM@SNAPSHOT", "FOLDER"},
       {{"format", "qcow2|raw", "of its disks; default: qcow2"}},
       "write a machine as it was into a folder: its disks, and its domain's XML; again, where it "
       "was cut off, it goes on",
       "scalectl vm export mail@monday mail-exported",
       {},
       [](const json::object&) { return std::string("all of it is there\n"); },
       {},
       export_machine},
      {"vm",
       "import",
       {"FROM", "NAME"},
       {{"copies", "2|3", "of its disks, on as many nodes; default: 2"}},
       "make a machine of such a folder; it is off",
       "scalectl vm import mail-monday mail",
       {},
       show_vm,
       {},
       import_machine},
      {"vm",
       "cdrom-add",
       {"NAME"},
       {{"medium", "MEDIUM", "that is in it; default: none"}},
       "a drive for CDs, while the VM is off",
       "scalectl vm cdrom-add mail --medium debian-12.iso",
       [](const Words& w) { return of_drive("POST", w); },
       show_vm},
      {"vm",
       "cdrom-edit",
       {"NAME", "N"},
       {{"medium", "MEDIUM", "'': none", true}},
       "put another medium into a drive, by its number, or take it out; also while the guest runs",
       "scalectl vm cdrom-edit mail 0 --medium ''",
       [](const Words& w) {
         if (!w.has("medium")) throw UsageError{"which medium? say --medium"};
         return of_drive("PATCH", w);
       },
       show_vm},
      {"vm",
       "cdrom-remove",
       {"NAME", "N"},
       {},
       "take a drive out, while the VM is off",
       "scalectl vm cdrom-remove mail 0",
       [](const Words& w) { return of_drive("DELETE", w); },
       show_vm},
  };
}

}  // namespace scalectl
