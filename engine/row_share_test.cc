#include "engine/row_share.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace epic {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Shares(const std::vector<int64_t>& wanted, int32_t rows_max, uint64_t turn = 0) {
  return ShareRows(wanted, rows_max, turn);
}

TEST(RowShareTest, OneAloneHasEverything) {
  EXPECT_THAT(Shares({}, 100), ElementsAre());
  EXPECT_THAT(Shares({1000}, 100), ElementsAre(100));
  EXPECT_THAT(Shares({30}, 100), ElementsAre(30));
}

TEST(RowShareTest, HalfForTheOldestAndTheRestGoesRound) {
  EXPECT_THAT(Shares({7000, 50}, 256), ElementsAre(206, 50));
  EXPECT_THAT(Shares({7000, 7000}, 256), ElementsAre(128, 128));
  EXPECT_THAT(Shares({7000, 500, 500}, 256), ElementsAre(128, 64, 64));
  EXPECT_THAT(Shares({10, 500, 500}, 256), ElementsAre(10, 123, 123));
  EXPECT_THAT(Shares({7000, 500, 500, 500}, 64, 0), ElementsAre(32, 16, 16, 0));
  EXPECT_THAT(Shares({7000, 500, 500, 500}, 64, 1), ElementsAre(32, 0, 16, 16));
  EXPECT_THAT(Shares({7000, 500, 500, 500}, 64, 2), ElementsAre(32, 16, 0, 16));
  EXPECT_THAT(Shares({5, 5}, 1), ElementsAre(1, 0));
}

TEST(RowShareTest, NothingIsWastedAndEverybodyMoves) {
  for (const int32_t rows_max : {1, 16, 32, 64, 255}) {
    std::vector<int64_t> wanted = {900, 3, 200, 1, 77, 500, 64, 8, 8, 8};
    const int64_t total = std::accumulate(wanted.begin(), wanted.end(), int64_t{0});
    std::vector<int64_t> left = wanted;
    int64_t steps = 0;
    for (int64_t done = 0; done < total; ++steps) {
      std::erase(left, 0);
      const std::vector<int32_t> shares = ShareRows(left, rows_max, static_cast<uint64_t>(steps));
      int32_t sum = 0;
      for (size_t i = 0; i < left.size(); ++i) {
        ASSERT_GE(shares[i], 0);
        ASSERT_LE(shares[i], left[i]);
        left[i] -= shares[i];
        sum += shares[i];
      }
      ASSERT_EQ(sum, std::min<int64_t>(rows_max, total - done));
      done += sum;
    }
    EXPECT_EQ(steps, (total + rows_max - 1) / rows_max);
  }
}

}  // namespace
}  // namespace epic
