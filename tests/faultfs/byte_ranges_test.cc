#include "tests/faultfs/byte_ranges.h"

#include <bitset>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic::faultfs {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(ByteRangesTest, RangesThatTouchBecomeOne) {
  ByteRanges ranges;
  ranges.Add(10, 20);
  ranges.Add(30, 40);
  ranges.Add(5, 5);
  EXPECT_THAT(ranges.ranges(), ElementsAre(Pair(10, 20), Pair(30, 40)));
  ranges.Add(20, 30);
  EXPECT_THAT(ranges.ranges(), ElementsAre(Pair(10, 40)));
  ranges.Add(50, ByteRanges::kEndless);
  EXPECT_THAT(ranges.ranges(), ElementsAre(Pair(10, 40), Pair(50, ByteRanges::kEndless)));
}

TEST(ByteRangesTest, HoldsTheBytesThatWereAddedAndNoOthers) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    ByteRanges ranges;
    std::bitset<100> expected;
    for (int i = 0; i < 12; ++i) {
      const int begin = static_cast<int>(random() % 90);
      const int end = begin + static_cast<int>(random() % 10);
      ranges.Add(begin, end);
      for (int byte = begin; byte < end; ++byte) expected.set(byte);
    }
    std::bitset<100> held;
    int64_t last_end = -1;
    for (const auto& [begin, end] : ranges.ranges()) {
      ASSERT_GT(begin, last_end) << "ranges touch";
      ASSERT_LT(begin, end);
      last_end = end;
      for (int64_t byte = begin; byte < end; ++byte) held.set(byte);
    }
    ASSERT_EQ(held, expected);
  }
}

}  // namespace
}  // namespace epic::faultfs
