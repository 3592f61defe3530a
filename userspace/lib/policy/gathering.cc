// SPDX-License-Identifier: GPL-2.0
#include "policy/gathering.h"

#include <set>

#include "policy/handlers.h"

namespace policy {

namespace {

// Requests more than it would take.
constexpr int kBreaks = 4;
constexpr int kBreaksWorthSpace = 8;
constexpr uint32_t kSectorsWorthSpace = core::kChunkSectors / 2;

constexpr uint32_t kSparse = core::kChunkSectors / 4;
constexpr uint64_t kFewRows = 16;
constexpr size_t kExtentsToKnow = 8192;
constexpr uint32_t kAligned = 8;  // of disks whose sectors are 4 KiB

// Of one extent: reading it is a request each.
constexpr size_t kPiecesAtOnce = core::kMaxSegments;

}  // namespace

bool is_scattered(const core::Segments& segments, const References& refs, bool live, bool room) {
  int breaks = 0;
  uint32_t sectors = 0;
  for (size_t i = 0; i < segments.size(); i++) {
    sectors += segments[i].len;
    if (i > 0 && segments[i - 1].start + segments[i - 1].len == segments[i].start) breaks++;
  }
  std::set<core::ExtentId> freed;
  for (const core::Segment& one : segments)
    if (const auto at = refs.find(one.extent); at != refs.end() && at->second == 1)
      freed.insert(one.extent);
  if (freed.size() > 1) return true;
  if (breaks >= kBreaks && freed.size() == 1) return true;
  return live && room && breaks >= kBreaksWorthSpace && sectors >= kSectorsWorthSpace;
}

void Sparse::add(const meta::History::Chunk& chunk, const References& refs) {
  std::set<core::ExtentId> named;
  for (const core::Segment& one : chunk.segments) {
    const auto count = refs.find(one.extent);
    auto at = extents_.find(one.extent);
    if (at == extents_.end()) {
      if (count == refs.end() || count->second > kFewRows || extents_.size() >= kExtentsToKnow)
        continue;
      at = extents_.emplace(one.extent, Extent{count->second, 0, {}}).first;
    }
    Extent& extent = at->second;
    if (named.insert(one.extent).second && extent.missing != 0) extent.missing--;
    extent.sectors += one.len;
    if (extent.sectors > kSparse)
      extent.pieces.clear();
    else
      extent.pieces.push_back({chunk.row, chunk.chunk, one, 0});
  }
}

std::vector<std::vector<meta::Piece>> Sparse::pack() {
  std::vector<std::vector<meta::Piece>> out;
  std::vector<meta::Piece> filling;
  size_t extents = 0;
  uint32_t end = 0;
  auto next = [&] {
    if (extents > 1) out.push_back(filling);
    filling.clear();
    extents = 0;
    end = 0;
  };
  for (const auto& [id, extent] : extents_) {
    if (extent.missing != 0 || extent.sectors > kSparse || extent.pieces.size() > kPiecesAtOnce)
      continue;
    const uint32_t most =
        extent.sectors + static_cast<uint32_t>(extent.pieces.size()) * (kAligned - 1);
    if (end + most > core::kChunkSectors || filling.size() + extent.pieces.size() > kPiecesAtOnce)
      next();
    extents++;
    for (meta::Piece piece : extent.pieces) {
      if (piece.from.len % kAligned == 0) end = (end + kAligned - 1) / kAligned * kAligned;
      piece.to = static_cast<uint16_t>(end);
      end += piece.from.len;
      filling.push_back(piece);
    }
  }
  next();
  extents_.clear();
  return out;
}

// The holder of a VSD's lease has put pieces together in a reservation of its own.
Outcome gathered(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  const core::ExtentId to{number(args, "extent")};
  if (ask(c, "SELECT count(*) FROM reservation WHERE extent = ? AND node = ? AND life = ?",
          s64(to.value), s64(number(args, "node")), s64(number(args, "life"))) == 0)
    return Error{Code::conflict, "extent " + std::to_string(to.value) + " is not reserved"};
  // A copy that was found to be wrong meanwhile may have been read.
  for (const json::value& value : args.at("sources").as_array()) {
    const json::array& source = value.as_array();
    if (ask(c, "SELECT count(*) FROM copy WHERE extent = ? AND disk = ? AND stale = 0",
            s64(source.at(0).to_number<uint64_t>()), s64(source.at(1).to_number<uint64_t>())) == 0)
      return Error{Code::conflict, "a copy that was read is stale"};
  }
  auto u16 = [](const json::value& v) { return v.to_number<uint16_t>(); };
  std::vector<meta::Piece> pieces;
  for (const json::value& value : args.at("pieces").as_array()) {
    const json::array& one = value.as_array();
    pieces.push_back(
        {one.at(0).to_number<uint64_t>(),
         one.at(1).to_number<uint64_t>(),
         {u16(one.at(2)), u16(one.at(3)), u16(one.at(4)), {one.at(5).to_number<uint64_t>()}},
         u16(one.at(6))});
  }
  if (pieces.empty()) return Error{Code::invalid, "no pieces"};
  CORE_TRY(c.map.gather(vsd->id, pieces, to, c.index));
  if (ask(c, "SELECT count(*) FROM copy WHERE extent = ?", s64(to.value)) != vsd->replicas)
    run(c, "INSERT OR IGNORE INTO wanting VALUES(?)", s64(to.value));
  return json::object{};
}

}  // namespace policy
