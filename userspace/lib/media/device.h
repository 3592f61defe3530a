// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace media {

/// A block device past the page cache: what was read is what lies there, what was written is there
/// after flush(). Offsets are multiples of 512.
class Device {
 public:
  Device() = default;
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] core::Result<void> open(const std::string& path, bool to_write);
  /// Fewer at its end.
  [[nodiscard]] core::Result<std::string> read(uint64_t offset, size_t bytes) const;
  /// Zeroes behind the last byte, up to the next multiple of 512.
  [[nodiscard]] core::Result<void> write(uint64_t offset, std::string_view bytes) const;
  [[nodiscard]] core::Result<void> flush() const;

 private:
  core::Error failed(const char* what) const;

  std::string path_;
  int fd_ = -1;
};

/// SHA-256 of what is added, piece by piece.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void add(std::string_view bytes);
  /// In hexadecimal; nothing may be added after that.
  std::string end();

 private:
  struct State;
  State* const state_;
};

}  // namespace media
