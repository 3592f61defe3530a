// SPDX-License-Identifier: GPL-2.0
#include "core/segments.h"

#include <algorithm>

namespace core {

namespace {

constexpr size_t kPackedBytes = 14;

void append(Segments& out, ExtentId extent, uint32_t start, uint32_t len, uint32_t off) {
  if (len == 0) return;
  if (!out.empty()) {
    Segment& last = out.back();
    if (last.extent == extent && last.start + last.len == static_cast<int>(start) &&
        last.off + last.len == static_cast<int>(off)) {
      last.len = static_cast<uint16_t>(last.len + len);
      return;
    }
  }
  out.push_back({static_cast<uint16_t>(start), static_cast<uint16_t>(len),
                 static_cast<uint16_t>(off), extent});
}

template <class Int>
void put(std::string& out, Int value) {
  for (size_t i = 0; i < sizeof(value); i++) out.push_back(static_cast<char>(value >> 8 * i));
}

template <class Int>
Int get(std::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(Int); i++)
    value |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << 8 * i;
  return static_cast<Int>(value);
}

}  // namespace

bool valid_range(uint32_t start, uint32_t len, uint32_t off) {
  return len > 0 && start < kChunkSectors && len <= kChunkSectors - start && off < kChunkSectors &&
         len <= kChunkSectors - off;
}

Segments splice(const Segments& old, const Segment& change) {
  const uint32_t start = change.start;
  const uint32_t end = start + change.len;
  Segments out;
  out.reserve(old.size() + 2);
  bool placed = false;
  auto place = [&] {
    if (!placed && change.extent) append(out, change.extent, start, change.len, change.off);
    placed = true;
  };
  for (const Segment& seg : old) {
    const uint32_t seg_end = uint32_t{seg.start} + seg.len;
    if (seg.start < start)
      append(out, seg.extent, seg.start, std::min(seg_end, start) - seg.start, seg.off);
    if (seg_end > start) place();
    if (seg_end > end) {
      const uint32_t from = std::max<uint32_t>(seg.start, end);
      append(out, seg.extent, from, seg_end - from, seg.off + (from - seg.start));
    }
  }
  place();
  return out;
}

std::vector<Difference> differences(const Segments& before, const Segments& after) {
  std::vector<Difference> out;
  auto from = before.begin();
  auto to = after.begin();
  for (uint32_t pos = 0; pos < kChunkSectors;) {
    while (from != before.end() && uint32_t{from->start} + from->len <= pos) ++from;
    while (to != after.end() && uint32_t{to->start} + to->len <= pos) ++to;
    // Up to the next place where one of the two begins or ends.
    uint32_t end = kChunkSectors;
    auto cut = [&](auto at, const Segments& all) {
      if (at == all.end()) return;
      const uint32_t start = at->start;
      end = std::min(end, start > pos ? start : start + at->len);
    };
    cut(from, before);
    cut(to, after);
    auto place = [&](auto at, const Segments& all) {
      return at == all.end() || at->start > pos
                 ? std::pair(ExtentId{}, uint32_t{0})
                 : std::pair(at->extent, at->off + (pos - at->start));
    };
    const auto now = place(to, after);
    if (place(from, before) != now) {
      const bool mapped = static_cast<bool>(now.first);
      if (!out.empty() && out.back().mapped == mapped && out.back().start + out.back().len == pos)
        out.back().len = static_cast<uint16_t>(out.back().len + end - pos);
      else
        out.push_back({static_cast<uint16_t>(pos), static_cast<uint16_t>(end - pos), mapped});
    }
    pos = end;
  }
  return out;
}

std::string pack(const Segments& segments) {
  std::string out;
  out.reserve(segments.size() * kPackedBytes);
  for (const Segment& seg : segments) {
    put(out, seg.start);
    put(out, seg.len);
    put(out, seg.off);
    put(out, seg.extent.value);
  }
  return out;
}

std::optional<Segments> unpack(std::string_view bytes) {
  if (bytes.size() % kPackedBytes != 0) return std::nullopt;
  Segments out;
  out.reserve(bytes.size() / kPackedBytes);
  uint32_t pos = 0;
  for (size_t at = 0; at < bytes.size(); at += kPackedBytes) {
    const Segment seg{get<uint16_t>(bytes, at),
                      get<uint16_t>(bytes, at + 2),
                      get<uint16_t>(bytes, at + 4),
                      {get<uint64_t>(bytes, at + 6)}};
    if (!valid_range(seg.start, seg.len, seg.off) || seg.start < pos || !seg.extent)
      return std::nullopt;
    pos = uint32_t{seg.start} + seg.len;
    out.push_back(seg);
  }
  return out;
}

}  // namespace core
