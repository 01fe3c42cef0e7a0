#include "engine/text/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The probabilities that the options leave, by the definition: sort, keep, normalise.
std::vector<double> ExpectedProbabilities(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(std::min<size_t>(order.size(), options.top_k));
  std::vector<double> weights;
  for (const int32_t id : order) weights.push_back(std::exp((logits[id] - logits[order[0]]) / options.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  std::vector<double> probabilities(logits.size(), 0);
  for (size_t i = 0; i < order.size() && (i == 0 || kept < options.top_p * total); ++i) {
    probabilities[order[i]] = weights[i];
    kept += weights[i];
  }
  for (double& probability : probabilities) probability /= kept;
  return probabilities;
}

// Draws many tokens and compares their counts by Pearson's statistic; tokens with probability 0 must never come.
void ExpectDistribution(const std::vector<float>& logits, const SamplingOptions& options) {
  constexpr int kDraws = 40000;
  const std::vector<double> expected = ExpectedProbabilities(logits, options);
  std::vector<int> counts(logits.size(), 0);
  Sampler sampler(options);
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.Sample(logits)];
  double statistic = 0;
  int degrees = -1;
  for (size_t id = 0; id < logits.size(); ++id) {
    const double mean = expected[id] * kDraws;
    if (mean == 0) {
      EXPECT_EQ(counts[id], 0) << "token " << id;
      continue;
    }
    statistic += (counts[id] - mean) * (counts[id] - mean) / mean;
    ++degrees;
  }
  // Mean `degrees`, variance 2 x degrees; the seeds are fixed, so that this cannot fail by chance from run to run.
  EXPECT_LT(statistic, degrees + 4 * std::sqrt(2.0 * std::max(degrees, 1)));
}

const std::vector<float> kLogits = {1.0f, 3.0f, -0.5f, 2.0f, 3.0f, 0.0f, 2.5f, -2.0f};

TEST(SamplerTest, GreedyTakesTheHighestAndTheLowestIdOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Sample(kLogits), 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-1, -1, -1}), 0);
  EXPECT_EQ(sampler.Sample(std::vector<float>{kNan, -5, kNan, -4}), 3);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-kInfinity, kNan}), 0);
}

TEST(SamplerTest, DrawsByTemperature) {
  for (const float temperature : {0.3f, 1.0f, 2.0f, 100.0f}) {
    ExpectDistribution(kLogits, {.temperature = temperature, .seed = 5});
  }
}

TEST(SamplerTest, TopKKeepsTheHighestAndTheLowestIdsOfEquals) {
  for (const int32_t top_k : {1, 2, 3, 8, 100}) {
    ExpectDistribution(kLogits, {.temperature = 1, .top_k = top_k, .seed = 6});
  }
  ExpectDistribution({1, 1, 1, 1, 1}, {.temperature = 1, .top_k = 3, .seed = 6});
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  for (const float top_p : {1e-6f, 0.2f, 0.35f, 0.7f, 0.95f, 0.9999f}) {
    ExpectDistribution(kLogits, {.temperature = 1, .top_p = top_p, .seed = 7});
  }
  // Exactly reached: two of four equals are one half.
  ExpectDistribution({1, 1, 1, 1}, {.temperature = 1, .top_p = 0.5f, .seed = 7});
}

TEST(SamplerTest, TopPCountsAfterTopKAndTemperature) {
  ExpectDistribution(kLogits, {.temperature = 0.5f, .top_p = 0.8f, .top_k = 5, .seed = 8});
  ExpectDistribution(kLogits, {.temperature = 3, .top_p = 0.5f, .top_k = 4, .seed = 8});
}

// More tokens than are sorted at first.
TEST(SamplerTest, TopPOverAFlatVocabulary) {
  std::vector<float> logits(1500);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.001f * static_cast<float>((i * 7919) % 1500);
  for (const float top_p : {0.1f, 0.5f, 0.97f}) {
    ExpectDistribution(logits, {.temperature = 1, .top_p = top_p, .seed = 9});
  }
}

TEST(SamplerTest, NeverDrawsWhatIsNoNumberOrMinusInfinity) {
  const std::vector<float> logits = {-kInfinity, 0, kNan, 0, -kInfinity};
  for (const SamplingOptions& options :
       std::vector<SamplingOptions>{{.temperature = 1},
                                    {.temperature = 1, .top_p = 0.9999f},
                                    {.temperature = 1, .top_k = 4},
                                    {.temperature = 100, .top_p = 0.99f, .top_k = 5}}) {
    Sampler sampler(options);
    int ones = 0;
    for (int i = 0; i < 1000; ++i) {
      const int32_t id = sampler.Sample(logits);
      EXPECT_TRUE(id == 1 || id == 3) << id;
      ones += id == 1 ? 1 : 0;
    }
    EXPECT_GT(ones, 400);
    EXPECT_LT(ones, 600);
  }
  Sampler sampler({.temperature = 1});
  EXPECT_EQ(sampler.Sample(std::vector<float>{0, kInfinity, 0}), 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-kInfinity, kNan, -kInfinity}), 0);
  EXPECT_EQ(sampler.Sample(std::vector<float>{7}), 0);
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  Sampler sampler({.temperature = std::numeric_limits<float>::denorm_min(), .top_p = 0.9f});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(sampler.Sample(std::vector<float>{1, 2, 3, 2.9999f}), 2);
}

TEST(SamplerTest, SeedDecidesTheTokens) {
  const auto draw = [](uint64_t seed) {
    Sampler sampler({.temperature = 1, .top_p = 0.95f, .top_k = 6, .seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 64; ++i) ids.push_back(sampler.Sample(kLogits));
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

// Follows from the standard's generator and our formula alone: the 10,000th output of mt19937_64 with its default seed
// is 9981545732273789042, which is 0.5411... of the range.
TEST(SamplerTest, TheGeneratorIsTheStandardsOne) {
  constexpr double kUniform = static_cast<double>(9981545732273789042ULL >> 11) * 0x1p-53;
  Sampler sampler({.temperature = 1, .seed = 5489});
  const std::vector<float> flat(1000, 0.0f);
  for (int i = 1; i < 10000; ++i) sampler.Sample(flat);
  EXPECT_EQ(sampler.Sample(flat), static_cast<int32_t>(kUniform * 1000));
}

TEST(SamplerTest, ValidateNamesEveryProblem) {
  EXPECT_TRUE(SamplingOptions{}.Validate().ok());
  EXPECT_TRUE((SamplingOptions{.temperature = 100, .top_p = 1e-9f, .top_k = 1}).Validate().ok());
  const absl::Status status = SamplingOptions{.temperature = -1, .top_p = 0, .top_k = -3}.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, testing::HasSubstr("temperature is -1"));
  EXPECT_THAT(message, testing::HasSubstr("top_p is 0"));
  EXPECT_THAT(message, testing::HasSubstr("top_k is -3"));
  for (const SamplingOptions& options : std::vector<SamplingOptions>{{.temperature = kNan},
                                                                     {.temperature = 100.5f},
                                                                     {.temperature = kInfinity},
                                                                     {.top_p = 1.01f},
                                                                     {.top_p = kNan}}) {
    EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(LogProbabilityTest, IsLogSoftmax) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  EXPECT_NEAR(LogProbability(logits, 0), std::log(1.0 / 8), 1e-7);
  EXPECT_NEAR(LogProbability(logits, 2), std::log(5.0 / 8), 1e-7);
  EXPECT_NEAR(LogProbability(std::vector<float>{1e30f, 1e30f}, 0), std::log(0.5), 1e-12);
  EXPECT_EQ(LogProbability(std::vector<float>{3}, 0), 0);
}

TEST(LogProbabilityTest, AccumulatesInDouble) {
  // In float the sum of 2^25 ones would stop at 2^24.
  const std::vector<float> logits(size_t{1} << 25, 0.0f);
  EXPECT_NEAR(LogProbability(logits, 17), -25 * std::log(2.0), 1e-9);
}

TEST(LogProbabilityTest, IsNeverNotANumber) {
  const std::vector<float> logits = {kNan, -kInfinity, 1};
  EXPECT_EQ(LogProbability(logits, 0), -kInfinity);
  EXPECT_EQ(LogProbability(logits, 1), -kInfinity);
  EXPECT_EQ(LogProbability(logits, 2), 0);
  EXPECT_EQ(LogProbability(std::vector<float>{-kInfinity, kNan}, 0), -kInfinity);
  EXPECT_EQ(LogProbability(std::vector<float>{kInfinity, 0}, 1), -kInfinity);
  EXPECT_EQ(LogProbability(std::vector<float>{kInfinity, 0}, 0), 0);
}

}  // namespace
}  // namespace epic
