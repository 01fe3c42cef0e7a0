// Products with weights in GGUF's block layouts (block_matrix.h): blocks become floats in registers, on the way to the
// sums.
//
// A weight is exactly the float that DequantizeRows (engine/files) gives, up to the one rounding that a fused d * q + m
// saves; where there is no minimum, the scale is multiplied with the sum of a group instead of with each weight. Every
// result is S::kWidth sums: groups of up to 32 elements are chains of fused multiply-adds of their own, added to the
// sums in ascending order, and the sums are added up at the end. That is the same whatever the tile, so that a row does
// not depend on the others, and it leaves enough independent chains in a tile of one row. A tile of several rows
// decodes each block once for all of them.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_BLOCK_IMPL_H_
#define EPIC_ENGINE_CPU_BLOCK_IMPL_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/block_matrix.h"

namespace epic {
namespace {

// A decoder gives groups of elements: use(w, at) for vectors w[j] of weights that begin with element at[j] of the
// block, or use(w, at, scale) where all of them are still to be multiplied by `scale`.

// Scale (half), [minimum (half)], [32 fifth bits, element 0 lowest], 16 bytes whose low nibbles are elements 0-15 and
// whose high nibbles are elements 16-31. Without a minimum the elements are biased by half their range.
template <typename S, bool kHasMinimum, bool kHasFifthBits>
struct NibbleBlocks {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 18 + (kHasMinimum ? 2 : 0) + (kHasFifthBits ? 4 : 0);

  template <typename Use>
  static inline void Decode(const uint8_t* block, const Use& use) {
    using I = typename S::I;
    using V = typename S::V;
    constexpr int kHalf = 16 / S::kWidth;  // vectors of low nibbles, and of high ones
    V weights[2 * kHalf];
    int at[2 * kHalf];
    const uint8_t* nibbles = block + kBytes - 16;
#pragma GCC unroll 4
    for (int j = 0; j < kHalf; ++j) {
      const int i = j * S::kWidth;
      const I bytes = S::WidenBytes(nibbles + i);
      I low = S::And(bytes, S::SetInt(0x0f));
      I high = S::ShiftRight(bytes, 4);
      if constexpr (kHasFifthBits) {
        const uint8_t* fifth = block + (kHasMinimum ? 4 : 2);
        low = S::Or(low, S::And(S::ShiftLeft(S::SpreadBits(fifth + i / 8), 4), S::SetInt(0x10)));
        high = S::Or(high, S::And(S::ShiftLeft(S::SpreadBits(fifth + 2 + i / 8), 4), S::SetInt(0x10)));
      }
      if constexpr (!kHasMinimum) {
        const I bias = S::SetInt(kHasFifthBits ? 16 : 8);
        low = S::SubInt(low, bias);
        high = S::SubInt(high, bias);
      }
      weights[j] = S::ToFloat(low);
      weights[kHalf + j] = S::ToFloat(high);
      at[j] = i;
      at[kHalf + j] = 16 + i;
    }
    if constexpr (kHasMinimum) {
      V scale, minimum;
      S::SetTwoHalves(block, scale, minimum);
#pragma GCC unroll 4
      for (int j = 0; j < 2 * kHalf; ++j) weights[j] = S::Fma(weights[j], scale, minimum);
      use(weights, at);
    } else {
      use(weights, at, S::SetHalf(block));
    }
  }
};

// Scale (half), 32 signed bytes.
template <typename S>
struct ByteBlocks {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 34;

  template <typename Use>
  static inline void Decode(const uint8_t* block, const Use& use) {
    constexpr int kVectors = 32 / S::kWidth;
    typename S::V weights[kVectors];
    int at[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      at[j] = j * S::kWidth;
      weights[j] = S::ToFloat(S::WidenSignedBytes(block + 2 + at[j]));
    }
    use(weights, at, S::SetHalf(block));
  }
};

// Q4_K: scale and minimum (halves), 12 bytes of 6-bit scales and minima of eight groups, 128 bytes of nibbles: of each
// 32 bytes the low nibbles are one group of 32, the high nibbles the next. Q5_K: 32 bytes of fifth bits before the
// nibbles, bit g of byte i that of element i in group g.
template <typename S, bool kHasFifthBits>
struct GroupBlocks {
  static constexpr int kElements = 256;
  static constexpr int kBytes = kHasFifthBits ? 176 : 144;

  // Bytes 0-3 and 4-7 hold scales and minima of groups 0-3 in their low 6 bits; of groups 4-7 the low nibbles are in
  // bytes 8-11 and the high 2 bits on top of bytes 0-3 and 4-7.
  static inline int Scale(const uint8_t* packed, int group) {
    return group < 4 ? packed[group] & 0x3f : (packed[group + 4] & 0x0f) | (packed[group - 4] >> 2 & 0x30);
  }
  static inline int Minimum(const uint8_t* packed, int group) {
    return group < 4 ? packed[group + 4] & 0x3f : packed[group + 4] >> 4 | (packed[group] >> 2 & 0x30);
  }

  template <typename Use>
  static inline void Decode(const uint8_t* block, const Use& use) {
    using I = typename S::I;
    const float scale = S::FromHalf(block);
    const float minimum = S::FromHalf(block + 2);
    const uint8_t* packed = block + 4;
    const uint8_t* nibbles = block + kBytes - 128;
    for (int pair = 0; pair < 4; ++pair) {
      const int even = 2 * pair;
      const typename S::V scales_low = S::Set(scale * static_cast<float>(Scale(packed, even)));
      const typename S::V minima_low = S::Set(-minimum * static_cast<float>(Minimum(packed, even)));
      const typename S::V scales_high = S::Set(scale * static_cast<float>(Scale(packed, even + 1)));
      const typename S::V minima_high = S::Set(-minimum * static_cast<float>(Minimum(packed, even + 1)));
      constexpr int kVectors = 32 / S::kWidth;
      typename S::V weights_low[kVectors], weights_high[kVectors];
      int at_low[kVectors], at_high[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        const int i = j * S::kWidth;
        const I bytes = S::WidenBytes(nibbles + pair * 32 + i);
        I low = S::And(bytes, S::SetInt(0x0f));
        I high = S::ShiftRight(bytes, 4);
        if constexpr (kHasFifthBits) {
          const I fifth = S::ShiftRight(S::WidenBytes(block + 16 + i), even);
          low = S::Or(low, S::And(S::ShiftLeft(fifth, 4), S::SetInt(0x10)));
          high = S::Or(high, S::And(S::ShiftLeft(fifth, 3), S::SetInt(0x10)));
        }
        weights_low[j] = S::Fma(S::ToFloat(low), scales_low, minima_low);
        weights_high[j] = S::Fma(S::ToFloat(high), scales_high, minima_high);
        at_low[j] = even * 32 + i;
        at_high[j] = even * 32 + 32 + i;
      }
      use(weights_low, at_low);
      use(weights_high, at_high);
    }
  }
};

// Q6_K: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales for groups of 16, scale of the block
// (half); elements are biased by 32. Each half of the elements takes 64 bytes of nibbles, the low ones its first 64
// elements, and 32 bytes of pairs: elements 0-31 their lowest bits, 32-63 the next, and so on.
template <typename S>
struct SixBitBlocks {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 210;

  template <typename Use>
  static inline void Decode(const uint8_t* block, const Use& use) {
    using I = typename S::I;
    const float scale = S::FromHalf(block + 208);
    const auto* group_scales = reinterpret_cast<const int8_t*>(block + 192);
    for (int sixteen = 0; sixteen < 4; ++sixteen) {  // of the 32 elements that share their bytes of pairs, twice
      const int half = sixteen / 2;
      const int column = sixteen % 2 * 16;
      const uint8_t* nibbles = block + half * 64 + column;
      const uint8_t* pairs = block + 128 + half * 32 + column;
      const auto group = [&](int j, const auto& decode) {
        constexpr int kVectors = 16 / S::kWidth;
        typename S::V weights[kVectors];
        int at[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const int i = v * S::kWidth;
          weights[v] = S::ToFloat(S::SubInt(decode(i), S::SetInt(32)));
          at[v] = half * 128 + j * 32 + column + i;
        }
        use(weights, at, S::Set(scale * static_cast<float>(group_scales[half * 8 + j * 2 + sixteen % 2])));
      };
      const auto low = [&](int i) { return S::And(S::WidenBytes(nibbles + i), S::SetInt(0x0f)); };
      const auto high = [&](int i) { return S::ShiftRight(S::WidenBytes(nibbles + i), 4); };
      const auto upper = [&](I shifted) { return S::And(shifted, S::SetInt(0x30)); };
      const auto pair = [&](int i) { return S::WidenBytes(pairs + i); };
      group(0, [&](int i) { return S::Or(low(i), upper(S::ShiftLeft(pair(i), 4))); });
      group(1, [&](int i) { return S::Or(low(32 + i), upper(S::ShiftLeft(pair(i), 2))); });
      group(2, [&](int i) { return S::Or(high(i), upper(pair(i))); });
      group(3, [&](int i) { return S::Or(high(32 + i), upper(S::ShiftRight(pair(i), 2))); });
    }
  }
};

template <typename S, int kVectors>
inline typename S::V MultiplyGroup(const float* a, const typename S::V (&weights)[kVectors],
                                   const int (&at)[kVectors]) {
  typename S::V sum = S::Mul(weights[0], S::Load(a + at[0]));
#pragma GCC unroll 4
  for (int j = 1; j < kVectors; ++j) sum = S::Fma(weights[j], S::Load(a + at[j]), sum);
  return sum;
}

// How far ahead weights are fetched: the processor alone does not fetch early enough for rows this short.
inline constexpr int kBlockPrefetchBytes = 4096;

template <typename S, typename Blocks, int kRows, int kOutputs>
inline void MultiplyBlockTile(const float* a, size_t a_stride, const uint8_t* weights, size_t row_bytes, int blocks,
                              float* c, size_t c_stride, bool accumulate) {
  typename S::V sums[kRows][kOutputs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) sums[r][o] = S::Zero();
  }
  for (int b = 0; b < blocks; ++b) {
    const float* activations = a + static_cast<size_t>(b) * Blocks::kElements;
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const auto use = [&](const auto& group_weights, const auto& at, auto... scale) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const typename S::V group = MultiplyGroup<S>(activations + r * a_stride, group_weights, at);
          if constexpr (sizeof...(scale) == 0) {
            sums[r][o] = S::Add(sums[r][o], group);
          } else {
            sums[r][o] = S::Fma(group, scale..., sums[r][o]);
          }
        }
      };
      const uint8_t* block = weights + o * row_bytes + static_cast<size_t>(b) * Blocks::kBytes;
#pragma GCC unroll 4
      for (int i = 0; i < Blocks::kBytes; i += 64) __builtin_prefetch(block + kBlockPrefetchBytes + i);
      Blocks::Decode(block, use);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const float sum = S::SumLanes(sums[r][o]);
      float* to = c + r * c_stride + o;
      *to = accumulate ? *to + sum : sum;
    }
  }
}

// `outputs` may be any number: as many tiles of kOutputs as there are, then single ones.
template <typename S, typename Blocks, int kRows, int kOutputs>
inline void MultiplyBlockRows(const float* a, size_t a_stride, const uint8_t* weights, size_t row_bytes, int blocks,
                              int outputs, float* c, size_t c_stride, bool accumulate) {
  int o = 0;
  for (; o + kOutputs <= outputs; o += kOutputs) {
    MultiplyBlockTile<S, Blocks, kRows, kOutputs>(a, a_stride, weights + o * row_bytes, row_bytes, blocks, c + o,
                                                  c_stride, accumulate);
  }
  if constexpr (kOutputs > 1) {
    for (; o < outputs; ++o) {
      MultiplyBlockTile<S, Blocks, kRows, 1>(a, a_stride, weights + o * row_bytes, row_bytes, blocks, c + o, c_stride,
                                             accumulate);
    }
  }
}

// Weights that the rows' tiles go over before the next ones' turn: they stay in the first-level cache.
inline constexpr size_t kBlockChunkBytes = 16 * 1024;

template <typename S, typename Blocks>
void MultiplyBlocksOf(const float* a, size_t a_stride, int rows, const uint8_t* weights, int inner, int outputs,
                      float* c, size_t c_stride, bool accumulate) {
  const int blocks = inner / Blocks::kElements;
  const size_t row_bytes = static_cast<size_t>(blocks) * Blocks::kBytes;
  const int fitting = static_cast<int>(kBlockChunkBytes / (row_bytes + 1)) / 4 * 4;
  const int chunk = rows == 1 ? outputs : fitting < 4 ? 4 : fitting;
  for (int o = 0; o < outputs; o += chunk) {
    const int count = outputs - o < chunk ? outputs - o : chunk;
    const uint8_t* from = weights + o * row_bytes;
    const auto tile = [&](auto function, int r) {
      function(a + r * a_stride, a_stride, from, row_bytes, blocks, count, c + r * c_stride + o, c_stride, accumulate);
    };
    int r = 0;
    for (; r + 8 <= rows; r += 8) tile(&MultiplyBlockRows<S, Blocks, 8, 1>, r);
    for (; r + 4 <= rows; r += 4) tile(&MultiplyBlockRows<S, Blocks, 4, 2>, r);
    for (; r + 2 <= rows; r += 2) tile(&MultiplyBlockRows<S, Blocks, 2, 2>, r);
    // One output at a time, so that weights come as one stream: its groups are independent chains enough.
    for (; r < rows; ++r) tile(&MultiplyBlockRows<S, Blocks, 1, 1>, r);
  }
}

template <typename S>
void MultiplyBlocks(BlockFormat format, const float* a, size_t a_stride, int rows, const std::byte* weights, int inner,
                    int outputs, float* c, size_t c_stride, bool accumulate) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(weights);
  const auto run = [&](auto function) { function(a, a_stride, rows, bytes, inner, outputs, c, c_stride, accumulate); };
  switch (format) {
    case BlockFormat::kQ4_0:
      return run(&MultiplyBlocksOf<S, NibbleBlocks<S, false, false>>);
    case BlockFormat::kQ4_1:
      return run(&MultiplyBlocksOf<S, NibbleBlocks<S, true, false>>);
    case BlockFormat::kQ5_0:
      return run(&MultiplyBlocksOf<S, NibbleBlocks<S, false, true>>);
    case BlockFormat::kQ5_1:
      return run(&MultiplyBlocksOf<S, NibbleBlocks<S, true, true>>);
    case BlockFormat::kQ8_0:
      return run(&MultiplyBlocksOf<S, ByteBlocks<S>>);
    case BlockFormat::kQ4_K:
      return run(&MultiplyBlocksOf<S, GroupBlocks<S, false>>);
    case BlockFormat::kQ5_K:
      return run(&MultiplyBlocksOf<S, GroupBlocks<S, true>>);
    case BlockFormat::kQ6_K:
      return run(&MultiplyBlocksOf<S, SixBitBlocks<S>>);
  }
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_BLOCK_IMPL_H_
