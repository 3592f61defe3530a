// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "journal/log.h"

namespace journal {

/// The log of a single node: records in files of one directory.
///
/// Indexes are contiguous. append() returns when the record is on stable storage. After a write or
/// sync that failed it is unknown what is on the disk, so the object refuses everything but reading
/// until the log is opened again: open() finds out. At most the last record can be torn; it is cut
/// off. Anything else that does not add up is Code::corrupt and left untouched.
///
/// One thread uses an object; one process a directory.
class LocalLog final : public Log {
 public:
  /// `file_bytes`: a file that has reached it is closed and the next record begins a new one.
  [[nodiscard]] static Result<std::unique_ptr<LocalLog>> open(
      const std::filesystem::path& directory, size_t file_bytes = size_t{64} << 20);
  ~LocalLog() override;
  LocalLog(const LocalLog&) = delete;
  LocalLog& operator=(const LocalLog&) = delete;

  /// Code::conflict unless index == head() + 1; Code::corrupt where prev_hash is not the head's;
  /// Code::invalid for too large a payload; all without effect. Code::unknown where the disk
  /// failed: the entry may be there after the next open().
  [[nodiscard]] Result<Entry> append(uint64_t index, uint64_t prev_hash,
                                     std::string payload) override;

  /// A single node leads always.
  [[nodiscard]] Result<View> tend(uint64_t applied) override;
  [[nodiscard]] Result<std::vector<Entry>> read_from(uint64_t index, size_t limit) override;

  /// Code::not_found outside first()..head().
  [[nodiscard]] Result<Entry> read(uint64_t index) const;

  /// Drops whole files that hold nothing behind `index`.
  [[nodiscard]] Result<void> trim(uint64_t index) override;

  uint64_t head() const { return head_; }
  uint64_t head_hash() const { return head_hash_; }
  /// The oldest entry that can be read; head() + 1 where there is none.
  uint64_t first() const { return files_.empty() ? head_ + 1 : files_.begin()->first; }

 private:
  struct File {
    std::filesystem::path path;
    int fd = -1;
    uint64_t prev_hash = 0;                // of the entry before its first
    std::map<uint64_t, uint64_t> offsets;  // index -> where its record begins
    uint64_t bytes = 0;
  };

  LocalLog(std::filesystem::path directory, size_t file_bytes)
      : directory_(std::move(directory)), file_bytes_(file_bytes) {}
  Result<void> load();
  Result<void> load_file(const std::filesystem::path& path, bool last);
  Result<void> start_file();
  Result<void> sync_directory() const;

  std::filesystem::path directory_;
  size_t file_bytes_;
  std::map<uint64_t, File> files_;  // by the index of their first record
  uint64_t head_ = 0;
  uint64_t head_hash_ = 0;
  bool failed_ = false;
};

}  // namespace journal
