// Products with weights in GGUF's block layouts (block_matrix.h): blocks become floats in registers, on the way to the
// sums.
//
// A weight is exactly the float that DequantizeRows (engine/files) gives, up to the one rounding that a fused d * q + m
// saves. Every result is S::kWidth sums, each a chain of fused multiply-adds in ascending order of the blocks and in
// the decoder's order within one, added up at the end: the same whatever the tile, so that a row does not depend on the
// others. A tile of several rows decodes each block once for all of them.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_BLOCK_IMPL_H_
#define EPIC_ENGINE_CPU_BLOCK_IMPL_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/block_matrix.h"

namespace epic {
namespace {

// A decoder calls use(i, vector) for the elements i, i + 1, ... of a block, S::kWidth at a time, each once.

// Scale (half), [minimum (half)], [32 fifth bits, element 0 lowest], 16 bytes whose low nibbles are elements 0-15 and
// whose high nibbles are elements 16-31. Without a minimum the elements are biased by half their range.
template <typename S, bool kHasMinimum, bool kHasFifthBits>
struct NibbleBlocks {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 18 + (kHasMinimum ? 2 : 0) + (kHasFifthBits ? 4 : 0);

  template <typename Use>
  static inline void Decode(const uint8_t* block, const Use& use) {
    using I = typename S::I;
    const float scale = S::FromHalf(block);
    const typename S::V scales = S::Set(scale);
    const typename S::V minima =
        S::Set(kHasMinimum ? S::FromHalf(block + 2) : scale * (kHasFifthBits ? -16.0f : -8.0f));
    const uint8_t* nibbles = block + kBytes - 16;
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += S::kWidth) {
      const I bytes = S::WidenBytes(nibbles + i);
      I low = S::And(bytes, S::SetInt(0x0f));
      I high = S::ShiftRight(bytes, 4);
      if constexpr (kHasFifthBits) {
        const uint8_t* fifth = block + (kHasMinimum ? 4 : 2);
        low = S::Or(low, S::And(S::ShiftLeft(S::SpreadBits(fifth + i / 8), 4), S::SetInt(0x10)));
        high = S::Or(high, S::And(S::ShiftLeft(S::SpreadBits(fifth + 2 + i / 8), 4), S::SetInt(0x10)));
      }
      use(i, S::Fma(S::ToFloat(low), scales, minima));
      use(16 + i, S::Fma(S::ToFloat(high), scales, minima));
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
    const typename S::V scales = S::Set(S::FromHalf(block));
#pragma GCC unroll 4
    for (int i = 0; i < 32; i += S::kWidth) {
      use(i, S::Mul(S::ToFloat(S::WidenSignedBytes(block + 2 + i)), scales));
    }
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
#pragma GCC unroll 4
      for (int i = 0; i < 32; i += S::kWidth) {
        const I bytes = S::WidenBytes(nibbles + pair * 32 + i);
        I low = S::And(bytes, S::SetInt(0x0f));
        I high = S::ShiftRight(bytes, 4);
        if constexpr (kHasFifthBits) {
          const I fifth = S::ShiftRight(S::WidenBytes(block + 16 + i), even);
          low = S::Or(low, S::And(S::ShiftLeft(fifth, 4), S::SetInt(0x10)));
          high = S::Or(high, S::And(S::ShiftLeft(fifth, 3), S::SetInt(0x10)));
        }
        use(even * 32 + i, S::Fma(S::ToFloat(low), scales_low, minima_low));
        use(even * 32 + 32 + i, S::Fma(S::ToFloat(high), scales_high, minima_high));
      }
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
      typename S::V scales[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        scales[j] = S::Set(scale * static_cast<float>(group_scales[half * 8 + j * 2 + sixteen % 2]));
      }
#pragma GCC unroll 2
      for (int i = 0; i < 16; i += S::kWidth) {
        const I first = S::WidenBytes(nibbles + i);
        const I second = S::WidenBytes(nibbles + 32 + i);
        const I upper = S::WidenBytes(pairs + i);
        const I nibble = S::SetInt(0x0f);
        const I pair = S::SetInt(0x30);
        const I bias = S::SetInt(32);
        const auto give = [&](int j, I low, I high) {
          const I element = S::SubInt(S::Or(low, S::And(high, pair)), bias);
          use(half * 128 + j * 32 + column + i, S::Mul(S::ToFloat(element), scales[j]));
        };
        give(0, S::And(first, nibble), S::ShiftLeft(upper, 4));
        give(1, S::And(second, nibble), S::ShiftLeft(upper, 2));
        give(2, S::ShiftRight(first, 4), upper);
        give(3, S::ShiftRight(second, 4), S::ShiftRight(upper, 2));
      }
    }
  }
};

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
      Blocks::Decode(weights + o * row_bytes + static_cast<size_t>(b) * Blocks::kBytes, [&](int i, typename S::V w) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[r][o] = S::Fma(w, S::Load(activations + r * a_stride + i), sums[r][o]);
      });
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

template <typename S, typename Blocks>
void MultiplyBlocksOf(const float* a, size_t a_stride, int rows, const uint8_t* weights, int inner, int outputs,
                      float* c, size_t c_stride, bool accumulate) {
  const int blocks = inner / Blocks::kElements;
  const size_t row_bytes = static_cast<size_t>(blocks) * Blocks::kBytes;
  int r = 0;
  for (; r + 8 <= rows; r += 8) {
    MultiplyBlockRows<S, Blocks, 8, 1>(a + r * a_stride, a_stride, weights, row_bytes, blocks, outputs,
                                       c + r * c_stride, c_stride, accumulate);
  }
  for (; r + 4 <= rows; r += 4) {
    MultiplyBlockRows<S, Blocks, 4, 2>(a + r * a_stride, a_stride, weights, row_bytes, blocks, outputs,
                                       c + r * c_stride, c_stride, accumulate);
  }
  for (; r + 2 <= rows; r += 2) {
    MultiplyBlockRows<S, Blocks, 2, 2>(a + r * a_stride, a_stride, weights, row_bytes, blocks, outputs,
                                       c + r * c_stride, c_stride, accumulate);
  }
  for (; r < rows; ++r) {
    MultiplyBlockRows<S, Blocks, 1, 4>(a + r * a_stride, a_stride, weights, row_bytes, blocks, outputs,
                                       c + r * c_stride, c_stride, accumulate);
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
