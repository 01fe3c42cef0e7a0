#include "core/offset_allocator.h"

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

// The same policy over one flag a unit: slow and obvious.
class NaiveAllocator {
 public:
  NaiveAllocator(size_t units, size_t unit_bytes) : used_(units), unit_bytes_(unit_bytes) {}

  std::optional<size_t> Allocate(size_t bytes) {
    const size_t wanted = (std::max<size_t>(bytes, 1) + unit_bytes_ - 1) / unit_bytes_;
    std::optional<size_t> best;
    size_t best_length = SIZE_MAX;
    for (const auto& [begin, length] : FreeRanges()) {
      if (length < wanted || length >= best_length) continue;
      best = begin;
      best_length = length;
    }
    if (!best) return std::nullopt;
    for (size_t i = 0; i < wanted; ++i) used_[*best + i] = true;
    lengths_[*best * unit_bytes_] = wanted;
    return *best * unit_bytes_;
  }
  void Free(size_t offset) {
    for (size_t i = 0; i < lengths_.at(offset); ++i) used_[offset / unit_bytes_ + i] = false;
    lengths_.erase(offset);
  }
  std::map<size_t, size_t> FreeRanges() const {
    std::map<size_t, size_t> ranges;
    for (size_t i = 0; i < used_.size();) {
      size_t end = i;
      while (end < used_.size() && !used_[end]) ++end;
      if (end > i) ranges[i] = end - i;
      i = std::max(end, i + 1);
    }
    return ranges;
  }
  const std::map<size_t, size_t>& lengths() const { return lengths_; }

 private:
  std::vector<bool> used_;
  size_t unit_bytes_;
  std::map<size_t, size_t> lengths_;
};

TEST(OffsetAllocatorTest, AgreesWithANaiveModelOnRandomOperations) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    constexpr size_t kUnits = 300;
    constexpr size_t kUnitBytes = 64;
    OffsetAllocator allocator(kUnits * kUnitBytes + seed, kUnitBytes);
    NaiveAllocator naive(kUnits, kUnitBytes);
    std::vector<size_t> live;
    for (int step = 0; step < 2000; ++step) {
      // Phases of filling and of draining, so that the space gets full and scattered.
      const bool filling = (step / 200) % 2 == 0;
      if (live.empty() || random() % 10 < (filling ? 7u : 3u)) {
        const size_t bytes = random() % (step % 50 == 0 ? kUnits * kUnitBytes : 20 * kUnitBytes);
        const std::optional<size_t> offset = allocator.Allocate(bytes);
        ASSERT_EQ(offset, naive.Allocate(bytes)) << "seed " << seed << " step " << step;
        if (offset) live.push_back(*offset);
      } else {
        const size_t victim = random() % live.size();
        allocator.Free(live[victim]);
        naive.Free(live[victim]);
        live.erase(live.begin() + static_cast<ptrdiff_t>(victim));
      }
      const OffsetAllocatorStats stats = allocator.Stats();
      size_t used = 0;
      for (const auto& [offset, length] : naive.lengths()) used += length * kUnitBytes;
      size_t largest = 0;
      for (const auto& [begin, length] : naive.FreeRanges()) largest = std::max(largest, length * kUnitBytes);
      ASSERT_EQ(stats.used_bytes, used);
      ASSERT_EQ(stats.allocations, live.size());
      ASSERT_EQ(stats.free_ranges, naive.FreeRanges().size());
      ASSERT_EQ(stats.largest_free_bytes, largest);
    }
  }
}

TEST(OffsetAllocatorTest, FreedNeighboursJoin) {
  OffsetAllocator allocator(4 * 4096, 4096);
  std::vector<size_t> offsets;
  for (int i = 0; i < 4; ++i) offsets.push_back(allocator.Allocate(4096).value());
  EXPECT_EQ(allocator.Allocate(1), std::nullopt);
  allocator.Free(offsets[0]);
  allocator.Free(offsets[2]);
  EXPECT_EQ(allocator.Stats().free_ranges, 2u);
  EXPECT_DOUBLE_EQ(allocator.Stats().Fragmentation(), 0.5);
  EXPECT_EQ(allocator.Allocate(4097), std::nullopt);
  allocator.Free(offsets[1]);
  EXPECT_EQ(allocator.Stats().free_ranges, 1u);
  EXPECT_DOUBLE_EQ(allocator.Stats().Fragmentation(), 0.0);
  EXPECT_EQ(allocator.Allocate(3 * 4096), 0u);
}

TEST(OffsetAllocatorTest, TakesTheRangeThatFitsBest) {
  OffsetAllocator allocator(100, 1);
  const size_t a = allocator.Allocate(30).value();
  ASSERT_TRUE(allocator.Allocate(1).has_value());
  const size_t b = allocator.Allocate(10).value();
  ASSERT_TRUE(allocator.Allocate(1).has_value());
  allocator.Free(a);
  allocator.Free(b);
  EXPECT_EQ(allocator.Allocate(9), b);
}

TEST(OffsetAllocatorTest, HugeSizesAreRefusedWithoutOverflow) {
  OffsetAllocator allocator(4096, 4096);
  EXPECT_EQ(allocator.Allocate(SIZE_MAX), std::nullopt);
  EXPECT_EQ(allocator.Allocate(SIZE_MAX - 4096), std::nullopt);
  EXPECT_EQ(allocator.Allocate(4096), 0u);
  OffsetAllocator empty(4095, 4096);
  EXPECT_EQ(empty.Allocate(1), std::nullopt);
  EXPECT_EQ(empty.Stats().Fragmentation(), 0.0);
}

TEST(OffsetAllocatorDeathTest, FreeingTwiceEndsTheProcess) {
  OffsetAllocator allocator(4096, 4096);
  const size_t offset = allocator.Allocate(1).value();
  allocator.Free(offset);
  EXPECT_DEATH(allocator.Free(offset), "");
}

}  // namespace
}  // namespace epic
