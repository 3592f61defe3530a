// SPDX-License-Identifier: GPL-2.0
#include "hypervisor/hypervisor.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <array>
#include <optional>
#include <thread>

namespace hypervisor {

namespace {

struct FreeDomain {
  void operator()(virDomainPtr domain) const { virDomainFree(domain); }
};
using DomainHandle = std::unique_ptr<virDomain, FreeDomain>;

struct FreeText {
  void operator()(char* text) const { free(text); }
};

Error last_error(Code code) {
  const virError* err = virGetLastError();
  return {code, std::string("libvirt: ") +
                    (err != nullptr && err->message != nullptr ? err->message : "no reason given")};
}

// Its errors are in what calls return; it would print them, too.
void ignore_error(void*, virErrorPtr) {}

// libvirt's events come to a loop of which there is one for all connections.
void run_events() {
  static const bool once = [] {
    virSetErrorFunc(nullptr, ignore_error);
    virEventRegisterDefaultImpl();
    std::thread([] {
      for (;;) virEventRunDefaultImpl();
    }).detach();
    return true;
  }();
  (void)once;
}

std::string uuid_of(virDomainPtr domain) {
  std::array<char, VIR_UUID_STRING_BUFLEN> text{};
  virDomainGetUUIDString(domain, text.data());
  return text.data();
}

State state_of(int state, int reason) {
  switch (state) {
    case VIR_DOMAIN_PAUSED:
      if (reason == VIR_DOMAIN_PAUSED_MIGRATION) return State::moving;
      return reason == VIR_DOMAIN_PAUSED_IOERROR ? State::io_error : State::paused;
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN:  // asked to, or about to be gone: the latter is over in a moment
      return State::running;
    default:
      return State::ending;
  }
}

constexpr int kKeepAliveSeconds = 5;
constexpr unsigned kKeepAliveCount = 3;

}  // namespace

Result<std::unique_ptr<Hypervisor>> Hypervisor::open(const std::string& uri) {
  run_events();
  virConnectPtr connection = virConnectOpen(uri.c_str());
  if (connection == nullptr) return last_error(Code::unknown);
  std::unique_ptr<Hypervisor> out(new Hypervisor(connection));
  // Where there is an agent, libvirt would ask that, and wait for its guest's end.
  if (uri == kSystem) out->power_button_ = VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN;
  virConnectSetKeepAlive(connection, kKeepAliveSeconds, kKeepAliveCount);
  out->callback_ = virConnectDomainEventRegisterAny(
      connection, nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(&note),
      new std::shared_ptr<Ended>(out->ended_),
      [](void* ended) { delete static_cast<std::shared_ptr<Ended>*>(ended); });
  if (out->callback_ < 0) return last_error(Code::unknown);
  return out;
}

Hypervisor::~Hypervisor() {
  if (callback_ >= 0) virConnectDomainEventDeregisterAny(connection_, callback_);
  virConnectClose(connection_);
}

bool Hypervisor::alive() const { return virConnectIsAlive(connection_) == 1; }

int Hypervisor::note(virConnectPtr, virDomainPtr domain, int event, int detail, void* ended) {
  auto& all = **static_cast<std::shared_ptr<Ended>*>(ended);
  const std::lock_guard lock(all.mutex);
  if (event == VIR_DOMAIN_EVENT_SUSPENDED && detail == VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
    all.stopped[uuid_of(domain)] = std::chrono::steady_clock::now();
  if (event != VIR_DOMAIN_EVENT_STOPPED) return 0;
  const char* how = "failed";
  if (detail == VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) how = "shutdown";
  if (detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED) how = "crashed";
  if (detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED) how = "migrated";
  all.how[uuid_of(domain)] = how;
  return 0;
}

std::string Hypervisor::ended(const std::string& uuid) {
  const std::lock_guard lock(ended_->mutex);
  const auto at = ended_->how.find(uuid);
  return at == ended_->how.end() ? "" : ended_->how.extract(at).mapped();
}

Result<std::vector<Domain>> Hypervisor::domains() {
  virDomainPtr* list = nullptr;
  const int count = virConnectListAllDomains(connection_, &list, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
  if (count < 0) return last_error(Code::unknown);
  std::vector<Domain> out;
  std::optional<Error> unknown;
  for (int i = 0; i < count; i++) {
    const DomainHandle domain(list[i]);
    int state = 0;
    int reason = 0;
    if (virDomainGetState(domain.get(), &state, &reason, 0) != 0) {
      // One that ended just now. Of any other nothing is known, which is not that it ended.
      if (virGetLastErrorCode() != VIR_ERR_NO_DOMAIN) unknown = last_error(Code::unknown);
      continue;
    }
    out.push_back({uuid_of(domain.get()), static_cast<int>(virDomainGetID(domain.get())),
                   state_of(state, reason)});
  }
  free(list);
  if (unknown) return *unknown;
  return out;
}

Error Hypervisor::lookup_error() {
  return last_error(virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? Code::not_found : Code::unknown);
}

Result<std::string> Hypervisor::xml_with(const std::string& uuid, unsigned flags) {
  const DomainHandle domain(virDomainLookupByUUIDString(connection_, uuid.c_str()));
  if (!domain) return lookup_error();
  const std::unique_ptr<char, FreeText> text(virDomainGetXMLDesc(domain.get(), flags));
  if (!text) return last_error(Code::unknown);
  return std::string(text.get());
}

Result<std::string> Hypervisor::xml(const std::string& uuid) { return xml_with(uuid, 0); }

Result<std::string> Hypervisor::movable_xml(const std::string& uuid) {
  return xml_with(uuid, VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE);
}

Result<void> Hypervisor::create(const std::string& xml) {
  const DomainHandle domain(
      virDomainCreateXML(connection_, xml.c_str(), VIR_DOMAIN_START_VALIDATE));
  if (!domain) return last_error(Code::conflict);
  return {};
}

template <class Call>
Result<void> Hypervisor::on(const std::string& uuid, Call call) {
  const DomainHandle domain(virDomainLookupByUUIDString(connection_, uuid.c_str()));
  if (!domain) return lookup_error();
  if (call(domain.get()) != 0) return last_error(Code::conflict);
  return {};
}

Result<void> Hypervisor::resume(const std::string& uuid) { return on(uuid, virDomainResume); }

Result<void> Hypervisor::suspend(const std::string& uuid) { return on(uuid, virDomainSuspend); }

Result<void> Hypervisor::shutdown(const std::string& uuid) {
  return on(uuid,
            [&](virDomainPtr domain) { return virDomainShutdownFlags(domain, power_button_); });
}

Result<void> Hypervisor::destroy(const std::string& uuid) { return on(uuid, virDomainDestroy); }

Result<void> Hypervisor::reboot(const std::string& uuid) {
  return on(uuid, [](virDomainPtr domain) {
    return virDomainReboot(domain, VIR_DOMAIN_REBOOT_ACPI_POWER_BTN);
  });
}

Result<void> Hypervisor::reset(const std::string& uuid) {
  return on(uuid, [](virDomainPtr domain) { return virDomainReset(domain, 0); });
}

Result<void> Hypervisor::freeze(const std::string& uuid, std::chrono::seconds limit) {
  return on(uuid, [&](virDomainPtr domain) {
    if (virDomainAgentSetResponseTimeout(domain, static_cast<int>(limit.count()), 0) != 0)
      return -1;
    return virDomainFSFreeze(domain, nullptr, 0, 0) < 0 ? -1 : 0;
  });
}

Result<void> Hypervisor::thaw(const std::string& uuid, std::chrono::seconds limit) {
  return on(uuid, [&](virDomainPtr domain) {
    if (virDomainAgentSetResponseTimeout(domain, static_cast<int>(limit.count()), 0) != 0)
      return -1;
    return virDomainFSThaw(domain, nullptr, 0, 0) < 0 ? -1 : 0;
  });
}

Result<int> Hypervisor::screen(const std::string& uuid) {
  int socket = -1;
  CORE_TRY(on(uuid, [&](virDomainPtr domain) {
    socket = virDomainOpenGraphicsFD(domain, 0, VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH);
    return socket < 0 ? -1 : 0;
  }));
  return socket;
}

Result<void> Hypervisor::resize(const std::string& uuid, const std::string& path, uint64_t bytes) {
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainBlockResize(domain, path.c_str(), bytes, VIR_DOMAIN_BLOCK_RESIZE_BYTES);
  });
}

Result<void> Hypervisor::set_vcpus(const std::string& uuid, uint64_t count) {
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainSetVcpusFlags(domain, static_cast<unsigned>(count), VIR_DOMAIN_VCPU_LIVE);
  });
}

Result<std::string> Hypervisor::capabilities() {
  const std::unique_ptr<char, FreeText> text(
      virConnectGetDomainCapabilities(connection_, nullptr, "x86_64", "q35", "kvm", 0));
  if (!text) return last_error(Code::unknown);
  return std::string(text.get());
}

Result<void> Hypervisor::attach(const std::string& uuid, const std::string& device_xml) {
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainAttachDeviceFlags(domain, device_xml.c_str(), VIR_DOMAIN_AFFECT_LIVE);
  });
}

Result<void> Hypervisor::detach(const std::string& uuid, const std::string& device_xml) {
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainDetachDeviceFlags(domain, device_xml.c_str(), VIR_DOMAIN_AFFECT_LIVE);
  });
}

Result<void> Hypervisor::update(const std::string& uuid, const std::string& device_xml) {
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainUpdateDeviceFlags(domain, device_xml.c_str(), VIR_DOMAIN_AFFECT_LIVE);
  });
}

Result<void> Hypervisor::insert(const std::string& uuid, const std::string& drive_xml) {
  constexpr unsigned kLive = VIR_DOMAIN_AFFECT_LIVE;
  constexpr unsigned kForce = VIR_DOMAIN_DEVICE_MODIFY_FORCE;
  return on(uuid, [&](virDomainPtr domain) {
    return virDomainUpdateDeviceFlags(domain, drive_xml.c_str(), kLive | kForce);
  });
}

Result<void> Hypervisor::limit(const std::string& uuid, const std::string& target, uint64_t iops,
                               uint64_t bytes_per_s) {
  virTypedParameterPtr parameters = nullptr;
  int count = 0;
  int most = 0;
  auto done = on(uuid, [&](virDomainPtr domain) {
    if (virTypedParamsAddULLong(&parameters, &count, &most, VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC,
                                iops) != 0 ||
        virTypedParamsAddULLong(&parameters, &count, &most, VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC,
                                bytes_per_s) != 0)
      return -1;
    return virDomainSetBlockIoTune(domain, target.c_str(), parameters, count,
                                   VIR_DOMAIN_AFFECT_LIVE);
  });
  virTypedParamsFree(parameters, count);
  return done;
}

namespace {

// A host's view of an interface is the guest's turned round.
Stats stats_of(virTypedParameterPtr params, int count) {
  const auto number = [&](const std::string& name) {
    unsigned long long value = 0;
    virTypedParamsGetULLong(params, count, name.c_str(), &value);
    return uint64_t{value};
  };
  const auto text = [&](const std::string& name) {
    const char* value = nullptr;
    virTypedParamsGetString(params, count, name.c_str(), &value);
    return std::string(value == nullptr ? "" : value);
  };
  const auto many = [&](const char* name) {
    unsigned value = 0;
    virTypedParamsGetUInt(params, count, name, &value);
    return value;
  };
  const auto io = [&](const std::string& name) {
    return Stats::Io{number(name + ".reqs"), number(name + ".bytes"), number(name + ".times")};
  };
  const auto traffic = [&](const std::string& name) {
    return Stats::Traffic{number(name + ".bytes"), number(name + ".pkts"), number(name + ".drop")};
  };
  Stats out;
  out.cpu_ns = number("cpu.time");
  constexpr uint64_t kKib = 1024;
  out.memory_bytes = number("balloon.rss") * kKib;
  for (unsigned i = 0; i < many("block.count"); i++) {
    const std::string at = "block." + std::to_string(i);
    out.disks.push_back({text(at + ".name"), io(at + ".rd"), io(at + ".wr"), io(at + ".fl")});
  }
  for (unsigned i = 0; i < many("net.count"); i++) {
    const std::string at = "net." + std::to_string(i);
    out.nics.push_back({text(at + ".name"), traffic(at + ".tx"), traffic(at + ".rx")});
  }
  return out;
}

}  // namespace

Result<Stats> Hypervisor::stats(const std::string& uuid) {
  const DomainHandle domain(virDomainLookupByUUIDString(connection_, uuid.c_str()));
  if (!domain) return lookup_error();
  std::array<virDomainPtr, 2> only = {domain.get(), nullptr};
  virDomainStatsRecordPtr* records = nullptr;
  // It does not wait for a QEMU that hangs: what only that knows is not there, then.
  const int count = virDomainListGetStats(only.data(),
                                          VIR_DOMAIN_STATS_CPU_TOTAL | VIR_DOMAIN_STATS_BALLOON |
                                              VIR_DOMAIN_STATS_BLOCK | VIR_DOMAIN_STATS_INTERFACE,
                                          &records, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
  if (count < 0) return last_error(Code::conflict);
  Stats out;
  if (count > 0) out = stats_of(records[0]->params, records[0]->nparams);
  virDomainStatsRecordListFree(records);
  return out;
}

// Paused there: libvirt lets the guest here go on where it has no answer from there, though that
// may have begun. It is tunnelled through the connection that the URI names: that is what is
// encrypted.
Result<void> Hypervisor::migrate(const std::string& uuid, const std::string& uri,
                                 const std::string& xml) {
  const DomainHandle domain(virDomainLookupByUUIDString(connection_, uuid.c_str()));
  if (!domain) return lookup_error();
  virTypedParameterPtr parameters = nullptr;
  int count = 0;
  int most = 0;
  Result<void> done;
  if (virTypedParamsAddString(&parameters, &count, &most, VIR_MIGRATE_PARAM_DEST_XML,
                              xml.c_str()) != 0 ||
      virDomainMigrateToURI3(domain.get(), uri.c_str(), parameters, static_cast<unsigned>(count),
                             VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_TUNNELLED |
                                 VIR_MIGRATE_PAUSED | VIR_MIGRATE_AUTO_CONVERGE |
                                 VIR_MIGRATE_ABORT_ON_ERROR) != 0)
    done = last_error(Code::conflict);
  virTypedParamsFree(parameters, count);
  return done;
}

Result<void> Hypervisor::abort(const std::string& uuid) { return on(uuid, virDomainAbortJob); }

Result<std::optional<Hypervisor::Progress>> Hypervisor::progress(const std::string& uuid) {
  virDomainJobInfo job{};
  const auto done =
      on(uuid, [&](virDomainPtr domain) { return virDomainGetJobInfo(domain, &job); });
  if (!done) return done.error();
  if (job.type != VIR_DOMAIN_JOB_BOUNDED && job.type != VIR_DOMAIN_JOB_UNBOUNDED)
    return std::optional<Progress>();
  return std::optional<Progress>({job.memProcessed, job.memRemaining});
}

std::optional<std::chrono::steady_clock::time_point> Hypervisor::stopped_to_move(
    const std::string& uuid) {
  const std::lock_guard lock(ended_->mutex);
  const auto at = ended_->stopped.find(uuid);
  if (at == ended_->stopped.end()) return std::nullopt;
  return ended_->stopped.extract(at).mapped();
}

}  // namespace hypervisor
