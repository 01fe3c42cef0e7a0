// Choosing the next token from logits: greedy, temperature, top-k, top-p, seed; and stop strings over streamed text.
#ifndef EPIC_ENGINE_TEXT_SAMPLER_H_
#define EPIC_ENGINE_TEXT_SAMPLER_H_

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace epic {

struct SamplingOptions {
  float temperature = 0;   // 0: greedy (ties go to the lowest id). At most 100.
  float top_p = 1;         // (0, 1]; 1 keeps everything
  int32_t top_k = 0;       // 0 keeps everything
  uint64_t seed = 0;
  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
};

// One object a sequence, not thread-safe. The same options and the same logits give the same tokens on every machine
// that rounds alike: the generator is a fixed one, not the standard library's distributions.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  int32_t Sample(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 generator_;
  std::vector<int32_t> order_;
  std::vector<float> weights_;
};

// log softmax of `logits` at `id`, accumulated in double.
double LogProbability(std::span<const float> logits, int32_t id);

// Watches streamed text for stop strings, and holds back text that may be the beginning of one.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);
  struct Result {
    std::string text;      // text that may be shown now
    bool stopped = false;  // a stop string was met; it and what follows is not shown
    int stop_index = -1;
  };
  Result Push(std::string_view text);
  // The text still held back, when generation ended for another reason.
  std::string Finish();

 private:
  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_SAMPLER_H_
