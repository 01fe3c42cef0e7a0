#include "engine/cpu/kernels_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "engine/cpu/packed_matrix.h"

namespace epic {
namespace {

// Of the largest result: sums of a few hundred products are exact to some millionths of it, and one wrong element among
// them is more than this.
constexpr float kTolerance = 1e-4f;

std::vector<float> Random(std::mt19937& generator, size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(generator() % 2001) / 1000.0f - 1.0f;
  return values;
}

bool Near(const std::vector<float>& expected, const std::vector<float>& seen) {
  float largest = 1;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!(std::abs(expected[i] - seen[i]) <= kTolerance * largest)) return false;  // NaN disagrees
  }
  return true;
}

// Rows that fill no tile, one tile and several; an inner dimension with a remainder for every width; panels that come
// in pairs and alone.
bool ProductsAgree(const CpuKernels& trusted, const CpuKernels& candidate, std::mt19937& generator) {
  constexpr int kInner = 107, kOutputs = 176;
  constexpr size_t kStride = 108;
  PackedMatrix matrix(kOutputs, kInner);
  for (int o = 0; o < kOutputs; ++o) matrix.SetRow(o, Random(generator, kInner).data());
  for (const int rows : {1, 2, 5, 16, 37}) {
    std::vector<float> a = Random(generator, rows * kStride);
    const std::vector<float> before = Random(generator, static_cast<size_t>(rows) * kOutputs);
    std::vector<uint16_t> rounded(a.size());
    if (candidate.rounds_activations) {
      for (int r = 0; r < rows; ++r) {
        candidate.round_to_bf16(a.data() + r * kStride, kInner, rounded.data() + r * kStride);
        for (int k = 0; k < kInner; ++k) {
          if (rounded[r * kStride + k] != ToBf16(a[r * kStride + k])) return false;
          a[r * kStride + k] = FromBf16(rounded[r * kStride + k]);
        }
      }
    }
    for (const bool accumulate : {false, true}) {
      std::vector<float> expected = before, plain = before, fast = before;
      trusted.multiply(a.data(), kStride, rows, matrix.Panel(0), kInner, matrix.panels(), expected.data(), kOutputs,
                       accumulate);
      candidate.multiply(a.data(), kStride, rows, matrix.Panel(0), kInner, matrix.panels(), plain.data(), kOutputs,
                         accumulate);
      if (!Near(expected, plain)) return false;
      if (!candidate.rounds_activations) continue;
      candidate.multiply_rounded(rounded.data(), kStride, rows, matrix.Panel(0), kInner, matrix.panels(), fast.data(),
                                 kOutputs, accumulate);
      if (!Near(expected, fast)) return false;
    }
  }
  return true;
}

bool BlockProductsAgree(const CpuKernels& trusted, const CpuKernels& candidate, std::mt19937& generator) {
  constexpr int kInner = 512, kOutputs = 7;
  for (const BlockFormat format : kBlockFormats) {
    // Bytes whose 16-bit halves are all between 1/64 and 1/32 in size where they are read as scales, and anything where
    // they are read as elements.
    std::vector<std::byte> weights(kOutputs * BlockRowBytes(format, kInner));
    for (size_t i = 0; i + 2 <= weights.size(); i += 2) {
      const auto half = static_cast<uint16_t>((generator() & 0x83ffu) | 0x2400u);
      std::memcpy(weights.data() + i, &half, sizeof(half));
    }
    for (const int rows : {1, 2, 4, 15}) {
      const std::vector<float> a = Random(generator, static_cast<size_t>(rows) * kInner);
      std::vector<float> expected(static_cast<size_t>(rows) * kOutputs), seen = expected;
      trusted.multiply_blocks(format, a.data(), kInner, rows, weights.data(), kInner, kOutputs, expected.data(),
                              kOutputs, false);
      candidate.multiply_blocks(format, a.data(), kInner, rows, weights.data(), kInner, kOutputs, seen.data(), kOutputs,
                                false);
      if (!Near(expected, seen)) return false;
    }
  }
  return true;
}

bool RowKernelsAgree(const CpuKernels& trusted, const CpuKernels& candidate, std::mt19937& generator) {
  constexpr int kWidth = 107;
  const std::vector<float> x = Random(generator, kWidth), weight = Random(generator, kWidth);
  std::vector<float> expected(kWidth), seen(kWidth);
  trusted.rms_norm(x.data(), weight.data(), kWidth, 1e-5f, expected.data());
  candidate.rms_norm(x.data(), weight.data(), kWidth, 1e-5f, seen.data());
  if (!Near(expected, seen)) return false;
  trusted.silu_multiply(x.data(), weight.data(), kWidth, expected.data());
  candidate.silu_multiply(x.data(), weight.data(), kWidth, seen.data());
  return Near(expected, seen);
}

}  // namespace

bool KernelsAgree(const CpuKernels& trusted, const CpuKernels& candidate) {
  std::mt19937 generator(20240229);
  return ProductsAgree(trusted, candidate, generator) && BlockProductsAgree(trusted, candidate, generator) &&
         RowKernelsAgree(trusted, candidate, generator);
}

}  // namespace epic
