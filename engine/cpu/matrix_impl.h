// Matrix products and the row-wise work between them.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_MATRIX_IMPL_H_
#define EPIC_ENGINE_CPU_MATRIX_IMPL_H_

#include "engine/cpu/kernels.h"
#include "engine/cpu/multiply_tile_impl.h"

namespace epic {
namespace {

template <typename S>
void Multiply(const float* a, size_t a_stride, int rows, const uint16_t* panels, int inner, int panel_count, float* c,
              size_t c_stride, bool accumulate) {
  constexpr int kPerPanel = kPanelColumns / S::kWidth;
  const size_t panel_stride = static_cast<size_t>(inner) * kPanelColumns;
  // Few rows: many panels at once, so that enough independent chains hide the latency of the additions.
  constexpr int kWidePanels = 8 / kPerPanel;
  constexpr int kTilePanels = 2 / kPerPanel;
  int panel = 0;
  if (rows <= 2) {
    for (; panel + kWidePanels <= panel_count; panel += kWidePanels) {
      for (int r = 0; r < rows; ++r) {
        MultiplyTile<S, 1, 8, kPerPanel>(a + r * a_stride, a_stride, panels + panel * panel_stride, kPanelColumns,
                                         panel_stride, inner, c + r * c_stride + panel * kPanelColumns, c_stride,
                                         accumulate);
      }
    }
  }
  for (; panel + kTilePanels <= panel_count; panel += kTilePanels) {
    for (int r = 0; r < rows; r += S::kTileRows) {
      const int count = rows - r < S::kTileRows ? rows - r : S::kTileRows;
      MultiplyRows<S, S::kTileRows, 2, kPerPanel>(count, a + r * a_stride, a_stride, panels + panel * panel_stride,
                                                  kPanelColumns, panel_stride, inner,
                                                  c + r * c_stride + panel * kPanelColumns, c_stride, accumulate);
    }
  }
  for (; panel < panel_count; ++panel) {
    for (int r = 0; r < rows; r += S::kTileRows) {
      const int count = rows - r < S::kTileRows ? rows - r : S::kTileRows;
      MultiplyRows<S, S::kTileRows, kPerPanel, kPerPanel>(
          count, a + r * a_stride, a_stride, panels + panel * panel_stride, kPanelColumns, panel_stride, inner,
          c + r * c_stride + panel * kPanelColumns, c_stride, accumulate);
    }
  }
}

template <typename S>
void RmsNorm(const float* x, const float* weight, int width, float epsilon, float* out) {
  typename S::V sum = S::Zero();
  int i = 0;
  for (; i + S::kWidth <= width; i += S::kWidth) {
    const typename S::V v = S::Load(x + i);
    sum = S::Fma(v, v, sum);
  }
  float total = S::SumLanes(sum);
  for (; i < width; ++i) total += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(width) + epsilon);
  const typename S::V scales = S::Set(scale);
  for (i = 0; i + S::kWidth <= width; i += S::kWidth) {
    S::Store(out + i, S::Mul(S::Mul(S::Load(x + i), scales), S::Load(weight + i)));
  }
  for (; i < width; ++i) out[i] = x[i] * scale * weight[i];
}

template <typename S>
void SiluMultiply(const float* gate, const float* up, int count, float* out) {
  const typename S::V one = S::Set(1.0f);
  // The last vector overlaps the one before it rather than fall back to another formula; the rows are at least one
  // vector long.
  for (int i = 0; i < count; i += S::kWidth) {
    const int at = i + S::kWidth <= count ? i : count - S::kWidth;
    const typename S::V g = S::Load(gate + at);
    const typename S::V silu = S::Div(g, S::Add(one, S::Exp(S::Sub(S::Zero(), g))));
    S::Store(out + at, S::Mul(silu, S::Load(up + at)));
  }
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_MATRIX_IMPL_H_
