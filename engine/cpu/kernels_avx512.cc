// The kernels for AVX-512F.
#include "engine/cpu/kernels_impl.h"
#include "engine/cpu/simd_avx512.h"

namespace epic {

extern const CpuKernels kAvx512Kernels;
const CpuKernels kAvx512Kernels = MakeKernels<Avx512>();

}  // namespace epic
