// Chance that is the same on every machine: the standard fixes what its generators give, but not its distributions.
#ifndef EPIC_EVAL_TASK_RANDOM_H_
#define EPIC_EVAL_TASK_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "core/split_mix.h"

namespace epic::eval {

class TaskRandom {
 public:
  // `stream` tells apart the uses of one seed, so that none depends on how often another has drawn. Neighbouring seeds
  // give unlike generators.
  explicit TaskRandom(uint64_t seed, uint64_t stream = 0) : generator_(SplitMix(SplitMix(seed) + stream)) {}

  // Evenly from [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) {
    // Draws from the incomplete last span of `bound` would make small values more frequent.
    const uint64_t incomplete = (std::numeric_limits<uint64_t>::max() % bound + 1) % bound;
    uint64_t draw = generator_();
    while (draw > std::numeric_limits<uint64_t>::max() - incomplete) draw = generator_();
    return draw % bound;
  }

  template <typename Value>
  void Shuffle(std::vector<Value>& values) {
    for (size_t left = values.size(); left > 1; --left) std::swap(values[left - 1], values[Below(left)]);
  }

 private:
  std::mt19937_64 generator_;
};

}  // namespace epic::eval

#endif  // EPIC_EVAL_TASK_RANDOM_H_
