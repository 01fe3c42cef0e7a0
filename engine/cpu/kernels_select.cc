#include <cstdlib>
#include <cstring>

#include "engine/cpu/kernels.h"

namespace epic {

extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;

const CpuKernels* CpuKernelsByName(const char* name) {
  if (std::strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f")) return &kAvx512Kernels;
  if (std::strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return &kAvx2Kernels;
  }
  return nullptr;
}

const CpuKernels* SelectCpuKernels() {
  if (const char* forced = std::getenv("EPIC_CPU_ISA"); forced != nullptr && *forced != '\0') {
    return CpuKernelsByName(forced);
  }
  if (const CpuKernels* best = CpuKernelsByName("avx512"); best != nullptr) return best;
  return CpuKernelsByName("avx2");
}

}  // namespace epic
