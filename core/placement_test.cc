#include "core/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

std::vector<std::string> NodeNames(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("node-{}", i));
  return names;
}

std::vector<std::string> OrderedNames(const std::string& id, const std::vector<std::string>& nodes) {
  std::vector<std::string> ordered;
  for (const size_t index : RendezvousOrder("tenant", id, nodes)) ordered.push_back(nodes[index]);
  return ordered;
}

TEST(RendezvousTest, OrderIsAPermutationThatDoesNotDependOnTheArrangement) {
  const std::vector<std::string> nodes = NodeNames(7);
  std::vector<std::string> reversed(nodes.rbegin(), nodes.rend());
  for (int i = 0; i < 50; ++i) {
    const std::string id = fmt::format("document-{}", i);
    std::vector<std::string> ordered = OrderedNames(id, nodes);
    EXPECT_EQ(ordered, OrderedNames(id, reversed));
    std::sort(ordered.begin(), ordered.end());
    EXPECT_EQ(ordered, nodes);
  }
  EXPECT_TRUE(RendezvousOrder("tenant", "id", {}).empty());
}

TEST(RendezvousTest, ALeavingNodeMovesItsOwnDocumentsOnly) {
  const std::vector<std::string> nodes = NodeNames(8);
  for (int i = 0; i < 200; ++i) {
    const std::string id = fmt::format("document-{}", i);
    for (const std::string& leaving : nodes) {
      std::vector<std::string> rest = nodes;
      std::erase(rest, leaving);
      std::vector<std::string> expected = OrderedNames(id, nodes);
      std::erase(expected, leaving);
      ASSERT_EQ(OrderedNames(id, rest), expected);
    }
  }
}

TEST(RendezvousTest, DocumentsAreSharedEvenly) {
  const std::vector<std::string> nodes = NodeNames(5);
  std::map<std::string, int> firsts;
  for (int i = 0; i < 10'000; ++i) ++firsts[OrderedNames(fmt::format("document-{}", i), nodes).front()];
  for (const std::string& node : nodes) {
    EXPECT_NEAR(firsts[node], 2000, 200);  // five standard deviations
  }
}

TEST(RendezvousTest, TenantAndIdDoNotRunIntoEachOther) {
  const std::vector<std::string> nodes = NodeNames(64);
  EXPECT_NE(RendezvousOrder("ab", "c", nodes), RendezvousOrder("a", "bc", nodes));
}

// The order is part of what a cluster of mixed versions agrees on; XXH3 is the same everywhere.
TEST(RendezvousTest, OrderIsStable) {
  const std::vector<std::string> nodes = NodeNames(4);
  const std::vector<size_t> order = RendezvousOrder("default", "manual", nodes);
  EXPECT_EQ(order, (std::vector<size_t>{2, 1, 3, 0}));
}

WorkerLoad Worker(const std::string& id, double queued_tokens, double resident_bytes) {
  return {.id = id,
          .queued_tokens = queued_tokens,
          .tokens_per_second = 1000,
          .pull_bytes_per_second = 1e9,
          .resident_bytes = resident_bytes};
}

// Chunks of 2 GB: two seconds to pull, as much as 2,000 queued tokens.
const PlacementRequest kHotDocument{.chunk_bytes = 2e9, .link_tokens = 100, .request_hash = 7};

TEST(RankWorkersTest, EqualLoadGoesToTheOneWithTheChunks) {
  const std::vector<WorkerLoad> workers = {Worker("a", 500, 0), Worker("b", 500, 2e9), Worker("c", 500, 1e9)};
  for (uint64_t hash = 0; hash < 20; ++hash) {
    PlacementRequest request = kHotDocument;
    request.request_hash = hash;
    const std::vector<WorkerEstimate> ranked = RankWorkers(request, workers);
    ASSERT_EQ(ranked.size(), 3u);
    EXPECT_EQ(ranked[0].worker_index, 1u);
    EXPECT_EQ(ranked[1].worker_index, 2u);
    EXPECT_EQ(ranked[2].worker_index, 0u);
  }
}

TEST(RankWorkersTest, TheEstimateIsTheSumOfItsParts) {
  const WorkerEstimate estimate = RankWorkers(kHotDocument, std::vector<WorkerLoad>{Worker("a", 500, 5e8)}).front();
  EXPECT_DOUBLE_EQ(estimate.queue_seconds, 0.5);
  EXPECT_DOUBLE_EQ(estimate.pull_seconds, 1.5);
  EXPECT_DOUBLE_EQ(estimate.link_seconds, 0.1);
  EXPECT_DOUBLE_EQ(estimate.total_seconds(), 2.1);
}

TEST(RankWorkersTest, ALoadedOwnerLosesOnceItsQueueIsLongerThanThePull) {
  EXPECT_EQ(RankWorkers(kHotDocument, std::vector<WorkerLoad>{Worker("owner", 1900, 2e9), Worker("idle", 0, 0)})
                .front()
                .worker_index,
            0u);
  EXPECT_EQ(RankWorkers(kHotDocument, std::vector<WorkerLoad>{Worker("owner", 2100, 2e9), Worker("idle", 0, 0)})
                .front()
                .worker_index,
            1u);
}

TEST(RankWorkersTest, AFasterWorkerMayHaveALongerQueue) {
  std::vector<WorkerLoad> workers = {Worker("slow", 1000, 0), Worker("fast", 3000, 0)};
  workers[1].tokens_per_second = 10'000;
  EXPECT_EQ(RankWorkers(kHotDocument, workers).front().worker_index, 1u);
}

TEST(RankWorkersTest, AHotDocumentSpreadsWhenQueuesAreFedBack) {
  constexpr int kRequests = 1000;
  std::vector<WorkerLoad> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(Worker(fmt::format("worker-{}", i), 0, 0));
  workers[2].resident_bytes = 2e9;
  std::vector<int> placed(workers.size());
  for (int i = 0; i < kRequests; ++i) {
    PlacementRequest request = kHotDocument;
    request.request_hash = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u;
    WorkerLoad& chosen = workers[RankWorkers(request, workers).front().worker_index];
    ++placed[&chosen - workers.data()];
    if (i < 20) {
      EXPECT_EQ(chosen.id, "worker-2") << "a queue shorter than the pull is no reason to pull";
    }
    chosen.queued_tokens += request.link_tokens;
    chosen.resident_bytes = request.chunk_bytes;  // it has pulled them
  }
  const auto [fewest, most] = std::minmax_element(placed.begin(), placed.end());
  EXPECT_LE(*most - *fewest, 2);
}

TEST(RankWorkersTest, EqualsShareRequestsAndARequestKeepsItsOrder) {
  std::vector<WorkerLoad> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(Worker(fmt::format("worker-{}", i), 0, 0));
  std::vector<int> placed(workers.size());
  for (int i = 0; i < 4000; ++i) {
    PlacementRequest request = kHotDocument;
    request.request_hash = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u;
    const size_t chosen = RankWorkers(request, workers).front().worker_index;
    ++placed[chosen];
    std::vector<WorkerLoad> reversed(workers.rbegin(), workers.rend());
    ASSERT_EQ(reversed[RankWorkers(request, reversed).front().worker_index].id, workers[chosen].id);
  }
  for (const int count : placed) EXPECT_NEAR(count, 1000, 150);
}

TEST(RankWorkersTest, UnmeasuredAndNonsensicalValuesGiveFiniteEstimates) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<WorkerLoad> workers = {
      {.id = "new"},
      {.id = "nan",
       .queued_tokens = nan,
       .tokens_per_second = nan,
       .pull_bytes_per_second = nan,
       .resident_bytes = nan},
      {.id = "inf",
       .queued_tokens = -infinity,
       .tokens_per_second = -1,
       .pull_bytes_per_second = -5,
       .resident_bytes = -9},
      Worker("measured", 0, 5e9),
  };
  const std::vector<WorkerEstimate> ranked = RankWorkers(kHotDocument, workers);
  for (const WorkerEstimate& estimate : ranked) {
    EXPECT_TRUE(std::isfinite(estimate.total_seconds()));
    EXPECT_GE(estimate.pull_seconds, 0.0);
  }
  EXPECT_EQ(ranked.front().worker_index, 3u);
  EXPECT_TRUE(RankWorkers(kHotDocument, {}).empty());
}

}  // namespace
}  // namespace epic
