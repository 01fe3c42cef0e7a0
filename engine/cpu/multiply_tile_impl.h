// A tile of a product in registers: what matrix products and attention are made of.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_MULTIPLY_TILE_IMPL_H_
#define EPIC_ENGINE_CPU_MULTIPLY_TILE_IMPL_H_

#include <cstddef>
#include <cstdint>

namespace epic {
namespace {

template <typename S>
inline typename S::V LoadAny(const float* p) {
  return S::Load(p);
}
template <typename S>
inline typename S::V LoadAny(const uint16_t* p) {
  return S::LoadBf16(p);
}

// c[kRows, kVectors * width] (+)= a[kRows, inner] * b[inner, ...]. Vector j of row k of b stands at
// b + (j / kPerPanel) * panel_stride + (j % kPerPanel) * width + k * b_stride.
template <typename S, int kRows, int kVectors, int kPerPanel, typename B>
inline void MultiplyTile(const float* a, size_t a_stride, const B* b, size_t b_stride, size_t panel_stride, int inner,
                         float* c, size_t c_stride, bool accumulate) {
  typename S::V sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      sums[r][j] = accumulate ? S::Load(c + r * c_stride + j * S::kWidth) : S::Zero();
    }
  }
  for (int k = 0; k < inner; ++k) {
    typename S::V column[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      column[j] = LoadAny<S>(b + (j / kPerPanel) * panel_stride + (j % kPerPanel) * S::kWidth + k * b_stride);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename S::V value = S::Set(a[r * a_stride + k]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = S::Fma(value, column[j], sums[r][j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) S::Store(c + r * c_stride + j * S::kWidth, sums[r][j]);
  }
}

// The same for any number of rows up to kRows.
template <typename S, int kRows, int kVectors, int kPerPanel, typename B>
inline void MultiplyRows(int rows, const float* a, size_t a_stride, const B* b, size_t b_stride, size_t panel_stride,
                         int inner, float* c, size_t c_stride, bool accumulate) {
  if (rows == kRows) {
    MultiplyTile<S, kRows, kVectors, kPerPanel>(a, a_stride, b, b_stride, panel_stride, inner, c, c_stride, accumulate);
  } else if constexpr (kRows > 1) {
    MultiplyRows<S, kRows - 1, kVectors, kPerPanel>(rows, a, a_stride, b, b_stride, panel_stride, inner, c, c_stride,
                                                    accumulate);
  }
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_MULTIPLY_TILE_IMPL_H_
