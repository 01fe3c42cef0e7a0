// Matrix products and the row-wise work between them.
//
// Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_MATRIX_IMPL_H_
#define EPIC_ENGINE_CPU_MATRIX_IMPL_H_

#include "engine/cpu/kernels.h"
#include "engine/cpu/pair_tile_impl.h"

namespace epic {
namespace {

// Inner elements that are multiplied before the next rows' turn: so much of a panel stays in the first-level cache
// beside the rows of a tile.
inline constexpr int kInnerBlock = 512;

// A product with packed weights in tiles of at most S::kTileRows rows.
template <typename S, typename Activations>
struct PanelProduct {
  static constexpr int kPerPanel = kPanelColumns / S::kWidth;

  const typename Activations::A* a;
  size_t a_stride;
  const uint16_t* panels;
  int inner;
  float* c;
  size_t c_stride;
  bool accumulate;

  // Rows [row, row + rows), kVectors vectors of outputs from `panel` on, inner elements [begin, begin + depth).
  template <int kRows, int kVectors>
  void Tile(int rows, int row, int panel, int begin, int depth) const {
    if constexpr (kRows > 1) {
      if (rows < kRows) return Tile<kRows - 1, kVectors>(rows, row, panel, begin, depth);
    }
    const size_t panel_stride = PanelElements(inner);
    MultiplyPairTile<S, Activations, kRows, kVectors>(
        a + row * a_stride + begin, a_stride,
        panels + panel * panel_stride + static_cast<size_t>(begin) * kPanelColumns, panel_stride, depth,
        c + row * c_stride + static_cast<size_t>(panel) * kPanelColumns, c_stride, accumulate || begin > 0);
  }

  // As many panels as make up kVectors vectors at a time; the first panel left over.
  template <int kRows, int kVectors>
  int Panels(int rows, int panel, int panel_count) const {
    constexpr int kPanels = kVectors / kPerPanel;
    const int end = panel + (panel_count - panel) / kPanels * kPanels;
    const int blocks = rows <= kRows ? 1 : (inner + kInnerBlock - 1) / kInnerBlock;
    const int block = (inner + 2 * blocks - 1) / (2 * blocks) * 2;  // of equal size, and even
    for (int begin = 0; begin < inner; begin += block) {
      const int depth = inner - begin < block ? inner - begin : block;
      for (int p = panel; p < end; p += kPanels) {
        for (int r = 0; r < rows; r += kRows) {
          Tile<kRows, kVectors>(rows - r < kRows ? rows - r : kRows, r, p, begin, depth);
        }
      }
    }
    return end;
  }

  void Run(int rows, int panel_count) const {
    // Few rows: many outputs at once, so that enough independent chains hide the latency of the additions.
    int panel = 0;
    if (rows == 1) panel = Panels<1, 8>(rows, panel, panel_count);
    if (rows <= 2) panel = Panels<2, 4>(rows, panel, panel_count);
    panel = Panels<S::kTileRows, 2>(rows, panel, panel_count);
    if constexpr (kPerPanel == 1) Panels<S::kTileRows, 1>(rows, panel, panel_count);
  }
};

template <typename S>
void Multiply(const float* a, size_t a_stride, int rows, const uint16_t* panels, int inner, int panel_count, float* c,
              size_t c_stride, bool accumulate) {
  PanelProduct<S, FloatActivations<S>>{a, a_stride, panels, inner, c, c_stride, accumulate}.Run(rows, panel_count);
}

template <typename S>
void MultiplyRounded(const uint16_t* a, size_t a_stride, int rows, const uint16_t* panels, int inner, int panel_count,
                     float* c, size_t c_stride, bool accumulate) {
  PanelProduct<S, RoundedActivations<S>>{a, a_stride, panels, inner, c, c_stride, accumulate}.Run(rows, panel_count);
}

template <typename S>
void RoundToBf16(const float* x, int count, uint16_t* out) {
  int i = 0;
  for (; i + S::kWidth <= count; i += S::kWidth) S::StoreRounded(out + i, S::Load(x + i));
  if (i == count) return;
  float rest[S::kWidth] = {};
  uint16_t rounded[S::kWidth];
  for (int j = i; j < count; ++j) rest[j - i] = x[j];
  S::StoreRounded(rounded, S::Load(rest));
  for (int j = i; j < count + count % 2; ++j) out[j] = rounded[j - i];
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
