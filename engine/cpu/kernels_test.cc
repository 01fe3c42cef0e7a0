// Packed products, norms and activations of every instruction set that this processor runs, and of the emulated ones,
// against naive double-precision references; and how the tables are chosen. Products with blocks and attention have
// tests of their own.
#include "engine/cpu/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/emulated_kernels_for_test.h"
#include "engine/cpu/kernels_check.h"
#include "engine/cpu/packed_matrix.h"

namespace epic {
namespace {

class KernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = KernelsForTest(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this processor does not run " << GetParam();
  }
  float Uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator_); }
  int Integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator_); }
  std::vector<float> Random(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = Uniform(-1, 1);
    return values;
  }

  // A matrix of random weights that bf16 holds exactly.
  struct Weights {
    PackedMatrix packed;
    std::vector<float> floats;  // [outputs, inner]
  };
  Weights RandomWeights(int outputs, int inner) {
    Weights weights{PackedMatrix(outputs, inner), Random(static_cast<size_t>(outputs) * inner)};
    for (float& weight : weights.floats) weight = FromBf16(ToBf16(weight));
    for (int o = 0; o < outputs; ++o) {
      weights.packed.SetRow(o, weights.floats.data() + static_cast<size_t>(o) * inner);
    }
    return weights;
  }

  // Rows of `a`, each followed by one number that no kernel may use.
  std::vector<float> Padded(const std::vector<float>& a, int inner) {
    std::vector<float> padded;
    for (size_t i = 0; i < a.size(); ++i) {
      padded.push_back(a[i]);
      if (i % inner == static_cast<size_t>(inner) - 1) padded.push_back(NAN);
    }
    padded.pop_back();  // the last row ends where its memory ends
    return padded;
  }

  // Rows rounded by the kernel, each of an even number of elements.
  std::vector<uint16_t> Rounded(const std::vector<float>& a, int inner) {
    const size_t stride = (inner + 1) / 2 * 2, rows = a.size() / inner;
    std::vector<uint16_t> rounded(rows * stride, 0x7fff);  // NaN where the kernel writes nothing
    for (size_t r = 0; r < rows; ++r) {
      kernels_->round_to_bf16(a.data() + r * inner, inner, rounded.data() + r * stride);
    }
    return rounded;
  }

  // The product by the table's faster way.
  std::vector<float> Multiply(const std::vector<float>& a, int rows, const PackedMatrix& matrix) {
    std::vector<float> c(static_cast<size_t>(rows) * matrix.padded_outputs());
    if (kernels_->rounds_activations) {
      const std::vector<uint16_t> rounded = Rounded(a, matrix.inner());
      kernels_->multiply_rounded(rounded.data(), rounded.size() / rows, rows, matrix.Panel(0), matrix.inner(),
                                 matrix.panels(), c.data(), matrix.padded_outputs(), false);
    } else {
      kernels_->multiply(a.data(), matrix.inner(), rows, matrix.Panel(0), matrix.inner(), matrix.panels(), c.data(),
                         matrix.padded_outputs(), false);
    }
    return c;
  }

  void ExpectProduct(const std::vector<float>& c, const std::vector<float>& before, bool accumulate,
                     const std::vector<float>& a, int rows, const Weights& weights) {
    const int inner = weights.packed.inner(), outputs = weights.packed.outputs();
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < outputs; ++o) {
        double expected = accumulate ? before[r * outputs + o] : 0;
        for (int k = 0; k < inner; ++k) {
          expected += static_cast<double>(a[static_cast<size_t>(r) * inner + k]) *
                      weights.floats[static_cast<size_t>(o) * inner + k];
        }
        ASSERT_NEAR(c[r * outputs + o], expected, 1e-4)
            << "row " << r << " of " << rows << ", output " << o << " of " << outputs << ", inner " << inner;
      }
    }
  }

  const CpuKernels* kernels_ = nullptr;
  std::mt19937 generator_{12345};
};

const std::vector<int>& RowCounts() {
  static const auto* counts = new std::vector<int>{1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 25, 33, 50, 96};
  return *counts;
}

TEST_P(KernelsTest, ProductsEqualTheReferenceForEveryTileShape) {
  for (const int rows : RowCounts()) {
    for (const int outputs : {16, 32, 48, 64, 80, 144}) {
      const int inner = Integer(1, 200);
      const Weights weights = RandomWeights(outputs, inner);
      const std::vector<float> a = Random(static_cast<size_t>(rows) * inner);
      const std::vector<float> padded = Padded(a, inner);
      const std::vector<float> before = Random(static_cast<size_t>(rows) * outputs);
      for (const bool accumulate : {false, true}) {
        std::vector<float> c = before;
        kernels_->multiply(padded.data(), inner + 1, rows, weights.packed.Panel(0), inner, weights.packed.panels(),
                           c.data(), outputs, accumulate);
        ASSERT_NO_FATAL_FAILURE(ExpectProduct(c, before, accumulate, a, rows, weights));
      }
    }
  }
}

TEST_P(KernelsTest, RoundedProductsEqualTheReferenceOnRoundedActivations) {
  if (!kernels_->rounds_activations) GTEST_SKIP() << GetParam() << " does not round activations";
  for (const int rows : RowCounts()) {
    for (const int outputs : {16, 32, 48, 80, 144}) {
      const int inner = Integer(1, 200);
      const Weights weights = RandomWeights(outputs, inner);
      std::vector<float> a = Random(static_cast<size_t>(rows) * inner);
      const std::vector<uint16_t> rounded = Rounded(a, inner);
      for (float& value : a) value = FromBf16(ToBf16(value));
      const std::vector<float> before = Random(static_cast<size_t>(rows) * outputs);
      for (const bool accumulate : {false, true}) {
        std::vector<float> c = before;
        kernels_->multiply_rounded(rounded.data(), (inner + 1) / 2 * 2, rows, weights.packed.Panel(0), inner,
                                   weights.packed.panels(), c.data(), outputs, accumulate);
        ASSERT_NO_FATAL_FAILURE(ExpectProduct(c, before, accumulate, a, rows, weights));
      }
    }
  }
}

TEST_P(KernelsTest, DeepProductsEqualTheReference) {
  // More inner elements than one pass over the rows takes.
  for (const int inner : {512, 514, 1023, 1300}) {
    const Weights weights = RandomWeights(48, inner);
    std::vector<float> a = Random(static_cast<size_t>(29) * inner);
    for (float& value : a) value = FromBf16(ToBf16(value));
    const std::vector<float> c = Multiply(a, 29, weights.packed);
    ASSERT_NO_FATAL_FAILURE(ExpectProduct(c, {}, false, a, 29, weights));
  }
}

TEST_P(KernelsTest, RoundingIsToNearestAndTiesToEven) {
  if (!kernels_->rounds_activations) GTEST_SKIP() << GetParam() << " does not round activations";
  std::vector<float> values{0.0f, -0.0f, 1.0f, 1.00390625f, 1.01171875f, -1.00390625f, 3.3895314e38f, INFINITY};
  for (int count = 1; count < 70; ++count) {
    while (static_cast<int>(values.size()) < count) values.push_back(Uniform(-1000, 1000));
    std::vector<uint16_t> rounded(count + 4, 0xabcd);
    kernels_->round_to_bf16(values.data(), count, rounded.data());
    for (int i = 0; i < count; ++i) ASSERT_EQ(rounded[i], ToBf16(values[i])) << values[i];
    if (count % 2 == 1) {
      ASSERT_EQ(rounded[count], 0) << "the pad of an odd count";
    }
    for (int i = count + count % 2; i < count + 4; ++i) ASSERT_EQ(rounded[i], 0xabcd) << "wrote beyond the pad";
  }
}

TEST_P(KernelsTest, ARowOfAProductDoesNotDependOnTheOthers) {
  constexpr int kRows = 40;
  for (const int inner : {331, 1100}) {
    const Weights weights = RandomWeights(144, inner);
    const std::vector<float> a = Random(static_cast<size_t>(kRows) * inner);
    const std::vector<float> together = Multiply(a, kRows, weights.packed);
    for (const int count : {1, 2, 3, 7, 11, 17, 33}) {
      for (int begin = 0; begin + count <= kRows; begin += count) {
        const auto first = a.begin() + static_cast<ptrdiff_t>(begin) * inner;
        const std::vector<float> some(first, first + static_cast<ptrdiff_t>(count) * inner);
        const std::vector<float> alone = Multiply(some, count, weights.packed);
        for (size_t i = 0; i < alone.size(); ++i) {
          ASSERT_EQ(alone[i], together[begin * 144 + i]) << count << " rows from " << begin;
        }
      }
    }
  }
}

TEST_P(KernelsTest, NormAndActivationEqualTheReference) {
  for (const int width : {16, 33, 96, 576}) {
    const std::vector<float> x = Random(width), weight = Random(width), up = Random(width);
    std::vector<float> out(width);
    kernels_->rms_norm(x.data(), weight.data(), width, 1e-5f, out.data());
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    for (int i = 0; i < width; ++i) {
      ASSERT_NEAR(out[i], x[i] / std::sqrt(squares / width + 1e-5) * weight[i], 1e-5);
    }
    std::vector<float> gate(width);
    for (float& g : gate) g = Uniform(-100, 100);
    kernels_->silu_multiply(gate.data(), up.data(), width, out.data());
    for (int i = 0; i < width; ++i) {
      const double expected = gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
      ASSERT_NEAR(out[i], expected, 1e-5 * (1 + std::abs(expected)));
    }
  }
}

TEST_P(KernelsTest, AgreesWithTheFloor) {
  const CpuKernels* floor = CpuKernelsByName("avx2");
  if (floor == nullptr) GTEST_SKIP() << "this processor does not run avx2";
  EXPECT_TRUE(KernelsAgree(*floor, *kernels_));
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, KernelsTest, ::testing::ValuesIn(kAllKernelNames),
                         [](const auto& param) { return std::string(param.param); });

// A table with one wrong kernel: the right one's result with one number changed a little.
const CpuKernels* right = nullptr;

TEST(KernelsCheckTest, ATableWithOneWrongKernelIsRefused) {
  right = KernelsForTest("emulated_amx");
  const CpuKernels* floor = CpuKernelsByName("avx2");
  if (floor == nullptr) GTEST_SKIP() << "this processor does not run avx2";
  ASSERT_TRUE(KernelsAgree(*floor, *right));

  CpuKernels wrong = *right;
  wrong.multiply = [](const float* a, size_t a_stride, int rows, const uint16_t* panels, int inner, int panel_count,
                      float* c, size_t c_stride, bool accumulate) {
    right->multiply(a, a_stride, rows, panels, inner, panel_count, c, c_stride, accumulate);
    c[(rows - 1) * c_stride + panel_count * kPanelColumns - 1] += 0.01f;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "multiply";

  wrong = *right;
  wrong.multiply_rounded = [](const uint16_t* a, size_t a_stride, int rows, const uint16_t* panels, int inner,
                              int panel_count, float* c, size_t c_stride, bool accumulate) {
    right->multiply_rounded(a, a_stride, rows, panels, inner, panel_count, c, c_stride, accumulate);
    if (rows > 16) c[16 * c_stride] += 0.01f;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "multiply_rounded";

  wrong = *right;
  wrong.round_to_bf16 = [](const float* x, int count, uint16_t* out) {
    right->round_to_bf16(x, count, out);
    out[count - 1] ^= 1u;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "round_to_bf16";

  wrong = *right;
  wrong.rms_norm = [](const float* x, const float* weight, int width, float epsilon, float* out) {
    right->rms_norm(x, weight, width, epsilon, out);
    out[width - 1] = NAN;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "rms_norm";

  wrong = *right;
  wrong.attend_unit = [](const AttentionBlock& block) {
    right->attend_unit(block);
    block.partials[(block.query_count - 1) * block.partial_stride] += 10;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "attend_unit";

  wrong = *right;
  wrong.merge_partial = [](int, int, const float*, float*) {};
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "merge_partial";

  wrong = *right;
  wrong.finish_partial = [](int group, int head_dim, const float* running, float* output) {
    right->finish_partial(group, head_dim, running, output);
    output[group * head_dim - 1] += 0.05f;
  };
  EXPECT_FALSE(KernelsAgree(*floor, wrong)) << "finish_partial";
}

class ForcedKernels {
 public:
  explicit ForcedKernels(const char* name) { setenv("EPIC_CPU_ISA", name, 1); }
  ~ForcedKernels() { unsetenv("EPIC_CPU_ISA"); }
};

TEST(SelectCpuKernelsTest, TakesTheBestThatRuns) {
  unsetenv("EPIC_CPU_ISA");
  const CpuKernels* best = nullptr;
  for (const char* name : {"amx", "avx512bf16", "avx512", "avx2"}) {
    if (best == nullptr) best = CpuKernelsByName(name);
  }
  EXPECT_EQ(SelectCpuKernels(), best);
}

TEST(SelectCpuKernelsTest, AForcedTableIsThatOneOrNone) {
  for (const char* name : {"amx", "avx512bf16", "avx512", "avx2"}) {
    const ForcedKernels forced(name);
    EXPECT_EQ(SelectCpuKernels(), CpuKernelsByName(name)) << name;
  }
  const ForcedKernels forced("avx1024");
  EXPECT_EQ(SelectCpuKernels(), nullptr);
}

}  // namespace
}  // namespace epic
