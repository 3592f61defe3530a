// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/id.h"
#include "core/segments.h"
#include "meta/database.h"

namespace meta {

/// Of VSDs and snapshots: 1 to 64 letters, digits, '-', '_' or '.', neither '-' nor '.' first.
[[nodiscard]] bool valid_name(const std::string& name);

struct Copy {
  core::DiskId disk;
  uint32_t slot = 0;
  bool stale = false;

  friend bool operator==(const Copy&, const Copy&) = default;
};

/// One change of a VSD's map, as the kernel's batch gives it: extent 0 unmaps.
struct Op {
  uint64_t chunk = 0;
  core::Segment segment;
};

/// A copy that misses data from this batch on; a suspect misses none that was flushed, and may
/// differ from the others.
struct Stale {
  core::ExtentId extent;
  core::DiskId disk;
  bool suspect = false;
};

/// A batch of one VSD, committed as a whole or not at all.
struct Batch {
  core::VsdId vsd;
  uint64_t epoch = 0;
  std::vector<Op> ops;
  std::vector<Stale> stales;
};

struct MappedExtent {
  core::ExtentId id;
  bool exclusive = false;  ///< born after the VSD's last snapshot, in this VSD, mapped by it alone
  std::vector<Copy> copies;
};

/// What a node needs to know of a leaf: 16 chunks and the extents that they name.
struct Leaf {
  std::vector<core::Segments> chunks;
  std::vector<MappedExtent> extents;
};

/// What a VSD and its snapshots have of a leaf: each chunk in all its versions.
struct History {
  struct Chunk {
    uint64_t chunk = 0;
    core::Segments segments;
    uint64_t row = 0;   ///< of the tree: what has the same row is one
    bool live = false;  ///< the VSD is so now, perhaps snapshots as well
  };
  std::vector<Chunk> chunks;
  std::vector<MappedExtent> extents;
};

/// A range of a chunk, in all versions that have this row of the tree, whose data is in another
/// extent as well.
struct Piece {
  uint64_t row = 0;
  uint64_t chunk = 0;
  core::Segment from;
  uint16_t to = 0;  ///< sector in the other extent

  friend bool operator==(const Piece&, const Piece&) = default;
};

/// What a VSD's map leads to elsewhere than before, and in which epoch of its lease that is said.
struct Moved {
  core::VsdId vsd;
  uint64_t epoch = 0;
  MappedExtent to;
  std::vector<Piece> pieces;
};

/// How much of a VSD lies on a disk.
struct DiskShare {
  core::DiskId disk;
  uint64_t copies = 0;
  uint64_t stale = 0;
};

/// A version of a VSD: the VSD itself as it is now, or a snapshot.
struct Version {
  uint64_t sectors = 0;
  uint64_t root = 0;
};

/// What differs between two versions, in order; neighbours are one.
struct Change {
  uint64_t sector = 0;
  uint64_t sectors = 0;
  bool mapped = false;  ///< in the second version; else it reads as zeros there

  friend bool operator==(const Change&, const Change&) = default;
};
struct Diff {
  std::vector<Change> changes;
  std::optional<uint64_t> next;  ///< go on from this chunk; nothing: that is all
};

/// In slots of one disk: each has so many copies.
struct Usage {
  uint64_t logical_sectors = 0;  ///< mapped
  uint64_t referenced = 0;       ///< extents that it leads to
  uint64_t unique = 0;           ///< of these, no other version does
};

struct Spread {
  uint64_t mapped_sectors = 0;
  uint64_t extents = 0;
  uint64_t pieces = 0;  ///< requests, at least, by which all of it is read
  std::vector<DiskShare> disks;
};

/// The virtual disks and their maps: a persistent tree of rows for each root.
///
///   root -> inner (64 children) ... -> leaf (16 chunks) -> chunk (packed segments)
///
/// A row with one reference is changed in its place; one with more is copied first and its children
/// counted up, so a snapshot is a second reference to the root and costs nothing. An extent's count
/// is the number of chunk rows that name it; at zero its slots go into quarantine.
///
/// Changes must run inside Database::prepare(). `index` is the log entry that they will become.
class Map {
 public:
  explicit Map(Database& database) : database_(database) {}

  /// Code::conflict where the name is taken, Code::invalid for a bad name, size or replica count.
  Result<core::VsdId> create_vsd(const std::string& name, uint64_t sectors, uint32_t replicas);
  /// The VSD that holds a medium; see Vsd::is_medium().
  Result<core::VsdId> create_medium(uint64_t medium, uint64_t sectors, uint32_t replicas);

  /// Its map is garbage for reap(), its name free for another. Its row stays, deleted and with a
  /// name that no other can have, as long as it has snapshots, or others lead to what it filled:
  /// see forget_deleted().
  Result<void> delete_vsd(core::VsdId vsd);
  /// Drops the rows of deleted VSDs that nothing is left of.
  Result<void> forget_deleted();

  /// Grows a VSD. Shrinking is refused: what lies behind the new end would be lost.
  Result<void> resize_vsd(core::VsdId vsd, uint64_t sectors);

  /// Gives the lease to a life of a node; the epoch grows even where the same node gets it again.
  /// Whether the holder before may still write is the caller's to know.
  Result<uint64_t> grant_lease(core::VsdId vsd, core::NodeId node, uint64_t life);

  /// Extents that are allocated and not mapped, held by one life of a node.
  Result<core::ExtentId> reserve(std::span<const Copy> copies, core::NodeId node, uint64_t life);

  /// Commits a batch under its lease epoch (else Code::stale). Reservations that it names become
  /// extents born at `index`. Stale marks for reservations that it does not name are dropped: no
  /// map leads there.
  Result<void> commit(const Batch& batch, uint64_t index);

  /// The pieces are mapped to a reservation of the node's from now on, in every version that has
  /// their rows; what that frees goes into quarantine. Code::conflict where one is not mapped so
  /// any more. The VSD is one that leads to all of them.
  Result<void> gather(core::VsdId vsd, std::span<const Piece> pieces, core::ExtentId to,
                      uint64_t index);
  /// What was gathered behind an entry, as VSDs see it whose leases a life of a node has.
  Result<std::vector<Moved>> gathered(uint64_t behind, core::NodeId node, uint64_t life);
  /// Whether a row of the tree leads there still.
  Result<bool> has(const Piece& piece);
  /// How many chunk rows name each.
  Result<std::map<core::ExtentId, uint64_t>> references(const std::set<core::ExtentId>& extents);

  /// A second reference to the root: from here on, what was born up to `index` is shared. Names are
  /// those of VSDs, each once for a VSD; `now` in seconds since 1970.
  Result<core::SnapshotId> snapshot(core::VsdId vsd, const std::string& name, uint64_t index,
                                    int64_t now);
  Result<void> delete_snapshot(core::SnapshotId snapshot);

  /// A VSD of its own that begins as the snapshot is: a third reference to the root.
  Result<core::VsdId> clone(core::SnapshotId snapshot, const std::string& name, uint32_t replicas);
  /// The same as the VSD that holds a medium.
  Result<core::VsdId> clone_medium(core::SnapshotId snapshot, uint64_t medium, uint32_t replicas);
  /// The same of a VSD as it is now: from here on, what was born in it up to `index` is shared.
  Result<core::VsdId> clone(core::VsdId vsd, const std::string& name, uint32_t replicas,
                            uint64_t index);
  /// A VSD by which a node reads a snapshot. Nobody writes to it.
  Result<core::VsdId> view(core::SnapshotId snapshot, core::NodeId node);

  /// The VSD is as the snapshot of it is, in size as well. What it was is garbage for reap().
  /// Nobody may have the lease. Code::invalid for a snapshot of another VSD.
  Result<void> revert(core::VsdId vsd, core::SnapshotId snapshot);

  /// Drops garbage, up to so many tree rows: a big deletion is many small entries. How many it did;
  /// 0 when there is none left.
  Result<uint64_t> reap(uint64_t rows, uint64_t index);

  /// Read-only.
  Result<Leaf> leaf(core::VsdId vsd, uint64_t leaf);
  /// One extent as a VSD sees it; Code::not_found where it is not mapped any more.
  Result<MappedExtent> extent(core::ExtentId id, core::VsdId vsd);
  /// Walks the whole map of a VSD.
  Result<Spread> spread(core::VsdId vsd);
  /// The first leaf, from one on, that may have something mapped in a VSD or one of its snapshots.
  Result<std::optional<uint64_t>> next_leaf(core::VsdId vsd, uint64_t from);
  /// All versions of a leaf. Costs the number of snapshots, at most.
  Result<History> history(core::VsdId vsd, uint64_t leaf);
  Result<core::Segments> snapshot_chunk(core::SnapshotId snapshot, uint64_t chunk);
  Result<Version> version(core::VsdId vsd);
  Result<Version> version(core::SnapshotId snapshot);
  /// From a chunk on, until there are `most` changes or some more; costs what differs. A change
  /// that crosses the end of such a piece comes in two.
  Result<Diff> diff(const Version& from, const Version& to, uint64_t chunk, size_t most);
  /// Walks all of it.
  Result<Usage> usage(const Version& version);
  /// How many extents go when these all go, and nothing else changes; costs what would go.
  Result<uint64_t> freed_by(std::span<const Version> versions);

  /// Recounts every reference and slot from scratch; each contradiction is one line.
  Result<std::vector<std::string>> verify();

 private:
  struct Row {
    int64_t level = 0;
    int64_t refs = 0;
    std::string body;
  };
  using Changes =
      std::vector<std::pair<uint64_t, std::vector<core::Segment>>>;  // chunk -> in order

  uint64_t next_id(const char* counter);
  Result<core::VsdId> put_vsd(const std::string& name, uint64_t sectors, uint32_t replicas);
  Row read_row(uint64_t id);
  void write_row(uint64_t id, const Row& row);
  uint64_t insert_row(int64_t level, std::string body);
  uint64_t own(uint64_t id, Row& row, int64_t level);
  uint64_t change(uint64_t id, int64_t level, std::span<const Changes::value_type> changes,
                  uint64_t first_chunk, uint64_t index);
  uint64_t change_chunk(uint64_t id, const std::vector<core::Segment>& segments, uint64_t index);
  void count_extents(const core::Segments& before, const core::Segments& after, uint64_t index);
  void add_extent_ref(core::ExtentId extent, uint64_t index);
  void drop_extent_ref(core::ExtentId extent);
  void free_unreferenced(uint64_t index);
  void drop_row(uint64_t id, uint64_t index);
  void add_row_ref(uint64_t id);
  void discard(uint64_t root);
  Result<core::VsdId> clone_of(const Version& from, const std::string& name, uint32_t replicas);
  void share(core::VsdId vsd, uint64_t index);
  void walk(uint64_t id, const std::function<void(const core::Segments&)>& visit);
  struct Place {
    uint64_t id = 0;
    int64_t level = 0;
  };
  std::vector<Place> children(const Place& of, int64_t level);
  bool diff_below(const Place& from, const Place& to, int64_t level, uint64_t first,
                  uint64_t from_chunk, size_t most, Diff& out);
  struct Remains;
  void without(uint64_t id, Remains& left);
  Result<Version> version_by(const char* query, uint64_t id, const Error& missing);
  uint64_t newest(const core::Segments& segments, core::VsdId vsd);
  uint64_t leaf_row(uint64_t root, int64_t level, uint64_t leaf);
  std::optional<uint64_t> find_leaf(uint64_t id, int64_t level, uint64_t first, uint64_t from);
  core::Segments find_chunk(uint64_t root, int64_t level, uint64_t chunk);
  std::set<std::pair<int64_t, uint64_t>> roots(core::VsdId vsd);
  Result<MappedExtent> mapped_extent(core::ExtentId id, core::VsdId vsd, uint64_t last_snapshot);

  Database& database_;
  core::VsdId committing_;  // whose batch is being committed: filler of extents born now
  // That some row does not name any more: another may, in the same change.
  std::set<core::ExtentId> dropped_;
};

}  // namespace meta
