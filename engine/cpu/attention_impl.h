// Segment attention of query rows over one unit, and what merges units.
//
// Scores and outputs are products of float rows with pairs of bf16: 32 bits hold two neighbours of the inner dimension
// (two dimensions of a key, two rows of a value), so that one load and two cheap integer operations give two vectors of
// floats in registers, without a widened copy. Every score is one chain of multiply-adds over ascending dimensions,
// every output one over ascending rows; the weight of a row that a query does not see is exactly 0. So the bits of a
// query's result do not depend on how many others stand in the same call.
//
// Where the processor multiplies pairs of bf16, queries and weights are rounded to bf16 too, and a weight counts in the
// sum as it counts in the output.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_ATTENTION_IMPL_H_
#define EPIC_ENGINE_CPU_ATTENTION_IMPL_H_

#include "engine/cpu/attention_kernel.h"
#include "engine/cpu/pair_tile_impl.h"

namespace epic {
namespace {

// Pairs of the inner dimension of K or V: pair k of column n stands at
// first + k * pair_stride + (n / 16) * panel_stride + (n % 16) * 2.
struct PairMatrix {
  const uint16_t* first = nullptr;
  size_t pair_stride = 0;
  size_t panel_stride = 0;
  int pairs = 0;
  ptrdiff_t ahead = 0;  // from here to what is read next: it is fetched meanwhile
};

// How many vectors of columns a tile of `rows` query vectors takes: as many as the registers hold beside the sums, and
// for few rows enough that their sums hide the latency of a multiply-add.
template <typename S>
constexpr int TileVectors(int rows) {
  if (S::kTileRows > 6) return rows <= 6 ? 4 : 2;
  return rows == 1 ? 8 : rows == 2 ? 4 : rows == 3 ? 3 : 2;
}

// c[kRows, kVectors * width] = c * factors (or 0) + a[kRows, 2 * pairs] * b. `factors`: one a row, or null for c = 0.
template <typename S, typename Activations, int kRows, int kVectors>
inline void MultiplyPairs(const typename Activations::A* a, size_t a_stride, const PairMatrix& b, int column,
                          const float* factors, float* c, size_t c_stride) {
  typename S::V sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      sums[r][j] =
          factors == nullptr ? S::Zero() : S::Mul(S::Load(c + r * c_stride + j * S::kWidth), S::Set(factors[r]));
    }
  }
  // A tile of an odd number of half panels may begin in the middle of one; all others begin with one.
  const int offset = kVectors * S::kWidth % 16 == 0 ? 0 : column % 16;
  const uint16_t* pair = b.first + (column / 16) * b.panel_stride;
  for (int k = 0; k < b.pairs; ++k, pair += b.pair_stride) {
    const auto at = [&](int j) {
      const int n = offset + j * S::kWidth;
      return pair + (n / 16) * b.panel_stride + (n % 16) * 2;
    };
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j += 16 / S::kWidth) __builtin_prefetch(at(j) + b.ahead, 0, 2);
    Activations::AddPairs(a + 2 * k, a_stride, at, sums);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) S::Store(c + r * c_stride + j * S::kWidth, sums[r][j]);
  }
}

// Columns [column, columns) by tiles of kVectors vectors, the rest by narrower ones.
template <typename S, typename Activations, int kRows, int kVectors>
inline void MultiplyPairColumns(const typename Activations::A* a, size_t a_stride, const PairMatrix& b, int column,
                                int columns, const float* factors, float* c, size_t c_stride) {
  constexpr int kStep = kVectors * S::kWidth;
  for (; column + kStep <= columns; column += kStep) {
    MultiplyPairs<S, Activations, kRows, kVectors>(a, a_stride, b, column, factors, c + column, c_stride);
  }
  if constexpr (kVectors > 1) {
    constexpr int kNarrower = kVectors == 3 ? 2 : kVectors / 2;
    MultiplyPairColumns<S, Activations, kRows, kNarrower>(a, a_stride, b, column, columns, factors, c, c_stride);
  }
}

// The same for any number of rows up to kRows, and all columns.
template <typename S, typename Activations, int kRows>
inline void MultiplyPairRows(int rows, const typename Activations::A* a, size_t a_stride, const PairMatrix& b,
                             int columns, const float* factors, float* c, size_t c_stride) {
  if (rows == kRows) {
    MultiplyPairColumns<S, Activations, kRows, TileVectors<S>(kRows)>(a, a_stride, b, 0, columns, factors, c, c_stride);
  } else if constexpr (kRows > 1) {
    MultiplyPairRows<S, Activations, kRows - 1>(rows, a, a_stride, b, columns, factors, c, c_stride);
  }
}

// Stores a vector as a left factor and returns it as it will count.
template <typename S>
inline typename S::V StoreFactor(float* p, typename S::V v) {
  S::Store(p, v);
  return v;
}
template <typename S>
inline typename S::V StoreFactor(uint16_t* p, typename S::V v) {
  S::StoreRounded(p, v);
  return S::LoadBf16(p);
}

// Activations: FloatActivations<S> or RoundedActivations<S>.
template <typename S, typename Activations>
class UnitAttention {
 public:
  explicit UnitAttention(const AttentionBlock& block)
      : block_(block), dim_(block.head_dim), vectors_(block.query_count * block.group) {
    const size_t capacity = AttentionVectorCapacity(block.group);
    sums_ = block.scratch;
    totals_ = sums_ + capacity * dim_;
    scores_ = totals_ + capacity * kAttentionLanesMax;
    maxima_ = scores_ + static_cast<size_t>(kAttentionStripMax) * kAttentionTileRows;
    factors_ = maxima_ + capacity;
    weights_ = reinterpret_cast<A*>(factors_ + capacity);
    rotated_ = weights_ + static_cast<size_t>(kAttentionStripMax) * kAttentionTileRows;
  }

  void Run() {
    int begin = kAttentionUnitRows;
    int end = 0;
    for (int i = 0; i < block_.query_count; ++i) {
      Rotate(i);
      begin = block_.queries[i].begin < begin ? block_.queries[i].begin : begin;
      end = block_.queries[i].end > end ? block_.queries[i].end : end;
    }
    const size_t floats = static_cast<size_t>(vectors_) * dim_;
    for (size_t i = 0; i < floats; i += S::kWidth) S::Store(sums_ + i, S::Zero());
    for (int v = 0; v < vectors_; ++v) {
      S::Store(totals_ + v * kAttentionLanesMax, S::Zero());
      maxima_[v] = -__builtin_inff();
    }
    const int strips = (vectors_ + S::kTileRows - 1) / S::kTileRows;
    for (int tile = begin / kAttentionTileRows; tile * kAttentionTileRows < end; ++tile) {
      for (int s = 0; s < strips; ++s) AttendStrip(tile, vectors_ * s / strips, vectors_ * (s + 1) / strips);
    }
    for (int i = 0; i < block_.query_count; ++i) StorePartial(i);
  }

 private:
  using V = typename S::V;
  using A = typename Activations::A;

  // Turns query row i to where the unit's keys expect it, (R(m) q)·(R(Δ+j) k) = (R(m−Δ+s) q)·(R(s+j) k), and scales it
  // so that scores are exponents of 2.
  void Rotate(int i) {
    const AttentionQuery& query = block_.queries[i];
    const int half = dim_ / 2;
    const float scale = 1.44269504088896341f / __builtin_sqrtf(static_cast<float>(dim_));
    const float* cosine = block_.rope_cos + static_cast<size_t>(query.angle) * half;
    const float* sine = block_.rope_sin + static_cast<size_t>(query.angle) * half;
    for (int g = 0; g < block_.group; ++g) {
      const float* from = block_.rows + query.row * block_.row_stride + static_cast<size_t>(g) * dim_;
      float* to = scores_;  // not in use yet
      for (int d = 0; d < half; ++d) {
        const float low = from[d] * scale;
        const float high = from[half + d] * scale;
        to[d] = low * cosine[d] - high * sine[d];
        to[half + d] = high * cosine[d] + low * sine[d];
      }
      A* rotated = rotated_ + (static_cast<size_t>(i) * block_.group + g) * dim_;
      for (int d = 0; d < dim_; d += S::kWidth) StoreFactor<S>(rotated + d, S::Load(to + d));
    }
  }

  // Query vectors [first, last) against one tile of keys and values.
  void AttendStrip(int tile, int first, int last) {
    const int index = tile * kAttentionTileRows;
    const int first_query = first / block_.group;
    const int last_query = (last - 1) / block_.group;
    int seen = 0;  // rows of the tile up to the last one that any query of the strip sees
    for (int i = first_query; i <= last_query; ++i) {
      const int end = block_.queries[i].end - index;
      if (block_.queries[i].begin < index + kAttentionTileRows && end > seen) seen = end;
    }
    if (seen == 0) return;
    const int columns = seen >= kAttentionTileRows ? kAttentionTileRows : (seen + 31) / 32 * 32;
    const AttentionTile& at = block_.tiles[tile];
    const bool has_next = (tile + 1) * kAttentionTileRows < block_.tile_rows;
    const AttentionTile& next = has_next ? block_.tiles[tile + 1] : block_.next.keys != nullptr ? block_.next : at;
    const ptrdiff_t keys_ahead = next.keys - at.keys;
    const ptrdiff_t values_ahead = next.values - at.values;
    const PairMatrix keys{at.keys, 32, static_cast<size_t>(16) * dim_, dim_ / 2, keys_ahead};
    const PairMatrix values{at.values, static_cast<size_t>(2) * dim_, 32, columns / 2, values_ahead};
    MultiplyPairRows<S, Activations, S::kTileRows>(last - first, rotated_ + static_cast<size_t>(first) * dim_, dim_,
                                                   keys, columns, nullptr, scores_, kAttentionTileRows);
    for (int i = first_query, v = first; i <= last_query; ++i) {
      const uint64_t mask = Mask(block_.queries[i], index);
      for (; v < last && v < (i + 1) * block_.group; ++v) {
        const size_t at_row = static_cast<size_t>(v - first) * kAttentionTileRows;
        Weigh(v, scores_ + at_row, weights_ + at_row, columns, mask);
      }
    }
    MultiplyPairRows<S, Activations, S::kTileRows>(last - first, weights_, kAttentionTileRows, values, dim_,
                                                   factors_ + first, sums_ + static_cast<size_t>(first) * dim_, dim_);
  }

  // The rows of the tile at `index` that a query sees, one bit a row.
  static uint64_t Mask(const AttentionQuery& query, int index) {
    const int begin = query.begin - index;
    const int end = query.end - index;
    if (begin >= kAttentionTileRows || end <= 0) return 0;
    uint64_t mask = ~uint64_t{0};
    if (begin > 0) mask <<= begin;
    if (end < kAttentionTileRows) mask &= ~uint64_t{0} >> (kAttentionTileRows - end);
    if (query.skip != nullptr) {
      const uint32_t* skip = query.skip + index / 32;
      mask &= ~static_cast<uint64_t>(skip[0]);
      if (end > 32) mask &= ~(static_cast<uint64_t>(skip[1]) << 32);
    }
    return mask;
  }

  // Online softmax: scores become weights. The running maximum and sum are brought to the new maximum, and factors_[v]
  // is what brings the output there.
  void Weigh(int v, float* row, A* weights, int columns, uint64_t mask) {
    if (mask != ~uint64_t{0}) {
      for (int j = 0; j < columns; j += S::kWidth) {
        S::Store(row + j, S::Select(static_cast<uint32_t>(mask >> j), S::Load(row + j), S::Set(-__builtin_inff())));
      }
    }
    V top = S::Load(row);
    for (int j = S::kWidth; j < columns; j += S::kWidth) top = S::Max(top, S::Load(row + j));
    const float tile_max = S::MaxLanes(top);
    float* total = totals_ + static_cast<size_t>(v) * kAttentionLanesMax;
    factors_[v] = 1;
    if (tile_max > maxima_[v]) {
      const V factor = S::Exp2(S::Set(maxima_[v] - tile_max));
      factors_[v] = S::First(factor);
      S::Store(total, S::Mul(S::Load(total), factor));
      maxima_[v] = tile_max;
    } else if (tile_max == -__builtin_inff()) {
      for (int j = 0; j < columns; j += S::kWidth) StoreFactor<S>(weights + j, S::Zero());
      return;
    }
    const V offset = S::Set(maxima_[v]);
    V sum = S::Load(total);
    for (int j = 0; j < columns; j += S::kWidth) {
      sum = S::Add(sum, StoreFactor<S>(weights + j, S::Exp2(S::Sub(S::Load(row + j), offset))));
    }
    S::Store(total, sum);
  }

  void StorePartial(int i) const {
    float* partial = block_.partials + block_.queries[i].slot * block_.partial_stride;
    const size_t floats = static_cast<size_t>(block_.group) * dim_;
    const float* from = sums_ + i * floats;
    for (size_t d = 0; d < floats; d += S::kWidth) S::Store(partial + d, S::Load(from + d));
    float* state = partial + floats;
    for (int g = 0; g < block_.group; ++g) {
      const int v = i * block_.group + g;
      state[2 * g] = maxima_[v];
      state[2 * g + 1] = S::SumLanes(S::Load(totals_ + static_cast<size_t>(v) * kAttentionLanesMax));
    }
  }

  const AttentionBlock& block_;
  const int dim_;
  const int vectors_;
  float* sums_;     // [vectors][dim], the output before its division by the total
  float* totals_;   // [vectors][kAttentionLanesMax], sums of weights, lane by lane
  float* scores_;   // [kAttentionStripMax][kAttentionTileRows], of the strip at hand
  float* maxima_;   // [vectors]
  float* factors_;  // [vectors]
  A* weights_;      // as scores_
  A* rotated_;      // [vectors][dim]
};

template <typename S, typename Activations>
void AttendUnit(const AttentionBlock& block) {
  static_assert(S::kTileRows <= kAttentionStripMax && S::kWidth <= kAttentionLanesMax);
  UnitAttention<S, Activations>(block).Run();
}

template <typename S>
void MergePartial(int group, int head_dim, const float* partial, float* running) {
  using V = typename S::V;
  const size_t floats = static_cast<size_t>(group) * head_dim;
  for (int g = 0; g < group; ++g) {
    const float* from = partial + static_cast<size_t>(g) * head_dim;
    float* to = running + static_cast<size_t>(g) * head_dim;
    const float* from_state = partial + floats + 2 * g;
    float* to_state = running + floats + 2 * g;
    if (!(from_state[1] > 0)) continue;
    const float top = from_state[0] > to_state[0] ? from_state[0] : to_state[0];
    const V keep = S::Exp2(S::Set(to_state[0] - top));
    const V add = S::Exp2(S::Set(from_state[0] - top));
    for (int d = 0; d < head_dim; d += S::kWidth) {
      S::Store(to + d, S::Fma(S::Load(from + d), add, S::Mul(S::Load(to + d), keep)));
    }
    to_state[0] = top;
    to_state[1] = to_state[1] * S::First(keep) + from_state[1] * S::First(add);
  }
}

template <typename S>
void FinishPartial(int group, int head_dim, const float* running, float* output) {
  const float* state = running + static_cast<size_t>(group) * head_dim;
  for (int g = 0; g < group; ++g) {
    const typename S::V inverse = S::Set(state[2 * g + 1] > 0 ? 1.0f / state[2 * g + 1] : 0.0f);
    for (int d = 0; d < head_dim; d += S::kWidth) {
      const size_t at = static_cast<size_t>(g) * head_dim + d;
      S::Store(output + at, S::Mul(S::Load(running + at), inverse));
    }
  }
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_ATTENTION_IMPL_H_
