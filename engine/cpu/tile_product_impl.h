// A product with packed weights by matrix tiles: registers of up to 16 rows of 64 bytes.
//
// A packed panel is as the tiles want it: 16 pairs of inner elements of 16 outputs are a tile's 16 rows, one after the
// other in memory. A tile of activations is 16 rows of 32 rounded inner elements, a tile of sums 16 rows of 16 outputs.
// Two by two tiles of sums share two tiles of activations and two of weights. How an element of a tile is summed does
// not depend on the tile's number of rows, so that a row's result does not depend on the others.
//
// `T` provides the tile registers: Configure, Release, Zero, Load, Store, AddProducts (tiles_amx.h; in plain C++ in
// emulated_kernels_for_test.cc). Included by the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_TILE_PRODUCT_IMPL_H_
#define EPIC_ENGINE_CPU_TILE_PRODUCT_IMPL_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernels.h"

namespace epic {
namespace {

inline constexpr int kTileSideRows = 16;
inline constexpr int kTileInner = 32;
inline constexpr size_t kTileRowBytes = 64;

template <typename T>
struct TileProduct {
  // Registers: sums 0-3 (two rows of two), activations 4 and 5, weights 6 and 7.
  template <int kRow, int kPanel>
  static constexpr int kSum = 2 * kRow + kPanel;
  template <int kRow>
  static constexpr int kActivations = 4 + kRow;
  template <int kPanel>
  static constexpr int kWeights = 6 + kPanel;

  const uint16_t* a;
  size_t a_stride;
  const uint16_t* panels;
  int inner;
  float* c;
  size_t c_stride;
  bool accumulate;

  // `weights` of the second panel stand panel_stride further, the second tile of activations 16 rows further.
  template <int kRowTiles, int kPanels>
  static void Step(const uint16_t* activations, size_t activation_stride, const uint16_t* weights,
                   size_t panel_stride) {
    T::template Load<kActivations<0>>(activations, activation_stride * sizeof(uint16_t));
    if constexpr (kRowTiles == 2) {
      T::template Load<kActivations<1>>(activations + kTileSideRows * activation_stride,
                                        activation_stride * sizeof(uint16_t));
    }
    T::template Load<kWeights<0>>(weights, kTileRowBytes);
    if constexpr (kPanels == 2) T::template Load<kWeights<1>>(weights + panel_stride, kTileRowBytes);
    T::template AddProducts<kSum<0, 0>, kActivations<0>, kWeights<0>>();
    if constexpr (kPanels == 2) T::template AddProducts<kSum<0, 1>, kActivations<0>, kWeights<1>>();
    if constexpr (kRowTiles == 2) T::template AddProducts<kSum<1, 0>, kActivations<1>, kWeights<0>>();
    if constexpr (kRowTiles == 2 && kPanels == 2) T::template AddProducts<kSum<1, 1>, kActivations<1>, kWeights<1>>();
  }

  template <int kRow, int kPanel>
  void Begin(float* to) const {
    if (accumulate) {
      T::template Load<kSum<kRow, kPanel>>(to + kRow * kTileSideRows * c_stride + kPanel * kPanelColumns,
                                           c_stride * sizeof(float));
    } else {
      T::template Zero<kSum<kRow, kPanel>>();
    }
  }
  template <int kRow, int kPanel>
  void End(float* to) const {
    T::template Store<kSum<kRow, kPanel>>(to + kRow * kTileSideRows * c_stride + kPanel * kPanelColumns,
                                          c_stride * sizeof(float));
  }

  // What is left of the inner dimension, through copies that zeros make up to a whole tile: a tile reads 64 bytes of
  // every row.
  template <int kRowTiles, int kPanels>
  void Remainder(int rows, const uint16_t* activations, const uint16_t* weights, int begin) const {
    alignas(64) uint16_t some[kRowTiles * kTileSideRows * kTileInner] = {};
    alignas(64) uint16_t others[kPanels * kTileInner * kPanelColumns] = {};
    const int even = (inner - begin + 1) / 2 * 2;
    for (int r = 0; r < rows; ++r) {
      for (int k = 0; k < even; ++k) some[r * kTileInner + k] = activations[r * a_stride + begin + k];
    }
    for (int p = 0; p < kPanels; ++p) {
      const uint16_t* from = weights + p * PanelElements(inner) + static_cast<size_t>(begin) * kPanelColumns;
      for (int i = 0; i < even * kPanelColumns; ++i) others[p * kTileInner * kPanelColumns + i] = from[i];
    }
    Step<kRowTiles, kPanels>(some, kTileInner, others, static_cast<size_t>(kTileInner) * kPanelColumns);
  }

  // `rows` rows of kRowTiles tiles by kPanels panels.
  template <int kRowTiles, int kPanels>
  void Block(int row, int rows, int panel) const {
    const uint16_t* activations = a + row * a_stride;
    const uint16_t* weights = panels + panel * PanelElements(inner);
    float* to = c + row * c_stride + static_cast<size_t>(panel) * kPanelColumns;
    Begin<0, 0>(to);
    if constexpr (kPanels == 2) Begin<0, 1>(to);
    if constexpr (kRowTiles == 2) Begin<1, 0>(to);
    if constexpr (kRowTiles == 2 && kPanels == 2) Begin<1, 1>(to);
    int k = 0;
    for (; k + kTileInner <= inner; k += kTileInner) {
      Step<kRowTiles, kPanels>(activations + k, a_stride, weights + static_cast<size_t>(k) * kPanelColumns,
                               PanelElements(inner));
    }
    if (k < inner) Remainder<kRowTiles, kPanels>(rows, activations, weights, k);
    End<0, 0>(to);
    if constexpr (kPanels == 2) End<0, 1>(to);
    if constexpr (kRowTiles == 2) End<1, 0>(to);
    if constexpr (kRowTiles == 2 && kPanels == 2) End<1, 1>(to);
  }

  // Row blocks [row, row_end), each of `rows` rows: the tiles are configured once.
  template <int kRowTiles>
  void Rows(int row, int row_end, int rows, int panel_count) const {
    if (row >= row_end) return;
    T::Configure(rows < kTileSideRows ? rows : kTileSideRows, kRowTiles == 2 ? rows - kTileSideRows : 1);
    int panel = 0;
    for (; panel + 2 <= panel_count; panel += 2) {
      for (int r = row; r < row_end; r += rows) Block<kRowTiles, 2>(r, rows, panel);
    }
    if (panel < panel_count) {
      for (int r = row; r < row_end; r += rows) Block<kRowTiles, 1>(r, rows, panel);
    }
  }

  void Run(int rows, int panel_count) const {
    const int whole = rows / (2 * kTileSideRows) * 2 * kTileSideRows;
    Rows<2>(0, whole, 2 * kTileSideRows, panel_count);
    const int rest = rows - whole;
    if (rest > kTileSideRows) {
      Rows<2>(whole, rows, rest, panel_count);
    } else {
      Rows<1>(whole, rows, rest, panel_count);
    }
    T::Release();
  }
};

template <typename T>
void MultiplyRoundedByTiles(const uint16_t* a, size_t a_stride, int rows, const uint16_t* panels, int inner,
                            int panel_count, float* c, size_t c_stride, bool accumulate) {
  TileProduct<T>{a, a_stride, panels, inner, c, c_stride, accumulate}.Run(rows, panel_count);
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_TILE_PRODUCT_IMPL_H_
