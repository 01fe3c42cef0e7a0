// The kernels for AMX with bf16 (Sapphire Rapids and later): products by matrix tiles, the rest as AVX-512.
#include "engine/cpu/kernels_impl.h"
#include "engine/cpu/simd_avx512bf16.h"
#include "engine/cpu/tile_product_impl.h"
#include "engine/cpu/tiles_amx.h"

namespace epic {

namespace {

constexpr CpuKernels MakeAmxKernels() {
  CpuKernels kernels = MakeRoundingKernels<Avx512Bf16>();
  kernels.name = "amx";
  kernels.multiply_rounded = &MultiplyRoundedByTiles<AmxTiles>;
  return kernels;
}

}  // namespace

extern const CpuKernels kAmxKernels;
const CpuKernels kAmxKernels = MakeAmxKernels();

}  // namespace epic
