// Vectors of 8 floats: AVX2 with FMA.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_SIMD_AVX2_H_
#define EPIC_ENGINE_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace epic {
namespace {

struct Avx2 {
  using V = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kTileRows = 6;  // 12 sums, 2 columns and 1 broadcast fill the 16 registers
  static constexpr const char* kName = "avx2";

  static V Zero() { return _mm256_setzero_ps(); }
  static V Set(float x) { return _mm256_set1_ps(x); }
  static V Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V LoadBf16(const uint16_t* p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
  }
  static V Add(V a, V b) { return _mm256_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm256_div_ps(a, b); }
  static V Max(V a, V b) { return _mm256_max_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  // The same. Where sums fill the registers GCC 12 at times puts the result of a fused multiply-add in another register
  // than the sum's and then lacks one: this form leaves it no choice.
  static V FmaInPlace(V a, V b, V c) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return c;
  }
  static float First(V v) { return _mm256_cvtss_f32(v); }

  using I = __m256i;  // kWidth 32-bit integers
  static I LoadInts(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  // Pairs of bf16, one a lane, the first in the low half.
  static V FirstOfPairs(I pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
  static V SecondOfPairs(I pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  static float SumLanes(V v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  static float MaxLanes(V v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  // Lane i of a where bit i is set, of b where it is not.
  static V Select(uint32_t bits, V a, V b) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i chosen = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane), lane);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(chosen));
  }
  // 2^x for x <= 0: 2^n 2^r with |r| <= 1/2 and a polynomial of 2^r (relative error below 2e-7); exactly 1 at 0,
  // exactly 0 below -126.5.
  static V Exp2(V x) {
    const V clamped = Max(x, Set(-127.0f));
    const V n = _mm256_round_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const V r = Sub(clamped, n);
    V y = Set(0.0013264727f);
    y = Fma(y, r, Set(0.0096715126f));
    y = Fma(y, r, Set(0.055507337f));
    y = Fma(y, r, Set(0.24022242f));
    y = Fma(y, r, Set(0.69314698f));
    y = Fma(y, r, Set(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return Mul(y, _mm256_castsi256_ps(power));
  }
  // e^x = 2^n e^r with |r| <= ln(2) / 2 and the series of e^r to r^7; exactly 1 at 0, exactly 0 below -87.3.
  static V Exp(V x) {
    const V clamped = Max(_mm256_min_ps(x, Set(88.3762626647949f)), Set(-87.3365478515625f));
    const V n = _mm256_round_ps(Mul(clamped, Set(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
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
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const V result = Mul(y, _mm256_castsi256_ps(power));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, Set(-87.3365478515625f), _CMP_LT_OQ), result);
  }
};

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_SIMD_AVX2_H_
