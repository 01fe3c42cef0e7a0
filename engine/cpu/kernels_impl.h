// The kernels, written once over a vector type. Included by one source file an instruction set, which is compiled with
// that set's flags; nothing else may include it, and it includes no library header with inline functions, lest a
// function compiled for a newer processor replace another file's copy of it at link time.
//
// `S` provides: V (a vector of S::kWidth floats), Zero, Set, Load, Store, LoadBf16, Add, Mul, Sub, Div, Fma (a * b +
// c), Max, Exp, SumLanes, MaxLanes, First; I (a vector of S::kWidth 32-bit integers), SetInt, And, Or, SubInt,
// ShiftLeft, ShiftRight, WidenBytes, WidenSignedBytes, SpreadBits, ToFloat; FromHalf (one IEEE half to a float).
#ifndef EPIC_ENGINE_CPU_KERNELS_IMPL_H_
#define EPIC_ENGINE_CPU_KERNELS_IMPL_H_

#include "engine/cpu/attention_impl.h"
#include "engine/cpu/block_impl.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_impl.h"

namespace epic {
namespace {

template <typename S>
constexpr CpuKernels MakeKernels() {
  return CpuKernels{S::kName, &Multiply<S>, &MultiplyBlocks<S>, &RmsNorm<S>, &SiluMultiply<S>, &Attend<S>};
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_KERNELS_IMPL_H_
