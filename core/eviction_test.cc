#include "core/eviction.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

// Tries every window.
std::optional<EvictionWindow> NaiveWindow(const std::vector<UsedRange>& ranges, size_t capacity, size_t wanted) {
  std::optional<EvictionWindow> best;
  for (size_t begin = 0; begin < ranges.size(); ++begin) {
    size_t evicted = 0;
    for (size_t end = begin + 1; end <= ranges.size() && ranges[end - 1].evictable; ++end) {
      evicted += ranges[end - 1].bytes;
      const size_t run_begin = begin == 0 ? 0 : ranges[begin - 1].offset + ranges[begin - 1].bytes;
      const size_t run_end = end == ranges.size() ? capacity : ranges[end].offset;
      if (run_end - run_begin >= wanted && (!best || evicted < best->evicted_bytes))
        best = EvictionWindow{begin, end, evicted};
    }
  }
  return best;
}

TEST(EvictionTest, AgreesWithTryingEveryWindow) {
  std::mt19937 random(1);
  int found = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<UsedRange> ranges;
    size_t offset = random() % 3;
    const size_t count = random() % 15;
    size_t largest_free = offset;
    for (size_t i = 0; i < count; ++i) {
      const size_t bytes = 1 + random() % 6;
      ranges.push_back({.offset = offset, .bytes = bytes, .evictable = random() % 5 != 0});
      const size_t gap = random() % 3;
      largest_free = std::max(largest_free, gap);
      offset += bytes + gap;
    }
    const size_t capacity = offset + random() % 2;
    largest_free = std::max(largest_free, capacity - (ranges.empty() ? 0 : ranges.back().offset + ranges.back().bytes));
    const size_t wanted = largest_free + 1 + random() % 12;
    const std::optional<EvictionWindow> expected = NaiveWindow(ranges, capacity, wanted);
    const std::optional<EvictionWindow> actual = FindEvictionWindow(ranges, capacity, wanted);
    ASSERT_EQ(actual.has_value(), expected.has_value()) << round;
    if (!expected) continue;
    ++found;
    EXPECT_EQ(actual->evicted_bytes, expected->evicted_bytes);
    // The run is really free afterwards and long enough.
    for (size_t i = actual->begin; i < actual->end; ++i) ASSERT_TRUE(ranges[i].evictable);
    const size_t run_begin =
        actual->begin == 0 ? 0 : ranges[actual->begin - 1].offset + ranges[actual->begin - 1].bytes;
    const size_t run_end = actual->end == ranges.size() ? capacity : ranges[actual->end].offset;
    ASSERT_GE(run_end - run_begin, wanted);
  }
  EXPECT_GT(found, 2000);
}

}  // namespace
}  // namespace epic
