// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/id.h"
#include "core/result.h"
#include "core/segments.h"
#include "meta/map.h"

struct nl_sock;
struct nl_msg;

namespace control {

using core::Result;
using Uuid = std::array<uint8_t, 16>;

/// What the module waits for; `enum scribe_work` of the uapi header says what the fields mean.
struct Work {
  uint32_t type = 0;
  uint32_t id = 0;
  uint64_t vsd = 0;
  uint64_t arg = 0;
};

struct OpenDisk {
  uint64_t life = 0;
  uint64_t slots = 0;
};

struct ClosedBatch {
  uint64_t number = 0;
  meta::Batch batch;
};

/// What EXTENTS_SET says of an extent: its copies, and whether it stays frozen.
struct ExtentState {
  meta::MappedExtent extent;
  bool frozen = false;
  bool partial = false;    ///< a copy is left out that is not dropped yet
  core::DiskId refreshed;  ///< thawed: this copy was stale and is not any more
};

/// A whole slot to copy, with the lives in which its disks are expected.
struct SlotCopy {
  core::DiskId from;
  uint32_t from_slot = 0;
  uint64_t from_life = 0;
  core::DiskId to;
  uint32_t to_slot = 0;
  uint64_t to_life = 0;
};

/// A part of a slot to read, in sectors, with the life in which its disk is expected.
struct SlotRange {
  core::DiskId disk;
  uint64_t life = 0;
  uint32_t slot = 0;
  uint16_t start = 0;
  uint16_t len = 0;
  uint16_t to = 0;  ///< gather(): where it goes

  friend bool operator==(const SlotRange&, const SlotRange&) = default;
};

/// SCRIBE_COPY_SLOTS_MAX
constexpr size_t kMaxSlotCopies = 64;

enum class Role : uint8_t { initiator, target };

/// The module's netlink family: one method for each command of kernel/uapi/scribe_netlink.h, which
/// documents them. Errors carry the module's own text.
///
/// One call at a time on one object; a thread that may block (release, fence, close) has its own.
class Kernel {
 public:
  /// Code::not_found where the module is not loaded.
  [[nodiscard]] static Result<std::unique_ptr<Kernel>> open();
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  /// Says who this node is; the answer is the life of the module.
  Result<uint64_t> hello(core::NodeId node, const Uuid& cluster);
  Result<void> set_deadline(uint64_t life, uint64_t boottime_ns);

  Result<OpenDisk> open_disk(core::DiskId disk, const Uuid& uuid, const std::string& path,
                             uint8_t tier);
  Result<void> close_disk(core::DiskId disk);
  Result<void> set_route(core::DiskId disk, core::NodeId node, uint64_t life, uint8_t tier);
  Result<void> delete_route(core::DiskId disk);

  Result<void> set_peer(core::NodeId node, uint64_t life);
  Result<void> fence_peer(core::NodeId node, uint64_t life);
  /// The module holds a reference of its own; the caller closes `fd`.
  Result<void> add_socket(core::NodeId node, uint64_t life, Role role, int fd, bool data_crc);

  /// New data has so many copies. Said again in the same epoch, it changes that.
  Result<void> grant_lease(core::VsdId vsd, uint64_t epoch, uint32_t copies);
  /// All disks that can be reached, before a VSD is granted whose last holder did not flush.
  /// Blocks.
  Result<void> flush_disks();
  /// Blocks until the VSD's last batch is committed, by other calls to another Kernel.
  Result<void> release_lease(core::VsdId vsd, uint64_t epoch);
  /// `epoch` 0: whatever it is. Code::stale where it is not held in that one any more.
  /// `relet`: it is to be taken anew, for unflushed data is gone; I/O waits, and a user is told.
  /// Blocks until I/O has ended.
  Result<void> fail_lease(core::VsdId vsd, uint64_t epoch, bool relet = false);

  Result<void> put_leaf(core::VsdId vsd, uint64_t epoch, uint64_t index, const meta::Leaf& leaf);
  /// `no_space`: there are no more of so many copies.
  Result<void> add_reservations(std::span<const meta::MappedExtent> extents, uint32_t copies,
                                bool no_space);
  /// Extents on a disk that were in the node's stock, and are not any more. Ask until there are
  /// none.
  Result<std::vector<core::ExtentId>> take_back_reservations(core::DiskId disk);
  /// Code::not_found where none is ready.
  Result<ClosedBatch> get_batch(core::VsdId vsd);
  Result<void> batch_done(core::VsdId vsd, uint64_t epoch, uint64_t number);
  /// It would leave an extent without a good copy: the module flushes again, and offers another.
  Result<void> batch_refused(core::VsdId vsd, uint64_t epoch, uint64_t number);

  /// These leaves may be written in place from now on.
  Result<void> add_intent(core::VsdId vsd, uint64_t epoch, std::span<const uint64_t> leaves);
  /// They may not; the answer has those whose copies are equal, and durably so.
  Result<std::vector<uint64_t>> drop_intent(core::VsdId vsd, uint64_t epoch,
                                            std::span<const uint64_t> leaves);
  /// Code::not_found where there is no device of the VSD, Code::stale in another epoch,
  /// Code::conflict where a copy cannot be taken away now.
  Result<void> set_extents(core::VsdId vsd, uint64_t epoch, std::span<const ExtentState> extents);
  /// Where all copies of extents are that several VSDs may lead to.
  Result<void> move_extents(std::span<const meta::MappedExtent> extents);
  /// Blocks until everything written is flushed and committed, by other calls to another Kernel.
  Result<void> flush_vsd(core::VsdId vsd, uint64_t epoch);
  /// Copies slots and flushes them; bit i: the i-th is safe. At most kMaxSlotCopies.
  Result<uint64_t> copy_slots(std::span<const SlotCopy> slots);

  /// What is there; nothing where the disk answered with an error. Code::conflict where one is out
  /// of reach. Any number.
  Result<std::vector<std::optional<uint64_t>>> digests(std::span<const SlotRange> ranges);

  /// Puts the ranges together in each of the targets and flushes all of them. Code::conflict where
  /// a disk is out of reach. At most kMaxSlotCopies.
  Result<void> gather(std::span<const SlotRange> from, std::span<const SlotRange> targets);
  /// The VSD's map leads to other places with the same data. Code::not_found where there is no
  /// device of the VSD, Code::stale in another epoch.
  Result<void> move_pieces(const meta::Moved& moved);

  Result<std::vector<Work>> work();
  Result<void> barrier();

  /// A descriptor that becomes readable when the list of work grew; drain() empties it.
  [[nodiscard]] Result<int> subscribe();
  void drain();

 private:
  struct Reply;
  Kernel() = default;
  Result<void> connect();
  Result<nl_msg*> message(uint8_t command);
  Result<Reply> call(nl_msg* message);

  nl_sock* sock_ = nullptr;
  nl_sock* events_ = nullptr;
  int family_ = 0;
};

}  // namespace control
