// The compute kernels of the CPU backend as a table of functions, one table an instruction set, chosen at run time.
//
// Weights are bf16, everything else float32. One property is promised by every table: the result of a row depends on
// that row's inputs alone, never on how many rows a call has or where tiles are cut. Each output element is one chain
// of fused multiply-adds over the inner dimension in ascending order, whatever the tile. That is what makes a request's
// tokens the same alone and in any batch. Results differ between instruction sets only by how lanes are summed in
// norms.
//
// Nothing here allocates, locks or throws.
#ifndef EPIC_ENGINE_CPU_KERNELS_H_
#define EPIC_ENGINE_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/attention_kernel.h"
#include "engine/cpu/block_matrix.h"

namespace epic {

inline constexpr int kPanelColumns = 16;  // output columns that lie side by side in a packed matrix

// Elements of a panel: [pairs of inner elements][kPanelColumns][2], a zero element at the end of an odd `inner`.
constexpr size_t PanelElements(int inner) { return static_cast<size_t>((inner + 1) / 2) * 2 * kPanelColumns; }

struct CpuKernels {
  const char* name;
  // c[rows, columns] (+)= a[rows, inner] * w^T for `panel_count` panels of kPanelColumns output columns each, packed as
  // [panel][inner / 2][kPanelColumns][2] bf16 (packed_matrix.h). c has panel_count * kPanelColumns columns from `c` on.
  void (*multiply)(const float* a, size_t a_stride, int rows, const uint16_t* panels, int inner, int panel_count,
                   float* c, size_t c_stride, bool accumulate);
  // The same with weights in a file's own blocks: c[r * c_stride + o] (+)= the sum over k of a[r * a_stride + k] times
  // weight k of row o, for `outputs` rows of BlockRowBytes(format, inner) bytes each, of any alignment. Decoded to
  // floats in registers; meant for few rows, where the bytes of the weights are what costs.
  // REQUIRES: `inner` is a multiple of BlockElements(format).
  void (*multiply_blocks)(BlockFormat format, const float* a, size_t a_stride, int rows, const std::byte* weights,
                          int inner, int outputs, float* c, size_t c_stride, bool accumulate);
  // out = x / sqrt(mean(x^2) + epsilon) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int width, float epsilon, float* out);
  // out[i] = silu(gate[i]) * up[i]
  void (*silu_multiply)(const float* gate, const float* up, int count, float* out);
  // Segment attention (docs/linking.md §3): softmax(q k^T / sqrt(head_dim)) v over all segments by online softmax.
  void (*attend)(const AttentionBlock& block);
};

// The best table that this processor runs; EPIC_CPU_ISA=avx2|avx512 forces one. nullptr where the processor has
// not even AVX2 and FMA, or where the forced one cannot run or is unknown.
const CpuKernels* SelectCpuKernels();
// By name ("avx2", "avx512"); nullptr where this processor cannot run it.
const CpuKernels* CpuKernelsByName(const char* name);

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_KERNELS_H_
