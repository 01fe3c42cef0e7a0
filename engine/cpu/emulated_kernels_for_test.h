// The kernels of processors that the test machine may not be, in plain C++: 16 lanes, dot products of bf16 pairs,
// matrix tiles. The templates are the real ones, so that layouts, tails and the cutting into tiles are tested
// everywhere; what is not tested is the handful of lines that name the instructions (simd_avx512*.h, tiles_amx.h).
#ifndef EPIC_ENGINE_CPU_EMULATED_KERNELS_FOR_TEST_H_
#define EPIC_ENGINE_CPU_EMULATED_KERNELS_FOR_TEST_H_

#include "engine/cpu/kernels.h"

namespace epic {

// Every table by name: those of CpuKernelsByName, "emulated_avx512bf16" and "emulated_amx", which any processor runs.
const CpuKernels* KernelsForTest(const char* name);

inline constexpr const char* kAllKernelNames[] = {"avx2",        "avx512", "avx512bf16", "amx", "emulated_avx512bf16",
                                                  "emulated_amx"};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_EMULATED_KERNELS_FOR_TEST_H_
