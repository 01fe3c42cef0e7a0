// The kernels for AVX2 with FMA: the floor, which every x86-64 server of the last ten years runs.
#include "engine/cpu/kernels_impl.h"
#include "engine/cpu/simd_avx2.h"

namespace epic {

extern const CpuKernels kAvx2Kernels;
const CpuKernels kAvx2Kernels = MakeKernels<Avx2>();

}  // namespace epic
