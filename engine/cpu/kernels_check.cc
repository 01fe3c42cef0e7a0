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
// Attention where queries and weights are rounded to bf16: eight bits each, averaged over many keys.
constexpr float kRoundedAttentionTolerance = 1e-2f;

std::vector<float> Random(std::mt19937& generator, size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(generator() % 2001) / 1000.0f - 1.0f;
  return values;
}

bool Near(const std::vector<float>& expected, const std::vector<float>& seen, float tolerance = kTolerance) {
  float largest = 1;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!(std::abs(expected[i] - seen[i]) <= tolerance * largest)) return false;  // NaN disagrees
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

constexpr int kAttentionDim = 48;

// Two units of a hundred keys each, some of them stale, for rows that see more and more of them.
std::vector<float> AttendTwoUnits(const CpuKernels& kernels, int group, int rows, const std::vector<float>& queries,
                                  const std::vector<uint16_t>& keys, const std::vector<uint16_t>& values) {
  constexpr int kDim = kAttentionDim;
  const std::vector<float> cosine(kDim / 2, 0.6f), sine(kDim / 2, 0.8f);
  const std::vector<uint32_t> skip = {0, 0x10101010u, 1u, 0};
  const size_t partial_floats = AttentionPartialFloats(group, kDim);
  std::vector<float> partials(rows * partial_floats), running(rows * partial_floats, 0.0f);
  std::vector<float> scratch(AttentionScratchFloats(group, kDim)), output(queries.size());
  for (int i = 0; i < rows * group; ++i) {
    running[i / group * partial_floats + static_cast<size_t>(group) * kDim + i % group * 2] = -HUGE_VALF;
  }
  for (int unit = 0; unit < 2; ++unit) {
    std::vector<AttentionTile> tiles;
    for (int tile = 2 * unit; tile < 2 * unit + 2; ++tile) {
      const size_t offset = static_cast<size_t>(tile) * kAttentionTileRows * kDim;
      tiles.push_back({keys.data() + offset, values.data() + offset});
    }
    std::vector<AttentionQuery> seen(rows);
    for (int i = 0; i < rows; ++i) seen[i] = {i, i, 0, unit, std::min(100, 2 + 25 * i), skip.data()};
    AttentionBlock block;
    block.tiles = tiles.data();
    block.tile_rows = 2 * kAttentionTileRows;
    block.queries = seen.data();
    block.query_count = rows;
    block.group = group;
    block.head_dim = kDim;
    block.rows = queries.data();
    block.row_stride = static_cast<size_t>(group) * kDim;
    block.rope_cos = cosine.data();
    block.rope_sin = sine.data();
    block.partials = partials.data();
    block.partial_stride = partial_floats;
    block.scratch = scratch.data();
    kernels.attend_unit(block);
    for (int i = 0; i < rows; ++i) {
      kernels.merge_partial(group, kDim, partials.data() + i * partial_floats, running.data() + i * partial_floats);
    }
  }
  for (int i = 0; i < rows; ++i) {
    kernels.finish_partial(group, kDim, running.data() + i * partial_floats,
                           output.data() + static_cast<size_t>(i) * group * kDim);
  }
  return output;
}

bool AttentionAgrees(const CpuKernels& trusted, const CpuKernels& candidate, std::mt19937& generator) {
  constexpr int kDim = kAttentionDim;
  const auto random_bf16 = [&] {
    std::vector<uint16_t> bits;
    for (const float value : Random(generator, static_cast<size_t>(4) * kAttentionTileRows * kDim)) {
      bits.push_back(ToBf16(value));
    }
    return bits;
  };
  const std::vector<uint16_t> keys = random_bf16(), values = random_bf16();
  for (const int group : {1, 3, 8}) {
    constexpr int kRows = 5;
    const std::vector<float> queries = Random(generator, static_cast<size_t>(kRows) * group * kDim);
    if (!Near(AttendTwoUnits(trusted, group, kRows, queries, keys, values),
              AttendTwoUnits(candidate, group, kRows, queries, keys, values),
              candidate.rounds_activations ? kRoundedAttentionTolerance : kTolerance)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool KernelsAgree(const CpuKernels& trusted, const CpuKernels& candidate) {
  std::mt19937 generator(20240229);
  return ProductsAgree(trusted, candidate, generator) && RowKernelsAgree(trusted, candidate, generator) &&
         AttentionAgrees(trusted, candidate, generator);
}

}  // namespace epic
