// How far one linker's next-token distribution is from another's at the same position, from the likeliest tokens alone.
//
// An engine reports the n most likely tokens with their log-probabilities, not the whole vocabulary. From two such
// lists the Kullback-Leibler divergence of the whole distributions cannot be computed, but that of the coarser ones
// can, where every token outside the lists' intersection falls into one class. Merging classes never raises a
// divergence (the data-processing inequality, for sums the log-sum inequality; Cover and Thomas, Elements of
// Information Theory, 2.7 and 2.8), so the result is a lower bound of the exact one, and equal to it where the lists
// hold whole distributions.
//
// Pure functions, safe from any thread. Natural logarithms throughout.
#ifndef EPIC_CORE_DIVERGENCE_H_
#define EPIC_CORE_DIVERGENCE_H_

#include <cstdint>
#include <span>

namespace epic {

struct TokenProbability {
  int32_t id = 0;
  float logprob = 0;  // natural logarithm of the probability in the whole vocabulary, finite
};

// Of how many of the likeliest tokens EPIC compares two distributions one by one; the rest is one class.
inline constexpr int32_t kComparedTokens = 2048;

// What 1 - (sum of the reported probabilities) cannot resolve: log-probabilities are float32, so below this a rest mass
// is rounding. The rest of `q` counts as at least this much, which lowers the divergence and never raises it.
inline constexpr double kRestMassMin = 1e-7;

// KL(p || q) in nats of the two distributions with one class for each token that is in both lists and one for all
// others. The rest masses are 1 - sum, at least 0 for p and at least kRestMassMin for q. Never negative (rounding is
// cut off at 0), finite, and up to that rounding (about 1e-6) at most the exact KL(p || q). REQUIRES: neither list is
// empty, no id is twice in one list; the order within the lists does not matter.
double KlDivergence(std::span<const TokenProbability> p, std::span<const TokenProbability> q);

// Both would say the same token without sampling. The engine decides ties of the logits to the lowest id, so the first
// of a list is what greedy decoding takes.
// REQUIRES: neither list is empty; most likely first.
bool SameFirst(std::span<const TokenProbability> p, std::span<const TokenProbability> q);

}  // namespace epic

#endif  // EPIC_CORE_DIVERGENCE_H_
