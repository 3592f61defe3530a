// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

#include "api_call.h"

/// What the calls about virtual machines share.
namespace scaled {

Result<meta::Vm> find_vm(Call& call, const std::string& name);
/// A VM as it is shown.
Outcome vms_json(Call& call, const std::string& name);
/// The same behind a proposal that began a task, when that has ended, or at once.
Outcome answer_vm(Call& call, const std::string& name, const Outcome& done, bool wait);
/// What a request says of a VM, for proposals "vm_create", "vm_edit" and "vm_clone"; its name must
/// be said, and its memory, where one is created.
Outcome vm_fields(Call& call, Fields& fields, bool create);
/// All disks of a VM at one instant, also while it runs, for proposal "snapshot" with these
/// arguments.
Outcome take_vm_snapshot(Call& call, const meta::Vm& vm, boost::json::object what);
/// For proposal "vm_create", where the request names any; api_media.cc.
Result<void> take_cdroms(Call& call, boost::json::object& out);
/// For proposals "vm_create" and "vm_disk_add".
Outcome disk_of(Call& call, const boost::json::object& asked);
/// For proposals "vm_create" and "vm_edit", where the request names any.
Result<void> take_nics(Call& call, Fields& fields, boost::json::object& out);

}  // namespace scaled
