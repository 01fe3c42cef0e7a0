// The kernels for AVX-512 with dot products of bf16 pairs (Cooper Lake, Sapphire Rapids, Zen 4 and later).
#include "engine/cpu/kernels_impl.h"
#include "engine/cpu/simd_avx512bf16.h"

namespace epic {

extern const CpuKernels kAvx512Bf16Kernels;
const CpuKernels kAvx512Bf16Kernels = MakeRoundingKernels<Avx512Bf16>();

}  // namespace epic
