#include "storage/disk_space.h"

#include <map>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr size_t kAlignment = 4096;

ChunkKey Key(uint8_t number) {
  ChunkKey key;
  key.bytes.fill(number);
  return key;
}

TEST(DiskSpaceTest, TakesTheSegmentThatFitsBest) {
  DiskSpace space(kAlignment);
  EXPECT_FALSE(space.Allocate(1, Key(1)).has_value());
  space.AddSegment(1, 10 * kAlignment);
  space.AddSegment(2, 4 * kAlignment);
  EXPECT_EQ(space.Allocate(2 * kAlignment + 1, Key(1)), (DiskRange{2, 0, 3 * kAlignment}));
  EXPECT_EQ(space.Allocate(2 * kAlignment, Key(2)), (DiskRange{1, 0, 2 * kAlignment}));
  EXPECT_EQ(space.largest_free_bytes(), 8 * kAlignment);
  EXPECT_FALSE(space.Allocate(9 * kAlignment, Key(3)).has_value());
  EXPECT_EQ(space.used_bytes(), 5 * kAlignment);
  EXPECT_EQ(space.capacity_bytes(), 14 * kAlignment);
  space.Free({1, 0, 2 * kAlignment});
  EXPECT_EQ(space.Allocate(9 * kAlignment, Key(3)), (DiskRange{1, 0, 9 * kAlignment}));
}

TEST(DiskSpaceTest, ARestartFindsTheSameRangesAndGaps) {
  const std::vector<DiskSpace::Owned> owned = {{{7, kAlignment, kAlignment}, Key(1)},
                                               {{7, 2 * kAlignment, 2 * kAlignment}, Key(2)},
                                               {{7, 7 * kAlignment, kAlignment}, Key(3)}};
  DiskSpace space(kAlignment);
  space.AddSegment(7, 9 * kAlignment, owned);
  EXPECT_EQ(space.used_bytes(), 4 * kAlignment);
  EXPECT_EQ(space.largest_free_bytes(), 3 * kAlignment);
  EXPECT_EQ(space.Allocate(3 * kAlignment, Key(4)), (DiskRange{7, 4 * kAlignment, 3 * kAlignment}));
  EXPECT_EQ(space.Allocate(1, Key(5)), (DiskRange{7, 0, kAlignment}));
  EXPECT_EQ(space.Allocate(1, Key(6)), (DiskRange{7, 8 * kAlignment, kAlignment}));
  EXPECT_FALSE(space.Allocate(1, Key(7)).has_value());
  space.Free(owned[1].range);
  EXPECT_EQ(space.largest_free_bytes(), 2 * kAlignment);
}

TEST(DiskSpaceTest, FindsTheCheapestNeighboursThatMayGo) {
  DiskSpace space(kAlignment);
  space.AddSegment(1, 6 * kAlignment);
  for (uint8_t i = 0; i < 6; ++i) EXPECT_TRUE(space.Allocate(1, Key(i)).has_value());
  space.Free({1, 4 * kAlignment, kAlignment});
  // Of the pairs of neighbours, the one beside the gap costs one block only.
  const auto any = [](const DiskSpace::Owned&) { return true; };
  std::vector<DiskSpace::Owned> window = space.FindWindow(1, 2 * kAlignment, any);
  ASSERT_EQ(window.size(), 1u);
  EXPECT_EQ(window[0].key, Key(3));
  window = space.FindWindow(1, 2 * kAlignment, [](const DiskSpace::Owned& owned) { return owned.key != Key(3); });
  ASSERT_EQ(window.size(), 1u);
  EXPECT_EQ(window[0].key, Key(5));
  EXPECT_THAT(space.FindWindow(1, 2 * kAlignment, [](const DiskSpace::Owned&) { return false; }), testing::IsEmpty());
}

TEST(DiskSpaceTest, NoRangeIsHandedOutTwice) {
  std::mt19937 random(3);
  DiskSpace space(kAlignment);
  for (uint32_t segment = 1; segment <= 4; ++segment) space.AddSegment(segment, 32 * kAlignment);
  std::map<std::pair<uint32_t, size_t>, DiskRange> held;
  for (int step = 0; step < 5000; ++step) {
    if (random() % 2 == 0 || held.empty()) {
      const auto range = space.Allocate(1 + random() % (6 * kAlignment), Key(1));
      if (!range) continue;
      const auto next = held.upper_bound({range->segment, range->offset});
      if (next != held.end() && next->first.first == range->segment) {
        ASSERT_LE(range->offset + range->bytes, next->second.offset);
      }
      if (next != held.begin() && std::prev(next)->first.first == range->segment) {
        ASSERT_LE(std::prev(next)->second.offset + std::prev(next)->second.bytes, range->offset);
      }
      held[{range->segment, range->offset}] = *range;
    } else {
      const auto victim = std::next(held.begin(), static_cast<std::ptrdiff_t>(random() % held.size()));
      space.Free(victim->second);
      held.erase(victim);
    }
  }
}

}  // namespace
}  // namespace epic
