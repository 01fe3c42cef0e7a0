// Products with weights in a file's blocks, for every format, against DequantizeRows and sums in double precision.
#include "engine/cpu/block_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/files/model_file.h"

namespace epic {
namespace {

struct Format {
  BlockFormat block;
  TensorType type;
  const char* name;
  std::vector<size_t> halves;  // where a block holds halves
};

const std::vector<Format>& Formats() {
  static const auto* formats = new std::vector<Format>{
      {BlockFormat::kQ4_0, TensorType::kQ4_0, "Q4_0", {0}},    {BlockFormat::kQ4_1, TensorType::kQ4_1, "Q4_1", {0, 2}},
      {BlockFormat::kQ5_0, TensorType::kQ5_0, "Q5_0", {0}},    {BlockFormat::kQ5_1, TensorType::kQ5_1, "Q5_1", {0, 2}},
      {BlockFormat::kQ8_0, TensorType::kQ8_0, "Q8_0", {0}},    {BlockFormat::kQ4_K, TensorType::kQ4_K, "Q4_K", {0, 2}},
      {BlockFormat::kQ5_K, TensorType::kQ5_K, "Q5_K", {0, 2}}, {BlockFormat::kQ6_K, TensorType::kQ6_K, "Q6_K", {208}},
  };
  return *formats;
}

class BlockProductsTest : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (CpuKernelsByName("avx2") == nullptr) GTEST_SKIP() << "this processor does not run avx2";
  }
  const Format& format() const { return Formats()[GetParam()]; }

  std::vector<float> Random(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = std::uniform_real_distribution<float>(-1, 1)(generator_);
    return values;
  }

  // Random bytes, with halves between 1/64 and 1/32 of either sign where a block holds halves. The rows begin at an odd
  // address, and end at the end of the vector.
  std::vector<std::byte> RandomWeights(int outputs, int inner) {
    std::vector<std::byte> weights(1 + outputs * BlockRowBytes(format().block, inner));
    for (std::byte& byte : weights) byte = static_cast<std::byte>(generator_() & 0xffu);
    for (size_t block = 1; block < weights.size(); block += BlockBytes(format().block)) {
      for (const size_t at : format().halves) {
        const auto half = static_cast<uint16_t>((generator_() & 0x83ffu) | 0x2400u);
        std::memcpy(weights.data() + block + at, &half, sizeof(half));
      }
    }
    return weights;
  }

  std::vector<float> Dequantized(const std::vector<std::byte>& weights, int outputs, int inner) {
    TensorView tensor;
    tensor.type = format().type;
    tensor.shape = {outputs, inner};
    tensor.bytes = std::span<const std::byte>(weights).subspan(1);
    std::vector<float> floats(static_cast<size_t>(outputs) * inner);
    DequantizeRows(tensor, 0, outputs, floats);
    return floats;
  }

  // c (+)= `rows` rows of activations, `stride` apart, times `outputs` rows of weights.
  void Run(const float* a, size_t stride, int rows, const std::byte* weights, int inner, int outputs, float* c,
           size_t c_stride, bool accumulate) {
    std::vector<int16_t> values(static_cast<size_t>(rows) * inner);
    std::vector<float> scales(values.size() / kActivationGroup), sums(scales.size());
    for (int r = 0; r < rows; ++r) {
      const size_t at = static_cast<size_t>(r) * inner;
      RoundForBlocks(a + r * stride, inner, values.data() + at, scales.data() + at / kActivationGroup,
                     sums.data() + at / kActivationGroup);
    }
    MultiplyBlocks(format().block, {values.data(), scales.data(), sums.data()}, rows, weights, inner, outputs, c,
                   c_stride, accumulate);
  }
  std::vector<float> Multiply(const float* a, size_t stride, int rows, const std::vector<std::byte>& weights, int inner,
                              int outputs) {
    std::vector<float> c(static_cast<size_t>(rows) * outputs);
    Run(a, stride, rows, weights.data() + 1, inner, outputs, c.data(), outputs, false);
    return c;
  }

  std::mt19937 generator_{4711};
};

TEST_P(BlockProductsTest, ProductsEqualTheReferenceForEveryTileShape) {
  for (const int rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 23, 64}) {
    for (const int outputs : {1, 2, 3, 4, 7, 33}) {
      const int inner = BlockElements(format().block) * std::uniform_int_distribution<int>(1, 3)(generator_);
      const std::vector<std::byte> weights = RandomWeights(outputs, inner);
      const std::vector<float> floats = Dequantized(weights, outputs, inner);
      const size_t stride = inner + 3, c_stride = outputs + 5;
      const std::vector<float> a = Random(rows * stride);
      const std::vector<float> before = Random(rows * c_stride);
      for (const bool accumulate : {false, true}) {
        std::vector<float> c = before;
        Run(a.data(), stride, rows, weights.data() + 1, inner, outputs, c.data(), c_stride, accumulate);
        for (int r = 0; r < rows; ++r) {
          for (size_t o = 0; o < c_stride; ++o) {
            const float result = c[r * c_stride + o];
            if (o >= static_cast<size_t>(outputs)) {
              ASSERT_EQ(result, before[r * c_stride + o]) << "wrote beyond the outputs";
              continue;
            }
            double expected = accumulate ? before[r * c_stride + o] : 0;
            // The rounding of a group's activations is 1/65534 of its largest, here at most 1.
            double size = 1;
            for (int k = 0; k < inner; ++k) {
              const double term = static_cast<double>(a[r * stride + k]) * floats[o * inner + k];
              expected += term;
              size += std::abs(floats[o * inner + k]);
            }
            ASSERT_NEAR(result, expected, 1.6e-5 * size) << rows << " rows, " << outputs << " outputs, inner " << inner;
          }
        }
      }
    }
  }
}

// One weight at a time: what the kernel multiplies with is the file's value, to float32's last bit or two.
TEST_P(BlockProductsTest, EveryWeightIsTheFilesOwn) {
  constexpr int kOutputs = 3;
  const int inner = BlockElements(format().block) * 2;
  const std::vector<std::byte> weights = RandomWeights(kOutputs, inner);
  const std::vector<float> floats = Dequantized(weights, kOutputs, inner);
  for (int k = 0; k < inner; ++k) {
    std::vector<float> one(inner, 0);
    one[k] = 1;
    const std::vector<float> c = Multiply(one.data(), inner, 1, weights, inner, kOutputs);
    for (int o = 0; o < kOutputs; ++o) {
      const float expected = floats[static_cast<size_t>(o) * inner + k];
      ASSERT_NEAR(c[o], expected, 1e-6 * (0.1 + std::abs(expected))) << "output " << o << ", element " << k;
    }
  }
}

TEST_P(BlockProductsTest, ARowDoesNotDependOnTheOthers) {
  constexpr int kRows = 40, kOutputs = 37;
  const int inner = BlockElements(format().block) * 3;
  const std::vector<std::byte> weights = RandomWeights(kOutputs, inner);
  const std::vector<float> a = Random(static_cast<size_t>(kRows) * inner);
  const std::vector<float> together = Multiply(a.data(), inner, kRows, weights, inner, kOutputs);
  for (const int count : {1, 2, 3, 5, 8, 13}) {
    for (int begin = 0; begin + count <= kRows; begin += count) {
      const std::vector<float> alone =
          Multiply(a.data() + static_cast<size_t>(begin) * inner, inner, count, weights, inner, kOutputs);
      for (size_t i = 0; i < alone.size(); ++i) {
        ASSERT_EQ(alone[i], together[static_cast<size_t>(begin) * kOutputs + i]) << count << " rows from " << begin;
      }
    }
  }
}

// A task of fewer outputs gives the same bits: the backend cuts a matrix by its number of threads.
TEST_P(BlockProductsTest, AnOutputDoesNotDependOnTheOthers) {
  constexpr int kRows = 5, kOutputs = 23;
  const int inner = BlockElements(format().block) * 2;
  const std::vector<std::byte> weights = RandomWeights(kOutputs, inner);
  const std::vector<float> a = Random(static_cast<size_t>(kRows) * inner);
  const std::vector<float> together = Multiply(a.data(), inner, kRows, weights, inner, kOutputs);
  for (int o = 0; o < kOutputs; ++o) {
    std::vector<float> alone(kRows);
    Run(a.data(), inner, kRows, weights.data() + 1 + o * BlockRowBytes(format().block, inner), inner, 1, alone.data(),
        1, false);
    for (int r = 0; r < kRows; ++r) ASSERT_EQ(alone[r], together[r * kOutputs + o]);
  }
}

// What rounding does to a row, and to a row that cannot be rounded.
TEST(BlockActivationsTest, AreRoundedGroupByGroup) {
  if (CpuKernelsByName("avx2") == nullptr) GTEST_SKIP() << "this processor does not run avx2";
  constexpr int kInner = 5 * kActivationGroup;
  std::vector<float> x(kInner);
  std::mt19937 generator(7);
  for (int i = 0; i < kInner; ++i) {
    const float size = std::ldexp(1.0f, i / kActivationGroup * 20 - 40);  // groups a million times apart
    x[i] = size * std::uniform_real_distribution<float>(-1, 1)(generator);
  }
  std::fill_n(x.begin() + 2 * kActivationGroup, kActivationGroup, 0.0f);
  std::vector<int16_t> values(kInner);
  std::vector<float> scales(5), sums(5);
  RoundForBlocks(x.data(), kInner, values.data(), scales.data(), sums.data());
  for (int g = 0; g < 5; ++g) {
    double largest = 0, sum = 0;
    for (int i = g * kActivationGroup; i < (g + 1) * kActivationGroup; ++i)
      largest = std::max<double>(largest, std::abs(x[i]));
    for (int i = g * kActivationGroup; i < (g + 1) * kActivationGroup; ++i) {
      ASSERT_NEAR(static_cast<double>(values[i]) * scales[g], x[i], largest * (0.5001 / 32767 + 1e-7)) << i;
      sum += static_cast<double>(values[i]) * scales[g];
    }
    EXPECT_NEAR(sums[g], sum, 1e-6 * largest * kActivationGroup) << g;
  }
  EXPECT_EQ(scales[2], 0.0f);
  for (const float defect : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    x[kActivationGroup + 3] = defect;
    RoundForBlocks(x.data(), kInner, values.data(), scales.data(), sums.data());
    EXPECT_TRUE(std::isnan(scales[1]) && std::isnan(sums[1])) << defect;
    EXPECT_FALSE(std::isnan(scales[0]) || std::isnan(scales[3])) << "another group's";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, BlockProductsTest, ::testing::Range(size_t{0}, Formats().size()),
                         [](const auto& param) { return std::string(Formats()[param.param].name); });

}  // namespace
}  // namespace epic
