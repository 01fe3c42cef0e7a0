// A weight matrix as the kernels read it: panels of 16 output columns, [panel][inner / 2][16][2] bf16. Two neighbouring
// inner elements of an output stand side by side: what the processor's dot products of bf16 pairs and matrix tiles
// take, and cheap to widen without them. Zero columns at the end, and a zero element at the end of an odd `inner`.
#ifndef EPIC_ENGINE_CPU_PACKED_MATRIX_H_
#define EPIC_ENGINE_CPU_PACKED_MATRIX_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernels.h"
#include "engine/cpu/weight_memory.h"

namespace epic {

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline float FromBf16(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // In `memory`, which must outlive it; on the heap where there is none.
  PackedMatrix(int outputs, int inner, WeightMemory* memory = nullptr)
      : outputs_(outputs),
        inner_(inner),
        panels_((outputs + kPanelColumns - 1) / kPanelColumns),
        data_(static_cast<size_t>(panels_) * PanelElements(inner), memory) {}

  // Stores row `output` of the [outputs, inner] matrix. Different rows may be set by different threads.
  void SetRow(int output, const float* row) {
    uint16_t* to = data_.data() + output / kPanelColumns * PanelElements(inner_) + output % kPanelColumns * 2;
    for (int k = 0; k < inner_; ++k) to[static_cast<size_t>(k / 2) * 2 * kPanelColumns + k % 2] = ToBf16(row[k]);
  }

  int outputs() const { return outputs_; }
  int inner() const { return inner_; }
  int panels() const { return panels_; }
  int padded_outputs() const { return panels_ * kPanelColumns; }
  const uint16_t* Panel(int panel) const { return data_.data() + panel * PanelElements(inner_); }
  size_t bytes() const { return data_.bytes(); }

 private:
  int outputs_ = 0;
  int inner_ = 0;
  int panels_ = 0;
  WeightArray<uint16_t> data_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_PACKED_MATRIX_H_
