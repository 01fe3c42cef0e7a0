#include "core/divergence.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <unordered_map>

namespace epic {

double KlDivergence(std::span<const TokenProbability> p, std::span<const TokenProbability> q) {
  assert(!p.empty() && !q.empty());
  std::unordered_map<int32_t, double> q_logprobs;
  for (const TokenProbability& token : q) q_logprobs.emplace(token.id, token.logprob);

  double divergence = 0, p_rest = 1, q_rest = 1;
  for (const TokenProbability& token : p) {
    const auto found = q_logprobs.find(token.id);
    if (found == q_logprobs.end()) continue;
    const double probability = std::exp(static_cast<double>(token.logprob));
    divergence += probability * (static_cast<double>(token.logprob) - found->second);
    p_rest -= probability;
    q_rest -= std::exp(found->second);
  }
  if (p_rest > 0) divergence += p_rest * std::log(p_rest / std::max(q_rest, kRestMassMin));
  return std::max(divergence, 0.0);
}

bool SameFirst(std::span<const TokenProbability> p, std::span<const TokenProbability> q) {
  assert(!p.empty() && !q.empty());
  return p.front().id == q.front().id;
}

}  // namespace epic
