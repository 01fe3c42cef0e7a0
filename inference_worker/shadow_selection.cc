#include "inference_worker/shadow_selection.h"

#include <cmath>

namespace epic {

bool IsShadowCandidate(const InferJob& job, const Linker& linker) {
  if (!linker.UsesChunks() || !job.continuation.empty() || job.afresh) return false;
  for (const JobMessage& message : job.messages) {
    for (const JobPart& part : message.parts) {
      if (part.kind == JobPart::Kind::kChunk) return true;
    }
  }
  return false;
}

bool ShadowSelection::Draw() {
  // 53 bits are what a double holds exactly: in [0, 1), so that a share of 1 is always above it. The standard's
  // distributions differ between libraries.
  return std::ldexp(static_cast<double>(random_() >> 11), -53) < share_;
}

}  // namespace epic
