// Which requests are checked against full recompute afterwards (shadow_checks.h).
#ifndef EPIC_INFERENCE_WORKER_SHADOW_SELECTION_H_
#define EPIC_INFERENCE_WORKER_SHADOW_SELECTION_H_

#include <cstdint>
#include <random>

#include "engine/linker.h"
#include "inference_worker/infer_job.h"

namespace epic {

// Whether the answer is an approximation that somebody uses: over chunks, by a linker that takes their KV as it is.
// Scored continuations and requests that want every row run afresh are measurements already, and nobody's answers.
bool IsShadowCandidate(const InferJob& job, const Linker& linker);

// Draws candidates by lot, so that no rhythm of the traffic meets one of ours. The draws follow from the seed.
// Thread-compatible.
class ShadowSelection {
 public:
  // REQUIRES: `share` is in [0, 1]. 0 never draws, 1 always does.
  ShadowSelection(double share, uint64_t seed) : share_(share), random_(seed) {}
  bool Draw();

 private:
  const double share_;
  std::mt19937_64 random_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_SHADOW_SELECTION_H_
