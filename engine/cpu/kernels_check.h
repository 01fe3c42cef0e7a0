// Does one table of kernels compute what another does? Asked once, at start, of every table that is better than the
// floor, since the machines that a path was tested on may not be the one that it runs on.
#ifndef EPIC_ENGINE_CPU_KERNELS_CHECK_H_
#define EPIC_ENGINE_CPU_KERNELS_CHECK_H_

#include "engine/cpu/kernels.h"

namespace epic {

// Small random products (packed and rounded), norms and activations by `candidate`, whose
// results must be those of `trusted` up to the rounding that kernels.h allows. Takes about a millisecond; the
// answer is the same on every call. REQUIRES: the processor runs both, `trusted` does not round activations.
bool KernelsAgree(const CpuKernels& trusted, const CpuKernels& candidate);

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_KERNELS_CHECK_H_
