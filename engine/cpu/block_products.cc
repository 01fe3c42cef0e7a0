// Built with the flags of AVX2, FMA and F16C: it includes no header with inline functions but the compiler's own, see
// kernels_impl.h.
#include <immintrin.h>

#include "engine/cpu/block_matrix.h"

namespace epic {
namespace {

// How far ahead of one row's product its weights are fetched: a page, which the processor's own prefetcher stops at.
constexpr size_t kPrefetchBytes = 4096;
// Rows of activations that meet a group of weights once it is decoded.
constexpr int kTileRows = 4;

using Bytes16 = __m128i;
using Words = __m256i;  // 16 signed 16-bit integers

inline Bytes16 Load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline Words Widen(const uint8_t* p) { return _mm256_cvtepu8_epi16(Load16(p)); }
inline Words LowNibbles(Words bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi16(0x0f)); }
inline Words HighNibbles(Words bytes) { return _mm256_srli_epi16(bytes, 4); }
inline uint32_t Load4(const uint8_t* p) {
  uint32_t word = 0;
  __builtin_memcpy(&word, p, sizeof(word));
  return word;
}
inline uint16_t Load2(const uint8_t* p) {
  uint16_t half = 0;
  __builtin_memcpy(&half, p, sizeof(half));
  return half;
}
inline float Half(const uint8_t* p) { return _cvtsh_ss(Load2(p)); }
inline __m256 BytesToFloats(uint32_t low, uint32_t high) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(uint64_t{high} << 32 | low))));
}

// Of the groups of one block: weight = scale * element + minimum.
template <int kGroups>
struct Scales {
  alignas(32) float scale[kGroups];
  alignas(32) float high_scale[kGroups];  // of elements 16-31, where it is another (kHasTwoScales)
  alignas(32) float minimum[kGroups];     // where the format has one (kHasMinimum)
};

// Elements 0-15 and 16-31 of a group.
struct Elements {
  Words low;
  Words high;
};

// 0x10 in every word whose bit of `bits` is set: the fifth bits of 16 elements.
inline Words FifthBits(const uint8_t* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, sizeof(bits));
  const Words one_each =
      _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
  const Words spread = _mm256_and_si256(_mm256_set1_epi16(static_cast<int16_t>(bits)), one_each);
  return _mm256_and_si256(_mm256_cmpeq_epi16(spread, one_each), _mm256_set1_epi16(0x10));
}

// Q4_0, Q4_1, Q5_0, Q5_1: scale (half), [minimum (half)], [32 fifth bits, element 0 lowest], 16 bytes whose low nibbles
// are elements 0-15 and whose high nibbles are elements 16-31. Without a minimum elements are biased by half their
// range.
template <bool kMinimum, bool kFifthBits>
struct NibbleBlocks {
  static constexpr int kGroups = 1;
  static constexpr int kBytes = 18 + (kMinimum ? 2 : 0) + (kFifthBits ? 4 : 0);
  static constexpr bool kHasMinimum = kMinimum;
  static constexpr bool kHasTwoScales = false;

  static inline void GetScales(const uint8_t* block, Scales<1>& out) {
    if constexpr (kMinimum) {
      const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(Load4(block))));
      out.scale[0] = _mm_cvtss_f32(both);
      out.minimum[0] = _mm_cvtss_f32(_mm_movehdup_ps(both));
    } else {
      out.scale[0] = Half(block);
    }
  }
  static inline Elements GetElements(const uint8_t* block, int /*group*/) {
    const Words bytes = Widen(block + kBytes - 16);
    Elements out = {LowNibbles(bytes), HighNibbles(bytes)};
    if constexpr (kFifthBits) {
      const uint8_t* fifth = block + kBytes - 20;
      out.low = _mm256_or_si256(out.low, FifthBits(fifth));
      out.high = _mm256_or_si256(out.high, FifthBits(fifth + 2));
    }
    if constexpr (!kMinimum) {
      const Words bias = _mm256_set1_epi16(kFifthBits ? 16 : 8);
      out.low = _mm256_sub_epi16(out.low, bias);
      out.high = _mm256_sub_epi16(out.high, bias);
    }
    return out;
  }
};

// Q8_0: scale (half), 32 signed bytes.
struct ByteBlocks {
  static constexpr int kGroups = 1;
  static constexpr int kBytes = 34;
  static constexpr bool kHasMinimum = false;
  static constexpr bool kHasTwoScales = false;

  static inline void GetScales(const uint8_t* block, Scales<1>& out) { out.scale[0] = Half(block); }
  static inline Elements GetElements(const uint8_t* block, int /*group*/) {
    return {_mm256_cvtepi8_epi16(Load16(block + 2)), _mm256_cvtepi8_epi16(Load16(block + 18))};
  }
};

// Q4_K: scale and minimum (halves), 12 bytes of 6-bit scales and minima of eight groups, 128 bytes of nibbles: of each
// 32 bytes the low nibbles are one group of 32, the high nibbles the next. Q5_K: 32 bytes of fifth bits before the
// nibbles, bit g of byte i that of element i in group g.
template <bool kFifthBits>
struct GroupBlocks {
  static constexpr int kGroups = 8;
  static constexpr int kBytes = kFifthBits ? 176 : 144;
  static constexpr bool kHasMinimum = true;
  static constexpr bool kHasTwoScales = false;

  static inline Words Fifth(const uint8_t* bytes, int group) {
    return _mm256_and_si256(_mm256_slli_epi16(_mm256_srli_epi16(Widen(bytes), group), 4), _mm256_set1_epi16(0x10));
  }
  // Bytes 0-3 and 4-7 hold scales and minima of groups 0-3 in their low 6 bits; of groups 4-7 the low nibbles are in
  // bytes 8-11 and the high 2 bits on top of bytes 0-3 and 4-7.
  static inline void GetScales(const uint8_t* block, Scales<kGroups>& out) {
    const uint32_t first = Load4(block + 4), second = Load4(block + 8), third = Load4(block + 12);
    const __m256 scales = BytesToFloats(first & 0x3f3f3f3fu, (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u));
    const __m256 minima = BytesToFloats(second & 0x3f3f3f3fu, (third >> 4 & 0x0f0f0f0fu) | (second >> 2 & 0x30303030u));
    _mm256_store_ps(out.scale, _mm256_mul_ps(_mm256_set1_ps(Half(block)), scales));
    _mm256_store_ps(out.minimum, _mm256_mul_ps(_mm256_set1_ps(-Half(block + 2)), minima));
  }
  static inline Elements GetElements(const uint8_t* block, int group) {
    const uint8_t* nibbles = block + kBytes - 128 + group / 2 * 32;
    const Words first = Widen(nibbles), second = Widen(nibbles + 16);
    Elements out = {group % 2 == 0 ? LowNibbles(first) : HighNibbles(first),
                    group % 2 == 0 ? LowNibbles(second) : HighNibbles(second)};
    if constexpr (kFifthBits) {
      out.low = _mm256_or_si256(out.low, Fifth(block + 16, group));
      out.high = _mm256_or_si256(out.high, Fifth(block + 32, group));
    }
    return out;
  }
};

// Q6_K: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales for groups of 16, scale of the block
// (half); elements are biased by 32. Each half of the elements takes 64 bytes of nibbles, the low ones its first 64
// elements, and 32 bytes of pairs: elements 0-31 their lowest bits, 32-63 the next, and so on.
struct SixBitBlocks {
  static constexpr int kGroups = 8;
  static constexpr int kBytes = 210;
  static constexpr bool kHasMinimum = false;
  static constexpr bool kHasTwoScales = true;

  static inline void GetScales(const uint8_t* block, Scales<kGroups>& out) {
    const Words all = _mm256_cvtepi8_epi16(Load16(block + 192));  // each 32 bits: an even group of 16, an odd one
    const __m256i even = _mm256_srai_epi32(_mm256_slli_epi32(all, 16), 16);
    const __m256i odd = _mm256_srai_epi32(all, 16);
    const __m256 scale = _mm256_set1_ps(Half(block + 208));
    _mm256_store_ps(out.scale, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(even)));
    _mm256_store_ps(out.high_scale, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(odd)));
  }
  static inline Words Sixteen(const uint8_t* nibbles, const uint8_t* pairs, int part) {
    const Words bytes = Widen(nibbles);
    const Words low = part < 2 ? LowNibbles(bytes) : HighNibbles(bytes);
    const Words upper = _mm256_slli_epi16(_mm256_srli_epi16(Widen(pairs), 2 * part), 4);
    const Words element = _mm256_or_si256(low, _mm256_and_si256(upper, _mm256_set1_epi16(0x30)));
    return _mm256_sub_epi16(element, _mm256_set1_epi16(32));
  }
  static inline Elements GetElements(const uint8_t* block, int group) {
    const int half = group / 4, part = group % 4;
    const uint8_t* nibbles = block + half * 64 + part % 2 * 32;
    const uint8_t* pairs = block + 128 + half * 32;
    return {Sixteen(nibbles, pairs, part), Sixteen(nibbles + 16, pairs + 16, part)};
  }
};

inline float SumLanes(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

// The sums of one row of activations with one row of weights, in lanes that are added at the end. Groups take turns
// with two vectors, so that one does not wait for the one before.
struct Sums {
  __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  float minima = 0;
};

// kRows rows of activations, from one block on.
struct Rows {
  const int16_t* values;
  const float* scales;
  const float* sums;
  size_t inner;   // distance of the rows' values
  size_t groups;  // distance of the rows' scales and sums

  inline void Skip(int count) {
    values += count * kActivationGroup;
    scales += count;
    sums += count;
  }
};

// Adds the groups of a block. kChain: which vector its first group is added to.
template <typename Blocks, int kRows, int kChain>
inline __attribute__((always_inline)) void AddBlock(const Rows& rows, const uint8_t* block, Sums* sums) {
  Scales<Blocks::kGroups> scales;
  Blocks::GetScales(block, scales);
#pragma GCC unroll 8
  for (int g = 0; g < Blocks::kGroups; ++g) {
    const Elements weights = Blocks::GetElements(block, g);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto* values = reinterpret_cast<const __m256i*>(rows.values + r * rows.inner + g * kActivationGroup);
      const __m256i low = _mm256_madd_epi16(weights.low, _mm256_loadu_si256(values));
      const __m256i high = _mm256_madd_epi16(weights.high, _mm256_loadu_si256(values + 1));
      const float of_row = rows.scales[r * rows.groups + g];
      const __m256 scale = _mm256_set1_ps(scales.scale[g] * of_row);
      __m256& lanes = sums[r].lanes[(kChain + g) % 2];
      if constexpr (Blocks::kHasTwoScales) {
        lanes = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), scale, lanes);
        lanes = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(scales.high_scale[g] * of_row), lanes);
      } else {
        // Four products of at most 127 * 32767 each: no sum of a lane leaves 32 bits.
        lanes = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(low, high)), scale, lanes);
      }
      if constexpr (Blocks::kHasMinimum) {
        sums[r].minima = __builtin_fmaf(scales.minimum[g], rows.sums[r * rows.groups + g], sums[r].minima);
      }
    }
  }
}

// kRows rows of activations with one row of weights.
template <typename Blocks, int kRows>
inline void MultiplyRow(const BlockActivations& activations, int first_row, const uint8_t* weights, int inner, float* c,
                        size_t c_stride, bool accumulate) {
  const int groups = inner / kActivationGroup;
  Rows rows = {activations.values + static_cast<size_t>(first_row) * inner,
               activations.scales + static_cast<size_t>(first_row) * groups,
               activations.sums + static_cast<size_t>(first_row) * groups, static_cast<size_t>(inner),
               static_cast<size_t>(groups)};
  Sums sums[kRows];
  const int blocks = groups / Blocks::kGroups;
  const auto add = [&](auto function) {
    if constexpr (kRows == 1) {
      for (int i = 0; i < Blocks::kBytes; i += 64) __builtin_prefetch(weights + kPrefetchBytes + i);
    }
    function(rows, weights, sums);
    weights += Blocks::kBytes;
    rows.Skip(Blocks::kGroups);
  };
  for (int b = 0; b + 2 <= blocks; b += 2) {
    add(AddBlock<Blocks, kRows, 0>);
    add(AddBlock<Blocks, kRows, Blocks::kGroups % 2>);
  }
  if (blocks % 2 != 0) add(AddBlock<Blocks, kRows, 0>);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const float sum = SumLanes(_mm256_add_ps(sums[r].lanes[0], sums[r].lanes[1])) + sums[r].minima;
    float* const to = c + static_cast<size_t>(r) * c_stride;
    *to = accumulate ? *to + sum : sum;
  }
}

template <typename Blocks>
void MultiplyBlocksOf(const BlockActivations& activations, int rows, const uint8_t* weights, int inner, int outputs,
                      float* c, size_t c_stride, bool accumulate) {
  const size_t row_bytes = static_cast<size_t>(inner / (Blocks::kGroups * kActivationGroup)) * Blocks::kBytes;
  for (int o = 0; o < outputs; ++o) {
    const uint8_t* row = weights + static_cast<size_t>(o) * row_bytes;
    int r = 0;
    const auto tile = [&](auto function) {
      function(activations, r, row, inner, c + r * c_stride + o, c_stride, accumulate);
    };
    for (; r + kTileRows <= rows; r += kTileRows) tile(&MultiplyRow<Blocks, kTileRows>);
    for (; r + 2 <= rows; r += 2) tile(&MultiplyRow<Blocks, 2>);
    for (; r < rows; ++r) tile(&MultiplyRow<Blocks, 1>);
  }
}

void RoundGroup(const float* x, int16_t* values, float* scale, float* sum) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  __m256 defects = _mm256_setzero_ps();  // NaN where there is an infinity or a NaN
  for (int i = 0; i < kActivationGroup; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v));
    defects = _mm256_fmadd_ps(v, _mm256_setzero_ps(), defects);
  }
  float largest = 0;
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, most);
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  const float defect = SumLanes(defects);
  // What is too small for its inverse to be a number is nothing beside any other activation.
  const bool is_zero = largest < 1e-30f;
  const __m256 factor = _mm256_set1_ps(is_zero ? 0.0f : 32767.0f / largest);
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < kActivationGroup; i += 16) {
    const __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
    const __m256i second = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), factor));
    total = _mm256_add_epi32(total, _mm256_add_epi32(first, second));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), packed);
  }
  alignas(32) int32_t parts[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), total);
  int64_t whole = 0;
  for (const int32_t part : parts) whole += part;
  *scale = (is_zero ? 0.0f : largest / 32767.0f) + defect;
  *sum = static_cast<float>(whole) * *scale;
}

}  // namespace

void RoundForBlocks(const float* x, int inner, int16_t* values, float* scales, float* sums) {
  for (int g = 0; g < inner / kActivationGroup; ++g) {
    const int at = g * kActivationGroup;
    RoundGroup(x + at, values + at, scales + g, sums + g);
  }
}

void MultiplyBlocks(BlockFormat format, const BlockActivations& activations, int rows, const std::byte* weights,
                    int inner, int outputs, float* c, size_t c_stride, bool accumulate) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(weights);
  const auto run = [&](auto function) { function(activations, rows, bytes, inner, outputs, c, c_stride, accumulate); };
  switch (format) {
    case BlockFormat::kQ4_0:
      return run(&MultiplyBlocksOf<NibbleBlocks<false, false>>);
    case BlockFormat::kQ4_1:
      return run(&MultiplyBlocksOf<NibbleBlocks<true, false>>);
    case BlockFormat::kQ5_0:
      return run(&MultiplyBlocksOf<NibbleBlocks<false, true>>);
    case BlockFormat::kQ5_1:
      return run(&MultiplyBlocksOf<NibbleBlocks<true, true>>);
    case BlockFormat::kQ8_0:
      return run(&MultiplyBlocksOf<ByteBlocks>);
    case BlockFormat::kQ4_K:
      return run(&MultiplyBlocksOf<GroupBlocks<false>>);
    case BlockFormat::kQ5_K:
      return run(&MultiplyBlocksOf<GroupBlocks<true>>);
    case BlockFormat::kQ6_K:
      return run(&MultiplyBlocksOf<SixBitBlocks>);
  }
}

}  // namespace epic
