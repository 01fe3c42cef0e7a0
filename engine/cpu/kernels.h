// The compute kernels of the CPU backend as a table of functions, one table an instruction set, chosen at run time.
//
// Weights are bf16 or a file's quantised blocks; everything else is float32, but for activations where the processor
// multiplies bf16 by bf16. One property is promised by every table: the result of a row depends on that row's inputs
// alone, never on how many rows a call has or where tiles are cut. With float32 activations each output element of a
// packed product is one chain of fused multiply-adds over the inner dimension in ascending order, whatever the tile.
// That is what makes a request's tokens the same alone and in any batch. Results differ between instruction sets by how
// lanes are summed in norms and block products, and by the rounding of activations.
//
// Nothing here allocates, locks or throws.
#ifndef EPIC_ENGINE_CPU_KERNELS_H_
#define EPIC_ENGINE_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "engine/cpu/attention_kernel.h"

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
  // Tables of processors that multiply bf16 by bf16: true, and the caller rounds the activations of a product once, all
  // of them, and calls multiply_rounded in place of multiply. The two differ by the rounding of the activations.
  bool rounds_activations;
  // out[i] = x[i] as bf16, to nearest and ties to even, for i < count; out[count] = 0 where count is odd, so that `out`
  // has room for an even number. nullptr where activations are not rounded.
  void (*round_to_bf16)(const float* x, int count, uint16_t* out);
  // As multiply, with rounded activations. `a_stride` is at least `inner` rounded up to an even number. nullptr where
  // activations are not rounded.
  void (*multiply_rounded)(const uint16_t* a, size_t a_stride, int rows, const uint16_t* panels, int inner,
                           int panel_count, float* c, size_t c_stride, bool accumulate);
  // out = x / sqrt(mean(x^2) + epsilon) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int width, float epsilon, float* out);
  // out[i] = silu(gate[i]) * up[i]
  void (*silu_multiply)(const float* gate, const float* up, int count, float* out);
  // Segment attention (docs/linking.md §3) of query rows over one unit: a partial for each row.
  void (*attend_unit)(const AttentionBlock& block);
  // `running` takes up a partial by log-sum-exp. An empty partial (sums of weights 0) changes nothing; an empty
  // `running` (highest scores -inf, everything else 0) becomes the partial, to the bit.
  void (*merge_partial)(int group, int head_dim, const float* partial, float* running);
  // output[group][head_dim] = the running result over its sums of weights; zeros where nothing was seen.
  void (*finish_partial)(int group, int head_dim, const float* running, float* output);
};

// By name ("amx", "avx512bf16", "avx512", "avx2"); nullptr where the name is another's or this processor cannot run it.
const CpuKernels* CpuKernelsByName(const char* name);
// The best table that this processor runs, in the order above. EPIC_CPU_ISA=name forces one: nullptr where it cannot
// run. nullptr too where the processor has not even AVX2 with FMA and F16C.
//
// Every table but avx2's must first agree with avx2's on a small problem (kernels_check.h). One that does not is passed
// over, and a forced one refused: a defect in a path that no test machine could run must not become wrong answers.
const CpuKernels* SelectCpuKernels();

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_KERNELS_H_
