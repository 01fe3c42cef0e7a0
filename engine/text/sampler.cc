#include "engine/text/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fmt/format.h"

namespace epic {
namespace {

constexpr float kTemperatureMax = 100;
// How many tokens top_p sorts at first; mostly enough, where sorting a whole vocabulary would cost milliseconds.
constexpr size_t kFirstSorted = 256;

float ValueOf(float logit) { return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit; }

// The highest logit's id, the lowest of equals.
int32_t LikeliestOf(std::span<const float> logits) {
  size_t best = 0;
  for (size_t id = 1; id < logits.size(); ++id) {
    if (ValueOf(logits[id]) > ValueOf(logits[best])) best = id;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

absl::Status SamplingOptions::Validate() const {
  std::string problems;
  const auto add = [&problems](const std::string& problem) { problems += (problems.empty() ? "" : "; ") + problem; };
  if (!(temperature >= 0 && temperature <= kTemperatureMax)) {
    add(fmt::format("temperature is {}; expected 0 (greedy) to {}", temperature, kTemperatureMax));
  }
  if (!(top_p > 0 && top_p <= 1)) add(fmt::format("top_p is {}; expected more than 0 and at most 1", top_p));
  if (top_k < 0) add(fmt::format("top_k is {}; expected 0 (all tokens) or more", top_k));
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), generator_(options.seed) {}

int32_t Sampler::Sample(std::span<const float> logits) {
  if (options_.temperature == 0) return LikeliestOf(logits);
  KeepLikeliest(logits);
  return Draw();
}

void Sampler::KeepLikeliest(std::span<const float> logits) {
  const int32_t likeliest = LikeliestOf(logits);
  const double highest = ValueOf(logits[likeliest]);
  if (std::isinf(highest)) {
    order_ = {likeliest};
    weights_ = {1};
    return;
  }
  const auto is_likelier = [&](int32_t a, int32_t b) {
    const float value_a = ValueOf(logits[a]);
    const float value_b = ValueOf(logits[b]);
    return value_a != value_b ? value_a > value_b : a < b;
  };
  const auto weight_of = [&](int32_t id) { return std::exp((ValueOf(logits[id]) - highest) / options_.temperature); };

  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  size_t sorted = 0;
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < order_.size()) {
    sorted = static_cast<size_t>(options_.top_k);
    std::partial_sort(order_.begin(), order_.begin() + sorted, order_.end(), is_likelier);
    order_.resize(sorted);
  }
  weights_.clear();
  if (options_.top_p < 1) {
    double total = 0;
    for (const int32_t id : order_) total += weight_of(id);
    const double enough = options_.top_p * total;
    double kept = 0;
    while (weights_.size() < order_.size() && (weights_.empty() || kept < enough)) {
      if (weights_.size() == sorted) {
        const size_t next = std::min(order_.size(), std::max(kFirstSorted, sorted * 8));
        std::partial_sort(order_.begin() + sorted, order_.begin() + next, order_.end(), is_likelier);
        sorted = next;
      }
      weights_.push_back(weight_of(order_[weights_.size()]));
      kept += weights_.back();
    }
    order_.resize(weights_.size());
  } else {
    for (const int32_t id : order_) weights_.push_back(weight_of(id));
  }
}

int32_t Sampler::Draw() {
  // 53 random bits: a double in [0, 1), the same on every standard library.
  const double uniform = static_cast<double>(generator_() >> 11) * 0x1p-53;
  const double target = uniform * std::accumulate(weights_.begin(), weights_.end(), 0.0);
  double cumulative = 0;
  int32_t chosen = order_[0];
  for (size_t i = 0; i < order_.size(); ++i) {
    if (weights_[i] == 0) continue;
    chosen = order_[i];
    cumulative += weights_[i];
    if (target < cumulative) break;
  }
  return chosen;
}

double LogProbability(std::span<const float> logits, int32_t id) {
  const double highest = ValueOf(logits[LikeliestOf(logits)]);
  const double value = ValueOf(logits[id]);
  if (std::isinf(value)) return value < 0 ? value : 0;
  if (std::isinf(highest)) return -highest;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(ValueOf(logit) - highest);
  return value - highest - std::log(sum);
}

}  // namespace epic
