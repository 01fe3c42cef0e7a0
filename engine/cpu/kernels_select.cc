#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_check.h"

namespace epic {

extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
extern const CpuKernels kAvx512Bf16Kernels;
extern const CpuKernels kAmxKernels;

namespace {

bool RunsAvx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool has_half = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  return has_half && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool RunsAvx512() { return RunsAvx2() && __builtin_cpu_supports("avx512f"); }

bool RunsAvx512Bf16() {
  return RunsAvx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

// Linux gives a process the tile registers when it asks; the answer holds for all its threads.
bool RunsAmx() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // the state component
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!RunsAvx512Bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kAmxBf16) != 0 && (edx & kAmxTile) != 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Table {
  const CpuKernels* kernels;
  bool runs;
};

// Best first. The processor is asked once.
const std::array<Table, 4>& Tables() {
  static const std::array<Table, 4> kTables = {{{&kAmxKernels, RunsAmx()},
                                                {&kAvx512Bf16Kernels, RunsAvx512Bf16()},
                                                {&kAvx512Kernels, RunsAvx512()},
                                                {&kAvx2Kernels, RunsAvx2()}}};
  return kTables;
}

}  // namespace

const CpuKernels* CpuKernelsByName(const char* name) {
  for (const Table& table : Tables()) {
    if (std::strcmp(name, table.kernels->name) == 0) return table.runs ? table.kernels : nullptr;
  }
  return nullptr;
}

const CpuKernels* SelectCpuKernels() {
  const char* forced = std::getenv("EPIC_CPU_ISA");
  const bool is_forced = forced != nullptr && *forced != '\0';
  for (const Table& table : Tables()) {
    if (!table.runs || (is_forced && std::strcmp(forced, table.kernels->name) != 0)) continue;
    if (table.kernels == &kAvx2Kernels || KernelsAgree(kAvx2Kernels, *table.kernels)) return table.kernels;
  }
  return nullptr;
}

}  // namespace epic
