#include "eval/bootstrap.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace epic::eval {
namespace {

TEST(BootstrapMeanTest, OfAConstantIsThatConstant) {
  const Interval interval = BootstrapMean(std::vector<double>(30, 0.25), 1);
  EXPECT_EQ(interval.mean, 0.25);
  EXPECT_EQ(interval.low, 0.25);
  EXPECT_EQ(interval.high, 0.25);
}

TEST(BootstrapMeanTest, OfOneExampleIsThatExample) {
  const Interval interval = BootstrapMean(std::vector<double>{0.7}, 1);
  EXPECT_EQ(interval.mean, 0.7);
  EXPECT_EQ(interval.low, 0.7);
  EXPECT_EQ(interval.high, 0.7);
}

TEST(BootstrapMeanTest, OfTwoExamplesIsWhatEnumerationGives) {
  // The resamples' means are 0, 0.5 and 1 with probabilities 1/4, 1/2 and 1/4: both quantiles are at the ends.
  const Interval interval = BootstrapMean(std::vector<double>{0, 1}, 1);
  EXPECT_EQ(interval.mean, 0.5);
  EXPECT_EQ(interval.low, 0);
  EXPECT_EQ(interval.high, 1);
}

TEST(BootstrapMeanTest, CutsTwoAndAHalfPerCentOffEachEnd) {
  // Of nine examples one is 1; how often it is drawn is binomial with p = 1/9. At most twice: 0.931, at most three
  // times: 0.988. So the 97.5 % quantile is 3/9; an 85 % interval would end at 2/9, a 99 % one at 4/9.
  std::vector<double> values(9, 0.0);
  values[4] = 1;
  const Interval interval = BootstrapMean(values, 1);
  EXPECT_NEAR(interval.mean, 1.0 / 9, 1e-12);
  EXPECT_EQ(interval.low, 0);
  EXPECT_NEAR(interval.high, 3.0 / 9, 1e-12);
}

TEST(BootstrapMeanTest, OfABigSampleIsTheNormalApproximation) {
  // 0, 1/n .. (n-1)/n: variance (1 - 1/n^2) / 12.
  constexpr int kCount = 2000;
  std::vector<double> values;
  for (int i = 0; i < kCount; ++i) values.push_back(static_cast<double>(i) / kCount);
  const double half = 1.959964 * std::sqrt(1.0 / 12 / kCount);
  const double mean = 0.5 - 0.5 / kCount;
  const Interval interval = BootstrapMean(values, 3);
  EXPECT_NEAR(interval.mean, mean, 1e-12);
  // The quantiles of 10,000 draws have a standard error of 1.4 % of the half width.
  EXPECT_NEAR(interval.low, mean - half, 0.05 * half);
  EXPECT_NEAR(interval.high, mean + half, 0.05 * half);
}

TEST(BootstrapMeanTest, TheSeedDecidesAndNothingElse) {
  const std::vector<double> values = {0.1, 0.9, 0.35, 0.4, 0.75, 0.2, 0.05};
  const Interval once = BootstrapMean(values, 5, 300), again = BootstrapMean(values, 5, 300);
  EXPECT_EQ(once.low, again.low);
  EXPECT_EQ(once.high, again.high);
  const Interval other = BootstrapMean(values, 6, 300);
  EXPECT_EQ(once.mean, other.mean);
  EXPECT_TRUE(once.low != other.low || once.high != other.high);
}

TEST(BootstrapMeanTest, DrawsAnIndexAsTheRemainderOfTheGenerator) {
  // With the seed 1 the first ten numbers of TaskRandom, by the published algorithms (SplitMix64 of the seed, then
  // mt19937_64) in another language, end in the digits 2 8 4 4 9 3 6 5 8 0: the examples of the only resample.
  std::vector<double> values(10);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  const Interval interval = BootstrapMean(values, 1, 1);
  EXPECT_NEAR(interval.mean, 4.5, 1e-12);
  EXPECT_NEAR(interval.low, 4.9, 1e-12);
  EXPECT_NEAR(interval.high, 4.9, 1e-12);
}

TEST(BootstrapPairedDifferenceTest, PairsTakeAwayWhatTheExamplesShare) {
  std::vector<double> a, b;
  for (int i = 0; i < 100; ++i) {
    b.push_back(i);
    a.push_back(i + (i % 2 == 0 ? 0.5 : 1.5));
  }
  const Interval paired = BootstrapPairedDifference(a, b, 1);
  EXPECT_NEAR(paired.mean, 1, 1e-12);
  // The differences have a deviation of 0.5: 1 +- 1.96 * 0.05. Unpaired the examples' own deviation of 29 would count.
  EXPECT_NEAR(paired.low, 0.902, 0.01);
  EXPECT_NEAR(paired.high, 1.098, 0.01);
}

TEST(BootstrapPairedDifferenceTest, HasASign) {
  const std::vector<double> a = {0.25, 0.5}, b = {0.75, 1};
  const Interval interval = BootstrapPairedDifference(a, b, 1);
  EXPECT_EQ(interval.mean, -0.5);
  EXPECT_EQ(interval.low, -0.5);
  EXPECT_EQ(interval.high, -0.5);
}

TEST(BootstrapGapClosedTest, IsARatioOfMeansAndNotAMeanOfRatios) {
  // Pairs (0.1, 1) and (1.8, 2): 1 - 1.9 / 3, where the mean of the ratios would give 0.5. Resamples: 0.9, that, 0.1.
  const Interval interval = BootstrapGapClosed(std::vector<double>{0.1, 1.8}, std::vector<double>{1, 2}, 1);
  EXPECT_NEAR(interval.mean, 1 - 1.9 / 3, 1e-12);
  EXPECT_NEAR(interval.low, 0.1, 1e-12);
  EXPECT_NEAR(interval.high, 0.9, 1e-12);
}

TEST(BootstrapGapClosedTest, ExamplesAreDrawnInPairs) {
  // Half of the gap at every example, however wide it is.
  const Interval interval = BootstrapGapClosed(std::vector<double>{1, 3, 0.5, 8}, std::vector<double>{2, 6, 1, 16}, 1);
  EXPECT_EQ(interval.mean, 0.5);
  EXPECT_EQ(interval.low, 0.5);
  EXPECT_EQ(interval.high, 0.5);
}

TEST(BootstrapGapClosedTest, IsNegativeWhereTheLinkerIsWorse) {
  EXPECT_NEAR(BootstrapGapClosed(std::vector<double>{3}, std::vector<double>{2}, 1).mean, -0.5, 1e-12);
}

TEST(BootstrapGapClosedTest, ResamplesWithoutAGapAreLeftOut) {
  // A quarter of the resamples is the first example twice, which has no gap; all others give 0.75 or, with the first
  // example's 0.5 in the linker's sum, 0.625 (1 - (0.5 + 1) / 4).
  const Interval interval = BootstrapGapClosed(std::vector<double>{0.5, 1}, std::vector<double>{0, 4}, 1);
  EXPECT_NEAR(interval.mean, 0.625, 1e-12);
  EXPECT_NEAR(interval.low, 0.625, 1e-12);
  EXPECT_NEAR(interval.high, 0.75, 1e-12);
}

TEST(BootstrapGapClosedTest, WithoutAnyGapThereIsNoNumber) {
  const Interval interval = BootstrapGapClosed(std::vector<double>{0, 0}, std::vector<double>{0, 0}, 1);
  EXPECT_TRUE(std::isnan(interval.mean));
  EXPECT_TRUE(std::isnan(interval.low));
  EXPECT_TRUE(std::isnan(interval.high));
}

}  // namespace
}  // namespace epic::eval
