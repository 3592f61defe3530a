// SPDX-License-Identifier: GPL-2.0
#include "meta/cluster.h"

#include <SQLiteCpp/VariadicBind.h>

#include <sstream>

namespace meta {

namespace {

uint64_t u64(const SQLite::Column& column) { return static_cast<uint64_t>(column.getInt64()); }

// All rows of a query, each made by `make`.
template <class Make>
auto rows(Database& database, const std::string& text, Make make)
    -> Result<std::vector<decltype(make(std::declval<SQLite::Statement&>()))>> {
  using Rows = std::vector<decltype(make(std::declval<SQLite::Statement&>()))>;
  return guarded([&]() -> Result<Rows> {
    Query query(database, text);
    Rows out;
    while (query.executeStep()) out.push_back(make(*query));
    return out;
  });
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

VmNic nic_of(SQLite::Statement& row) {
  return {u64(row.getColumn(0)), row.getColumn(1).getString(), row.getColumn(2).getString(),
          u64(row.getColumn(3)), row.getColumn(4).getString(), row.getColumn(5).getInt() != 0};
}

VmCdrom cdrom_of(SQLite::Statement& row) {
  return {u64(row.getColumn(0)), u64(row.getColumn(1)), u64(row.getColumn(2))};
}

Medium medium_of(SQLite::Statement& row) {
  Medium out;
  int at = 0;
  out.id = u64(row.getColumn(at++));
  out.name = row.getColumn(at++).getString();
  out.vsd = {u64(row.getColumn(at++))};
  out.snapshot = {u64(row.getColumn(at++))};
  out.state = row.getColumn(at++).getString();
  out.bytes = u64(row.getColumn(at++));
  out.received = u64(row.getColumn(at++));
  out.wanted_sha256 = row.getColumn(at++).getString();
  out.sha256 = row.getColumn(at++).getString();
  out.format = row.getColumn(at++).getString();
  out.disk_bytes = u64(row.getColumn(at++));
  out.problem = row.getColumn(at++).getString();
  out.node = {u64(row.getColumn(at++))};
  out.life = u64(row.getColumn(at++));
  out.done = u64(row.getColumn(at++));
  out.created = row.getColumn(at++).getInt64();
  out.source = u64(row.getColumn(at++));
  return out;
}

Vsd vsd_of(SQLite::Statement& row) {
  return {{u64(row.getColumn(0))},    row.getColumn(1).getString(), u64(row.getColumn(2)),
          row.getColumn(3).getUInt(), u64(row.getColumn(4)),        {u64(row.getColumn(5))},
          u64(row.getColumn(6)),      u64(row.getColumn(7)),        row.getColumn(8).getInt() != 0,
          {u64(row.getColumn(9))}};
}

constexpr const char* kVsdColumns =
    "SELECT id, name, sectors, replicas, root, lease_node, lease_life, epoch, deleted, view FROM "
    "vsd ";

Snapshot snapshot_of(SQLite::Statement& row) {
  return {{u64(row.getColumn(0))}, {u64(row.getColumn(1))},     row.getColumn(2).getString(),
          u64(row.getColumn(3)),   row.getColumn(4).getInt64(), u64(row.getColumn(5))};
}

constexpr const char* kSnapshotColumns =
    "SELECT id, vsd, name, sectors, created, schedule FROM snapshot ";

}  // namespace

Result<std::optional<ClusterInfo>> Cluster::info() {
  auto all = rows(database_, "SELECT name, uuid FROM cluster", [](SQLite::Statement& row) {
    return ClusterInfo{row.getColumn(0).getString(), row.getColumn(1).getString()};
  });
  if (!all) return all.error();
  return all->empty() ? std::nullopt : std::optional(all->front());
}

Result<std::vector<Node>> Cluster::nodes() {
  return rows(
      database_,
      "SELECT id, name, lan_addr, backplane_addr, state, life, version, seen, since, leaving, "
      "drain FROM node ORDER BY id",
      [](SQLite::Statement& row) {
        return Node{{u64(row.getColumn(0))},      row.getColumn(1).getString(),
                    row.getColumn(2).getString(), row.getColumn(3).getString(),
                    row.getColumn(4).getString(), u64(row.getColumn(5)),
                    row.getColumn(6).getString(), u64(row.getColumn(7)),
                    row.getColumn(8).getInt64(),  row.getColumn(9).getInt() != 0,
                    row.getColumn(10).getString()};
      });
}

Result<std::vector<Disk>> Cluster::disks() {
  return rows(database_,
              "SELECT id, node, uuid, serial, tier, slots, state, life, leaving, since FROM disk "
              "ORDER BY id",
              [](SQLite::Statement& row) {
                return Disk{{u64(row.getColumn(0))},        {u64(row.getColumn(1))},
                            row.getColumn(2).getString(),   row.getColumn(3).getString(),
                            row.getColumn(4).getString(),   u64(row.getColumn(5)),
                            row.getColumn(6).getString(),   u64(row.getColumn(7)),
                            row.getColumn(8).getInt() != 0, row.getColumn(9).getInt64()};
              });
}

Result<std::vector<Vsd>> Cluster::vsds() {
  return rows(database_, std::string(kVsdColumns) + "ORDER BY name", vsd_of);
}

Result<std::optional<Vsd>> Cluster::vsd(core::VsdId id) {
  return guarded([&]() -> Result<std::optional<Vsd>> {
    Query row(database_, std::string(kVsdColumns) + "WHERE id = ?");
    row.bind(1, static_cast<int64_t>(id.value));
    if (!row.executeStep()) return std::optional<Vsd>();
    return std::optional(vsd_of(*row));
  });
}

Result<std::vector<Snapshot>> Cluster::snapshots() {
  return rows(database_, std::string(kSnapshotColumns) + "ORDER BY vsd, id", snapshot_of);
}

Result<std::optional<Snapshot>> Cluster::snapshot(core::SnapshotId id) {
  return guarded([&]() -> Result<std::optional<Snapshot>> {
    Query row(database_, std::string(kSnapshotColumns) + "WHERE id = ?");
    row.bind(1, static_cast<int64_t>(id.value));
    if (!row.executeStep()) return std::optional<Snapshot>();
    return std::optional(snapshot_of(*row));
  });
}

Result<std::vector<Schedule>> Cluster::schedules() {
  auto out = rows(database_,
                  "SELECT id, name, rule, zone, starts, keep, keep_seconds, done FROM schedule "
                  "ORDER BY name",
                  [](SQLite::Statement& row) {
                    return Schedule{u64(row.getColumn(0)),
                                    row.getColumn(1).getString(),
                                    row.getColumn(2).getString(),
                                    row.getColumn(3).getString(),
                                    row.getColumn(4).getInt64(),
                                    u64(row.getColumn(5)),
                                    u64(row.getColumn(6)),
                                    row.getColumn(7).getInt64(),
                                    {},
                                    {}};
                  });
  if (!out) return out;
  for (Schedule& one : *out) {
    auto vsds = rows(
        database_,
        "SELECT vsd FROM scheduled WHERE schedule = " + std::to_string(one.id) + " ORDER BY vsd",
        [](SQLite::Statement& row) { return core::VsdId{u64(row.getColumn(0))}; });
    if (!vsds) return vsds.error();
    one.vsds = std::move(*vsds);
    auto vms = rows(database_,
                    "SELECT vm, done FROM scheduled_vm WHERE schedule = " + std::to_string(one.id) +
                        " ORDER BY vm",
                    [](SQLite::Statement& row) {
                      return Schedule::OfVm{u64(row.getColumn(0)), row.getColumn(1).getInt64()};
                    });
    if (!vms) return vms.error();
    one.vms = std::move(*vms);
  }
  return out;
}

Result<std::vector<Vm>> Cluster::vms() {
  auto out =
      rows(database_,
           "SELECT id, name, uuid, description, tags, vcpus, memory_mib, machine, cpu, priority, "
           "wanted, "
           "how, node, life, run, state, reason, since, failures, retry_at, runs, to_node, "
           "to_life, move, paused_ms, preferred, apart, together, template, firmware, tpm, screen, "
           "run_vcpus, max_memory_mib, run_cpu "
           "FROM vm "
           "ORDER BY name",
           [](SQLite::Statement& row) {
             Vm vm;
             int at = 0;
             vm.id = u64(row.getColumn(at++));
             vm.name = row.getColumn(at++).getString();
             vm.uuid = row.getColumn(at++).getString();
             vm.description = row.getColumn(at++).getString();
             std::istringstream tags(row.getColumn(at++).getString());
             for (std::string tag; tags >> tag;) vm.tags.push_back(tag);
             vm.vcpus = u64(row.getColumn(at++));
             vm.memory_mib = u64(row.getColumn(at++));
             vm.machine = row.getColumn(at++).getString();
             vm.cpu = row.getColumn(at++).getString();
             vm.priority = u64(row.getColumn(at++));
             vm.wanted = row.getColumn(at++).getString();
             vm.how = row.getColumn(at++).getString();
             vm.node = {u64(row.getColumn(at++))};
             vm.life = u64(row.getColumn(at++));
             vm.run = u64(row.getColumn(at++));
             vm.state = row.getColumn(at++).getString();
             vm.reason = row.getColumn(at++).getString();
             vm.since = row.getColumn(at++).getInt64();
             vm.failures = u64(row.getColumn(at++));
             vm.retry_at = row.getColumn(at++).getInt64();
             vm.runs = u64(row.getColumn(at++));
             vm.to_node = {u64(row.getColumn(at++))};
             vm.to_life = u64(row.getColumn(at++));
             vm.move = row.getColumn(at++).getString();
             vm.paused_ms = u64(row.getColumn(at++));
             vm.preferred = {u64(row.getColumn(at++))};
             vm.apart = row.getColumn(at++).getString();
             vm.together = row.getColumn(at++).getString();
             vm.is_template = row.getColumn(at++).getInt() != 0;
             vm.firmware = row.getColumn(at++).getString();
             vm.tpm = row.getColumn(at++).getInt() != 0;
             vm.screen = row.getColumn(at++).getInt() != 0;
             vm.run_vcpus = u64(row.getColumn(at++));
             vm.max_memory_mib = u64(row.getColumn(at++));
             vm.run_cpu = row.getColumn(at++).getString();
             return vm;
           });
  if (!out) return out;
  for (Vm& vm : *out) {
    auto disks = rows(database_,
                      "SELECT slot, vsd, bus, iops, bytes_per_s, leaving FROM vm_disk WHERE vm = " +
                          std::to_string(vm.id) + " ORDER BY slot",
                      [](SQLite::Statement& row) {
                        return VmDisk{u64(row.getColumn(0)),        {u64(row.getColumn(1))},
                                      row.getColumn(2).getString(), u64(row.getColumn(3)),
                                      u64(row.getColumn(4)),        row.getColumn(5).getInt() != 0};
                      });
    if (!disks) return disks.error();
    vm.disks = std::move(*disks);
    auto nics = rows(database_,
                     "SELECT slot, mac, bridge, vlan, model, connected FROM vm_nic WHERE vm = " +
                         std::to_string(vm.id) + " ORDER BY slot",
                     nic_of);
    if (!nics) return nics.error();
    vm.nics = std::move(*nics);
    auto cdroms =
        rows(database_,
             "SELECT slot, medium, held FROM vm_cdrom WHERE vm = " + std::to_string(vm.id) +
                 " ORDER BY slot",
             cdrom_of);
    if (!cdroms) return cdroms.error();
    vm.cdroms = std::move(*cdroms);
  }
  return out;
}

Result<std::vector<VmSnapshot>> Cluster::vm_snapshots() {
  auto out =
      rows(database_,
           "SELECT id, vm, name, created, description, tags, vcpus, memory_mib, machine, cpu, "
           "priority, schedule, firmware, tpm, screen, max_memory_mib, at_rest FROM vm_snapshot "
           "ORDER BY created, id",
           [](SQLite::Statement& row) {
             VmSnapshot one;
             int at = 0;
             one.id = u64(row.getColumn(at++));
             one.was.id = u64(row.getColumn(at++));
             one.name = row.getColumn(at++).getString();
             one.created = row.getColumn(at++).getInt64();
             one.was.description = row.getColumn(at++).getString();
             one.was.tags = words(row.getColumn(at++).getString());
             one.was.vcpus = u64(row.getColumn(at++));
             one.was.memory_mib = u64(row.getColumn(at++));
             one.was.machine = row.getColumn(at++).getString();
             one.was.cpu = row.getColumn(at++).getString();
             one.was.priority = u64(row.getColumn(at++));
             one.schedule = u64(row.getColumn(at++));
             one.was.firmware = row.getColumn(at++).getString();
             one.was.tpm = row.getColumn(at++).getInt() != 0;
             one.was.screen = row.getColumn(at++).getInt() != 0;
             one.was.max_memory_mib = u64(row.getColumn(at++));
             one.at_rest = row.getColumn(at++).getInt() != 0;
             return one;
           });
  if (!out) return out;
  for (VmSnapshot& one : *out) {
    auto disks = rows(
        database_,
        "SELECT slot, snapshot, bus, iops, bytes_per_s FROM vm_snapshot_disk WHERE vm_snapshot = " +
            std::to_string(one.id) + " ORDER BY slot",
        [](SQLite::Statement& row) {
          return VmSnapshot::Disk{u64(row.getColumn(0)),
                                  {u64(row.getColumn(1))},
                                  row.getColumn(2).getString(),
                                  u64(row.getColumn(3)),
                                  u64(row.getColumn(4))};
        });
    if (!disks) return disks.error();
    one.disks = std::move(*disks);
    auto nics = rows(database_,
                     "SELECT slot, '', bridge, vlan, model, connected FROM vm_snapshot_nic WHERE "
                     "vm_snapshot = " +
                         std::to_string(one.id) + " ORDER BY slot",
                     nic_of);
    if (!nics) return nics.error();
    one.was.nics = std::move(*nics);
    auto cdroms = rows(database_,
                       "SELECT slot, medium, 0 FROM vm_snapshot_cdrom WHERE vm_snapshot = " +
                           std::to_string(one.id) + " ORDER BY slot",
                       cdrom_of);
    if (!cdroms) return cdroms.error();
    one.was.cdroms = std::move(*cdroms);
  }
  return out;
}

Result<std::vector<Medium>> Cluster::media() {
  return rows(
      database_,
      "SELECT id, name, vsd, snapshot, state, bytes, received, wanted_sha256, sha256, "
      "format, disk_bytes, problem, node, life, done, created, source FROM medium ORDER BY name",
      medium_of);
}

Result<std::vector<Filling>> Cluster::fillings() {
  return rows(database_, "SELECT vsd, medium, node, life, done, problem FROM filling ORDER BY vsd",
              [](SQLite::Statement& row) {
                return Filling{{u64(row.getColumn(0))}, u64(row.getColumn(1)),
                               {u64(row.getColumn(2))}, u64(row.getColumn(3)),
                               u64(row.getColumn(4)),   row.getColumn(5).getString()};
              });
}

Result<int64_t> Cluster::read_until(uint64_t medium, core::NodeId node) {
  return guarded([&]() -> Result<int64_t> {
    Query row(database_, "SELECT until FROM medium_reader WHERE medium = ? AND node = ?");
    row.bind(1, static_cast<int64_t>(medium));
    row.bind(2, static_cast<int64_t>(node.value));
    return row.executeStep() ? row.getColumn(0).getInt64() : int64_t{0};
  });
}

Result<int64_t> Cluster::oldest_reader() {
  return guarded([&]() -> Result<int64_t> {
    Query row(database_, "SELECT min(until) FROM medium_reader");
    return row.executeStep() ? row.getColumn(0).getInt64() : int64_t{0};
  });
}

Result<std::vector<core::VsdId>> Cluster::devices_of(const Vm& vm, core::NodeId node) {
  return guarded([&]() -> Result<std::vector<core::VsdId>> {
    std::vector<core::VsdId> out;
    for (const VmDisk& disk : vm.disks) out.push_back(disk.vsd);
    for (const VmCdrom& cdrom : vm.cdroms) {
      if (cdrom.medium == 0) continue;
      Query row(database_,
                "SELECT max(v.id) FROM vsd v JOIN medium m ON m.snapshot = v.view WHERE m.id = ?1 "
                "AND v.name = 'view:' || m.snapshot || ':' || ?2");
      row.bind(1, static_cast<int64_t>(cdrom.medium));
      row.bind(2, static_cast<int64_t>(node.value));
      row.executeStep();
      out.push_back({u64(row.getColumn(0))});
    }
    return out;
  });
}

Result<uint64_t> Cluster::device_sectors(const Vsd& vsd) {
  return guarded([&]() -> Result<uint64_t> {
    Query row(database_, "SELECT count(*) FROM vm_disk WHERE vsd = ? AND slot = ?");
    row.bind(1, static_cast<int64_t>(vsd.id.value));
    row.bind(2, static_cast<int64_t>(kFlashSlot));
    row.executeStep();
    return row.getColumn(0).getInt() == 0 ? vsd.sectors : kFlashSectors;
  });
}

Result<std::optional<VmSeed>> Cluster::seed(uint64_t vm) {
  return guarded([&]() -> Result<std::optional<VmSeed>> {
    Query row(database_, "SELECT user_data, network_config FROM vm_seed WHERE vm = ?");
    row.bind(1, static_cast<int64_t>(vm));
    if (!row.executeStep()) return std::optional<VmSeed>();
    return std::optional(VmSeed{row.getColumn(0).getString(), row.getColumn(1).getString()});
  });
}

Result<std::vector<Capacity>> Cluster::capacities() {
  return rows(database_,
              "SELECT node, life, memory_mib, cpus, cpu, problem, lan_bridge, uplink, lan_problem, "
              "models "
              "FROM capacity ORDER BY node",
              [](SQLite::Statement& row) {
                return Capacity{{u64(row.getColumn(0))},      u64(row.getColumn(1)),
                                u64(row.getColumn(2)),        u64(row.getColumn(3)),
                                row.getColumn(4).getString(), row.getColumn(5).getString(),
                                row.getColumn(6).getString(), row.getColumn(7).getString(),
                                row.getColumn(8).getString(), words(row.getColumn(9).getString())};
              });
}

Result<std::vector<Bond>> Cluster::bonds() {
  return rows(database_, "SELECT node, network, ports, preferred FROM bond ORDER BY node, network",
              [](SQLite::Statement& row) {
                return Bond{{u64(row.getColumn(0))},
                            row.getColumn(1).getString(),
                            words(row.getColumn(2).getString()),
                            row.getColumn(3).getString()};
              });
}

Result<std::vector<Event>> Cluster::events(const std::string& about, uint64_t most) {
  return guarded([&]() -> Result<std::vector<Event>> {
    Query row(database_,
              "SELECT id, at, who, what, object, details FROM event WHERE ?1 = '' OR object = ?1 "
              "OR substr(object, -length(?1) - 1) = ' ' || ?1 ORDER BY id DESC LIMIT ?2");
    row.bind(1, about);
    row.bind(2, static_cast<int64_t>(most));
    std::vector<Event> out;
    while (row.executeStep())
      out.push_back({u64(row.getColumn(0)), row.getColumn(1).getInt64(),
                     row.getColumn(2).getString(), row.getColumn(3).getString(),
                     row.getColumn(4).getString(), row.getColumn(5).getString()});
    return out;
  });
}

Result<std::vector<uint64_t>> Cluster::vlans() {
  return rows(database_, "SELECT DISTINCT vlan FROM vm_nic WHERE vlan <> 0 ORDER BY vlan",
              [](SQLite::Statement& row) { return u64(row.getColumn(0)); });
}

Result<std::string> Cluster::label(core::SnapshotId id) {
  auto row = snapshot(id);
  if (!row) return row.error();
  auto origin = *row ? vsd((*row)->vsd) : std::optional<Vsd>();
  if (!origin) return origin.error();
  if (!*origin) return Error{Code::not_found, "no snapshot with id " + std::to_string(id.value)};
  return (*origin)->name + "@" + (*row)->name;
}

Result<std::string> Cluster::device_label(const Vsd& vsd) {
  return vsd.view ? label(vsd.view) : vsd.name;
}

Result<std::vector<Opened>> Cluster::opened() {
  return rows(database_, "SELECT vsd, node, state, error FROM opened ORDER BY vsd, node",
              [](SQLite::Statement& row) {
                return Opened{{u64(row.getColumn(0))},
                              {u64(row.getColumn(1))},
                              row.getColumn(2).getString(),
                              row.getColumn(3).getString()};
              });
}

Result<std::vector<Task>> Cluster::tasks() {
  return rows(
      database_,
      "SELECT id, what, object, name, node, state, error, began, ended FROM task ORDER BY id",
      [](SQLite::Statement& row) {
        return Task{u64(row.getColumn(0)),        row.getColumn(1).getString(),
                    u64(row.getColumn(2)),        row.getColumn(3).getString(),
                    {u64(row.getColumn(4))},      row.getColumn(5).getString(),
                    row.getColumn(6).getString(), row.getColumn(7).getInt64(),
                    row.getColumn(8).getInt64()};
      });
}

Result<std::vector<Fence>> Cluster::fences() {
  return rows(database_, "SELECT node, life, witness FROM fence", [](SQLite::Statement& row) {
    return Fence{{u64(row.getColumn(0))}, u64(row.getColumn(1)), {u64(row.getColumn(2))}};
  });
}

Result<std::vector<Life>> Cluster::unfenced(core::NodeId witness) {
  return guarded([&]() -> Result<std::vector<Life>> {
    Query query(
        database_,
        "SELECT node, life FROM (SELECT lease_node AS node, lease_life AS life FROM vsd "
        "WHERE lease_node <> 0 UNION SELECT node, life FROM reservation "
        "UNION SELECT node, life FROM vm WHERE node <> 0 "
        "UNION SELECT id, life FROM node WHERE state IN ('down', 'removed') AND life <> 0) l "
        "WHERE NOT EXISTS (SELECT 1 FROM node WHERE id = l.node AND life = l.life AND state = "
        "'up') "
        "AND NOT EXISTS (SELECT 1 FROM fence WHERE node = l.node AND life = l.life AND witness = "
        "?)");
    query.bind(1, static_cast<int64_t>(witness.value));
    std::vector<Life> out;
    while (query.executeStep()) out.push_back({{u64(query.getColumn(0))}, u64(query.getColumn(1))});
    return out;
  });
}

Result<bool> Cluster::quarantine_behind(uint64_t seen) {
  return guarded([&]() -> Result<bool> {
    Query query(database_,
                "SELECT EXISTS(SELECT 1 FROM quarantine WHERE freed_at > ?1) OR "
                "EXISTS(SELECT 1 FROM relocated WHERE at > ?1) OR "
                "EXISTS(SELECT 1 FROM gathered WHERE at > ?1)");
    query.bind(1, static_cast<int64_t>(seen));
    query.executeStep();
    return query.getColumn(0).getInt() != 0;
  });
}

Result<std::vector<MappedExtent>> Cluster::relocated(uint64_t behind) {
  return guarded([&]() -> Result<std::vector<MappedExtent>> {
    Query query(database_,
                "SELECT r.extent, c.disk, c.slot, c.stale FROM relocated r JOIN copy c ON c.extent "
                "= r.extent WHERE r.at > ? ORDER BY r.extent");
    query.bind(1, static_cast<int64_t>(behind));
    std::vector<MappedExtent> out;
    while (query.executeStep()) {
      const core::ExtentId id{u64(query.getColumn(0))};
      if (out.empty() || out.back().id != id) out.push_back({id, false, {}});
      out.back().copies.push_back({{u64(query.getColumn(1))},
                                   query.getColumn(2).getUInt(),
                                   query.getColumn(3).getInt64() != 0});
    }
    return out;
  });
}

Result<bool> Cluster::has_garbage() {
  return guarded([&]() -> Result<bool> {
    Query query(database_, "SELECT EXISTS(SELECT 1 FROM garbage)");
    query.executeStep();
    return query.getColumn(0).getInt() != 0;
  });
}

Result<bool> Cluster::quarantine_over() {
  return guarded([&]() -> Result<bool> {
    Query query(database_,
                "WITH horizon(at) AS (SELECT min(seen) FROM node WHERE state = 'up') "
                "SELECT EXISTS(SELECT 1 FROM quarantine, horizon WHERE freed_at <= horizon.at) OR "
                "EXISTS(SELECT 1 FROM relocated, horizon WHERE relocated.at <= horizon.at) OR "
                "EXISTS(SELECT 1 FROM gathered, horizon WHERE gathered.at <= horizon.at)");
    query.executeStep();
    return query.getColumn(0).getInt() != 0;
  });
}

Result<std::vector<DiskUse>> Cluster::use() {
  return rows(
      database_,
      "SELECT d.id, (SELECT count(*) FROM copy WHERE disk = d.id), "
      "(SELECT count(*) FROM quarantine WHERE disk = d.id) FROM disk d ORDER BY d.id",
      [](SQLite::Statement& row) {
        return DiskUse{{u64(row.getColumn(0))}, u64(row.getColumn(1)), u64(row.getColumn(2))};
      });
}

Result<std::vector<CopyRow>> Cluster::copies(core::ExtentId extent) {
  return guarded([&]() -> Result<std::vector<CopyRow>> {
    Query query(database_,
                "SELECT c.disk, c.slot, c.stale, r.disk IS NOT NULL FROM copy c LEFT JOIN "
                "rebalancing r ON r.extent = c.extent AND r.disk = c.disk WHERE c.extent = ? "
                "ORDER BY c.disk");
    query.bind(1, static_cast<int64_t>(extent.value));
    std::vector<CopyRow> out;
    while (query.executeStep()) {
      const int64_t stale = query.getColumn(2).getInt64();
      out.push_back({{u64(query.getColumn(0))},
                     query.getColumn(1).getUInt(),
                     static_cast<uint64_t>(stale < 0 ? -stale : stale),
                     stale < 0,
                     query.getColumn(3).getInt() != 0});
    }
    return out;
  });
}

Result<std::vector<Owned>> Cluster::ailing(AilingAt& at, uint64_t limit) {
  return guarded([&]() -> Result<std::vector<Owned>> {
    std::vector<Owned> out;
    if (at.disk == 0 && !at.wanting) {
      Query stale(database_,
                  "SELECT DISTINCT e.id, e.vsd FROM copy c JOIN extent e ON e.id = c.extent "
                  "WHERE c.stale <> 0 AND c.extent >= ? ORDER BY c.extent LIMIT ?");
      SQLite::bind(*stale, static_cast<int64_t>(at.next), static_cast<int64_t>(limit));
      while (stale.executeStep())
        out.push_back({{u64(stale.getColumn(0))}, {u64(stale.getColumn(1))}});
      if (out.size() == limit) {
        at.next = out.back().extent.value + 1;
        return out;
      }
      at = {1, 0, false, false};
    }
    for (; !at.wanting && out.size() < limit; at = {at.disk + 1, 0, false, false}) {
      Query disk(database_,
                 "SELECT min(id) FROM disk WHERE id >= ? AND "
                 "(leaving OR state IN ('lost', 'failed', 'removed'))");
      disk.bind(1, static_cast<int64_t>(at.disk));
      disk.executeStep();
      if (disk.getColumn(0).isNull()) {
        at = {0, 0, true, false};
        break;
      }
      if (const uint64_t found = u64(disk.getColumn(0)); found != at.disk)
        at = {found, 0, false, false};
      Query on(database_,
               "SELECT e.id, e.vsd, c.slot FROM copy c JOIN extent e ON e.id = c.extent "
               "WHERE c.disk = ? AND c.slot >= ? ORDER BY c.slot LIMIT ?");
      SQLite::bind(*on, static_cast<int64_t>(at.disk), static_cast<int64_t>(at.next),
                   static_cast<int64_t>(limit - out.size()));
      while (on.executeStep()) {
        out.push_back({{u64(on.getColumn(0))}, {u64(on.getColumn(1))}});
        at.next = u64(on.getColumn(2)) + 1;
      }
      if (out.size() == limit) return out;
    }
    if (!at.wanting || out.size() == limit) return out;
    Query wanting(database_,
                  "SELECT w.extent, e.vsd FROM wanting w JOIN extent e ON e.id = w.extent "
                  "WHERE w.extent >= ? ORDER BY w.extent LIMIT ?");
    SQLite::bind(*wanting, static_cast<int64_t>(at.next), static_cast<int64_t>(limit - out.size()));
    uint64_t last = 0;
    while (wanting.executeStep()) {
      last = u64(wanting.getColumn(0));
      out.push_back({{last}, {u64(wanting.getColumn(1))}});
    }
    at.end = out.size() < limit;
    at.next = last + 1;
    return out;
  });
}

Result<bool> Cluster::rebalancing() {
  return guarded([&]() -> Result<bool> {
    Query query(database_, "SELECT EXISTS(SELECT 1 FROM rebalancing)");
    query.executeStep();
    return query.getColumn(0).getInt() != 0;
  });
}

Result<std::vector<core::VsdId>> Cluster::widening() {
  return rows(database_, "SELECT vsd FROM widening ORDER BY vsd",
              [](SQLite::Statement& row) { return core::VsdId{u64(row.getColumn(0))}; });
}

Result<Redundancy> Cluster::redundancy() {
  return guarded([&]() -> Result<Redundancy> {
    auto count = [&](const char* text) {
      Query query(database_, text);
      query.executeStep();
      return u64(query.getColumn(0));
    };
    Redundancy out;
    out.stale =
        count("SELECT count(*) FROM copy c JOIN extent e ON e.id = c.extent WHERE c.stale <> 0");
    out.lost = count(
        "SELECT count(*) FROM disk d JOIN copy c ON c.disk = d.id JOIN extent e ON e.id = "
        "c.extent WHERE d.state IN ('lost', 'failed', 'removed')");
    out.leaving = count(
        "SELECT count(*) FROM disk d JOIN copy c ON c.disk = d.id JOIN extent e ON e.id = "
        "c.extent WHERE d.leaving AND d.state NOT IN ('lost', 'failed', 'removed')");
    out.wanting = count("SELECT count(*) FROM wanting w JOIN extent e ON e.id = w.extent");
    // What is copied elsewhere, and has all that it should until then, has a stale copy, too. A
    // lost copy is forgotten when it is made up for: of those each is one too few, and they may be
    // too many to look at each.
    out.few = out.lost +
              count(
                  "SELECT count(*) FROM extent e JOIN vsd v ON v.id = e.vsd WHERE e.id IN "
                  "(SELECT extent FROM copy WHERE stale <> 0) AND (SELECT count(*) FROM copy c "
                  "JOIN disk d ON d.id = c.disk WHERE c.extent = e.id AND c.stale = 0 AND d.state "
                  "NOT IN ('lost', 'failed', 'removed')) < v.replicas AND NOT EXISTS (SELECT 1 "
                  "FROM copy c JOIN disk d ON d.id = c.disk WHERE c.extent = e.id AND d.state IN "
                  "('lost', 'failed', 'removed'))");
    return out;
  });
}

Result<uint64_t> Cluster::newest_extent(core::VsdId vsd) {
  return guarded([&]() -> Result<uint64_t> {
    Query query(database_, "SELECT coalesce(max(id), 0) FROM extent WHERE vsd = ?");
    query.bind(1, static_cast<int64_t>(vsd.value));
    query.executeStep();
    return u64(query.getColumn(0));
  });
}

Result<std::vector<uint64_t>> Cluster::intents(core::VsdId vsd, uint64_t limit) {
  return guarded([&]() -> Result<std::vector<uint64_t>> {
    Query query(database_, "SELECT leaf FROM intent WHERE vsd = ? ORDER BY leaf LIMIT ?");
    SQLite::bind(*query, static_cast<int64_t>(vsd.value), static_cast<int64_t>(limit));
    std::vector<uint64_t> out;
    while (query.executeStep()) out.push_back(u64(query.getColumn(0)));
    return out;
  });
}

Result<std::vector<Scrub>> Cluster::scrubs() {
  return rows(database_, "SELECT vsd, next, began, done FROM scrub ORDER BY vsd",
              [](SQLite::Statement& row) {
                return Scrub{{u64(row.getColumn(0))},
                             u64(row.getColumn(1)),
                             row.getColumn(2).getInt64(),
                             row.getColumn(3).getInt64()};
              });
}

Result<std::vector<Damage>> Cluster::damage() {
  return rows(database_, "SELECT extent, vsd, chunk, found, keep FROM damage ORDER BY extent",
              [](SQLite::Statement& row) {
                return Damage{{u64(row.getColumn(0))},
                              {u64(row.getColumn(1))},
                              u64(row.getColumn(2)),
                              row.getColumn(3).getInt64(),
                              {u64(row.getColumn(4))}};
              });
}

Result<uint64_t> Cluster::copies_on(core::NodeId node) {
  return guarded([&]() -> Result<uint64_t> {
    Query query(database_,
                "SELECT count(*) FROM disk d JOIN copy c ON c.disk = d.id JOIN extent e ON e.id = "
                "c.extent WHERE d.node = ?");
    query.bind(1, static_cast<int64_t>(node.value));
    query.executeStep();
    return u64(query.getColumn(0));
  });
}

Result<uint64_t> Cluster::orphans() {
  return guarded([&]() -> Result<uint64_t> {
    Query query(database_,
                "SELECT count(*) FROM reservation r WHERE NOT EXISTS (SELECT 1 FROM node n WHERE "
                "n.id = r.node AND n.life = r.life AND n.state = 'up')");
    query.executeStep();
    return u64(query.getColumn(0));
  });
}

Result<int64_t> Cluster::setting(const std::string& name, int64_t otherwise) {
  return guarded([&]() -> Result<int64_t> {
    Query query(database_, "SELECT value FROM setting WHERE name = ?");
    query.bind(1, name);
    return query.executeStep() ? query.getColumn(0).getInt64() : otherwise;
  });
}

}  // namespace meta
