// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/result.h"
#include "media/image.h"

namespace media {

/// How a command is run where it reads strangers' data: it sees /usr and the devices alone, has no
/// network, no capabilities and limited memory, and ends with who began it.
/// `devices`: paths here, and what they are called there.
[[nodiscard]] std::vector<std::string> confined(
    const std::vector<std::pair<std::string, std::string>>& devices,
    const std::vector<std::string>& command);

/// What qemu-img opens: the disk in an image that is in the device "/image", and nothing else.
[[nodiscard]] std::string source_of(const Image& image);

/// How many bytes the disk has, by what qemu-img says of it; Code::invalid, in its words, where it
/// makes nothing of it; Code::storage where it cannot be run.
[[nodiscard]] core::Result<uint64_t> disk_bytes(const std::string& device, const Image& image);
/// The same from its answer, which is JSON.
[[nodiscard]] core::Result<uint64_t> disk_bytes_in(const std::string& answer);

/// Writes the disk in an image to a device. `goes_on` is asked with the progress, of 1000, at least
/// each second; false ends it. Code::conflict where that was so, Code::invalid in qemu-img's words,
/// Code::storage where it cannot be run.
[[nodiscard]] core::Result<void> convert(const std::string& device, const Image& image,
                                         const std::string& to,
                                         const std::function<bool(uint64_t done)>& goes_on);

/// Writes a device's so many bytes as qcow2 into another device; how long that file is, which is
/// less than the device. Ends and fails as convert() does.
[[nodiscard]] core::Result<uint64_t> convert_to_qcow2(
    const std::string& device, uint64_t bytes, const std::string& to,
    const std::function<bool(uint64_t done)>& goes_on);
/// How long that is, by the answer of "qemu-img check".
[[nodiscard]] core::Result<uint64_t> end_in(const std::string& answer);

/// The last progress in what qemu-img wrote, "(12.34/100%)", of 1000.
[[nodiscard]] uint64_t progress_in(const std::string& output);

}  // namespace media
