// SPDX-License-Identifier: GPL-2.0
// Versions of VSDs: snapshots, clones and reverts; what differs between two, and what one holds.
#include <algorithm>
#include <map>
#include <set>

#include "meta/tree.h"

namespace meta {

Result<core::SnapshotId> Map::snapshot(VsdId vsd, const std::string& name, uint64_t index,
                                       int64_t now) {
  return guarded([&]() -> Result<core::SnapshotId> {
    if (!valid_name(name)) return bad_name(name, "a snapshot");
    auto from = version(vsd);
    if (!from) return from.error();
    Query taken(database_, "SELECT 1 FROM snapshot WHERE vsd = ? AND name = ?");
    taken.bind(1, signed_id(vsd.value));
    taken.bind(2, name);
    if (taken.executeStep())
      return Error{Code::conflict, "the VSD has a snapshot named " + name + " already"};
    add_row_ref(from->root);
    const core::SnapshotId id{next_id("snapshot")};
    Query insert(database_, "INSERT INTO snapshot VALUES(?, ?, ?, ?, ?, ?, ?, 0)");
    insert.bind(1, signed_id(id.value));
    insert.bind(2, signed_id(vsd.value));
    insert.bind(3, name);
    insert.bind(4, signed_id(from->sectors));
    insert.bind(5, signed_id(from->root));
    insert.bind(6, signed_id(index));
    insert.bind(7, now);
    insert.exec();
    share(vsd, index);
    return id;
  });
}

void Map::share(VsdId vsd, uint64_t index) {
  Query update(database_, "UPDATE vsd SET last_snapshot = ? WHERE id = ?");
  update.bind(1, signed_id(index));
  update.bind(2, signed_id(vsd.value));
  update.exec();
}

Result<void> Map::delete_snapshot(core::SnapshotId snapshot) {
  return guarded([&]() -> Result<void> {
    Query query(database_, "SELECT root FROM snapshot WHERE id = ?");
    query.bind(1, signed_id(snapshot.value));
    if (!query.executeStep())
      return Error{Code::not_found, "no snapshot with id " + std::to_string(snapshot.value)};
    const auto root = static_cast<uint64_t>(query.getColumn(0).getInt64());
    query.reset();
    Query gone(database_, "DELETE FROM snapshot WHERE id = ?");
    gone.bind(1, signed_id(snapshot.value));
    gone.exec();
    discard(root);
    return {};
  });
}

Result<VsdId> Map::clone_of(const Version& from, const std::string& name, uint32_t replicas) {
  auto id = put_vsd(name, from.sectors, replicas);
  if (!id) return id;
  add_row_ref(from.root);
  Query update(database_, "UPDATE vsd SET root = ? WHERE id = ?");
  update.bind(1, signed_id(from.root));
  update.bind(2, signed_id(id->value));
  update.exec();
  return id;
}

Result<VsdId> Map::clone(core::SnapshotId snapshot, const std::string& name, uint32_t replicas) {
  if (!valid_name(name)) return bad_name(name, "a VSD");
  return guarded([&]() -> Result<VsdId> {
    auto from = version(snapshot);
    if (!from) return from.error();
    return clone_of(*from, name, replicas);
  });
}

Result<VsdId> Map::clone_medium(core::SnapshotId snapshot, uint64_t medium, uint32_t replicas) {
  return guarded([&]() -> Result<VsdId> {
    auto from = version(snapshot);
    if (!from) return from.error();
    return clone_of(*from, medium_name(medium), replicas);
  });
}

Result<VsdId> Map::view(core::SnapshotId snapshot, core::NodeId node) {
  return guarded([&]() -> Result<VsdId> {
    auto from = version(snapshot);
    if (!from) return from.error();
    const VsdId id{next_id("vsd")};
    Query insert(database_, "INSERT INTO vsd VALUES(?1, ?2, ?3, 2, ?4, 0, 0, 0, 0, 0, ?5)");
    insert.bind(1, signed_id(id.value));
    insert.bind(2, "view:" + std::to_string(snapshot.value) + ":" + std::to_string(node.value));
    insert.bind(3, signed_id(from->sectors));
    insert.bind(4, signed_id(from->root));
    insert.bind(5, signed_id(snapshot.value));
    insert.exec();
    add_row_ref(from->root);
    return id;
  });
}

Result<VsdId> Map::clone(VsdId vsd, const std::string& name, uint32_t replicas, uint64_t index) {
  if (!valid_name(name)) return bad_name(name, "a VSD");
  return guarded([&]() -> Result<VsdId> {
    auto from = version(vsd);
    if (!from) return from.error();
    auto id = clone_of(*from, name, replicas);
    if (id) share(vsd, index);
    return id;
  });
}

Result<void> Map::revert(VsdId vsd, core::SnapshotId snapshot) {
  return guarded([&]() -> Result<void> {
    auto now = version(vsd);
    auto then = version(snapshot);
    if (!now) return now.error();
    if (!then) return then.error();
    Query own(database_, "SELECT 1 FROM snapshot WHERE id = ? AND vsd = ?");
    own.bind(1, signed_id(snapshot.value));
    own.bind(2, signed_id(vsd.value));
    if (!own.executeStep())
      return Error{Code::invalid, "snapshot " + std::to_string(snapshot.value) +
                                      " is of another VSD than " + std::to_string(vsd.value)};
    add_row_ref(then->root);
    Query update(database_, "UPDATE vsd SET root = ?, sectors = ? WHERE id = ?");
    update.bind(1, signed_id(then->root));
    update.bind(2, signed_id(then->sectors));
    update.bind(3, signed_id(vsd.value));
    update.exec();
    discard(now->root);
    return {};
  });
}

Result<Version> Map::version_by(const char* query, uint64_t id, const Error& missing) {
  return guarded([&]() -> Result<Version> {
    Query row(database_, query);
    row.bind(1, signed_id(id));
    if (!row.executeStep()) return missing;
    return Version{static_cast<uint64_t>(row.getColumn(0).getInt64()),
                   static_cast<uint64_t>(row.getColumn(1).getInt64())};
  });
}

Result<Version> Map::version(VsdId vsd) {
  return version_by("SELECT sectors, root FROM vsd WHERE id = ?", vsd.value, no_vsd(vsd));
}

Result<Version> Map::version(core::SnapshotId snapshot) {
  return version_by("SELECT sectors, root FROM snapshot WHERE id = ?", snapshot.value,
                    {Code::not_found, "no snapshot with id " + std::to_string(snapshot.value)});
}

// What lies below a row of a tree that may be lower than the one it is compared with.
std::vector<Map::Place> Map::children(const Place& of, int64_t level) {
  std::vector<Place> out(children_of(level));
  if (of.id == 0) return out;
  if (of.level < level) {
    out[0] = of;
    return out;
  }
  const Row row = read_row(of.id);
  for (uint64_t i = 0; i < out.size(); i++) out[i] = {child_at(row.body, i), level - 1};
  return out;
}

// Whether there was room for all.
bool Map::diff_below(const Place& from, const Place& to, int64_t level, uint64_t first,
                     uint64_t from_chunk, size_t most, Diff& out) {
  if (from.id == to.id) return true;
  if (level == 0) {
    if (out.changes.size() >= most) {
      out.next = first;
      return false;
    }
    auto segments = [&](const Place& at) {
      return at.id == 0 ? Segments{} : parse(read_row(at.id).body, at.id);
    };
    for (const core::Difference& one : core::differences(segments(from), segments(to))) {
      const uint64_t sector = first * core::kChunkSectors + one.start;
      Change* last = out.changes.empty() ? nullptr : &out.changes.back();
      if (last != nullptr && last->mapped == one.mapped && last->sector + last->sectors == sector)
        last->sectors += one.len;
      else
        out.changes.push_back({sector, one.len, one.mapped});
    }
    return true;
  }
  const uint64_t span = child_span(level);
  const std::vector<Place> before = children(from, level);
  const std::vector<Place> after = children(to, level);
  for (uint64_t i = from_chunk > first ? (from_chunk - first) / span : 0; i < before.size(); i++)
    if (!diff_below(before[i], after[i], level - 1, first + i * span, from_chunk, most, out))
      return false;
  return true;
}

Result<Diff> Map::diff(const Version& from, const Version& to, uint64_t chunk, size_t most) {
  return guarded([&]() -> Result<Diff> {
    const Place a{from.root, root_level(from.sectors)};
    const Place b{to.root, root_level(to.sectors)};
    const int64_t level = std::max(a.level, b.level);
    Diff out;
    if (chunk < child_span(level) * children_of(level))
      diff_below(a, b, level, 0, chunk, most, out);
    return out;
  });
}

/// References that are left when some roots are gone, of rows and extents that have been looked at.
struct Map::Remains {
  std::map<uint64_t, int64_t> rows;
  std::map<ExtentId, int64_t> extents;
  uint64_t freed = 0;
};

// As drop_row(), and nothing is changed.
void Map::without(uint64_t id, Remains& left) {
  if (id == 0) return;
  const Row row = read_row(id);
  if (--left.rows.try_emplace(id, row.refs).first->second > 0) return;
  if (row.level > 0) {
    for (uint64_t i = 0; i < children_of(row.level); i++) without(child_at(row.body, i), left);
    return;
  }
  for (const ExtentId extent : extents_of(parse(row.body, id))) {
    auto at = left.extents.find(extent);
    if (at == left.extents.end()) {
      Query refs(database_, "SELECT refs FROM extent WHERE id = ?");
      refs.bind(1, signed_id(extent.value));
      if (!refs.executeStep())
        throw SQLite::Exception("extent " + std::to_string(extent.value) + " is missing");
      at = left.extents.emplace(extent, refs.getColumn(0).getInt64()).first;
    }
    left.freed += --at->second == 0;
  }
}

Result<uint64_t> Map::freed_by(std::span<const Version> versions) {
  return guarded([&]() -> Result<uint64_t> {
    Remains left;
    for (const Version& one : versions) without(one.root, left);
    return left.freed;
  });
}

Result<Usage> Map::usage(const Version& version) {
  return guarded([&]() -> Result<Usage> {
    Usage out;
    std::set<ExtentId> extents;
    walk(version.root, [&](const Segments& segments) {
      for (const Segment& segment : segments) {
        out.logical_sectors += segment.len;
        extents.insert(segment.extent);
      }
    });
    out.referenced = extents.size();
    const auto unique = freed_by(std::span(&version, 1));
    if (!unique) return unique.error();
    out.unique = *unique;
    return out;
  });
}

// Of a VSD and its snapshots, each once, with its level: a VSD may have grown since.
std::set<std::pair<int64_t, uint64_t>> Map::roots(VsdId vsd) {
  std::set<std::pair<int64_t, uint64_t>> out;
  Query query(database_,
              "SELECT sectors, root FROM vsd WHERE id = ?1 UNION ALL SELECT sectors, root FROM "
              "snapshot WHERE vsd = ?1");
  query.bind(1, signed_id(vsd.value));
  while (query.executeStep())
    if (const auto root = static_cast<uint64_t>(query.getColumn(1).getInt64()); root != 0)
      out.emplace(root_level(static_cast<uint64_t>(query.getColumn(0).getInt64())), root);
  return out;
}

Result<History> Map::history(VsdId vsd, uint64_t leaf) {
  return guarded([&]() -> Result<History> {
    Query query(database_, "SELECT last_snapshot FROM vsd WHERE id = ?");
    query.bind(1, signed_id(vsd.value));
    if (!query.executeStep()) return no_vsd(vsd);
    const auto last_snapshot = static_cast<uint64_t>(query.getColumn(0).getInt64());
    // From the highest roots down; what several lead to is looked at once.
    std::set<std::pair<int64_t, uint64_t>> rows = roots(vsd);
    const uint64_t first = leaf * core::kLeafChunks;
    const auto now = version(vsd);
    if (!now) return now.error();
    const bool inside = first * core::kChunkSectors < now->sectors;
    const uint64_t live = inside ? leaf_row(now->root, root_level(now->sectors), leaf) : 0;
    std::erase_if(rows, [&](const auto& root) {  // behind the end of that version
      return first >= child_span(root.first) * children_of(root.first);
    });
    while (!rows.empty() && rows.rbegin()->first > 1) {
      const auto [level, id] = *rows.rbegin();
      rows.erase(std::prev(rows.end()));
      const uint64_t at = first / child_span(level) % children_of(level);
      if (const uint64_t below = child_at(read_row(id).body, at); below != 0)
        rows.emplace(level - 1, below);
    }
    History out;
    std::set<uint64_t> seen;
    std::set<ExtentId> named;
    for (const auto& [level, id] : rows) {
      const Row row = read_row(id);
      for (uint64_t i = 0; i < core::kLeafChunks; i++) {
        const uint64_t chunk = child_at(row.body, i);
        if (chunk == 0 || !seen.insert(chunk).second) continue;
        out.chunks.push_back({first + i, parse(read_row(chunk).body, chunk), chunk, false});
        named.merge(extents_of(out.chunks.back().segments));
      }
    }
    if (live != 0) {
      const std::string body = read_row(live).body;
      for (History::Chunk& one : out.chunks)
        one.live = child_at(body, one.chunk - first) == one.row;
    }
    for (const ExtentId id : named) {
      Result<MappedExtent> extent = mapped_extent(id, vsd, last_snapshot);
      if (!extent) return extent.error();
      out.extents.push_back(std::move(*extent));
    }
    return out;
  });
}

Result<Segments> Map::snapshot_chunk(core::SnapshotId snapshot, uint64_t chunk) {
  return guarded([&]() -> Result<Segments> {
    Query query(database_, "SELECT sectors, root FROM snapshot WHERE id = ?");
    query.bind(1, signed_id(snapshot.value));
    if (!query.executeStep())
      return Error{Code::not_found, "no snapshot with id " + std::to_string(snapshot.value)};
    const auto sectors = static_cast<uint64_t>(query.getColumn(0).getInt64());
    if (chunk >= sectors / core::kChunkSectors)
      return Error{Code::invalid, "behind the end of the snapshot"};
    return find_chunk(static_cast<uint64_t>(query.getColumn(1).getInt64()), root_level(sectors),
                      chunk);
  });
}

}  // namespace meta
