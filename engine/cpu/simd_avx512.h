// Vectors of 16 floats: AVX-512F.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_SIMD_AVX512_H_
#define EPIC_ENGINE_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace epic {
namespace {

struct Avx512 {
  using V = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kTileRows = 12;  // 24 sums, 2 columns and 1 broadcast out of 32 registers
  static constexpr const char* kName = "avx512";

  static V Zero() { return _mm512_setzero_ps(); }
  static V Set(float x) { return _mm512_set1_ps(x); }
  static V Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V LoadBf16(const uint16_t* p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
  }
  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm512_div_ps(a, b); }
  static V Max(V a, V b) { return _mm512_max_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V FmaInPlace(V a, V b, V c) { return Fma(a, b, c); }  // there are registers enough, see simd_avx2.h
  static float First(V v) { return _mm512_cvtss_f32(v); }

  using I = __m512i;  // kWidth 32-bit integers
  static I LoadInts(const void* p) { return _mm512_loadu_si512(p); }
  // Pairs of bf16, one a lane, the first in the low half.
  static V FirstOfPairs(I pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
  static V SecondOfPairs(I pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  static float SumLanes(V v) { return _mm512_reduce_add_ps(v); }
  static float MaxLanes(V v) { return _mm512_reduce_max_ps(v); }
  // Lane i of a where bit i is set, of b where it is not.
  static V Select(uint32_t bits, V a, V b) { return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), b, a); }
  // 2^x for x <= 0, as for AVX2.
  static V Exp2(V x) {
    const V clamped = Max(x, Set(-127.0f));
    const V n = _mm512_roundscale_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const V r = Sub(clamped, n);
    V y = Set(0.0013264727f);
    y = Fma(y, r, Set(0.0096715126f));
    y = Fma(y, r, Set(0.055507337f));
    y = Fma(y, r, Set(0.24022242f));
    y = Fma(y, r, Set(0.69314698f));
    y = Fma(y, r, Set(1.0f));
    const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    return Mul(y, _mm512_castsi512_ps(power));
  }
  // The same series as for AVX2.
  static V Exp(V x) {
    const V clamped = Max(_mm512_min_ps(x, Set(88.3762626647949f)), Set(-87.3365478515625f));
    const V n =
        _mm512_roundscale_ps(Mul(clamped, Set(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    V r = Fma(n, Set(-0.693359375f), clamped);
    r = Fma(n, Set(2.12194440e-4f), r);
    V y = Set(1.0f / 5040);
    y = Fma(y, r, Set(1.0f / 720));
    y = Fma(y, r, Set(1.0f / 120));
    y = Fma(y, r, Set(1.0f / 24));
    y = Fma(y, r, Set(1.0f / 6));
    y = Fma(y, r, Set(0.5f));
    y = Fma(y, r, Set(1.0f));
    y = Fma(y, r, Set(1.0f));
    const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    const V result = Mul(y, _mm512_castsi512_ps(power));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, Set(-87.3365478515625f), _CMP_NLT_UQ), result);
  }
};

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_SIMD_AVX512_H_
