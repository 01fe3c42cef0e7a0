#include "core/divergence.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

using List = std::vector<TokenProbability>;

List ListOf(const std::vector<std::pair<int32_t, double>>& probabilities) {
  List list;
  for (const auto& [id, probability] : probabilities) {
    list.push_back({.id = id, .logprob = static_cast<float>(std::log(probability))});
  }
  return list;
}

TEST(KlDivergenceTest, EqualsTheDefinitionWhereTheListsAreWholeDistributions) {
  const List p = ListOf({{7, 0.5}, {8, 0.5}});
  const List q = ListOf({{7, 0.75}, {8, 0.25}});
  // 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25), and the other way round 0.75 ln 1.5 + 0.25 ln 0.5.
  EXPECT_NEAR(KlDivergence(p, q), 0.143841, 1e-6);
  EXPECT_NEAR(KlDivergence(q, p), 0.130812, 1e-6);
}

TEST(KlDivergenceTest, DoesNotDependOnTheOrderOfTheLists) {
  const List p = ListOf({{1, 0.5}, {2, 0.3}, {3, 0.2}});
  const List q = ListOf({{3, 0.6}, {1, 0.3}, {2, 0.1}});
  // 0.5 ln(5/3) + 0.3 ln 3 + 0.2 ln(1/3)
  EXPECT_NEAR(KlDivergence(p, q), 0.365274, 1e-6);
}

TEST(KlDivergenceTest, WhatIsNotInBothListsIsOneClass) {
  // Token 1 in both; 2 and 3 in one list each, and 0.1 of p and 0.3 of q in neither: the rest is 0.4 against 0.7.
  const List p = ListOf({{1, 0.6}, {2, 0.3}});
  const List q = ListOf({{3, 0.4}, {1, 0.3}});
  // 0.6 ln(0.6 / 0.3) + 0.4 ln(0.4 / 0.7)
  EXPECT_NEAR(KlDivergence(p, q), 0.192042, 1e-6);
}

TEST(KlDivergenceTest, WithoutACommonTokenThereIsOneClassAndNothingToTellApart) {
  EXPECT_EQ(KlDivergence(ListOf({{1, 0.9}}), ListOf({{2, 0.9}})), 0);
}

TEST(KlDivergenceTest, OfADistributionWithItselfIsZero) {
  EXPECT_EQ(KlDivergence(ListOf({{1, 0.6}, {2, 0.3}}), ListOf({{1, 0.6}, {2, 0.3}})), 0);
  EXPECT_EQ(KlDivergence(ListOf({{1, 1.0}}), ListOf({{1, 1.0}})), 0);
}

TEST(KlDivergenceTest, IsFiniteWhereTheOtherListLeavesNoRest) {
  const List p = ListOf({{1, 0.5}, {2, 0.25}});
  const List q = ListOf({{1, 0.5}, {3, 0.5}, {2, 0.5}});  // rounded up to a sum above 1
  // The common tokens hold all of q: 0.25 ln(0.25 / 0.5) + 0.25 ln(0.25 / 1e-7).
  EXPECT_NEAR(KlDivergence(p, q), 0.25 * std::log(0.5) + 0.25 * std::log(0.25 / kRestMassMin), 1e-6);
  EXPECT_NEAR(KlDivergence(p, q), 3.509664, 1e-5);
}

TEST(KlDivergenceTest, RoundingNeverMakesItNegative) {
  // A sum just above 1 and a rest of p that is only rounding.
  const List p = {{.id = 1, .logprob = -1e-8F}};
  const List q = {{.id = 1, .logprob = 1e-7F}};
  EXPECT_EQ(KlDivergence(p, q), 0);
}

// A distribution over `count` tokens with a likely head and a long tail, as models have them.
std::vector<double> RandomDistribution(size_t count, std::mt19937_64& random) {
  std::normal_distribution<double> logit(0, 3);
  std::vector<double> probabilities(count);
  double sum = 0;
  for (double& probability : probabilities) sum += probability = std::exp(logit(random));
  for (double& probability : probabilities) probability /= sum;
  return probabilities;
}

List MostLikely(const std::vector<double>& probabilities, size_t count) {
  List list(probabilities.size());
  for (size_t i = 0; i < list.size(); ++i) {
    list[i] = {.id = static_cast<int32_t>(i), .logprob = static_cast<float>(std::log(probabilities[i]))};
  }
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.logprob > b.logprob; });
  list.resize(count);
  return list;
}

TEST(KlDivergenceTest, NeverExceedsTheExactOneAndComesCloseWithLongLists) {
  constexpr size_t kTokens = 300;
  std::mt19937_64 random(1);
  std::normal_distribution<double> noise(0, 0.5);
  for (int round = 0; round < 200; ++round) {
    const std::vector<double> p = RandomDistribution(kTokens, random);
    std::vector<double> q = p;
    double sum = 0;
    for (double& probability : q) sum += probability *= std::exp(noise(random));
    double exact = 0;
    for (size_t i = 0; i < kTokens; ++i) {
      q[i] /= sum;
      exact += p[i] * std::log(p[i] / q[i]);
    }
    for (const size_t count : {1, 5, 20, 100, 300}) {
      const double coarse = KlDivergence(MostLikely(p, count), MostLikely(q, count));
      ASSERT_GE(coarse, 0) << count;
      ASSERT_LE(coarse, exact + 1e-6) << count;
      if (count == 100) {
        ASSERT_GT(coarse, 0.8 * exact);
      }
      if (count == 300) {
        ASSERT_NEAR(coarse, exact, 1e-6);
      }
    }
  }
}

TEST(SameFirstTest, ComparesTheFirstTokenAlone) {
  EXPECT_TRUE(SameFirst(ListOf({{1, 0.6}, {2, 0.3}}), ListOf({{1, 0.5}, {3, 0.4}})));
  EXPECT_FALSE(SameFirst(ListOf({{1, 0.5}, {2, 0.5}}), ListOf({{2, 0.5}, {1, 0.5}})));
}

}  // namespace
}  // namespace epic
