// Several threads on one small store: to be run under the thread sanitizer as well.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "core/kv_block_testing.h"
#include "gtest/gtest.h"
#include "storage/block_store.h"
#include "storage/lease_table.h"

namespace epic {
namespace {

constexpr size_t kCapacityBytes = size_t{1} << 20;
constexpr int kBlocks = 48;  // about three times what the store holds

KvBlockInfo Info(int number) {
  return MakeTestBlockInfo({.layers = 2, .kv_heads = 1, .head_dim = 64 + number % 7 * 16}, {number, 2, 3});
}

bool AllZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

void Put(BlockStore& store, const KvBlockInfo& info) {
  absl::StatusOr<BlockStore::Reservation> reservation = store.Reserve(KvBlockBytes(info));
  // Leases of the other threads may hold too much of so small a store.
  if (!reservation.ok()) {
    ASSERT_EQ(reservation.status().code(), absl::StatusCode::kResourceExhausted);
    return;
  }
  ASSERT_TRUE(AllZero(reservation->bytes()));
  WriteTestBlock(info, reservation->bytes());
  const absl::StatusOr<BlockStore::Lease> lease = store.Publish(*std::move(reservation));
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_EQ(lease->view().info().key, info.key);
}

TEST(BlockStoreThreadTest, ReadersSeeWholeBlocksWhileOthersWriteEvictAndDrop) {
  for (const bool protect : {false, true}) {
    const std::unique_ptr<BlockStore> store =
        BlockStore::Create({.capacity_bytes = kCapacityBytes, .protect_published = protect}).value();
    std::atomic<int> removals{0};
    store->SetRemovalObserver([&](const ChunkKey&) { removals.fetch_add(1); });
    LeaseTable table(64, SystemRandom64);
    const LeaseTable::TimePoint start{};
    const auto run = [&](uint32_t seed, bool writes) {
      std::mt19937 random(seed);
      for (int step = 0; step < 400; ++step) {
        const KvBlockInfo info = Info(static_cast<int>(random() % kBlocks));
        if (writes) {
          Put(*store, info);
          if (random() % 16 == 0) store->Drop(info.key);
          continue;
        }
        absl::StatusOr<BlockStore::Lease> lease = store->Acquire(info.key, info.token_ids);
        if (!lease.ok()) continue;
        ASSERT_EQ(lease->view().info().token_ids, info.token_ids);
        ASSERT_TRUE(lease->view().VerifyPayload().ok());
        const uint64_t edition = lease->edition();
        const absl::StatusOr<uint64_t> id = table.Grant(lease->Share(), start, std::chrono::seconds(step % 3));
        lease->Reset();
        if (!id.ok()) continue;
        if (const auto found = table.Find(*id, edition, start); found.ok()) {
          ASSERT_TRUE((*found)->view().VerifyPayload().ok());
        }
        if (random() % 2 == 0) {
          table.Release(*id);
        } else {
          table.Sweep(start + std::chrono::seconds(random() % 3));
        }
      }
    };
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < 2; ++i) {
      threads.emplace_back(run, 100 + i, true);
      threads.emplace_back(run, 200 + i, false);
    }
    for (std::thread& thread : threads) thread.join();
    table.Sweep(start + std::chrono::hours(1));
    const BlockStoreStats stats = store->Stats();
    EXPECT_EQ(stats.leases, 0u);
    EXPECT_GT(stats.evictions_total, 0u);
    EXPECT_GE(static_cast<uint64_t>(removals.load()), stats.evictions_total);
    EXPECT_TRUE(store->Reserve(kCapacityBytes).ok());
  }
}

TEST(BlockStoreThreadTest, OneOfSeveralPublishersOfAKeyWins) {
  const std::unique_ptr<BlockStore> store = BlockStore::Create({.capacity_bytes = kCapacityBytes}).value();
  for (int round = 0; round < 20; ++round) {
    const KvBlockInfo info = Info(round);
    std::vector<BlockStore::Lease> leases(4);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < leases.size(); ++i) {
      threads.emplace_back([&, i] {
        BlockStore::Reservation reservation = store->Reserve(KvBlockBytes(info)).value();
        KvBlockWriter writer = KvBlockWriter::Create(info, reservation.bytes()).value();
        writer.Keys(0)[0] = static_cast<uint16_t>(i);  // each makes an edition of its own
        writer.Seal();
        leases[i] = store->Publish(std::move(reservation)).value();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const BlockStore::Lease& lease : leases) EXPECT_EQ(lease.edition(), leases[0].edition());
    EXPECT_EQ(store->Stats().published_total, static_cast<uint64_t>(round + 1));
  }
}

}  // namespace
}  // namespace epic
