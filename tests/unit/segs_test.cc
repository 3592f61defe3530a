// SPDX-License-Identifier: GPL-2.0
// The kernel's segment arrays against a model that knows one sector at a time.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <utility>

extern "C" {
#include "segs.h"
}

namespace {

constexpr u32 kSectors = SCRIBE_CHUNK_SECTORS;

// The kernel's type ends in a flexible array: storage with room for any chunk.
class Segs {
 public:
  Segs()
      : storage_(static_cast<scribe_segs*>(
            std::calloc(1, sizeof(scribe_segs) + 4096 * sizeof(scribe_seg)))) {
    storage_->capacity = 4096;
  }
  scribe_segs* get() const { return storage_.get(); }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<scribe_segs, Free> storage_;
};

scribe_extent* extent(uintptr_t id) { return reinterpret_cast<scribe_extent*>(id << 4); }

// What each sector maps to: extent (null: nothing) and sector in it.
using Model = std::array<std::pair<scribe_extent*, u32>, kSectors>;

Model expand(const scribe_segs* segs) {
  Model model{};
  for (u32 i = 0; i < segs->nr; i++)
    for (u32 s = 0; s < segs->seg[i].len; s++)
      model[segs->seg[i].start + s] = {segs->seg[i].extent, segs->seg[i].off + s};
  return model;
}

TEST(SegsSplice, RefusesRangesOutsideTheChunkAndChangesNothing) {
  Segs out;
  out.get()->nr = 7;
  EXPECT_EQ(scribe_segs_splice(nullptr, 0, 0, extent(1), 0, out.get()), -EINVAL);
  EXPECT_EQ(scribe_segs_splice(nullptr, kSectors, 1, extent(1), 0, out.get()), -EINVAL);
  EXPECT_EQ(scribe_segs_splice(nullptr, 1, kSectors, extent(1), 0, out.get()), -EINVAL);
  EXPECT_EQ(scribe_segs_splice(nullptr, 0, 2, extent(1), kSectors - 1, out.get()), -EINVAL);
  EXPECT_EQ(scribe_segs_splice(nullptr, ~0U, 2, extent(1), 0, out.get()), -EINVAL);
  EXPECT_EQ(out.get()->nr, 7U);
}

TEST(SegsSplice, RefusesAnArrayThatIsTooSmall) {
  Segs out;
  out.get()->capacity = SCRIBE_SEGS_GROWTH - 1;
  EXPECT_EQ(scribe_segs_splice(nullptr, 0, 8, extent(1), 0, out.get()), -ENOSPC);
}

TEST(SegsSplice, AWriteInTheMiddleSplitsASegmentInThree) {
  Segs a, b;
  ASSERT_EQ(scribe_segs_splice(nullptr, 0, kSectors, extent(1), 0, a.get()), 0);
  ASSERT_EQ(scribe_segs_splice(a.get(), 100, 8, extent(2), 40, b.get()), 0);
  ASSERT_EQ(b.get()->nr, 3U);
  EXPECT_EQ(b.get()->seg[2].start, 108);
  EXPECT_EQ(b.get()->seg[2].off, 108);
  EXPECT_EQ(scribe_segs_cover(b.get(), 100, 8), &b.get()->seg[1]);
  EXPECT_EQ(scribe_segs_cover(b.get(), 100, 9), nullptr);
}

TEST(SegsSplice, SequentialWritesToOneExtentStayOneSegment) {
  Segs bufs[2];
  bufs[0].get()->nr = 0;
  for (u32 at = 0; at < kSectors; at += 8)
    ASSERT_EQ(scribe_segs_splice(bufs[at / 8 % 2].get(), at, 8, extent(1), at,
                                 bufs[(at / 8 + 1) % 2].get()),
              0);
  EXPECT_EQ(bufs[0].get()->nr, 1U);
  EXPECT_EQ(bufs[0].get()->seg[0].len, kSectors);
}

RC_GTEST_PROP(SegsSplice, AnyHistoryEqualsTheModel, ()) {
  Segs bufs[2];
  Model model{};
  const int steps = *rc::gen::inRange(1, 60);
  for (int i = 0; i < steps; i++) {
    const u32 start = *rc::gen::inRange<u32>(0, kSectors);
    const u32 len = *rc::gen::inRange<u32>(1, kSectors - start + 1);
    const u32 off = *rc::gen::inRange<u32>(0, kSectors - len + 1);
    auto* to = *rc::gen::inRange(0, 4) ? extent(*rc::gen::inRange<uintptr_t>(1, 5)) : nullptr;
    const scribe_segs* old = bufs[i % 2].get();
    scribe_segs* fresh = bufs[(i + 1) % 2].get();
    RC_ASSERT(scribe_segs_splice(old, start, len, to, off, fresh) == 0);
    RC_ASSERT(fresh->nr <= old->nr + SCRIBE_SEGS_GROWTH);
    for (u32 s = 0; s < len; s++)
      model[start + s] = to ? std::pair{to, off + s} : std::pair<scribe_extent*, u32>{};
    const bool same = expand(fresh) == model;
    RC_ASSERT(same);
    if (fresh->nr <= SCRIBE_MAX_SEGS) RC_ASSERT(scribe_segs_valid(fresh));
    const u32 pos = *rc::gen::inRange<u32>(0, kSectors);
    const u32 found = scribe_segs_find(fresh, pos);
    // In variables: RC_ASSERT takes an expression apart and so evaluates both sides of ||.
    const bool ends_behind = found == fresh->nr || scribe_seg_end(&fresh->seg[found]) > pos;
    const bool is_first = found == 0 || scribe_seg_end(&fresh->seg[found - 1]) <= pos;
    RC_ASSERT(ends_behind);
    RC_ASSERT(is_first);
  }
}

TEST(SegsValid, RejectsWhatTheDaemonMustNotSend) {
  Segs s;
  auto set = [&](u32 i, u16 start, u16 len, u16 off) {
    s.get()->seg[i] = {extent(1), start, len, off, 0};
  };
  s.get()->nr = 2;
  set(0, 0, 8, 0);
  set(1, 8, 8, 0);
  EXPECT_TRUE(scribe_segs_valid(s.get()));
  set(1, 7, 8, 0);
  EXPECT_FALSE(scribe_segs_valid(s.get())) << "overlap";
  set(1, 8, 0, 0);
  EXPECT_FALSE(scribe_segs_valid(s.get())) << "empty";
  set(1, 2047, 2, 0);
  EXPECT_FALSE(scribe_segs_valid(s.get())) << "beyond the chunk";
  set(1, 8, 8, 2041);
  EXPECT_FALSE(scribe_segs_valid(s.get())) << "beyond the extent";
  s.get()->nr = SCRIBE_MAX_SEGS + 1;
  EXPECT_FALSE(scribe_segs_valid(s.get())) << "too many";
}

}  // namespace
