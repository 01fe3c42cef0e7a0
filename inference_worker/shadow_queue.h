// Shadow checks that wait until their worker is idle. Pure: time comes in as an argument.
//
// Bounded in number and bytes; over a bound the oldest go, because what matters is how linkers do now. A check holds
// token ids and probabilities only, no KV and no lease. Thread-compatible.
#ifndef EPIC_INFERENCE_WORKER_SHADOW_QUEUE_H_
#define EPIC_INFERENCE_WORKER_SHADOW_QUEUE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "core/divergence.h"
#include "core/limits.h"
#include "engine/linker.h"

namespace epic {

// A linked answer whose first token full recompute is to say again.
struct ShadowCheck {
  Linker linker;
  std::vector<int32_t> token_ids;        // the whole prompt
  std::vector<TokenProbability> linked;  // the first token's likeliest, most likely first; not empty
  std::chrono::steady_clock::time_point deadline;
  int32_t interruptions = 0;

  size_t bytes() const { return token_ids.size() * sizeof(int32_t) + linked.size() * sizeof(TokenProbability); }
};

struct ShadowQueueLimits {
  size_t checks_max = kShadowQueueMax;
  size_t bytes_max = kShadowQueueBytesMax;
  int32_t starts_max = kShadowStartsMax;  // of one check
};

class ShadowQueue {
 public:
  explicit ShadowQueue(const ShadowQueueLimits& limits = {}) : limits_(limits) {}

  // Returns how many checks went for it, the new one too where it is larger than the queue alone.
  size_t Push(ShadowCheck check);
  // The oldest check whose deadline has not passed; those whose has are gone and added to `expired`. The caller starts
  // it.
  std::optional<ShadowCheck> Take(std::chrono::steady_clock::time_point now, size_t* expired);
  // A check that was started and interrupted waits again, before the others. False where it was started often enough,
  // or newer ones have taken its room: it is gone.
  [[nodiscard]] bool PutBack(ShadowCheck check);

  size_t size() const { return checks_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  ShadowCheck PopOldest();

  const ShadowQueueLimits limits_;
  std::deque<ShadowCheck> checks_;  // oldest first
  size_t bytes_ = 0;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_SHADOW_QUEUE_H_
