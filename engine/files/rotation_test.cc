#include "engine/files/rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace epic {
namespace {

using Kind = RotationScaling::Kind;

ModelConfig Rotation(double base, RotationScaling scaling) {
  ModelConfig config;
  config.head_dim = 16;
  config.rope_base = base;
  config.rope_scaling = std::move(scaling);
  return config;
}

// The expected numbers are those of `transformers` 5.23 (modeling_rope_utils), which computes them in float32.
void ExpectFrequencies(const ModelConfig& config, const std::vector<double>& expected) {
  ASSERT_TRUE(CheckRotation(config, "file").ok());
  const std::vector<double> frequencies = RotationFrequencies(config);
  ASSERT_EQ(frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(frequencies[i], expected[i], 1e-6 * expected[i]) << i;
}

TEST(RotationTest, PlainIsAPowerOfTheBase) {
  ExpectFrequencies(Rotation(10000, {}),
                    {1, 0.316227766, 0.1, 0.0316227766, 0.01, 0.00316227766, 0.001, 0.000316227766});
}

TEST(RotationTest, LinearDividesEveryFrequency) {
  ExpectFrequencies(
      Rotation(10000, {.kind = Kind::kLinear, .factor = 4}),
      {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012, 7.90569466e-05});
}

TEST(RotationTest, Llama3KeepsFastFrequenciesAndStretchesSlowOnes) {
  ExpectFrequencies(Rotation(500000, {.kind = Kind::kLlama3,
                                      .factor = 8,
                                      .original_context = 128,
                                      .low_frequency_factor = 1,
                                      .high_frequency_factor = 4}),
                    {1.0, 0.191126496, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05, 6.64786967e-06,
                     1.28917316e-06});
}

TEST(RotationTest, YarnRampsOverTheDimensions) {
  ExpectFrequencies(
      Rotation(10000, {.kind = Kind::kYarn, .factor = 4, .original_context = 256}),
      {1.0, 0.25693506, 0.0625, 0.0138349654, 0.00249999994, 0.000790569466, 0.000250000012, 7.90569466e-05});
  ExpectFrequencies(Rotation(1000000, {.kind = Kind::kYarn,
                                       .factor = 16,
                                       .original_context = 64,
                                       .beta_fast = 16,
                                       .beta_slow = 2,
                                       .truncate = false}),
                    {1.0, 0.0111142462, 0.00197642366, 0.000351463328, 6.2500003e-05, 1.11142463e-05, 1.97642339e-06,
                     3.51463342e-07});
  EXPECT_NEAR(YarnAttentionScale(4), 1.138629436111989, 1e-12);
  EXPECT_NEAR(YarnAttentionScale(16, 0.8) / YarnAttentionScale(16, 0.3), 1.1279840242445685, 1e-12);
}

TEST(RotationTest, FactorsDivideEachFrequency) {
  const std::vector<double> frequencies =
      RotationFrequencies(Rotation(10000, {.kind = Kind::kFactors, .factors = {1, 1, 2, 2, 4, 4, 8, 8}}));
  EXPECT_DOUBLE_EQ(frequencies[0], 1);
  EXPECT_DOUBLE_EQ(frequencies[2], 0.05);
  EXPECT_DOUBLE_EQ(frequencies[6], 0.001 / 8);
}

TEST(RotationTest, NumbersThatMakeNoRotationAreRefused) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const ModelConfig& config :
       {Rotation(1, {}), Rotation(inf, {}), Rotation(10000, {.kind = Kind::kLinear, .factor = 0.5}),
        Rotation(10000, {.kind = Kind::kLinear, .factor = inf}),
        Rotation(10000, {.kind = Kind::kYarn, .factor = 4, .original_context = 0}),
        Rotation(10000, {.kind = Kind::kYarn, .factor = 4, .original_context = 64, .beta_fast = 1, .beta_slow = 2}),
        Rotation(10000, {.kind = Kind::kYarn, .factor = 4, .original_context = 64, .attention_scale = -1}),
        Rotation(10000, {.kind = Kind::kLlama3,
                        .factor = 4,
                        .original_context = 64,
                        .low_frequency_factor = 4,
                        .high_frequency_factor = 4}),
        Rotation(10000, {.kind = Kind::kFactors, .factors = {1, 1}}),
        Rotation(10000, {.kind = Kind::kFactors, .factors = {1, 1, 1, 0, 1, 1, 1, 1}})}) {
    const absl::Status status = CheckRotation(config, "some.gguf");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << RotationScalingText(config.rope_scaling);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("some.gguf"));
  }
}

}  // namespace
}  // namespace epic
