#include "benchmarks/eviction_simulation.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "benchmarks/eviction_workload.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::DoubleNear;
using ::testing::HasSubstr;

constexpr WorkloadSize kTiny = {.documents = 60, .requests = 400};

// Blocks of one byte that cost one.
EvictionWorkload Equal(size_t blocks, std::vector<uint32_t> requests) {
  EvictionWorkload workload;
  workload.blocks.assign(blocks, {.bytes = 1, .recompile_us = 1000, .reload_us = 50});
  workload.requests = std::move(requests);
  return workload;
}

TEST(ReplayOneTierTest, LruByHand) {
  // Two places: 0 miss, 1 miss, 0 hit, 2 miss (1 goes), 0 hit, 1 miss (2 goes), 2 miss (0 goes).
  const EvictionWorkload workload = Equal(3, {0, 1, 0, 2, 0, 1, 2});
  const ReplayCounts counts = *ReplayOneTier(workload, "lru", 2);
  EXPECT_EQ(counts.requests, 7);
  EXPECT_EQ(counts.hits, 2);
  EXPECT_DOUBLE_EQ(counts.cost_us_requested, 7000);
  EXPECT_DOUBLE_EQ(counts.cost_us_paid, 5000);
  EXPECT_DOUBLE_EQ(counts.ByteHitRatio(), 2.0 / 7);
}

TEST(ReplayOneTierTest, BeladyByHand) {
  // 0 miss, 1 miss, 2 miss (of 0 and 1, 1 is asked for later and goes), 0 hit, 0 hit, 2 hit, 1 miss.
  EXPECT_EQ(ReplayOneTier(Equal(3, {0, 1, 2, 0, 0, 2, 1}), "belady", 2)->hits, 3);
}

TEST(ReplayOneTierTest, TheWarmUpIsNotCounted) {
  EvictionWorkload workload = Equal(2, {0, 1, 0, 1});
  workload.warm_up = 2;
  const ReplayCounts counts = *ReplayOneTier(workload, "lru", 2);
  EXPECT_EQ(counts.requests, 2);
  EXPECT_EQ(counts.hits, 2);
}

TEST(ReplayOneTierTest, ABlockLargerThanTheTierPassesBy) {
  EvictionWorkload workload = Equal(2, {0, 1, 0, 1});
  workload.blocks[1].bytes = 10;
  for (const std::string& policy : EvictionPolicyNames()) EXPECT_EQ(ReplayOneTier(workload, policy, 2)->hits, 1);
}

TEST(ReplayOneTierTest, NobodyBeatsBeladyWhereBlocksAreEqual) {
  for (const uint64_t seed : {1, 2, 3}) {
    for (EvictionWorkload workload :
         {ZipfWorkload(0.9, kTiny, seed), DriftWorkload(kTiny, seed), ScanWorkload(kTiny, seed)}) {
      for (SimulatedBlock& block : workload.blocks) block = {.bytes = 1, .recompile_us = 1, .reload_us = 1};
      for (const size_t capacity : {20, 100, 300}) {
        const uint64_t best = ReplayOneTier(workload, "belady", capacity)->hits;
        for (const std::string& policy : EvictionPolicyNames()) {
          const uint64_t hits = ReplayOneTier(workload, policy, capacity)->hits;
          EXPECT_LE(hits, best) << policy << ", " << workload.name << ", " << capacity;
          EXPECT_GT(hits, 0) << policy;
        }
      }
    }
  }
}

TEST(ReplayOneTierTest, CostAwareKeepsTheDearBlocks) {
  // Ten blocks in turn and place for five; five of them are ten times as dear.
  EvictionWorkload workload = Equal(10, {});
  for (size_t i = 0; i < 5; ++i) workload.blocks[i].recompile_us = 10'000;
  for (uint32_t i = 0; i < 1000; ++i) workload.requests.push_back(i % 10);
  workload.warm_up = 100;
  const ReplayCounts lru = *ReplayOneTier(workload, "lru", 5);
  const ReplayCounts cost_aware = *ReplayOneTier(workload, "cost-aware", 5);
  EXPECT_EQ(lru.CostRatio(), 1);
  // One place is taken by whichever cheap block passed last, which costs one dear miss a turn.
  EXPECT_LT(cost_aware.CostRatio(), 0.3);
}

TEST(ReplayOneTierTest, FrequencyHelpsAgainstAScan) {
  const EvictionWorkload workload = ScanWorkload(kTiny, 1);
  const size_t capacity = workload.WorkingSetBytes() / 4;
  const double lru = ReplayOneTier(workload, "lru", capacity)->CostRatio();
  for (const char* policy : {"cost-aware", "tinylfu", "s3-fifo"}) {
    EXPECT_LT(ReplayOneTier(workload, policy, capacity)->CostRatio(), lru) << policy;
  }
}

TEST(ReplayOneTierTest, AnUnknownPolicyIsRefused) {
  EXPECT_EQ(ReplayOneTier(Equal(1, {0}), "mru", 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReplayTwoTiers(Equal(1, {0}), "belady", 1, 1, Spill::kWhenCompiled).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ReplayTwoTiersTest, ByHand) {
  // One place in memory, two on disk. LRU writes all that it is offered.
  const EvictionWorkload workload = Equal(3, {0, 1, 0, 2, 0, 1});
  // Compiled: 0 and 1 are on disk. 0 from disk. 2 is compiled, and 1 leaves the disk. 0 from disk, 1 compiled.
  const ReplayCounts compiled = *ReplayTwoTiers(workload, "lru", 1, 2, Spill::kWhenCompiled);
  EXPECT_EQ(compiled.hits, 0);
  EXPECT_EQ(compiled.disk_hits, 2);
  EXPECT_DOUBLE_EQ(compiled.cost_us_paid, 4 * 1000 + 2 * 50);
  EXPECT_DOUBLE_EQ(compiled.disk_bytes_written, 4);
  // Evicted: 0 goes to disk when 1 comes, 1 when 0 comes back from there; 2 when 0 comes again, and 1 leaves the disk.
  const ReplayCounts evicted = *ReplayTwoTiers(workload, "lru", 1, 2, Spill::kWhenEvicted);
  EXPECT_EQ(evicted.disk_hits, 2);
  EXPECT_DOUBLE_EQ(evicted.disk_bytes_written, 3);
}

TEST(ReplayTwoTiersTest, CostAwareKeepsInMemoryWhatHasNoCopy) {
  // Two places in memory, one on disk, where 1 took 0's. When 2 comes, 1 goes from memory: there is a copy of it.
  const EvictionWorkload workload = Equal(3, {0, 1, 0, 1, 0, 1, 2, 0});
  EXPECT_EQ(ReplayTwoTiers(workload, "cost-aware", 2, 1, Spill::kWhenCompiled)->hits, 5);
  EXPECT_EQ(ReplayTwoTiers(workload, "lru", 2, 1, Spill::kWhenCompiled)->hits, 4);
}

TEST(WorkloadTest, ASeedGivesTheSameStream) {
  const EvictionWorkload first = ZipfWorkload(0.9, kTiny, 5);
  EXPECT_EQ(first.requests, ZipfWorkload(0.9, kTiny, 5).requests);
  EXPECT_NE(first.requests, ZipfWorkload(0.9, kTiny, 6).requests);
}

TEST(WorkloadTest, TheWorkingSetIsWhatIsAskedForAgain) {
  EvictionWorkload workload = Equal(3, {0, 1, 1, 2, 1, 2});
  workload.blocks[2].bytes = 5;
  EXPECT_EQ(workload.WorkingSetBytes(), 6);
}

TEST(WorkloadTest, LargerExponentsAskForFewerBlocks) {
  const auto distinct = [](double exponent) {
    const EvictionWorkload workload = ZipfWorkload(exponent, kTiny, 1);
    std::vector<size_t> uses(workload.blocks.size());
    for (const uint32_t block : workload.requests) ++uses[block];
    std::sort(uses.rbegin(), uses.rend());
    size_t top = 0;
    for (size_t i = 0; i < uses.size() / 20; ++i) top += uses[i];
    return static_cast<double>(top) / static_cast<double>(workload.requests.size());
  };
  EXPECT_LT(distinct(0.1), distinct(0.9));
  EXPECT_LT(distinct(0.9), distinct(2));
}

TEST(WorkloadTest, BlocksAreLikeTheStores) {
  for (const SimulatedBlock& block : ZipfWorkload(0.9, kTiny, 1).blocks) {
    EXPECT_GE(block.bytes, 64 * 23'040);
    EXPECT_LE(block.bytes, 1024 * 23'040 + 4096);
    EXPECT_GT(block.recompile_us / block.reload_us, 10);
    EXPECT_LT(block.recompile_us / block.reload_us, 50);
  }
}

TEST(WorkloadTest, BatchesAreTheSameQueriesInAnotherOrder) {
  const EvictionWorkload workload = BatchWorkload(kTiny, 1);
  ASSERT_EQ(workload.batch_ends.size(), 10);
  EXPECT_EQ(workload.batch_ends.back(), workload.requests.size());
  const auto batch = [&](size_t number) {
    const auto begin = workload.requests.begin();
    return std::vector<uint32_t>(begin + (number == 0 ? workload.warm_up : workload.batch_ends[number - 1]),
                                 begin + workload.batch_ends[number]);
  };
  const std::vector<uint32_t> first = batch(0);
  const std::vector<uint32_t> last = batch(9);
  EXPECT_NE(first, last);
  EXPECT_EQ(std::multiset<uint32_t>(first.begin(), first.end()), std::multiset<uint32_t>(last.begin(), last.end()));
  const ReplayCounts counts = *ReplayOneTier(workload, "lru", workload.WorkingSetBytes());
  EXPECT_EQ(counts.batch_hit_ratios.size(), 10);
  EXPECT_THAT(counts.batch_hit_ratios.back(), DoubleNear(1, 0.1));
}

class ArrivalsTest : public testing::Test {
 protected:
  ArrivalsTest() {
    std::string folder = testing::TempDir() + "arrivals-XXXXXX";
    folder_ = mkdtemp(folder.data());
  }
  ~ArrivalsTest() override { std::filesystem::remove_all(folder_); }
  std::string Write(const std::string& text) const {
    std::ofstream(folder_ / "trace.jsonl") << text;
    return folder_ / "trace.jsonl";
  }

  std::filesystem::path folder_;
};

TEST_F(ArrivalsTest, AreReadAndFilled) {
  const std::vector<Arrival> arrivals = *ReadArrivals(Write(
      "{\"timestamp\": 0, \"input_length\": 3000, \"other\": []}\n{\"timestamp\": 90000, \"input_length\": 100}\n"));
  ASSERT_EQ(arrivals.size(), 2);
  EXPECT_EQ(arrivals[0].input_tokens, 3000);
  EXPECT_EQ(arrivals[1].time_ms, 90'000);
  const EvictionWorkload workload = TraceWorkload(arrivals, 20, 1);
  double bytes = 0;
  for (const uint32_t block : workload.requests) bytes += static_cast<double>(workload.blocks[block].bytes);
  EXPECT_GE(bytes, 3100 * 23'040.0);
  EXPECT_LE(bytes, (3100 + 2 * 1024) * 23'040.0 + 4096.0 * static_cast<double>(workload.requests.size()));
}

TEST_F(ArrivalsTest, BadFilesAreRefused) {
  EXPECT_EQ(ReadArrivals(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadArrivals(Write("")).status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* line : {"{", "[1]", "{\"timestamp\": 1}", "{\"timestamp\": \"1\", \"input_length\": 1}",
                           "{\"timestamp\": 1, \"input_length\": -1}"}) {
    const absl::Status status =
        ReadArrivals(Write(std::string("{\"timestamp\": 0, \"input_length\": 1}\n") + line + "\n")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 2"));
  }
}

}  // namespace
}  // namespace epic
