// Products with weights in a file's blocks, for every format and instruction set that this processor runs and the
// emulated one, against DequantizeRows and sums in double precision.
#include "engine/cpu/block_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "engine/cpu/emulated_kernels_for_test.h"
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

class BlockKernelsTest : public ::testing::TestWithParam<std::tuple<const char*, size_t>> {
 protected:
  void SetUp() override {
    kernels_ = KernelsForTest(std::get<0>(GetParam()));
    if (kernels_ == nullptr) GTEST_SKIP() << "this processor does not run " << std::get<0>(GetParam());
  }
  const Format& format() const { return Formats()[std::get<1>(GetParam())]; }

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

  std::vector<float> Multiply(const float* a, size_t stride, int rows, const std::vector<std::byte>& weights, int inner,
                              int outputs) {
    std::vector<float> c(static_cast<size_t>(rows) * outputs);
    kernels_->multiply_blocks(format().block, a, stride, rows, weights.data() + 1, inner, outputs, c.data(), outputs,
                              false);
    return c;
  }

  const CpuKernels* kernels_ = nullptr;
  std::mt19937 generator_{4711};
};

TEST_P(BlockKernelsTest, ProductsEqualTheReferenceForEveryTileShape) {
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
        kernels_->multiply_blocks(format().block, a.data(), stride, rows, weights.data() + 1, inner, outputs, c.data(),
                                  c_stride, accumulate);
        for (int r = 0; r < rows; ++r) {
          for (size_t o = 0; o < c_stride; ++o) {
            const float result = c[r * c_stride + o];
            if (o >= static_cast<size_t>(outputs)) {
              ASSERT_EQ(result, before[r * c_stride + o]) << "wrote beyond the outputs";
              continue;
            }
            double expected = accumulate ? before[r * c_stride + o] : 0;
            double size = 1;
            for (int k = 0; k < inner; ++k) {
              const double term = static_cast<double>(a[r * stride + k]) * floats[o * inner + k];
              expected += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(result, expected, 1e-6 * size) << rows << " rows, " << outputs << " outputs, inner " << inner;
          }
        }
      }
    }
  }
}

// One weight at a time: what the kernel multiplies with is the file's value, to float32's last bit or two.
TEST_P(BlockKernelsTest, EveryWeightIsTheFilesOwn) {
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

TEST_P(BlockKernelsTest, ARowDoesNotDependOnTheOthers) {
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
TEST_P(BlockKernelsTest, AnOutputDoesNotDependOnTheOthers) {
  constexpr int kRows = 5, kOutputs = 23;
  const int inner = BlockElements(format().block) * 2;
  const std::vector<std::byte> weights = RandomWeights(kOutputs, inner);
  const std::vector<float> a = Random(static_cast<size_t>(kRows) * inner);
  const std::vector<float> together = Multiply(a.data(), inner, kRows, weights, inner, kOutputs);
  for (int o = 0; o < kOutputs; ++o) {
    std::vector<float> alone(kRows);
    kernels_->multiply_blocks(format().block, a.data(), inner, kRows,
                              weights.data() + 1 + o * BlockRowBytes(format().block, inner), inner, 1, alone.data(), 1,
                              false);
    for (int r = 0; r < kRows; ++r) ASSERT_EQ(alone[r], together[r * kOutputs + o]);
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, BlockKernelsTest,
                         ::testing::Combine(::testing::Values("avx2", "avx512", "emulated_avx512bf16"),
                                            ::testing::Range(size_t{0}, Formats().size())),
                         [](const auto& param) {
                           return std::string(std::get<0>(param.param)) + "_" +
                                  Formats()[std::get<1>(param.param)].name;
                         });

}  // namespace
}  // namespace epic
