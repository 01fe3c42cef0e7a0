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
  float temperature = 0;  // 0: greedy (ties go to the lowest id). At most 100.
  float top_p = 1;        // (0, 1]; 1 keeps everything
  int32_t top_k = 0;      // 0 keeps everything
  uint64_t seed = 0;
  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  [[nodiscard]] absl::Status Validate() const;
};

// One object a sequence, not thread-safe. The same options and the same logits give the same tokens on every machine
// that rounds alike: the generator is a fixed one, not the standard library's distributions.
//
// Order: temperature, then the top_k tokens of the highest logits, then the smallest set of the likeliest among these
// whose share of their probability is at least top_p (never fewer than one token). Of equal logits the lower id counts
// as the likelier. Each call draws one number of the generator, whatever the logits; with temperature 0 it draws none.
class Sampler {
 public:
  // REQUIRES: options.Validate().ok().
  explicit Sampler(const SamplingOptions& options);
  // A logit that is not a number counts as minus infinity. Where the highest is infinite, its id is returned as greedy
  // choice would. REQUIRES: `logits` is not empty.
  int32_t Sample(std::span<const float> logits);

 private:
  void KeepLikeliest(std::span<const float> logits);
  int32_t Draw();

  SamplingOptions options_;
  std::mt19937_64 generator_;
  // The tokens to draw from and their weights (not normalised), in the same order.
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

// log softmax of `logits` at `id`, accumulated in double. Logits that are not numbers count as minus infinity.
// REQUIRES: 0 <= id < logits.size().
double LogProbability(std::span<const float> logits, int32_t id);

// Watches streamed text for stop strings, and holds back text that may be the beginning of one. One object a sequence,
// not thread-safe.
//
// The stop string that ends first decides; of several that end at the same place the longest. So the outcome does not
// depend on how the text is cut into pushes. Whole characters in (StreamDecoder) give whole characters out.
class StopMatcher {
 public:
  // Empty stop strings never match; stop_index counts them all the same.
  explicit StopMatcher(std::vector<std::string> stops);
  struct Result {
    std::string text;      // text that may be shown now
    bool stopped = false;  // a stop string was met; it and what follows is not shown
    int stop_index = -1;
  };
  // After a stop every further push returns no text and the same stop.
  Result Push(std::string_view text);
  // The text still held back, when generation ended for another reason. Empty after a stop.
  std::string Finish();

 private:
  std::vector<std::string> stops_;
  std::string held_;  // shorter than the longest stop string
  int stop_index_ = -1;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_SAMPLER_H_
