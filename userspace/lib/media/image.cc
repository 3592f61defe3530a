// SPDX-License-Identifier: GPL-2.0
#include "media/image.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>

namespace media {

namespace {

using core::Code;
using core::Error;
using core::Result;

constexpr size_t kHead = size_t{64} << 10;  // all that is looked at but for members of archives
constexpr uint64_t kTarBlock = 512;
constexpr int kMostMembers = 1000;

Error refused(const std::string& what) { return {Code::invalid, "the image " + what}; }

// Numbers of either order; 0 behind the end.
uint64_t big(std::string_view head, size_t at, size_t bytes) {
  uint64_t out = 0;
  for (size_t i = 0; i < bytes; i++)
    out = out << 8 | (at + i < head.size() ? static_cast<unsigned char>(head[at + i]) : 0);
  return out;
}

uint64_t little(std::string_view head, size_t at, size_t bytes) {
  uint64_t out = 0;
  for (size_t i = bytes; i-- > 0;)
    out = out << 8 | (at + i < head.size() ? static_cast<unsigned char>(head[at + i]) : 0);
  return out;
}

bool has(std::string_view head, size_t at, std::string_view what) {
  return head.size() >= at + what.size() && head.substr(at, what.size()) == what;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// docs/interop/qcow2.txt of QEMU.
Result<void> check_qcow2(std::string_view head) {
  enum : uint64_t { kCorrupt = 1 << 1, kElsewhere = 1 << 2, kKnown = 0x1f };
  const uint64_t version = big(head, 4, 4);
  if (version != 2 && version != 3)
    return refused("is qcow2 of version " + std::to_string(version) + ", which is not known here");
  if (big(head, 8, 8) != 0 || big(head, 16, 4) != 0)
    return refused("has a backing file: flatten it first, with qemu-img convert");
  if (big(head, 32, 4) != 0) return refused("is encrypted");
  if (version == 2) return {};
  const uint64_t features = big(head, 72, 8);
  if ((features & kElsewhere) != 0) return refused("has its data in another file");
  if ((features & kCorrupt) != 0) return refused("is marked as corrupt: see qemu-img check");
  if ((features & ~kKnown) != 0) return refused("needs what is not known here of qcow2");
  return {};
}

// VMware's "Virtual Disk Format": a sparse extent with its description in it. One whose capacity is
// 0 is a description alone, of data that lie in other files.
Result<void> check_vmdk(std::string_view head) {
  constexpr uint64_t kMostDescription = 64;  // sectors
  const uint64_t at = little(head, 28, 8);
  const uint64_t sectors = little(head, 36, 8);
  if (little(head, 12, 8) == 0) return refused("is a description, its data are in other files");
  // Where all who write it have it, and where QEMU looks.
  if (at != 1 || sectors == 0 || sectors > kMostDescription)
    return refused(
        "is one of several files of a VMDK: make one of them, with vmkfstools or "
        "qemu-img");
  const std::string text = lower(head.substr(kSector, sectors * kSector));
  if (text.find("createtype=\"monolithicsparse\"") == std::string::npos &&
      text.find("createtype=\"streamoptimized\"") == std::string::npos)
    return refused("is a VMDK that is not in one file");
  if (text.find("parentfilenamehint") != std::string::npos ||
      text.find("parentcid=ffffffff") == std::string::npos)
    return refused("has a backing file: flatten it first, with vmkfstools or qemu-img convert");
  return {};
}

// What would be taken for the sectors of a disk otherwise, and boot nowhere.
Result<void> is_no_stranger(std::string_view head) {
  struct Stranger {
    size_t at;
    std::string_view magic;
    const char* what;
  };
  static constexpr std::array<Stranger, 14> kStrangers = {{
      {0, {"\x1f\x8b", 2}, "is compressed (gzip): unpack it first"},
      {0, {"\xfd\x37zXZ", 5}, "is compressed (xz): unpack it first"},
      {0, {"BZh", 3}, "is compressed (bzip2): unpack it first"},
      {0, {"\x28\xb5\x2f\xfd", 4}, "is compressed (zstd): unpack it first"},
      {0, {"PK\x03\x04", 4}, "is an archive (zip): unpack it first"},
      {0, {"7z\xbc\xaf\x27\x1c", 6}, "is an archive (7z): unpack it first"},
      {0, {"COWD", 4}, "is a VMDK of a kind that is not known here"},
      {0, {"# Disk DescriptorFile", 21}, "is a description, its data are in other files"},
      {0, {"conectix", 8}, "is a VHD; convert it to VHDX or qcow2"},
      {0, {"cxsparse", 8}, "is a VHD; convert it to VHDX or qcow2"},
      {64, {"\x7f\x10\xda\xbe", 4}, "is a VDI; convert it to qcow2"},
      {0, {"QED\0", 4}, "is a QED; convert it to qcow2"},
      {0, {"LUKS\xba\xbe", 6}, "is encrypted"},
      {0, {"<?xml", 5}, "is a description, its data are in other files"},
  }};
  for (const Stranger& one : kStrangers)
    if (has(head, one.at, one.magic)) return refused(one.what);
  return {};
}

Result<std::string> kind_of(std::string_view head) {
  constexpr size_t kIsoMark = 32769;
  if (has(head, 0, "QFI\xfb")) {
    CORE_TRY(check_qcow2(head));
    return std::string("qcow2");
  }
  if (has(head, 0, "KDMV")) {
    CORE_TRY(check_vmdk(head));
    return std::string("vmdk");
  }
  if (has(head, 0, "vhdxfile")) return std::string("vhdx");
  if (has(head, kIsoMark, "CD001")) return std::string("iso");
  CORE_TRY(is_no_stranger(head));
  return std::string("raw");
}

// Of a member of a tar: octal digits, or binary where they are too few.
uint64_t tar_number(std::string_view field) {
  if (!field.empty() && (static_cast<unsigned char>(field[0]) & 0x80) != 0)
    return big(field, field.size() - 8, 8);
  uint64_t out = 0;
  for (const char c : field)
    if (c >= '0' && c <= '7') out = out * 8 + static_cast<uint64_t>(c - '0');
  return out;
}

// An archive that begins with a machine's description: the disk in it. Nothing is unpacked, and
// names of members lead nowhere.
Result<Image> open_ova(const Read& read, uint64_t bytes) {
  Image out;
  bool described = false;
  uint64_t at = 0;
  for (int i = 0; i < kMostMembers && at + kTarBlock <= bytes; i++) {
    const auto header = read(at, kTarBlock);
    if (!header) return header.error();
    if (header->size() < kTarBlock || (*header)[0] == '\0') break;
    if (!has(*header, 257, "ustar")) return refused("is a damaged archive (tar)");
    std::string name = lower(header->substr(0, 100));
    name.resize(std::min(name.find('\0'), name.size()));
    const uint64_t size = tar_number(std::string_view(*header).substr(124, 12));
    if (size > bytes - at - kTarBlock) return refused("is an archive (tar) that is cut off");
    described = described || name.ends_with(".ovf");
    if (name.ends_with(".gz")) return refused("has a compressed disk: unpack it first");
    if (name.ends_with(".vmdk")) {
      if (out.bytes != 0) return refused("has several disks: unpack it, and upload each of them");
      out.offset = at + kTarBlock;
      out.bytes = size;
    }
    at += kTarBlock + (size + kTarBlock - 1) / kTarBlock * kTarBlock;
  }
  if (!described) return refused("is an archive (tar) that has no machine in it (OVA)");
  if (out.bytes == 0) return refused("has no disk in it");
  out.format = "ova";
  return out;
}

}  // namespace

Result<Image> identify(const Read& read, uint64_t bytes) {
  const auto head = read(0, std::min<uint64_t>(kHead, bytes));
  if (!head) return head.error();
  Image out;
  if (has(*head, 257, "ustar")) {
    auto archive = open_ova(read, bytes);
    if (!archive) return archive;
    out = *archive;
    const auto disk = read(out.offset, std::min<uint64_t>(kHead, out.bytes));
    if (!disk) return disk.error();
    auto inner = kind_of(*disk);
    if (!inner) return inner.error();
    if (*inner != "vmdk") return refused("has a disk that is no VMDK");
    out.inner = std::move(*inner);
    return out;
  }
  auto kind = kind_of(*head);
  if (!kind) return kind.error();
  out.format = *kind;
  out.inner = std::move(*kind);
  out.bytes = bytes;
  return out;
}

}  // namespace media
