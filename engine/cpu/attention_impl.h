// Segment attention of one block of query rows.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_ATTENTION_IMPL_H_
#define EPIC_ENGINE_CPU_ATTENTION_IMPL_H_

#include "engine/cpu/attention_kernel.h"
#include "engine/cpu/multiply_tile_impl.h"

namespace epic {
namespace {

// One 32-key tile of K, from [2][head_dim][16] bf16 to [head_dim][32] float.
template <typename S>
inline void WidenKeys(const uint16_t* keys, int head_dim, float* tile) {
  for (int half = 0; half < 2; ++half) {
    const uint16_t* from = keys + static_cast<size_t>(half) * head_dim * 16;
    for (int d = 0; d < head_dim; ++d) {
      for (int j = 0; j < 16; j += S::kWidth)
        S::Store(tile + d * kKeyTile + half * 16 + j, S::LoadBf16(from + d * 16 + j));
    }
  }
}

template <typename S>
inline void WidenValues(const uint16_t* values, size_t count, float* tile) {
  for (size_t i = 0; i < count; i += S::kWidth) S::Store(tile + i, S::LoadBf16(values + i));
}

// Which rows of tile [tile_begin, tile_begin + 32) of a run take part at all, one bit a row.
inline uint32_t RunMask(const AttentionRun& run, int tile_begin) {
  uint32_t mask = ~0u;
  if (run.row_begin > tile_begin) mask &= ~0u << (run.row_begin - tile_begin);
  if (run.row_end < tile_begin + kKeyTile) mask &= ~0u >> (tile_begin + kKeyTile - run.row_end);
  if (run.skip != nullptr) mask &= ~run.skip[tile_begin / kKeyTile];
  return mask;
}

template <typename S>
struct Attention {
  using V = typename S::V;

  const AttentionBlock& block;
  const int vectors;  // query vectors: rows * group
  const int dim;
  float* rotated;  // [vectors][dim], scaled by 1 / sqrt(dim)
  float* sums;     // [vectors][dim], the unnormalised output
  float* scores;   // [vectors][kKeyTile]
  float* maxima;   // [vectors]
  float* totals;   // [vectors]
  float* key_tile;
  float* value_tile;

  explicit Attention(const AttentionBlock& b) : block(b), vectors(b.rows * b.group), dim(b.head_dim) {
    const size_t capacity = static_cast<size_t>(kAttentionRowsMax) * b.group;
    rotated = b.scratch;
    sums = rotated + capacity * dim;
    scores = sums + capacity * dim;
    key_tile = scores + capacity * kKeyTile;
    value_tile = key_tile + static_cast<size_t>(kKeyTile) * dim;
    maxima = value_tile + static_cast<size_t>(kKeyTile) * dim;
    totals = maxima + capacity;
    for (int i = 0; i < vectors * dim; ++i) sums[i] = 0;
    for (int i = 0; i < vectors; ++i) {
      maxima[i] = -__builtin_inff();
      totals[i] = 0;
    }
  }

  // Turns the queries to where this segment's keys expect them: (R(m) q)·(R(Δ+j) k) = (R(m−Δ+s) q)·(R(s+j) k).
  void RotateQueries(const AttentionSegment& segment) {
    const int half = dim / 2;
    const V scale = S::Set(1.0f / __builtin_sqrtf(static_cast<float>(dim)));
    for (int r = 0; r < block.rows; ++r) {
      if (segment.limits[r] <= 0) continue;
      const size_t angle = static_cast<size_t>(block.positions[r] + segment.query_shift) * half;
      for (int g = 0; g < block.group; ++g) {
        const float* q = block.queries + r * block.row_stride + static_cast<size_t>(g) * dim;
        float* out = rotated + static_cast<size_t>(r * block.group + g) * dim;
        for (int i = 0; i < half; i += 8) RotateEight(q, angle, half, i, scale, out);
      }
    }
  }

  void RotateEight(const float* q, size_t angle, int half, int begin, V scale, float* out) {
    if constexpr (S::kWidth == 8) {
      const V cosine = S::Load(block.rope_cos + angle + begin);
      const V sine = S::Load(block.rope_sin + angle + begin);
      const V low = S::Mul(S::Load(q + begin), scale);
      const V high = S::Mul(S::Load(q + half + begin), scale);
      S::Store(out + begin, S::Sub(S::Mul(low, cosine), S::Mul(high, sine)));
      S::Store(out + half + begin, S::Fma(high, cosine, S::Mul(low, sine)));
    } else {
      const float factor = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
      for (int i = begin; i < begin + 8; ++i) {
        const float cosine = block.rope_cos[angle + i];
        const float sine = block.rope_sin[angle + i];
        const float low = q[i] * factor;
        const float high = q[half + i] * factor;
        out[i] = low * cosine - high * sine;
        out[half + i] = high * cosine + low * sine;
      }
    }
  }

  // Scores of query vectors [first, vectors) against the widened key tile.
  void Score(int first) {
    constexpr int kStep = 2 * S::kWidth;
    for (int column = 0; column < kKeyTile; column += kStep) {
      for (int v = first; v < vectors; v += S::kTileRows) {
        const int count = vectors - v < S::kTileRows ? vectors - v : S::kTileRows;
        MultiplyRows<S, S::kTileRows, 2, 2>(count, rotated + static_cast<size_t>(v) * dim, dim, key_tile + column,
                                            kKeyTile, 0, dim, scores + v * kKeyTile + column, kKeyTile, false);
      }
    }
  }

  // Online softmax: scores become weights, running maximum, sum and output are brought to the new maximum.
  void Weigh(int v, uint32_t mask) {
    float* row = scores + v * kKeyTile;
    if (mask != ~0u) {
      for (int j = 0; j < kKeyTile; ++j) {
        if ((mask >> j & 1u) == 0) row[j] = -__builtin_inff();
      }
    }
    V top = S::Load(row);
    for (int j = S::kWidth; j < kKeyTile; j += S::kWidth) top = S::Max(top, S::Load(row + j));
    const float tile_max = S::MaxLanes(top);
    if (tile_max == -__builtin_inff()) {
      for (int j = 0; j < kKeyTile; ++j) row[j] = 0;
      return;
    }
    if (tile_max > maxima[v]) {
      const V shrink = S::Exp(S::Set(maxima[v] - tile_max));
      float* out = sums + static_cast<size_t>(v) * dim;
      for (int i = 0; i < dim; i += S::kWidth) S::Store(out + i, S::Mul(S::Load(out + i), shrink));
      totals[v] *= S::First(shrink);
      maxima[v] = tile_max;
    }
    const V offset = S::Set(maxima[v]);
    V total = S::Zero();
    for (int j = 0; j < kKeyTile; j += S::kWidth) {
      const V weight = S::Exp(S::Sub(S::Load(row + j), offset));
      S::Store(row + j, weight);
      total = S::Add(total, weight);
    }
    totals[v] += S::SumLanes(total);
  }

  void AddValues(int first) {
    int column = 0;
    for (; column + 2 * S::kWidth <= dim; column += 2 * S::kWidth) AddValueColumns<2>(first, column);
    for (; column < dim; column += S::kWidth) AddValueColumns<1>(first, column);
  }
  template <int kVectors>
  void AddValueColumns(int first, int column) {
    for (int v = first; v < vectors; v += S::kTileRows) {
      const int count = vectors - v < S::kTileRows ? vectors - v : S::kTileRows;
      MultiplyRows<S, S::kTileRows, kVectors, kVectors>(count, scores + v * kKeyTile, kKeyTile, value_tile + column,
                                                        dim, 0, kKeyTile, sums + static_cast<size_t>(v) * dim + column,
                                                        dim, true);
    }
  }

  void AttendTile(const AttentionSegment& segment, const AttentionRun& run, int tile_begin, uint32_t run_mask) {
    // Limits ascend with the rows: the first rows may not see the tile at all.
    const int index = run.first_index + tile_begin;
    int first_row = 0;
    while (first_row < block.rows && segment.limits[first_row] <= index) ++first_row;
    if (first_row == block.rows) return;
    WidenKeys<S>(run.keys + static_cast<size_t>(tile_begin) * dim, dim, key_tile);
    WidenValues<S>(run.values + static_cast<size_t>(tile_begin) * dim, static_cast<size_t>(kKeyTile) * dim, value_tile);
    const int first = first_row * block.group;
    Score(first);
    for (int r = first_row; r < block.rows; ++r) {
      const int visible = segment.limits[r] - index;
      const uint32_t mask = visible >= kKeyTile ? run_mask : run_mask & (~0u >> (kKeyTile - visible));
      for (int g = 0; g < block.group; ++g) Weigh(r * block.group + g, mask);
    }
    AddValues(first);
  }

  void Run() {
    for (int s = 0; s < block.segment_count; ++s) {
      const AttentionSegment& segment = block.segments[s];
      if (segment.limits[block.rows - 1] <= 0) continue;
      RotateQueries(segment);
      for (int i = 0; i < segment.run_count; ++i) {
        const AttentionRun& run = segment.runs[i];
        for (int tile = run.row_begin / kKeyTile * kKeyTile; tile < run.row_end; tile += kKeyTile) {
          const uint32_t mask = RunMask(run, tile);
          if (mask != 0) AttendTile(segment, run, tile, mask);
        }
      }
    }
    for (int v = 0; v < vectors; ++v) {
      float* out = block.output + (v / block.group) * block.output_stride + static_cast<size_t>(v % block.group) * dim;
      const V inverse = S::Set(totals[v] > 0 ? 1.0f / totals[v] : 0.0f);
      for (int i = 0; i < dim; i += S::kWidth) {
        S::Store(out + i, S::Mul(S::Load(sums + static_cast<size_t>(v) * dim + i), inverse));
      }
    }
  }
};

template <typename S>
void Attend(const AttentionBlock& block) {
  Attention<S>(block).Run();
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_ATTENTION_IMPL_H_
