// The kernels, written once over a vector type. Included by one source file an instruction set, which is compiled with
// that set's flags; nothing else may include it, and it includes no library header with inline functions, lest a
// function compiled for a newer processor replace another file's copy of it at link time.
//
// `S` provides: V (a vector of S::kWidth floats), Zero, Set, Load, Store, LoadBf16, Add, Mul, Sub, Div, Fma (a * b +
// c), FmaInPlace, Max, Exp, SumLanes, MaxLanes, First; I (a vector of S::kWidth 32-bit integers), LoadInts, SetInt,
// FirstOfPairs, SecondOfPairs. Where the processor multiplies bf16 by bf16 also SetPair, DotPairs,
// StoreRounded. emulated_kernels_for_test.cc is an `S` in plain C++: a member that is added here is added there.
#ifndef EPIC_ENGINE_CPU_KERNELS_IMPL_H_
#define EPIC_ENGINE_CPU_KERNELS_IMPL_H_

#include "engine/cpu/attention_impl.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matrix_impl.h"

namespace epic {
namespace {

template <typename S>
constexpr CpuKernels MakeKernels() {
  return CpuKernels{S::kName,
                    &Multiply<S>,
                    false,
                    nullptr,
                    nullptr,
                    &RmsNorm<S>,
                    &SiluMultiply<S>,
                    &AttendUnit<S, FloatActivations<S>>,
                    &MergePartial<S>,
                    &FinishPartial<S>};
}

// For processors with dot products of bf16 pairs.
template <typename S>
constexpr CpuKernels MakeRoundingKernels() {
  CpuKernels kernels = MakeKernels<S>();
  kernels.rounds_activations = true;
  kernels.round_to_bf16 = &RoundToBf16<S>;
  kernels.multiply_rounded = &MultiplyRounded<S>;
  kernels.attend_unit = &AttendUnit<S, RoundedActivations<S>>;
  return kernels;
}

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_KERNELS_IMPL_H_
