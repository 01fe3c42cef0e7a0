#include "core/frequency_sketch.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/split_mix.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

TEST(FrequencySketchTest, LogSumAddsPowers) {
  EXPECT_DOUBLE_EQ(LogSum(3, 3), 4);
  EXPECT_DOUBLE_EQ(LogSum(1, std::log2(6)), 3);
  EXPECT_EQ(LogSum(kNever, 5), 5);
  EXPECT_EQ(LogSum(kNever, kNever), kNever);
}

TEST(FrequencySketchTest, CountsUses) {
  FrequencySketch sketch(1e9);  // as good as no decay
  EXPECT_EQ(sketch.LogUses(1), kNever);
  for (int i = 0; i < 8; ++i) sketch.Record(1);
  sketch.Record(2);
  EXPECT_NEAR(sketch.LogUses(1) - sketch.LogUses(2), 3, 0.02);
  EXPECT_NEAR(sketch.LogUses(2), sketch.now(), 0.01);
  EXPECT_EQ(sketch.LogUses(3), kNever);
}

TEST(FrequencySketchTest, AUseWeighsHalfAfterAHalfLife) {
  FrequencySketch sketch(2);
  sketch.Reserve(10);  // so that a half-life is 20 uses
  for (int i = 0; i < 4; ++i) sketch.Record(1);
  const double before = sketch.now();
  for (int i = 0; i < 40; ++i) sketch.Record(2);
  EXPECT_NEAR(sketch.now() - before, 2, 1e-9);
  // Four uses, two half-lives ago, are worth one now (a little less: they were not all at the same time).
  EXPECT_NEAR(sketch.LogUses(1), sketch.now(), 0.1);
}

TEST(FrequencySketchTest, KeepsWhatItKnowsWhenItGrows) {
  FrequencySketch sketch(16);
  for (uint64_t key = 0; key < 10; ++key) {
    for (uint64_t use = 0; use <= key; ++use) sketch.Record(key);
  }
  std::vector<double> before;
  for (uint64_t key = 0; key < 10; ++key) before.push_back(sketch.LogUses(key));
  sketch.Reserve(10'000);
  for (uint64_t key = 0; key < 10; ++key) EXPECT_EQ(sketch.LogUses(key), before[key]);
}

TEST(FrequencySketchTest, GoesOnForEver) {
  FrequencySketch sketch(1);  // a half-life is one use: 100,000 of them
  for (int i = 0; i < 100'000; ++i) {
    const double log_uses = sketch.Record(i % 2);
    // Every second half-life a use: 1 + 1/4 + 1/16 + ... uses.
    if (i > 100) {
      ASSERT_NEAR(log_uses - sketch.now(), std::log2(4.0 / 3), 0.02) << i;
    }
  }
  sketch.Record(5);
  EXPECT_GT(sketch.LogUses(5), sketch.LogUses(0));
}

TEST(FrequencySketchTest, RarelyTakesAKeyForAnother) {
  constexpr uint64_t kBlocks = 5000;
  FrequencySketch sketch(1e9);
  sketch.Reserve(kBlocks);
  // Four times as many keys as blocks, each used once.
  for (uint64_t i = 0; i < 4 * kBlocks; ++i) sketch.Record(SplitMix(i));
  int wrong = 0;
  for (uint64_t i = 0; i < 4 * kBlocks; ++i) {
    ASSERT_GE(sketch.LogUses(SplitMix(i)), sketch.now() - 0.01) << "never less than the truth";
    if (sketch.LogUses(SplitMix(i)) > sketch.now() + 0.5) ++wrong;
  }
  EXPECT_LT(wrong, 4 * kBlocks / 20);
}

}  // namespace
}  // namespace epic
