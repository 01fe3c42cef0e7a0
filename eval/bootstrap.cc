#include "eval/bootstrap.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "eval/task_random.h"

namespace epic::eval {
namespace {

constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();

// REQUIRES: sorted is not empty.
double Quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// The statistic of some examples, by their numbers; NaN where they have none.
using Statistic = std::function<double(const std::vector<size_t>&)>;

Interval Bootstrap(size_t example_count, uint64_t seed, int32_t resamples, const Statistic& statistic) {
  assert(example_count > 0 && resamples >= 1);
  std::vector<size_t> examples(example_count);
  std::iota(examples.begin(), examples.end(), 0);
  const double mean = statistic(examples);
  if (std::isnan(mean)) return {.mean = mean, .low = mean, .high = mean};

  TaskRandom random(seed);
  std::vector<double> results;
  results.reserve(static_cast<size_t>(resamples));
  for (int32_t i = 0; i < resamples; ++i) {
    for (size_t& example : examples) example = random.Below(example_count);
    const double result = statistic(examples);
    if (!std::isnan(result)) results.push_back(result);
  }
  if (results.empty()) return {.mean = mean, .low = kNotANumber, .high = kNotANumber};
  std::sort(results.begin(), results.end());
  return {.mean = mean, .low = Quantile(results, 0.025), .high = Quantile(results, 0.975)};
}

double SumOf(std::span<const double> values, const std::vector<size_t>& examples) {
  double sum = 0;
  for (const size_t example : examples) sum += values[example];
  return sum;
}

}  // namespace

Interval BootstrapMean(std::span<const double> values, uint64_t seed, int32_t resamples) {
  return Bootstrap(values.size(), seed, resamples, [&](const std::vector<size_t>& examples) {
    return SumOf(values, examples) / static_cast<double>(examples.size());
  });
}

Interval BootstrapPairedDifference(std::span<const double> a, std::span<const double> b, uint64_t seed,
                                   int32_t resamples) {
  assert(a.size() == b.size());
  std::vector<double> differences(a.size());
  for (size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  return BootstrapMean(differences, seed, resamples);
}

Interval BootstrapGapClosed(std::span<const double> linker_kl, std::span<const double> naive_kl, uint64_t seed,
                            int32_t resamples) {
  assert(linker_kl.size() == naive_kl.size());
  return Bootstrap(linker_kl.size(), seed, resamples, [&](const std::vector<size_t>& examples) {
    const double naive = SumOf(naive_kl, examples);
    return naive == 0 ? kNotANumber : 1 - SumOf(linker_kl, examples) / naive;
  });
}

}  // namespace epic::eval
