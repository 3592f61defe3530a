// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

extern "C" {
struct _virConnect;
struct _virDomain;
}

namespace hypervisor {

using core::Code;
using core::Error;
using core::Result;

/// `moving`: paused for the last part of a migration, or until the first one has come.
enum class State : uint8_t { running, paused, io_error, moving, ending };

/// The libvirt that runs QEMU on this machine.
inline constexpr const char* kSystem = "qemu:///system";

/// An active domain. `id` is another one after each of its starts.
struct Domain {
  std::string uuid;
  int id = 0;
  State state = State::running;
};

/// What a domain has used since it began here: a migration begins anew to count.
struct Stats {
  struct Io {
    uint64_t requests = 0;
    uint64_t bytes = 0;
    uint64_t ns = 0;  ///< that they took together
  };
  struct Disk {
    std::string target;  ///< as the domain calls it
    Io reads;
    Io writes;
    Io flushes;
  };
  struct Traffic {
    uint64_t bytes = 0;
    uint64_t packets = 0;
    uint64_t dropped = 0;
  };
  struct Nic {
    std::string target;  ///< of the host's, as the domain calls it
    Traffic received;    ///< by the guest
    Traffic sent;
  };
  uint64_t cpu_ns = 0;        ///< of all CPUs together
  uint64_t memory_bytes = 0;  ///< of the node's that its process has
  std::vector<Disk> disks;
  std::vector<Nic> nics;
};

/// libvirt on this machine. One call at a time on one object; errors carry libvirt's own text.
class Hypervisor {
 public:
  /// Code::unknown where nobody answers there.
  [[nodiscard]] static Result<std::unique_ptr<Hypervisor>> open(const std::string& uri);
  ~Hypervisor();
  Hypervisor(const Hypervisor&) = delete;
  Hypervisor& operator=(const Hypervisor&) = delete;

  /// Whether it still answers; else it is opened anew.
  [[nodiscard]] bool alive() const;

  /// All of them, or an error: one that is missing has ended.
  Result<std::vector<Domain>> domains();
  /// Code::not_found where it has ended.
  Result<std::string> xml(const std::string& uuid);
  /// What a domain is to be at the other end of a migration.
  Result<std::string> movable_xml(const std::string& uuid);
  /// Runs a domain that is gone when it has ended.
  Result<void> create(const std::string& xml);
  Result<void> resume(const std::string& uuid);
  Result<void> suspend(const std::string& uuid);
  /// Asks the guest; whether it does so is its own.
  Result<void> shutdown(const std::string& uuid);
  Result<void> destroy(const std::string& uuid);
  /// Asks the guest; whether it does so is its own.
  Result<void> reboot(const std::string& uuid);
  /// As the button of a machine: it begins anew, whatever its guest does.
  Result<void> reset(const std::string& uuid);
  /// Has the guest's agent write what its file systems hold back, and hold whoever writes to them.
  /// After an error it may have done so all the same: thaw() it.
  Result<void> freeze(const std::string& uuid, std::chrono::seconds limit);
  /// Lets them go on, frozen or not.
  Result<void> thaw(const std::string& uuid, std::chrono::seconds limit);
  /// Has the guest see that the device behind a disk of its has grown to that size.
  Result<void> resize(const std::string& uuid, const std::string& path, uint64_t bytes);

  /// Plugs a device in while the domain runs.
  Result<void> attach(const std::string& uuid, const std::string& device_xml);
  /// Has the guest let go of a device; it is there until that has done so, if ever.
  Result<void> detach(const std::string& uuid, const std::string& device_xml);
  /// Changes what can be changed of a device that is there.
  Result<void> update(const std::string& uuid, const std::string& device_xml);

  /// Changes what is in a drive, also where its guest has locked it, as with the pin that each
  /// drive has a hole for.
  Result<void> insert(const std::string& uuid, const std::string& drive_xml);

  /// Limits what goes to and from a disk from now on; 0: no limit.
  Result<void> limit(const std::string& uuid, const std::string& target, uint64_t iops,
                     uint64_t bytes_per_s);

  /// Has a running domain have so many vCPUs, of those that it has room for.
  Result<void> set_vcpus(const std::string& uuid, uint64_t count);

  /// What guests of this machine can have, as libvirt describes it: which CPUs, for one.
  Result<std::string> capabilities();

  Result<Stats> stats(const std::string& uuid);

  /// A connection to a domain's screen, which speaks VNC, as a socket that the caller closes; for
  /// a libvirt of this machine.
  Result<int> screen(const std::string& uuid);

  /// Moves a domain to the libvirt at `uri` while its guest runs, and makes it `xml` there. When
  /// this has ended well it is gone here and paused there; with an error it may be anything of the
  /// two, but nothing runs there. Blocks as long as that takes.
  Result<void> migrate(const std::string& uuid, const std::string& uri, const std::string& xml);
  /// Ends what another object's migrate() does, if that can still be ended.
  Result<void> abort(const std::string& uuid);
  /// What a migration has done so far; nothing where none is under way.
  struct Progress {
    uint64_t bytes = 0;      ///< that have gone over
    uint64_t remaining = 0;  ///< of memory, now: guests change it meanwhile
  };
  Result<std::optional<Progress>> progress(const std::string& uuid);
  /// When a domain's guest last stood still for the last part of a migration.
  std::optional<std::chrono::steady_clock::time_point> stopped_to_move(const std::string& uuid);

  /// How a domain ended since it was asked last: "shutdown" by its guest, "crashed", "migrated",
  /// "failed"; "" where nobody saw it.
  std::string ended(const std::string& uuid);

 private:
  explicit Hypervisor(_virConnect* connection) : connection_(connection) {}
  static Error lookup_error();
  Result<std::string> xml_with(const std::string& uuid, unsigned flags);
  template <class Call>
  Result<void> on(const std::string& uuid, Call call);
  /// What libvirt's events said; an event may come while this object goes.
  struct Ended {
    std::mutex mutex;
    std::map<std::string, std::string> how;  // by UUID
    std::map<std::string, std::chrono::steady_clock::time_point> stopped;
  };
  static int note(_virConnect*, _virDomain* domain, int event, int detail, void* ended);

  _virConnect* const connection_;
  int callback_ = -1;
  unsigned power_button_ = 0;  // libvirt's driver for tests has none
  const std::shared_ptr<Ended> ended_ = std::make_shared<Ended>();
};

}  // namespace hypervisor
