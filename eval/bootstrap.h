// 95 % intervals of means over examples, by the percentile bootstrap (Efron and Tibshirani, An Introduction to the
// Bootstrap, 13.3): the examples are drawn again with replacement, as many as there are, 10,000 times; the interval
// runs from the 2.5 % to the 97.5 % quantile of the results, interpolated linearly between neighbours.
//
// Pure functions, safe from any thread. One seed gives the same interval on every system: indices
// are drawn by TaskRandom. O(resamples * examples).
#ifndef EPIC_EVAL_BOOTSTRAP_H_
#define EPIC_EVAL_BOOTSTRAP_H_

#include <cstdint>
#include <span>

namespace epic::eval {

inline constexpr int32_t kBootstrapResamples = 10000;

struct Interval {
  double mean = 0;  // of the examples as they are, not of the resamples
  double low = 0;
  double high = 0;
};

// REQUIRES: values is not empty, resamples >= 1.
Interval BootstrapMean(std::span<const double> values, uint64_t seed, int32_t resamples = kBootstrapResamples);

// The mean of a[i] - b[i], one example of both linkers at each i. The examples are drawn in pairs, so that what makes
// an example hard for both does not widen the interval. REQUIRES: equal sizes, not empty, resamples >= 1.
Interval BootstrapPairedDifference(std::span<const double> a, std::span<const double> b, uint64_t seed,
                                   int32_t resamples = kBootstrapResamples);

// The share of naive concatenation's divergence that a linker takes away: 1 - mean(linker_kl) / mean(naive_kl), 1 at
// best, 0 where it is as far from full recompute as naive is. Examples are drawn in pairs. A resample whose naive mean
// is 0 is left out; where the mean of naive_kl itself is 0, there is no gap and all three members are NaN. REQUIRES:
// equal sizes, not empty, none negative, resamples >= 1.
Interval BootstrapGapClosed(std::span<const double> linker_kl, std::span<const double> naive_kl, uint64_t seed,
                            int32_t resamples = kBootstrapResamples);

}  // namespace epic::eval

#endif  // EPIC_EVAL_BOOTSTRAP_H_
