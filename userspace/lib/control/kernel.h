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

  Result<void> grant_lease(core::VsdId vsd, uint64_t epoch);
  /// Blocks until the VSD's last batch is committed, by other calls to another Kernel.
  Result<void> release_lease(core::VsdId vsd, uint64_t epoch);
  Result<void> fail_lease(core::VsdId vsd);

  Result<void> put_leaf(core::VsdId vsd, uint64_t epoch, uint64_t index, const meta::Leaf& leaf);
  Result<void> add_reservations(std::span<const meta::MappedExtent> extents, bool no_space);
  /// Code::not_found where none is ready.
  Result<ClosedBatch> get_batch(core::VsdId vsd);
  Result<void> batch_done(core::VsdId vsd, uint64_t epoch, uint64_t number);

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
