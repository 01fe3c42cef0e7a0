// Several threads on one small tier: to be run under the thread sanitizer as well.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "storage/disk_tier.h"
#include "storage/disk_tier_testing.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr int kBlocks = 60;  // about three times what the tier holds

std::unique_ptr<DiskTier> Open(const std::string& folder) {
  return DiskTier::Open({.folder = folder, .capacity_bytes = 4 * kMiB, .segment_bytes = kMiB, .free_bytes_min = 0},
                        std::make_unique<TestLruPolicy>())
      .value();
}

TEST(DiskTierThreadTest, ReadersSeeWholeBlocksWhileOthersWriteEvictAndDrop) {
  const TemporaryFolder folder;
  std::vector<TestBlock> blocks;
  for (int i = 0; i < kBlocks; ++i) blocks.emplace_back(i, 4 + i % 9, 256);
  std::unique_ptr<DiskTier> tier = Open(folder.path());
  std::atomic<uint64_t> removals{0};
  tier->SetRemovalObserver([&](const ChunkKey&) { removals.fetch_add(1); });
  std::atomic<int> writers{2};
  const auto write = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int step = 0; step < 300; ++step) {
      const TestBlock& block = blocks[random() % kBlocks];
      const absl::StatusOr<bool> written = tier->Write(block.view(), 1);
      EXPECT_TRUE(written.ok() || absl::IsResourceExhausted(written.status())) << written.status();
      if (random() % 8 == 0) tier->Drop(block.key());
    }
    writers.fetch_sub(1);
  };
  const auto read = [&](size_t step) {
    // On after the writers, so that every block is asked for when it is there for sure.
    for (size_t i = 0, last = SIZE_MAX; i < last; i += step) {
      if (last == SIZE_MAX && writers.load() == 0) last = i + kBlocks * step;
      const TestBlock& block = blocks[i % kBlocks];
      const PageAlignedBytes memory(DiskPaddedBytes(block.bytes().size()));
      const absl::Status status = tier->Read(block.key(), memory.span());
      ASSERT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
      if (!status.ok()) continue;
      ASSERT_TRUE(std::equal(block.bytes().begin(), block.bytes().end(), memory.span().begin()));
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 2; ++i) {
    threads.emplace_back(write, 100 + i);
    threads.emplace_back(read, 7 + 4 * i);
  }
  for (std::thread& thread : threads) thread.join();
  const DiskTierStats stats = tier->Stats();
  EXPECT_GT(stats.evictions_total, 0u);
  EXPECT_GT(stats.reads_total, 0u);
  EXPECT_EQ(stats.checksum_failures_total, 0u);
  EXPECT_EQ(stats.writes_total, stats.blocks + removals.load());
  size_t used_bytes = 0;
  tier->ForEach(
      [&](const ChunkKey&, const DiskTier::Entry& entry) { used_bytes += DiskPaddedBytes(entry.block_bytes); });
  EXPECT_EQ(stats.used_bytes, used_bytes) << "every dropped range came free";
  tier.reset();
  EXPECT_EQ(Open(folder.path())->Stats().blocks, stats.blocks);
}

TEST(DiskTierThreadTest, OneOfSeveralWritersOfAKeyWrites) {
  const TemporaryFolder folder;
  const std::unique_ptr<DiskTier> tier = Open(folder.path());
  for (int round = 0; round < 20; ++round) {
    const TestBlock block(round);
    std::atomic<int> written{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { written += tier->Write(block.view(), 1).value() ? 1 : 0; });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(written.load(), 1);
    EXPECT_TRUE(tier->Find(block.key()).has_value());
  }
}

// The blocks that are written after each drop would take the range that the reader is reading.
TEST(DiskTierThreadTest, ABlockThatIsDroppedUnderItsReaderKeepsItsRange) {
  const TemporaryFolder folder;
  const std::unique_ptr<DiskTier> tier = Open(folder.path());
  const TestBlock block(1, 8, 1024);
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    const PageAlignedBytes memory(DiskPaddedBytes(block.bytes().size()));
    while (!stop) {
      const absl::Status read = tier->Read(block.key(), memory.span());
      ASSERT_TRUE(read.ok() || absl::IsNotFound(read)) << read;
    }
  });
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(tier->Write(block.view(), 1).ok());
    tier->Drop(block.key());
    ASSERT_TRUE(tier->Write(TestBlock(100 + i, 8, 1024).view(), 1).ok());
    tier->Drop(TestBlock(100 + i, 8, 1024).key());
  }
  stop = true;
  reader.join();
  EXPECT_EQ(tier->Stats().checksum_failures_total, 0u);
  EXPECT_EQ(tier->Stats().used_bytes, 0u);
}

}  // namespace
}  // namespace epic
