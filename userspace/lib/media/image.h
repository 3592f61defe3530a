// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/result.h"

namespace media {

inline constexpr uint64_t kSector = 512;

/// Of an image, so many bytes from an offset; fewer at its end.
using Read = std::function<core::Result<std::string>(uint64_t offset, size_t bytes)>;

/// What an image is by its first bytes, and where in the file the disk lies.
struct Image {
  std::string format;   ///< iso, raw, qcow2, vmdk, vhdx, or ova
  std::string inner;    ///< the same but for ova: that of the disk in it
  uint64_t offset = 0;  ///< of the disk in the file
  uint64_t bytes = 0;   ///< of it in the file
};

/// Code::invalid, in words for people, for what is not taken: an image that leads to another file
/// (a backing file, data or a description elsewhere), is encrypted, compressed as a whole, or of a
/// kind that is not known here. It is strangers' data: nothing in it is trusted, nothing that it
/// names is opened.
[[nodiscard]] core::Result<Image> identify(const Read& read, uint64_t bytes);

}  // namespace media
