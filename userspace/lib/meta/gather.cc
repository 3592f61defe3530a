// SPDX-License-Identifier: GPL-2.0
// Pieces of chunks that were put together in another extent.
//
// A row of a chunk says where its data is; that it lies elsewhere changes none of the versions that
// have the row, so it is changed in its place however many these are, and no diff sees it.
#include <algorithm>
#include <map>
#include <set>

#include "meta/map.h"
#include "meta/tree.h"

namespace meta {

namespace {

// The segment of which a piece is a part.
bool has_piece(const Segments& segments, const Segment& piece) {
  return std::any_of(segments.begin(), segments.end(), [&](const Segment& one) {
    return one.extent == piece.extent && one.start <= piece.start &&
           one.start + one.len >= piece.start + piece.len &&
           one.off + (piece.start - one.start) == piece.off;
  });
}

// Where a piece is now, as far as a chunk still leads to it there.
void add_moved(const Segments& now, const Segment& before, ExtentId to, uint64_t chunk,
               std::vector<Piece>& out) {
  for (const Segment& one : now) {
    const auto start = std::max(one.start, before.start);
    const int end = std::min(one.start + one.len, before.start + before.len);
    if (one.extent != to || start >= end) continue;
    out.push_back({0,
                   chunk,
                   {start, static_cast<uint16_t>(end - start),
                    static_cast<uint16_t>(before.off + (start - before.start)), before.extent},
                   static_cast<uint16_t>(one.off + (start - one.start))});
  }
}

}  // namespace

// When the newest extent of a chunk was born, where that is the VSD's own; 0 where it is another's:
// nobody may write to the chunk in place then.
uint64_t Map::newest(const Segments& segments, VsdId vsd) {
  std::pair<int64_t, int64_t> newest{0, 0};  // born, VSD
  for (const ExtentId extent : extents_of(segments)) {
    Query query(database_, "SELECT born, vsd FROM extent WHERE id = ?");
    query.bind(1, signed_id(extent.value));
    if (!query.executeStep())
      throw SQLite::Exception("extent " + std::to_string(extent.value) +
                              " is mapped and does not exist");
    newest =
        std::max(newest, std::pair(query.getColumn(0).getInt64(), query.getColumn(1).getInt64()));
  }
  return newest.second == signed_id(vsd.value) ? static_cast<uint64_t>(newest.first) : 0;
}

Result<void> Map::gather(VsdId vsd, std::span<const Piece> pieces, ExtentId to, uint64_t index) {
  return guarded([&]() -> Result<void> {
    struct Rewrite {
      Row row;
      Segments before;
      Segments after;
      Segments moved;
      uint64_t chunk = 0;
    };
    std::map<uint64_t, Rewrite> changes;
    // A row that the VSD may write to in place has an extent that was born behind its last
    // snapshot, and no other version has that row. What lies in one extent with it must be as old.
    uint64_t born = index;
    for (const Piece& piece : pieces) {
      auto [at, fresh] = changes.try_emplace(piece.row);
      Rewrite& change = at->second;
      if (fresh) {
        Query query(database_, "SELECT level, refs, body FROM tree WHERE id = ? AND level = 0");
        query.bind(1, signed_id(piece.row));
        if (!query.executeStep()) return Error{Code::conflict, "a chunk changed meanwhile"};
        change.row = {0, query.getColumn(1).getInt64(), query.getColumn(2).getString()};
        change.before = change.after = parse(change.row.body, piece.row);
        change.chunk = piece.chunk;
        born = std::min(born, newest(change.before, vsd));
      }
      if (!core::valid_range(piece.from.start, piece.from.len, piece.from.off) ||
          !core::valid_range(piece.from.start, piece.from.len, piece.to) ||
          piece.chunk != change.chunk)
        return Error{Code::invalid, "a piece lies outside of its chunk or extent"};
      if (!has_piece(change.after, piece.from))
        return Error{Code::conflict, "a chunk changed meanwhile"};
      change.after = core::splice(change.after, {piece.from.start, piece.from.len, piece.to, to});
      change.moved.push_back(piece.from);
    }
    dropped_.clear();
    committing_ = vsd;
    for (auto& [id, change] : changes) {
      if (change.after.size() > core::kMaxSegments)
        return Error{Code::invalid, "a chunk would have too many segments"};
      count_extents(change.before, change.after, born);
      change.row.body = core::pack(change.after);
      write_row(id, change.row);
      std::sort(change.moved.begin(), change.moved.end(),
                [](const Segment& a, const Segment& b) { return a.start < b.start; });
      Query note(database_, "INSERT INTO gathered VALUES(?, ?, ?, ?, ?)");
      const std::string body = core::pack(change.moved);
      note.bind(1, signed_id(to.value));
      note.bind(2, signed_id(id));
      note.bind(3, signed_id(change.chunk));
      note.bind(4, signed_id(index));
      note.bind(5, body.data(), static_cast<int>(body.size()));
      note.exec();
    }
    free_unreferenced(index);
    return {};
  });
}

Result<std::vector<Moved>> Map::gathered(uint64_t behind, core::NodeId node, uint64_t life) {
  return guarded([&]() -> Result<std::vector<Moved>> {
    struct Holder {
      Moved moved;
      uint64_t sectors = 0;
      uint64_t root = 0;
      uint64_t last_snapshot = 0;
    };
    std::vector<Holder> holders;
    Query leases(database_,
                 "SELECT id, epoch, sectors, root, last_snapshot FROM vsd "
                 "WHERE lease_node = ? AND lease_life = ?");
    leases.bind(1, signed_id(node.value));
    leases.bind(2, signed_id(life));
    auto u64 = [](const SQLite::Column& column) {
      return static_cast<uint64_t>(column.getInt64());
    };
    while (leases.executeStep())
      holders.push_back({{{u64(leases.getColumn(0))}, u64(leases.getColumn(1)), {}, {}},
                         u64(leases.getColumn(2)),
                         u64(leases.getColumn(3)),
                         u64(leases.getColumn(4))});
    std::map<std::pair<ExtentId, VsdId>, Moved> found;
    Query rows(database_, "SELECT extent, chunk, body FROM gathered WHERE at > ? ORDER BY at");
    rows.bind(1, signed_id(behind));
    while (rows.executeStep()) {
      const ExtentId to{u64(rows.getColumn(0))};
      const uint64_t chunk = u64(rows.getColumn(1));
      const Segments moved = parse(rows.getColumn(2).getString(), 0);
      for (const Holder& holder : holders) {
        if (chunk * core::kChunkSectors >= holder.sectors) continue;
        // As it is now: the VSD may have become what it was before, or something new.
        const Segments now = find_chunk(holder.root, root_level(holder.sectors), chunk);
        std::vector<Piece> pieces;
        for (const Segment& one : moved) add_moved(now, one, to, chunk, pieces);
        if (pieces.empty()) continue;
        auto [at, fresh] = found.try_emplace({to, holder.moved.vsd}, holder.moved);
        if (fresh) {
          auto extent = mapped_extent(to, holder.moved.vsd, holder.last_snapshot);
          if (!extent) return extent.error();
          at->second.to = std::move(*extent);
        }
        at->second.pieces.insert(at->second.pieces.end(), pieces.begin(), pieces.end());
      }
    }
    std::vector<Moved> out;
    out.reserve(found.size());
    for (auto& [key, moved] : found) out.push_back(std::move(moved));
    return out;
  });
}

Result<bool> Map::has(const Piece& piece) {
  return guarded([&]() -> Result<bool> {
    Query query(database_, "SELECT body FROM tree WHERE id = ? AND level = 0");
    query.bind(1, signed_id(piece.row));
    return query.executeStep() &&
           has_piece(parse(query.getColumn(0).getString(), piece.row), piece.from);
  });
}

Result<std::map<ExtentId, uint64_t>> Map::references(const std::set<ExtentId>& extents) {
  return guarded([&]() -> Result<std::map<ExtentId, uint64_t>> {
    std::map<ExtentId, uint64_t> out;
    for (const ExtentId extent : extents) {
      Query query(database_, "SELECT refs FROM extent WHERE id = ?");
      query.bind(1, signed_id(extent.value));
      if (query.executeStep()) out[extent] = static_cast<uint64_t>(query.getColumn(0).getInt64());
    }
    return out;
  });
}

// The row of a leaf's chunks; 0 where nothing is mapped there.
uint64_t Map::leaf_row(uint64_t root, int64_t level, uint64_t leaf) {
  uint64_t id = root;
  const uint64_t first = leaf * core::kLeafChunks;
  for (; id != 0 && level > 1; level--)
    id = child_at(read_row(id).body, first / child_span(level) % children_of(level));
  return id;
}

}  // namespace meta
