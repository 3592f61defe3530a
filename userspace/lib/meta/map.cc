// SPDX-License-Identifier: GPL-2.0
#include "meta/map.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "meta/tree.h"

namespace meta {

namespace {

constexpr uint64_t kMaxSectors = uint64_t{1} << 42;  // 2 PiB
constexpr size_t kMaxName = 64;

}  // namespace

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxName && name[0] != '-' && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

uint64_t Map::next_id(const char* counter) {
  Query bump(database_,
             "INSERT INTO counter VALUES(?, 1) "
             "ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value");
  bump.bind(1, counter);
  bump.executeStep();
  const uint64_t id = static_cast<uint64_t>(bump.getColumn(0).getInt64());
  while (bump.executeStep()) {
  }
  return id;
}

Map::Row Map::read_row(uint64_t id) {
  Query query(database_, "SELECT level, refs, body FROM tree WHERE id = ?");
  query.bind(1, signed_id(id));
  if (!query.executeStep())
    throw SQLite::Exception("tree row " + std::to_string(id) + " is missing");
  return {query.getColumn(0).getInt64(), query.getColumn(1).getInt64(),
          query.getColumn(2).getString()};
}

void Map::write_row(uint64_t id, const Row& row) {
  Query update(database_, "UPDATE tree SET refs = ?, body = ? WHERE id = ?");
  update.bind(1, row.refs);
  update.bind(2, row.body.data(), static_cast<int>(row.body.size()));
  update.bind(3, signed_id(id));
  update.exec();
}

uint64_t Map::insert_row(int64_t level, std::string body) {
  const uint64_t id = next_id("tree");
  Query insert(database_, "INSERT INTO tree VALUES(?, ?, 1, ?)");
  insert.bind(1, signed_id(id));
  insert.bind(2, level);
  insert.bind(3, body.data(), static_cast<int>(body.size()));
  insert.exec();
  return id;
}

// Makes a row that only the caller's parent refers to, for changing it: `id` itself, a copy of it,
// or a new empty one for id 0. The parent's reference moves to what is returned.
uint64_t Map::own(uint64_t id, Row& row, int64_t level) {
  if (id == 0) {
    row = {level, 1, level == 0 ? std::string() : std::string(children_of(level) * kIdBytes, '\0')};
    return insert_row(level, row.body);
  }
  row = read_row(id);
  if (row.refs == 1) return id;
  row.refs--;
  write_row(id, row);
  if (level == 0) {
    for (ExtentId extent : extents_of(parse(row.body, id))) {
      Query more(database_, "UPDATE extent SET refs = refs + 1 WHERE id = ?");
      more.bind(1, signed_id(extent.value));
      more.exec();
    }
  } else {
    for (uint64_t i = 0; i < children_of(level); i++) add_row_ref(child_at(row.body, i));
  }
  row.refs = 1;
  return insert_row(level, row.body);
}

void Map::add_extent_ref(ExtentId extent, uint64_t index) {
  Query more(database_, "UPDATE extent SET refs = refs + 1 WHERE id = ?");
  more.bind(1, signed_id(extent.value));
  if (more.exec() == 1) return;
  Query taken(database_, "DELETE FROM reservation WHERE extent = ?");
  taken.bind(1, signed_id(extent.value));
  if (taken.exec() != 1)
    throw SQLite::Exception("extent " + std::to_string(extent.value) +
                            " is neither reserved nor mapped");
  Query insert(database_, "INSERT INTO extent VALUES(?, ?, ?, 1)");
  insert.bind(1, signed_id(extent.value));
  insert.bind(2, signed_id(committing_.value));
  insert.bind(3, signed_id(index));
  insert.exec();
}

void Map::drop_extent_ref(ExtentId extent) {
  Query less(database_, "UPDATE extent SET refs = refs - 1 WHERE id = ?");
  less.bind(1, signed_id(extent.value));
  less.exec();
  dropped_.insert(extent);
}

// At the end of a change: chunks are changed one after the other, and one may take up what another
// has dropped.
void Map::free_unreferenced(uint64_t index) {
  for (const ExtentId extent : dropped_) {
    Query gone(database_, "DELETE FROM extent WHERE id = ? AND refs = 0");
    gone.bind(1, signed_id(extent.value));
    Query unused(database_, "DELETE FROM reservation WHERE extent = ?");
    unused.bind(1, signed_id(extent.value));
    if (gone.exec() + unused.exec() == 0) continue;
    Query freed(database_,
                "INSERT INTO quarantine SELECT disk, slot, ? FROM copy WHERE extent = ?");
    freed.bind(1, signed_id(index));
    freed.bind(2, signed_id(extent.value));
    freed.exec();
    Query copies(database_, "DELETE FROM copy WHERE extent = ?");
    copies.bind(1, signed_id(extent.value));
    copies.exec();
  }
  dropped_.clear();
}

void Map::count_extents(const Segments& before, const Segments& after, uint64_t index) {
  const std::set<ExtentId> old_set = extents_of(before);
  const std::set<ExtentId> new_set = extents_of(after);
  for (ExtentId extent : new_set)
    if (!old_set.contains(extent)) add_extent_ref(extent, index);
  for (ExtentId extent : old_set)
    if (!new_set.contains(extent)) drop_extent_ref(extent);
}

uint64_t Map::change_chunk(uint64_t id, const std::vector<Segment>& segments, uint64_t index) {
  Row row;
  const uint64_t mine = own(id, row, 0);
  const Segments before = parse(row.body, mine);
  Segments after = before;
  for (const Segment& segment : segments) after = core::splice(after, segment);
  count_extents(before, after, index);
  if (after.empty()) {
    row.body.clear();
    write_row(mine, row);
    drop_row(mine, index);
    return 0;
  }
  row.body = core::pack(after);
  write_row(mine, row);
  return mine;
}

// Applies changes, ordered by chunk, below one row; returns the row that the parent must point to,
// 0 where nothing is mapped below any more.
uint64_t Map::change(uint64_t id, int64_t level, std::span<const Changes::value_type> changes,
                     uint64_t first_chunk, uint64_t index) {
  if (level == 0) return change_chunk(id, changes.front().second, index);
  Row row;
  const uint64_t mine = own(id, row, level);
  const uint64_t span = child_span(level);
  for (size_t from = 0, to = 0; from < changes.size(); from = to) {
    const uint64_t i = (changes[from].first - first_chunk) / span;
    for (to = from; to < changes.size() && (changes[to].first - first_chunk) / span == i; to++) {
    }
    set_child(row.body, i,
              change(child_at(row.body, i), level - 1, changes.subspan(from, to - from),
                     first_chunk + i * span, index));
  }
  write_row(mine, row);
  if (row.body.find_first_not_of('\0') != std::string::npos) return mine;
  drop_row(mine, index);
  return 0;
}

void Map::drop_row(uint64_t id, uint64_t index) {
  if (id == 0) return;
  Row row = read_row(id);
  if (--row.refs > 0) {
    write_row(id, row);
    return;
  }
  Query gone(database_, "DELETE FROM tree WHERE id = ?");
  gone.bind(1, signed_id(id));
  gone.exec();
  if (row.level == 0) {
    count_extents(parse(row.body, id), {}, index);
    return;
  }
  for (uint64_t i = 0; i < children_of(row.level); i++) drop_row(child_at(row.body, i), index);
}

void Map::add_row_ref(uint64_t id) {
  if (id == 0) return;
  Query more(database_, "UPDATE tree SET refs = refs + 1 WHERE id = ?");
  more.bind(1, signed_id(id));
  more.exec();
}

void Map::discard(uint64_t root) {
  if (root == 0) return;
  Query insert(database_, "INSERT INTO garbage VALUES(?, ?)");
  insert.bind(1, signed_id(next_id("garbage")));
  insert.bind(2, signed_id(root));
  insert.exec();
}

Result<uint64_t> Map::reap(uint64_t rows, uint64_t index) {
  return guarded([&]() -> Result<uint64_t> {
    uint64_t done = 0;
    dropped_.clear();
    for (; done < rows; done++) {
      Query next(database_, "SELECT id, root FROM garbage ORDER BY id DESC LIMIT 1");
      if (!next.executeStep()) break;
      const int64_t entry = next.getColumn(0).getInt64();
      const auto id = static_cast<uint64_t>(next.getColumn(1).getInt64());
      next.reset();
      Query taken(database_, "DELETE FROM garbage WHERE id = ?");
      taken.bind(1, entry);
      taken.exec();
      const Row row = read_row(id);
      if (row.refs == 1 && row.level > 0) {
        Query gone(database_, "DELETE FROM tree WHERE id = ?");
        gone.bind(1, signed_id(id));
        gone.exec();
        for (uint64_t i = 0; i < children_of(row.level); i++) discard(child_at(row.body, i));
      } else {
        drop_row(id, index);
      }
    }
    free_unreferenced(index);
    return done;
  });
}

Result<VsdId> Map::create_vsd(const std::string& name, uint64_t sectors, uint32_t replicas) {
  if (!valid_name(name)) return bad_name(name, "a VSD");
  return put_vsd(name, sectors, replicas);
}

Result<VsdId> Map::create_medium(uint64_t medium, uint64_t sectors, uint32_t replicas) {
  return put_vsd(medium_name(medium), sectors, replicas);
}

Result<VsdId> Map::put_vsd(const std::string& name, uint64_t sectors, uint32_t replicas) {
  return guarded([&]() -> Result<VsdId> {
    if (sectors == 0 || sectors % core::kChunkSectors != 0 || sectors > kMaxSectors)
      return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB, at most 2 PiB"};
    if (replicas < 2 || replicas > 3) return Error{Code::invalid, "a VSD has 2 or 3 copies"};
    Query query(database_, "SELECT 1 FROM vsd WHERE name = ?");
    query.bind(1, name);
    if (query.executeStep()) return Error{Code::conflict, "a VSD named " + name + " exists"};
    const VsdId id{next_id("vsd")};
    Query insert(database_, "INSERT INTO vsd VALUES(?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0)");
    insert.bind(1, signed_id(id.value));
    insert.bind(2, name);
    insert.bind(3, signed_id(sectors));
    insert.bind(4, replicas);
    insert.exec();
    return id;
  });
}

Result<void> Map::delete_vsd(VsdId vsd) {
  return guarded([&]() -> Result<void> {
    auto now = version(vsd);
    if (!now) return now.error();
    Query gone(database_,
               "UPDATE vsd SET deleted = 1, root = 0, name = 'deleted:' || id || ':' || name "
               "WHERE id = ? AND deleted = 0");
    gone.bind(1, signed_id(vsd.value));
    if (gone.exec() == 0) return no_vsd(vsd);
    discard(now->root);
    return {};
  });
}

Result<void> Map::forget_deleted() {
  return guarded([&]() -> Result<void> {
    Query gone(database_,
               "DELETE FROM vsd WHERE deleted AND root = 0 AND NOT EXISTS (SELECT 1 FROM snapshot "
               "WHERE vsd = vsd.id) AND NOT EXISTS (SELECT 1 FROM extent WHERE vsd = vsd.id)");
    if (gone.exec() == 0) return {};
    Query scrubs(database_, "DELETE FROM scrub WHERE vsd NOT IN (SELECT id FROM vsd)");
    scrubs.exec();
    return {};
  });
}

Result<void> Map::resize_vsd(VsdId vsd, uint64_t sectors) {
  return guarded([&]() -> Result<void> {
    Query query(database_, "SELECT sectors, root FROM vsd WHERE id = ?");
    query.bind(1, signed_id(vsd.value));
    if (!query.executeStep()) return no_vsd(vsd);
    const auto old = static_cast<uint64_t>(query.getColumn(0).getInt64());
    auto root = static_cast<uint64_t>(query.getColumn(1).getInt64());
    query.reset();
    if (sectors % core::kChunkSectors != 0 || sectors > kMaxSectors)
      return Error{Code::invalid, "the size of a VSD is a multiple of 1 MiB, at most 2 PiB"};
    if (sectors < old)
      return Error{Code::invalid,
                   "a VSD cannot shrink: what lies behind its new end would be lost"};
    for (int64_t level = root_level(old) + 1; root != 0 && level <= root_level(sectors); level++) {
      std::string body(children_of(level) * kIdBytes, '\0');
      set_child(body, 0, root);
      root = insert_row(level, std::move(body));
    }
    Query update(database_, "UPDATE vsd SET sectors = ?, root = ? WHERE id = ?");
    update.bind(1, signed_id(sectors));
    update.bind(2, signed_id(root));
    update.bind(3, signed_id(vsd.value));
    update.exec();
    return {};
  });
}

Result<uint64_t> Map::grant_lease(VsdId vsd, core::NodeId node, uint64_t life) {
  return guarded([&]() -> Result<uint64_t> {
    Query update(database_,
                 "UPDATE vsd SET lease_node = ?, lease_life = ?, epoch = epoch + 1 "
                 "WHERE id = ? RETURNING epoch");
    update.bind(1, signed_id(node.value));
    update.bind(2, signed_id(life));
    update.bind(3, signed_id(vsd.value));
    if (!update.executeStep()) return no_vsd(vsd);
    const auto epoch = static_cast<uint64_t>(update.getColumn(0).getInt64());
    while (update.executeStep()) {
    }
    return epoch;
  });
}

Result<ExtentId> Map::reserve(std::span<const Copy> copies, core::NodeId node, uint64_t life) {
  return guarded([&]() -> Result<ExtentId> {
    const ExtentId id{next_id("extent")};
    Query insert(database_, "INSERT INTO reservation VALUES(?, ?, ?)");
    insert.bind(1, signed_id(id.value));
    insert.bind(2, signed_id(node.value));
    insert.bind(3, signed_id(life));
    insert.exec();
    for (const Copy& copy : copies) {
      Query used(database_,
                 "SELECT 1 FROM copy WHERE disk = ?1 AND slot = ?2 "
                 "UNION SELECT 1 FROM quarantine WHERE disk = ?1 AND slot = ?2");
      used.bind(1, signed_id(copy.disk.value));
      used.bind(2, static_cast<int64_t>(copy.slot));
      if (used.executeStep())
        return Error{Code::conflict, "slot " + std::to_string(copy.slot) + " of disk " +
                                         std::to_string(copy.disk.value) + " is in use"};
      Query row(database_, "INSERT INTO copy VALUES(?, ?, ?, 0)");
      row.bind(1, signed_id(copy.disk.value));
      row.bind(2, static_cast<int64_t>(copy.slot));
      row.bind(3, signed_id(id.value));
      row.exec();
    }
    return id;
  });
}

Result<void> Map::commit(const Batch& batch, uint64_t index) {
  return guarded([&]() -> Result<void> {
    Query query(database_, "SELECT sectors, root, epoch FROM vsd WHERE id = ?");
    query.bind(1, signed_id(batch.vsd.value));
    if (!query.executeStep()) return no_vsd(batch.vsd);
    const auto sectors = static_cast<uint64_t>(query.getColumn(0).getInt64());
    const auto root = static_cast<uint64_t>(query.getColumn(1).getInt64());
    const auto epoch = static_cast<uint64_t>(query.getColumn(2).getInt64());
    query.reset();
    if (epoch != batch.epoch)
      return Error{Code::stale, "VSD " + std::to_string(batch.vsd.value) + ": epoch " +
                                    std::to_string(batch.epoch) +
                                    " is over, the lease is in epoch " + std::to_string(epoch)};
    std::map<uint64_t, std::vector<Segment>> by_chunk;
    dropped_.clear();
    for (const Op& op : batch.ops) {
      if (op.chunk >= sectors / core::kChunkSectors ||
          !core::valid_range(op.segment.start, op.segment.len, op.segment.off))
        return Error{Code::invalid,
                     "a change lies outside of VSD " + std::to_string(batch.vsd.value)};
      by_chunk[op.chunk].push_back(op.segment);
      // One that was mapped and is not any more at the end of the batch is not used again.
      if (op.segment.extent) dropped_.insert(op.segment.extent);
    }
    committing_ = batch.vsd;
    if (!by_chunk.empty()) {
      const Changes changes(by_chunk.begin(), by_chunk.end());
      const uint64_t fresh = change(root, root_level(sectors), changes, 0, index);
      Query update(database_, "UPDATE vsd SET root = ? WHERE id = ?");
      update.bind(1, signed_id(fresh));
      update.bind(2, signed_id(batch.vsd.value));
      update.exec();
    }
    free_unreferenced(index);
    for (const Stale& stale : batch.stales) {
      Query mark(database_,
                 "UPDATE copy SET stale = ?3 WHERE extent = ?1 AND disk = ?2 "
                 "AND (?3 > 0 OR stale = 0) AND EXISTS (SELECT 1 FROM extent WHERE id = ?1)");
      mark.bind(1, signed_id(stale.extent.value));
      mark.bind(2, signed_id(stale.disk.value));
      mark.bind(3, stale.suspect ? -signed_id(index) : signed_id(index));
      mark.exec();
    }
    return {};
  });
}

Segments Map::find_chunk(uint64_t root, int64_t level, uint64_t chunk) {
  uint64_t id = root;
  for (; id != 0 && level > 0; level--) {
    id = child_at(read_row(id).body, chunk / child_span(level));
    chunk %= child_span(level);
  }
  return id == 0 ? Segments{} : parse(read_row(id).body, id);
}

void Map::walk(uint64_t id, const std::function<void(const Segments&)>& visit) {
  if (id == 0) return;
  const Row row = read_row(id);
  if (row.level == 0) {
    visit(parse(row.body, id));
    return;
  }
  for (uint64_t i = 0; i < children_of(row.level); i++) walk(child_at(row.body, i), visit);
}

Result<Spread> Map::spread(VsdId vsd) {
  return guarded([&]() -> Result<Spread> {
    Query query(database_, "SELECT root FROM vsd WHERE id = ?");
    query.bind(1, signed_id(vsd.value));
    if (!query.executeStep()) return no_vsd(vsd);
    Spread out;
    std::set<ExtentId> extents;
    walk(static_cast<uint64_t>(query.getColumn(0).getInt64()), [&](const Segments& segments) {
      for (const Segment& segment : segments) {
        out.mapped_sectors += segment.len;
        out.pieces++;
        extents.insert(segment.extent);
      }
    });
    out.extents = extents.size();
    std::map<uint64_t, DiskShare> disks;
    Query copies(database_, "SELECT disk, stale FROM copy WHERE extent = ?");
    for (const ExtentId extent : extents) {
      copies.bind(1, signed_id(extent.value));
      while (copies.executeStep()) {
        const auto disk = static_cast<uint64_t>(copies.getColumn(0).getInt64());
        DiskShare& share = disks[disk];
        share.disk = {disk};
        share.copies++;
        share.stale += copies.getColumn(1).getInt() != 0;
      }
      copies.reset();
    }
    for (const auto& [id, share] : disks) out.disks.push_back(share);
    return out;
  });
}

Result<MappedExtent> Map::mapped_extent(ExtentId id, VsdId vsd, uint64_t last_snapshot) {
  MappedExtent out{id, false, {}};
  Query query(database_, "SELECT vsd, born FROM extent WHERE id = ?");
  query.bind(1, signed_id(id.value));
  if (!query.executeStep())
    return Error{Code::corrupt,
                 "extent " + std::to_string(id.value) + " is mapped and does not exist"};
  out.exclusive = query.getColumn(0).getInt64() == signed_id(vsd.value) &&
                  static_cast<uint64_t>(query.getColumn(1).getInt64()) > last_snapshot;
  Query copies(database_, "SELECT disk, slot, stale FROM copy WHERE extent = ? ORDER BY disk");
  copies.bind(1, signed_id(id.value));
  while (copies.executeStep())
    out.copies.push_back({{static_cast<uint64_t>(copies.getColumn(0).getInt64())},
                          static_cast<uint32_t>(copies.getColumn(1).getInt64()),
                          copies.getColumn(2).getInt() != 0});
  return out;
}

Result<MappedExtent> Map::extent(ExtentId id, VsdId vsd) {
  return guarded([&]() -> Result<MappedExtent> {
    Query query(database_, "SELECT last_snapshot FROM vsd WHERE id = ?");
    query.bind(1, signed_id(vsd.value));
    if (!query.executeStep()) return no_vsd(vsd);
    const auto last_snapshot = static_cast<uint64_t>(query.getColumn(0).getInt64());
    Query mapped(database_, "SELECT 1 FROM extent WHERE id = ?");
    mapped.bind(1, signed_id(id.value));
    if (!mapped.executeStep())
      return Error{Code::not_found, "no extent " + std::to_string(id.value)};
    return mapped_extent(id, vsd, last_snapshot);
  });
}

Result<Leaf> Map::leaf(VsdId vsd, uint64_t leaf) {
  return guarded([&]() -> Result<Leaf> {
    Query query(database_, "SELECT sectors, root, last_snapshot FROM vsd WHERE id = ?");
    query.bind(1, signed_id(vsd.value));
    if (!query.executeStep()) return no_vsd(vsd);
    const auto sectors = static_cast<uint64_t>(query.getColumn(0).getInt64());
    const auto root = static_cast<uint64_t>(query.getColumn(1).getInt64());
    const auto last_snapshot = static_cast<uint64_t>(query.getColumn(2).getInt64());
    const uint64_t chunks = sectors / core::kChunkSectors;
    if (leaf >= (chunks + core::kLeafChunks - 1) / core::kLeafChunks)
      return Error{Code::invalid, "leaf " + std::to_string(leaf) + " lies behind the end of VSD " +
                                      std::to_string(vsd.value)};
    Leaf out;
    std::set<ExtentId> named;
    for (uint64_t i = 0; i < core::kLeafChunks; i++) {
      const uint64_t chunk = leaf * core::kLeafChunks + i;
      out.chunks.push_back(chunk < chunks ? find_chunk(root, root_level(sectors), chunk)
                                          : Segments{});
      named.merge(extents_of(out.chunks.back()));
    }
    for (ExtentId id : named) {
      Result<MappedExtent> extent = mapped_extent(id, vsd, last_snapshot);
      if (!extent) return extent.error();
      out.extents.push_back(*extent);
    }
    return out;
  });
}

// Below a row whose first leaf is `first`.
std::optional<uint64_t> Map::find_leaf(uint64_t id, int64_t level, uint64_t first, uint64_t from) {
  if (id == 0) return std::nullopt;
  if (level == 1) return first >= from ? std::optional(first) : std::nullopt;
  const Row row = read_row(id);
  const uint64_t span = child_span(level) / core::kLeafChunks;
  for (uint64_t i = from > first ? (from - first) / span : 0; i < children_of(level); i++)
    if (const auto found = find_leaf(child_at(row.body, i), level - 1, first + i * span, from))
      return found;
  return std::nullopt;
}

Result<std::optional<uint64_t>> Map::next_leaf(VsdId vsd, uint64_t from) {
  return guarded([&]() -> Result<std::optional<uint64_t>> {
    const auto now = version(vsd);
    if (!now) return now.error();
    std::optional<uint64_t> first;
    for (const auto& [level, root] : roots(vsd))
      if (const auto found = find_leaf(root, level, 0, from); found && (!first || *found < *first))
        first = found;
    return first;
  });
}

Result<std::vector<std::string>> Map::verify() {
  return guarded([&]() -> Result<std::vector<std::string>> {
    std::map<uint64_t, int64_t> rows;     // tree row -> references found
    std::map<uint64_t, int64_t> extents;  // extent -> chunk rows found
    std::vector<std::string> wrong;
    for (const char* query :
         {"SELECT root FROM vsd WHERE root != 0", "SELECT root FROM snapshot WHERE root != 0",
          "SELECT root FROM garbage"}) {
      Query roots(database_, query);
      while (roots.executeStep()) rows[static_cast<uint64_t>(roots.getColumn(0).getInt64())]++;
    }
    Query tree(database_, "SELECT id, level, body FROM tree");
    while (tree.executeStep()) {
      const auto id = static_cast<uint64_t>(tree.getColumn(0).getInt64());
      const int64_t level = tree.getColumn(1).getInt64();
      const std::string body = tree.getColumn(2).getString();
      if (level == 0) {
        for (ExtentId extent : extents_of(parse(body, id))) extents[extent.value]++;
        continue;
      }
      for (uint64_t i = 0; i < children_of(level); i++)
        if (const uint64_t child = child_at(body, i); child != 0) rows[child]++;
    }
    auto compare = [&](const char* what, const char* query,
                       const std::map<uint64_t, int64_t>& found) {
      size_t seen = 0;
      Query stored(database_, query);
      while (stored.executeStep()) {
        const auto id = static_cast<uint64_t>(stored.getColumn(0).getInt64());
        const int64_t refs = stored.getColumn(1).getInt64();
        const auto at = found.find(id);
        seen += at != found.end();
        if (refs != (at == found.end() ? 0 : at->second) || refs == 0)
          wrong.push_back(std::string(what) + " " + std::to_string(id) + " counts " +
                          std::to_string(refs) + " references, there are " +
                          std::to_string(at == found.end() ? 0 : at->second));
      }
      if (seen != found.size())
        wrong.push_back(std::string("a ") + what + " is referred to and missing");
    };
    compare("tree row", "SELECT id, refs FROM tree", rows);
    compare("extent", "SELECT id, refs FROM extent", extents);
    for (const auto& [what, query] : {
             std::pair{"a copy belongs to no extent",
                       "SELECT 1 FROM copy WHERE extent NOT IN (SELECT id FROM extent) "
                       "AND extent NOT IN (SELECT extent FROM reservation)"},
             std::pair{"an extent has no current copy",
                       "SELECT 1 FROM extent e WHERE NOT EXISTS "
                       "(SELECT 1 FROM copy c WHERE c.extent = e.id AND c.stale = 0)"},
             std::pair{
                 "a slot is used and in quarantine",
                 "SELECT 1 FROM copy c JOIN quarantine q ON c.disk = q.disk AND c.slot = q.slot"},
             std::pair{"a copy lies on a disk that is not known, or behind its end",
                       "SELECT 1 FROM copy c LEFT JOIN disk d ON d.id = c.disk "
                       "WHERE d.id IS NULL OR c.slot < 0 OR c.slot >= d.slots"},
             std::pair{"an extent has two copies on one disk",
                       "SELECT 1 FROM copy GROUP BY extent, disk HAVING count(*) > 1"},
             std::pair{"an extent is mapped and reserved",
                       "SELECT 1 FROM extent JOIN reservation ON id = extent"},
         }) {
      Query bad(database_, query);
      if (bad.executeStep()) wrong.emplace_back(what);
    }
    return wrong;
  });
}

}  // namespace meta
