// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <set>

#include "policy/context.h"

namespace policy {

/// One proposal each; proposals.h has their arguments.

// nodes.cc: the cluster, its nodes and settings
Outcome cluster_create(Context& c, const json::object& args);
Outcome node_add(Context& c, const json::object& args);
Outcome node_up(Context& c, const json::object& args);
Outcome node_down(Context& c, const json::object& args);
Outcome node_leave(Context& c, const json::object& args);
Outcome node_gone(Context& c, const json::object& args);
Outcome node_forget(Context& c, const json::object& args);
Outcome fenced(Context& c, const json::object& args);
Outcome seen(Context& c, const json::object& args);
Outcome set(Context& c, const json::object& args);
Outcome token_add(Context& c, const json::object& args);
Outcome audit(Context& c, const json::object& args);

// disks.cc
Outcome disk_add(Context& c, const json::object& args);
Outcome disk_ready(Context& c, const json::object& args);
Outcome disk_up(Context& c, const json::object& args);
Outcome disk_failed(Context& c, const json::object& args);
Outcome disk_absent(Context& c, const json::object& args);
Outcome disk_lost(Context& c, const json::object& args);
Outcome disk_closed(Context& c, const json::object& args);
Outcome disk_remove(Context& c, const json::object& args);
Outcome disk_leave(Context& c, const json::object& args);
/// Tasks of disks that have become empty.
void end_evacuations(Context& c);
/// Until its node has let go of it, and what nodes had reserved on it is given up, its row stays.
void forget_removed(Context& c);

// vsds.cc: virtual disks, who uses them
Outcome vsd_create(Context& c, const json::object& args);
Outcome vsd_delete(Context& c, const json::object& args);
Outcome vsd_resize(Context& c, const json::object& args);
Outcome vsd_copies(Context& c, const json::object& args);
Outcome widen(Context& c, const json::object& args);
/// Where copies that were being replaced count again, some extents have one too many.
void recount_copies(Context& c);
/// Tasks of VSDs all of whose extents have as many copies as they should.
void end_widening(Context& c);
Outcome open(Context& c, const json::object& args);
/// A node is to have a device, or none any more; `name` is for people.
Outcome open_device(Context& c, VsdId vsd, const std::string& name, uint64_t node);
Outcome close_device(Context& c, VsdId vsd, const std::string& name, uint64_t node);
Outcome opened(Context& c, const json::object& args);
Outcome close(Context& c, const json::object& args);
Outcome closed(Context& c, const json::object& args);
Outcome lease_take(Context& c, const json::object& args);
Outcome lease_drop(Context& c, const json::object& args);
Outcome intent(Context& c, const json::object& args);
/// A VSD came to be: its copies are to be compared from now on.
Outcome made(Context& c, VsdId vsd);
/// Whether there is room to begin something new: nodes for so many copies, and free space.
Result<void> may_begin(Context& c, uint64_t replicas);
/// Maps are taken apart together, so deletions end together.
void end_deletions(Context& c);

/// What the last holder of a lease left undone; false where there is more than fits into an entry.
Result<bool> recover(Context& c, VsdId vsd);

// schedules.cc
Outcome schedule_create(Context& c, const json::object& args);
Outcome schedule_set(Context& c, const json::object& args);
Outcome schedule_delete(Context& c, const json::object& args);
/// Whether a snapshot that a schedule asks for is still to be taken.
Result<void> may_take(Context& c, const json::object& args);
void note_taken(Context& c, const json::object& args, const json::array& taken);

// vms.cc, vm_runs.cc, vm_moves.cc, vm_nics.cc, vm_disks.cc
Outcome vm_create(Context& c, const json::object& args);
Outcome vm_edit(Context& c, const json::object& args);
Outcome vm_delete(Context& c, const json::object& args);
Outcome vm_start(Context& c, const json::object& args);
Outcome vm_want(Context& c, const json::object& args);
Outcome vm_state(Context& c, const json::object& args);
Outcome vm_ended(Context& c, const json::object& args);
Outcome vm_recover(Context& c, const json::object& args);
Outcome vm_migrate(Context& c, const json::object& args);
Outcome vm_moving(Context& c, const json::object& args);
Outcome vm_moved(Context& c, const json::object& args);
Outcome vm_stays(Context& c, const json::object& args);
Outcome vm_migrate_cancel(Context& c, const json::object& args);
Outcome vm_disk_add(Context& c, const json::object& args);
Outcome vm_disk_change(Context& c, const json::object& args);
Outcome vm_disk_remove(Context& c, const json::object& args);
Outcome vm_disk_gone(Context& c, const json::object& args);
Outcome vm_nic_add(Context& c, const json::object& args);
Outcome vm_nic_change(Context& c, const json::object& args);
Outcome vm_nic_remove(Context& c, const json::object& args);
Outcome node_bond(Context& c, const json::object& args);
Outcome node_drain(Context& c, const json::object& args);
Outcome vm_paused_for(Context& c, const json::object& args);
Outcome capacity(Context& c, const json::object& args);
Outcome vm_snapshot_rested(Context& c, const json::object& args);
Outcome vm_snapshot_delete(Context& c, const json::object& args);
Outcome vm_revert(Context& c, const json::object& args);
Outcome vm_clone(Context& c, const json::object& args);
// vm_cdroms.cc
Outcome vm_cdrom_add(Context& c, const json::object& args);
Outcome vm_cdrom_remove(Context& c, const json::object& args);
Outcome vm_cdrom_change(Context& c, const json::object& args);
Outcome vm_cdrom_has(Context& c, const json::object& args);

// media.cc
Outcome medium_create(Context& c, const json::object& args);
Outcome medium_make(Context& c, const json::object& args);
Outcome medium_made(Context& c, const json::object& args);
Outcome medium_take(Context& c, const json::object& args);
Outcome medium_received(Context& c, const json::object& args);
Outcome medium_sealed(Context& c, const json::object& args);
Outcome medium_progress(Context& c, const json::object& args);
Outcome medium_checked(Context& c, const json::object& args);
Outcome medium_delete(Context& c, const json::object& args);
Outcome medium_read(Context& c, const json::object& args);
Outcome media_tidy(Context& c, const json::object& args);
Outcome vsd_fill(Context& c, const json::object& args);
Outcome filling_take(Context& c, const json::object& args);
Outcome filling_progress(Context& c, const json::object& args);
Outcome filled(Context& c, const json::object& args);
Outcome vsd_fill_cancel(Context& c, const json::object& args);
/// The medium of a call.
Result<meta::Medium> medium_of(Context& c, const json::object& args);
/// Opens what is read, written and made on each node for media, and closes what is not any more.
/// After each change of what that follows from.
void keep_media(Context& c);
/// All VSDs whose devices are opened and closed by that alone.
std::set<uint64_t> devices_for_media(Context& c);
/// Whether all of a VSD is there: not where it is being made from a medium, or could not be.
Result<void> is_whole(Context& c, const meta::Vsd& vsd);

/// What a call takes snapshots of is all disks of a VM that it names.
Result<void> are_all_disks(Context& c, const json::object& args);
/// The snapshots that were taken are those of a VM's disks.
Result<void> note_vm_snapshot(Context& c, const json::object& args, const json::array& taken);
/// What was written to a VSD that nobody has open is in the metadata; false: ask again.
Result<bool> rests(Context& c, const meta::Vsd& vsd);
/// Whether a VSD may be closed on a node, or deleted: not where a VM has it.
Result<void> may_close(Context& c, const meta::Vsd& vsd, uint64_t node);
Result<void> may_delete(Context& c, const meta::Vsd& vsd);

// snapshots.cc
Outcome snapshot(Context& c, const json::object& args);
Outcome snapshot_delete(Context& c, const json::object& args);
Outcome vsd_clone(Context& c, const json::object& args);
Outcome snapshot_open(Context& c, const json::object& args);
Outcome snapshot_close(Context& c, const json::object& args);
/// The one by which a node reads a snapshot, made where there is none.
Result<VsdId> view_on(Context& c, core::SnapshotId snapshot, uint64_t node);
/// The views of a snapshot that a node has closed are gone.
Result<void> forget_views(Context& c);
Outcome vsd_revert(Context& c, const json::object& args);

// space.cc: extents and their copies
Outcome reserve(Context& c, const json::object& args);
Outcome unreserve(Context& c, const json::object& args);
Outcome commit(Context& c, const json::object& args);
Outcome place(Context& c, const json::object& args);
Outcome moved(Context& c, const json::object& args);
Outcome rebalance(Context& c, const json::object& args);
Outcome rebalance_some(Context& c, const json::object& args);
Outcome collect(Context& c, const json::object& args);
Outcome reap(Context& c, const json::object& args);

// gathering.cc
Outcome gathered(Context& c, const json::object& args);

// scrub.cc
Outcome verify(Context& c, const json::object& args);
Outcome verified(Context& c, const json::object& args);
Outcome scrubbed(Context& c, const json::object& args);
Outcome repair(Context& c, const json::object& args);

}  // namespace policy
