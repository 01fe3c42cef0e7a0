// Vectors of 16 floats and 16 pairs of bf16: AVX-512 with BF16.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_SIMD_AVX512BF16_H_
#define EPIC_ENGINE_CPU_SIMD_AVX512BF16_H_

#include "engine/cpu/simd_avx512.h"

namespace epic {
namespace {

struct Avx512Bf16 : Avx512 {
  static constexpr const char* kName = "avx512bf16";

  // The pair of bf16 at p in every lane.
  static I SetPair(const uint16_t* p) {
    int pair = 0;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  // sum + a0 * b0 + a1 * b1 in every lane.
  static V DotPairs(I a, I b, V sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // To nearest, ties to even.
  static void StoreRounded(uint16_t* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  }
};

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_SIMD_AVX512BF16_H_
