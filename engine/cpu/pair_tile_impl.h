// A tile of a product with packed bf16 weights (packed_matrix.h), in registers.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_PAIR_TILE_IMPL_H_
#define EPIC_ENGINE_CPU_PAIR_TILE_IMPL_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernels.h"

namespace epic {
namespace {

// How activations meet a vector of pairs: two neighbouring inner elements of each of S::kWidth outputs.

// float32 activations: the pairs become two vectors of floats, the sums one chain of fused multiply-adds in ascending
// order.
template <typename S>
struct FloatActivations {
  using A = float;
  using V = typename S::V;

  // `at(j)` is where vector j's pairs stand.
  template <int kRows, int kVectors, typename At>
  static inline void AddPairs(const A* a, size_t a_stride, const At& at, V (&sums)[kRows][kVectors]) {
    AddFirsts(a, a_stride, at, sums);
    // The sums need every register: without this the compiler keeps the pairs from the first half to the second, and
    // moves sums to the stack.
    __asm__ __volatile__("" ::: "memory");
    V weights[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) weights[j] = S::SecondOfPairs(S::LoadInts(at(j)));
    Add(a + 1, a_stride, weights, sums);
  }
  // The last pair of an odd inner dimension: its second activation does not exist.
  template <int kRows, int kVectors, typename At>
  static inline void AddFirsts(const A* a, size_t a_stride, const At& at, V (&sums)[kRows][kVectors]) {
    V weights[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) weights[j] = S::FirstOfPairs(S::LoadInts(at(j)));
    Add(a, a_stride, weights, sums);
  }

 private:
  template <int kRows, int kVectors>
  static inline void Add(const A* a, size_t a_stride, const V (&weights)[kVectors], V (&sums)[kRows][kVectors]) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V value = S::Set(a[r * a_stride]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = S::FmaInPlace(value, weights[j], sums[r][j]);
    }
  }
};

// Activations rounded to bf16, padded with a zero to an even inner dimension: one dot product of pairs an instruction.
template <typename S>
struct RoundedActivations {
  using A = uint16_t;
  using V = typename S::V;

  template <int kRows, int kVectors, typename At>
  static inline void AddPairs(const A* a, size_t a_stride, const At& at, V (&sums)[kRows][kVectors]) {
    typename S::I pairs[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) pairs[j] = S::LoadInts(at(j));
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename S::I value = S::SetPair(a + r * a_stride);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = S::DotPairs(value, pairs[j], sums[r][j]);
    }
  }
  template <int kRows, int kVectors, typename At>
  static inline void AddFirsts(const A* a, size_t a_stride, const At& at, V (&sums)[kRows][kVectors]) {
    AddPairs(a, a_stride, at, sums);  // zero times zero
  }
};

// How far ahead a panel is fetched, a page: what lies behind a panel is the next one.
inline constexpr int kPrefetchElements = 2048;

// c[kRows, kVectors * width] (+)= a[kRows, inner] * the pairs of `inner` rows from `weights` on. Vector j stands in
// panel j / (16 / width).
template <typename S, typename Activations, int kRows, int kVectors>
inline void MultiplyPairTile(const typename Activations::A* a, size_t a_stride, const uint16_t* weights,
                             size_t panel_stride, int inner, float* c, size_t c_stride, bool accumulate) {
  constexpr int kPerPanel = kPanelColumns / S::kWidth;
  typename S::V sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      sums[r][j] = accumulate ? S::Load(c + r * c_stride + j * S::kWidth) : S::Zero();
    }
  }
  int k = 0;
  const auto at = [&](int j) {
    return weights + (j / kPerPanel) * panel_stride + (j % kPerPanel) * 2 * S::kWidth +
           static_cast<size_t>(k) * kPanelColumns;
  };
  for (; k + 2 <= inner; k += 2) {
    // One row reads many panels at once and is as fast as memory without help; more rows read one or two, which the
    // processor alone does not fetch early enough.
    if constexpr (kRows > 1) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; j += kPerPanel) __builtin_prefetch(at(j) + kPrefetchElements);
    }
    Activations::AddPairs(a + k, a_stride, at, sums);
  }
  if (k < inner) Activations::AddFirsts(a + k, a_stride, at, sums);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) S::Store(c + r * c_stride + j * S::kWidth, sums[r][j]);
  }
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_PAIR_TILE_IMPL_H_
