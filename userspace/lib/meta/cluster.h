// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/id.h"
#include "meta/database.h"
#include "meta/map.h"

namespace meta {

struct ClusterInfo {
  std::string name;
  std::string uuid;
};

struct Node {
  core::NodeId id;
  std::string name;
  std::string lan_addr;
  std::string backplane_addr;
  std::string state;  ///< "new" (never up), "up", "down" or "removed" (for good)
  uint64_t life = 0;
  std::string version;
  uint64_t seen = 0;     ///< every I/O that it planned under a map before this index has ended
  int64_t since = 0;     ///< when it came to this state, in seconds since 1970
  bool leaving = false;  ///< is to be removed when its disks are empty
  std::string drain;  ///< runs no VMs: "restart", until it has another life; "on"; empty: it does
};

struct Disk {
  core::DiskId id;
  core::NodeId node;
  std::string uuid;
  std::string serial;
  std::string tier;  ///< "ssd" or "hdd"
  uint64_t slots = 0;
  /// "new" (no superblock yet), "ok", "absent" (its node does not find it), "lost" (away for too
  /// long: its copies are made anew), "failed" or "removed" (both for good).
  std::string state;
  uint64_t life = 0;
  bool leaving = false;  ///< takes nothing new, and its copies move to other disks
  int64_t since = 0;     ///< when it came to this state, in seconds since 1970
};

/// A copy of an extent, and since which log index it lacks data (0: it does not).
struct CopyRow {
  core::DiskId disk;
  uint32_t slot = 0;
  uint64_t stale = 0;
  /// Stale because another was chosen when an owner had died while it wrote: it has all that was
  /// flushed, and may have other data than the chosen one where nothing was. In the table, `stale`
  /// is negative then.
  bool suspect = false;
  bool leaving = false;  ///< is to lie on another disk, for this one is fuller than others
};

/// An extent, and the VSD that fills it.
struct Owned {
  core::ExtentId extent;
  core::VsdId vsd;
};

/// Where a walk over what must be copied has got to.
struct AilingAt {
  uint64_t disk = 0;     ///< 0: among stale copies, or those that are wanting
  uint64_t next = 0;     ///< extent, or slot of the disk
  bool wanting = false;  ///< the disks are behind us
  bool end = false;
};

/// How long a disk may be away before its copies are made anew, where nobody set it.
constexpr int64_t kDefaultGraceSeconds = 900;

/// What the mover has to do, in copies.
struct Redundancy {
  uint64_t stale = 0;    ///< lack data
  uint64_t lost = 0;     ///< on disks that are lost, failed or removed
  uint64_t leaving = 0;  ///< on disks that are to become empty
  uint64_t wanting = 0;  ///< extents that have not as many copies as their VSD wants
  uint64_t few = 0;      ///< extents that lost some: with fewer whole copies than wanted
};

struct Vsd {
  core::VsdId id;
  std::string name;
  uint64_t sectors = 0;
  uint32_t replicas = 0;
  uint64_t root = 0;
  core::NodeId lease_node;
  uint64_t lease_life = 0;
  uint64_t epoch = 0;
  /// Its snapshots, or VSDs that were cloned from it, are left; its name is "deleted:ID:NAME" then.
  bool deleted = false;
  /// The snapshot that a node reads by this one; it has no name that people use. 0: none.
  core::SnapshotId view;

  /// What holds a medium is called "medium:ID": no name that people use.
  [[nodiscard]] bool is_medium() const { return name.starts_with("medium:"); }
  /// Whether people know it by its name.
  [[nodiscard]] bool is_listed() const { return !deleted && !view && !is_medium(); }
};

/// An image of a disk or CD that was uploaded: a file of so many bytes, which lies in a VSD of its
/// own. When all of it has come, nobody writes to it any more: it is read by views of a snapshot.
struct Medium {
  uint64_t id = 0;
  std::string name;
  core::VsdId vsd;
  core::SnapshotId snapshot;  ///< 0 before all of it is there
  /// "uploading", or "making" from another; "sealing", when all has come; "checking", what it is
  /// and its checksum; "ready"; "refused" (problem says why); "deleting", until all devices of it
  /// are closed.
  std::string state;
  uint64_t bytes = 0;
  uint64_t received = 0;      ///< of its bytes, on stable storage
  std::string wanted_sha256;  ///< that it must have; empty: any
  std::string sha256;         ///< that it has, when it was checked
  std::string format;         ///< iso, raw, qcow2, vmdk, vhdx or ova, when it was checked
  uint64_t disk_bytes = 0;    ///< of the disk that is in it
  std::string problem;
  core::NodeId node;  ///< that receives, makes, seals or checks it
  uint64_t life = 0;
  uint64_t done = 0;    ///< of its bytes, checked; where it is made, of 1000
  int64_t created = 0;  ///< in seconds since 1970
  uint64_t source = 0;  ///< the medium that it is made from, which is there for that alone
};

/// A VSD that becomes the disk that a medium is an image of.
struct Filling {
  core::VsdId vsd;
  uint64_t medium = 0;
  core::NodeId node;  ///< that does it
  uint64_t life = 0;
  uint64_t done = 0;    ///< of 1000
  std::string problem;  ///< why it has ended, where it did not go well
};

/// A VSD as it was at an instant.
struct Snapshot {
  core::SnapshotId id;
  core::VsdId vsd;
  std::string name;
  uint64_t sectors = 0;
  int64_t created = 0;    ///< in seconds since 1970
  uint64_t schedule = 0;  ///< that took it; 0: none, or one that was deleted
};

/// When snapshots are taken by themselves, and how long they are kept. Times are in seconds since
/// 1970.
struct Schedule {
  uint64_t id = 0;
  std::string name;
  std::string rule;  ///< of RFC 5545
  std::string zone;
  int64_t starts = 0;
  uint64_t keep = 0;          ///< so many of each VSD; 0: all
  uint64_t keep_seconds = 0;  ///< no longer than that, but the newest; 0: for ever
  int64_t done = 0;           ///< times up to this one were seen to, of the VSDs
  std::vector<core::VsdId> vsds;
  struct OfVm {
    uint64_t vm = 0;
    int64_t done = 0;  ///< the same of it
  };
  std::vector<OfVm> vms;
};

/// What a VM's machine itself keeps is on VSDs as well, which are opened, copied and moved as its
/// disks are; the guest sees none of them as a disk that it could write to.
inline constexpr uint64_t kMachineSlots = 100;  ///< from here on; no VM has so many disks
inline constexpr uint64_t kFlashSlot = 100;     ///< the variables of its UEFI
inline constexpr uint64_t kTpmSlot = 101;       ///< what its TPM keeps
inline constexpr uint64_t kSeedSlot = 102;      ///< what cloud-init reads at its first start
/// As long as the variables of Debian's OVMF, in sectors: QEMU puts the firmware itself right
/// behind.
inline constexpr uint64_t kFlashSectors = 1056;

struct VmDisk {
  uint64_t slot = 0;  ///< which of the VM's it is
  core::VsdId vsd;
  std::string bus;           ///< virtio, scsi or sata; uefi, tpm, seed: the machine's own
  uint64_t iops = 0;         ///< at most, reads and writes; 0: no limit
  uint64_t bytes_per_s = 0;  ///< at most, read and written; 0: no limit
  bool leaving = false;      ///< goes as soon as its guest has let go of it

  [[nodiscard]] bool of_guest() const { return slot < kMachineSlots; }
};

/// A drive for CDs, at sata.
struct VmCdrom {
  uint64_t slot = 0;    ///< which of the VM's it is
  uint64_t medium = 0;  ///< that is in it; 0: none
  uint64_t held = 0;    ///< that its run may still have open; 0: none
};

struct VmNic {
  uint64_t slot = 0;             ///< which of the VM's it is
  std::string mac;               ///< that the guest sees; the VM keeps it
  std::string bridge;            ///< the administrator's, that it is at; empty: it is on the LAN
  uint64_t vlan = 0;             ///< there: its tag, 1 to 4094; 0: it has none
  std::string model = "virtio";  ///< or e1000e
  bool connected = true;         ///< false: as with the cable pulled out
};

/// A virtual machine: what it is, what it should do and what it does. Times are in seconds since
/// 1970.
struct Vm {
  uint64_t id = 0;
  std::string name;
  std::string uuid;
  std::string description;
  std::vector<std::string> tags;
  uint64_t vcpus = 1;
  uint64_t memory_mib = 0;
  std::string machine;    ///< of QEMU's, as long as it lives
  std::string cpu;        ///< "host", or "baseline", which every node can run
  uint64_t priority = 0;  ///< the higher it is the earlier it is restarted
  std::string wanted;     ///< off, running, paused
  std::string how;        ///< where it is to be off: "shutdown" asks the guest, "stop" does not
  core::NodeId node;      ///< that runs it; 0: none
  uint64_t life = 0;      ///< of that node
  uint64_t run = 0;       ///< grows with each start: at most one of them may run
  std::string state;      ///< off, starting, running, paused, arriving, waiting
  std::string reason;     ///< why it is in that state, where that is not plain
  int64_t since = 0;
  uint64_t failures = 0;  ///< starts and crashes, one after the other
  int64_t retry_at = 0;   ///< where it waits
  uint64_t runs = 0;      ///< the last run; where it moves, the one that it will be there
  core::NodeId to_node;   ///< where it moves; 0: nowhere
  uint64_t to_life = 0;
  std::string move;               ///< preparing, moving, or cancelled, where it moves
  uint64_t paused_ms = 0;         ///< how long its guest stood still when it last moved
  core::NodeId preferred;         ///< where it is to run, if that can be; 0: anywhere
  std::string apart;              ///< a group whose VMs are to run on different nodes; empty: none
  std::string together;           ///< a group whose VMs are to run on one node; empty: none
  bool is_template = false;       ///< it is not started: others are cloned from it
  std::string firmware = "bios";  ///< or uefi, or uefi-secure: that starts only what is signed
  bool tpm = false;               ///< it has a TPM 2.0
  bool screen = true;             ///< it has a video card, keyboard and pointer
  uint64_t max_memory_mib = 0;    ///< as far as memory can be added while it runs; 0: it cannot
  // Of its run, where it has one:
  uint64_t run_vcpus = 0;  ///< that it began with
  std::string run_cpu;     ///< the model that its "baseline" is
  std::vector<VmDisk> disks;
  std::vector<VmNic> nics;
  std::vector<VmCdrom> cdroms;
};

/// What cloud-init reads in a VM, as it was given; kept apart, for it may be long.
struct VmSeed {
  std::string user_data;
  std::string network_config;  ///< empty: the guest's own way
};

/// A VM as it was at an instant: its disks, each as a snapshot of its VSD, and its row.
struct VmSnapshot {
  struct Disk {
    uint64_t slot = 0;
    core::SnapshotId snapshot;
    std::string bus;
    uint64_t iops = 0;
    uint64_t bytes_per_s = 0;

    [[nodiscard]] bool of_guest() const { return slot < kMachineSlots; }
  };
  uint64_t id = 0;
  std::string name;
  int64_t created = 0;    ///< in seconds since 1970
  uint64_t schedule = 0;  ///< that took it; 0: none, or one that was deleted
  /// Its guest's file systems were held by its agent, or it was off, however that came; false where
  /// nobody is left who could have said so.
  bool at_rest = false;
  Vm was;  ///< `id` is the VM's; its name, MACs and what it did are not kept
  std::vector<Disk> disks;
};

/// What a node has for VMs.
struct Capacity {
  core::NodeId node;
  uint64_t life = 0;
  uint64_t memory_mib = 0;  ///< without what the node itself needs
  uint64_t cpus = 0;
  std::string cpu;          ///< what they are: guests with all of one go only where it is the same
  std::string problem;      ///< why it can run none
  std::string lan_bridge;   ///< what guests on the LAN are at; empty: there is none
  std::string uplink;       ///< what VLANs of guests are on; empty: there is none
  std::string lan_problem;  ///< why something of that is not there
  std::vector<std::string> models;  ///< of CPUs that guests can have there, by libvirt's names
};

/// What was done, in an entry of the log.
struct Event {
  uint64_t id = 0;
  int64_t at = 0;       ///< in seconds since 1970, by the leader's clock
  std::string who;      ///< a node, or whoever asked one
  std::string what;     ///< as the command that does it
  std::string object;   ///< such as "VM mail", by the name that it had then
  std::string details;  ///< how
};

/// Ports that a node has for a network, of which one is used at a time.
struct Bond {
  core::NodeId node;
  std::string network;  ///< lan or backplane
  std::vector<std::string> ports;
  std::string preferred;  ///< the one that is used while it can be; empty: whichever was last
};

/// How far the comparing of a VSD's copies has got. Times are in seconds since 1970.
struct Scrub {
  core::VsdId vsd;
  uint64_t next = 0;  ///< leaf to go on with; 0: no pass is under way
  int64_t began = 0;  ///< when that pass began
  int64_t done = 0;   ///< when the last whole pass began, or the VSD was made
};

/// An extent whose copies differ, or of which none can be read, and no copy is known to be right.
struct Damage {
  core::ExtentId extent;
  core::VsdId vsd;
  uint64_t chunk = 0;  ///< one that it holds data of
  int64_t found = 0;   ///< when, in seconds since 1970
  core::DiskId keep;   ///< the copy that somebody chose; 0: nobody has
};

/// How often all copies are compared, in days, where nobody set it.
constexpr int64_t kDefaultScrubDays = 14;

/// A device of a VSD that a node shall have: "opening", "open", "failed" (error says why) or
/// "closing".
struct Opened {
  core::VsdId vsd;
  core::NodeId node;
  std::string state;
  std::string error;
};

/// What goes on after its call was answered, or went on.
struct Task {
  uint64_t id = 0;
  std::string what;     ///< noun and verb of the command, such as "vsd open"
  uint64_t object = 0;  ///< of what it does that to
  std::string name;     ///< of the object, when the task began
  core::NodeId node;    ///< where; 0: nowhere in particular
  std::string state;    ///< "running", "done" or "failed" (error says why)
  std::string error;
  int64_t began = 0;  ///< in seconds since 1970
  int64_t ended = 0;  ///< 0 while it runs
};

/// That a node ended all I/O of another node's life.
struct Fence {
  core::NodeId node;
  uint64_t life = 0;
  core::NodeId witness;
};

struct DiskUse {
  core::DiskId disk;
  uint64_t used = 0;  ///< slots with a copy, stale ones too
  uint64_t quarantined = 0;
};

struct Life {
  core::NodeId node;
  uint64_t life = 0;
};

/// Reads the rows about nodes, disks and virtual disks. Everything that changes them goes through
/// policy::execute().
class Cluster {
 public:
  explicit Cluster(Database& database) : database_(database) {}

  Result<std::optional<ClusterInfo>> info();
  Result<std::vector<Node>> nodes();
  Result<std::vector<Disk>> disks();
  /// Deleted ones too, behind each other.
  Result<std::vector<Vsd>> vsds();
  Result<std::optional<Vsd>> vsd(core::VsdId id);
  /// Those of a VSD together, the oldest first.
  Result<std::vector<Snapshot>> snapshots();
  Result<std::optional<Snapshot>> snapshot(core::SnapshotId id);
  Result<std::vector<Schedule>> schedules();
  /// By name.
  Result<std::vector<Vm>> vms();
  /// Of all VMs, the oldest first.
  Result<std::vector<VmSnapshot>> vm_snapshots();
  /// By name.
  Result<std::vector<Medium>> media();
  Result<std::vector<Filling>> fillings();
  /// Until when a node is to read a medium for whoever downloads it; 0: it is not. And the first
  /// of these times; in seconds since 1970.
  Result<int64_t> read_until(uint64_t medium, core::NodeId node);
  Result<int64_t> oldest_reader();
  /// The VSDs whose devices a run of a VM needs on a node: of its disks, and the views by which it
  /// reads its media; 0 for one that is not there yet.
  Result<std::vector<core::VsdId>> devices_of(const Vm& vm, core::NodeId node);
  /// How long a VSD's device is, in sectors: as the VSD, but where a firmware needs it shorter.
  Result<uint64_t> device_sectors(const Vsd& vsd);
  /// What cloud-init is given in a VM; nothing where it is given nothing.
  Result<std::optional<VmSeed>> seed(uint64_t vm);
  Result<std::vector<Capacity>> capacities();
  Result<std::vector<Bond>> bonds();
  /// The newest first, so many at most; of an object, with or without its kind, or all for "".
  Result<std::vector<Event>> events(const std::string& about, uint64_t most);
  /// The VLANs that network interfaces of VMs are in.
  Result<std::vector<uint64_t>> vlans();
  /// VSD@NAME
  Result<std::string> label(core::SnapshotId id);
  /// What a VSD's device is called: by its name, or as the snapshot whose view it is.
  Result<std::string> device_label(const Vsd& vsd);
  Result<std::vector<Opened>> opened();
  /// The running ones and some that ended, oldest first.
  Result<std::vector<Task>> tasks();
  Result<std::vector<Fence>> fences();
  /// Lives that are over and that `witness` has not fenced yet: of nodes that are down, or that
  /// still hold leases or reservations, or run VMs.
  Result<std::vector<Life>> unfenced(core::NodeId witness);
  /// Whether slots were freed, or copies of shared extents moved, behind that index.
  Result<bool> quarantine_behind(uint64_t seen);
  /// Extents that several VSDs may lead to and whose copies moved behind that index, with their
  /// copies as they are now.
  Result<std::vector<MappedExtent>> relocated(uint64_t behind);
  /// Whether maps of deleted disks are still to be taken apart.
  Result<bool> has_garbage();
  /// Whether every live node has seen some of that.
  Result<bool> quarantine_over();
  Result<std::vector<DiskUse>> use();
  Result<std::vector<CopyRow>> copies(core::ExtentId extent);
  /// Some extents with a copy that is stale, or on a disk that is lost, failed, removed or leaving,
  /// or with more or fewer copies than wanted, and moves `at` behind them. One may be found more
  /// than once.
  Result<std::vector<Owned>> ailing(AilingAt& at, uint64_t limit);
  Result<Redundancy> redundancy();
  /// Whether copies are to go to other disks of their tier.
  Result<bool> rebalancing();
  /// VSDs whose number of copies was changed, and not all of whose extents were looked at since.
  Result<std::vector<core::VsdId>> widening();
  /// Leaves of a VSD whose copies may differ, up to a number of them.
  /// The newest extent that a VSD filled; 0 where it has none.
  Result<uint64_t> newest_extent(core::VsdId vsd);
  Result<std::vector<uint64_t>> intents(core::VsdId vsd, uint64_t limit);
  Result<std::vector<Scrub>> scrubs();
  Result<std::vector<Damage>> damage();
  /// How many copies of mapped extents lie on a node's disks.
  Result<uint64_t> copies_on(core::NodeId node);
  /// Reserved extents of lives that are over: free when those are fenced.
  Result<uint64_t> orphans();
  /// Of a setting; `otherwise` where it was never set.
  Result<int64_t> setting(const std::string& name, int64_t otherwise);

 private:
  Database& database_;
};

}  // namespace meta
