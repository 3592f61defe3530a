// SPDX-License-Identifier: GPL-2.0
// Segment arrays: any row of changes leaves a valid one that maps each sector to what was last put
// there.
#include <array>
#include <memory>
#include <utility>

#include "fuzz.h"

extern "C" {
#include "segs.h"
}

namespace {

constexpr u32 kCapacity = SCRIBE_MAX_SEGS + SCRIBE_SEGS_GROWTH;

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Segs = std::unique_ptr<scribe_segs, Free>;

Segs make() {
  // Exactly as large as it says, so that a write behind its end is seen.
  Segs out(static_cast<scribe_segs*>(
      std::calloc(1, sizeof(scribe_segs) + kCapacity * sizeof(scribe_seg))));
  out->capacity = kCapacity;
  return out;
}

struct Change {
  u16 start, len, off;
  uint8_t extent;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  std::array<std::pair<scribe_extent*, u32>, SCRIBE_CHUNK_SECTORS> model{};
  Segs now = make();
  while (!input.empty()) {
    const auto change = input.take<Change>();
    auto* extent = reinterpret_cast<scribe_extent*>(uintptr_t{change.extent} << 4);
    Segs next = make();
    const int err =
        scribe_segs_splice(now.get(), change.start, change.len, extent, change.off, next.get());
    const bool inside = change.len > 0 && change.start + change.len <= SCRIBE_CHUNK_SECTORS &&
                        (extent == nullptr || change.off + change.len <= SCRIBE_CHUNK_SECTORS);
    if (err != 0) {
      EXPECT(!inside || now->nr + SCRIBE_SEGS_GROWTH > kCapacity);
      continue;
    }
    EXPECT(inside && scribe_segs_valid(next.get()));
    for (u32 i = 0; i < change.len; i++)
      model[change.start + i] = {extent, extent == nullptr ? 0 : change.off + i};
    now = std::move(next);
  }
  for (u32 at = 0; at < SCRIBE_CHUNK_SECTORS; at++) {
    const u32 i = scribe_segs_find(now.get(), at);
    const bool mapped = i < now->nr && now->seg[i].start <= at;
    EXPECT(mapped == (model[at].first != nullptr));
    EXPECT(!mapped || (now->seg[i].extent == model[at].first &&
                       now->seg[i].off + at - now->seg[i].start == model[at].second));
  }
  return 0;
}
