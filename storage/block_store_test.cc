#include "storage/block_store.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/kv_block_testing.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kPageBytes = kBlockAlignmentBytes;
constexpr size_t kCapacityBytes = size_t{1} << 20;  // 256 pages

// A block of `pages` pages, its header included: eight layers of one head, sized by the head dimension.
KvBlockInfo InfoOfPages(int pages, int32_t first_token) {
  // 32 tokens: 128 bytes of a layer's K and V for each dimension, 1024 for all layers.
  KvShape shape{.layers = 8, .kv_heads = 1};
  shape.head_dim = static_cast<int32_t>((static_cast<size_t>(pages) * kPageBytes - 512) / 2048 * 2);
  KvBlockInfo info = MakeTestBlockInfo(shape, {first_token, 2, 3});
  EXPECT_LE(KvBlockBytes(info), pages * kPageBytes);
  EXPECT_GT(KvBlockBytes(info), (pages - 1) * kPageBytes);
  return info;
}

class BlockStoreTest : public testing::Test {
 protected:
  absl::StatusOr<BlockStore::Lease> TryPut(const KvBlockInfo& info) {
    absl::StatusOr<BlockStore::Reservation> reservation = store_->Reserve(KvBlockBytes(info));
    if (!reservation.ok()) return reservation.status();
    WriteTestBlock(info, reservation->bytes());
    return store_->Publish(*std::move(reservation));
  }
  BlockStore::Lease Put(int pages, int32_t first_token) { return TryPut(InfoOfPages(pages, first_token)).value(); }
  ChunkKey Key(int pages, int32_t first_token) const { return InfoOfPages(pages, first_token).key; }

  // The order in which blocks leave is the policy's business (core/); here it is to be a simple one.
  std::unique_ptr<BlockStore> store_ =
      BlockStore::Create({.capacity_bytes = kCapacityBytes, .eviction_policy = "lru"}).value();
};

TEST_F(BlockStoreTest, APublishedBlockIsFoundAndHoldsItsBytes) {
  const KvBlockInfo info = InfoOfPages(3, 1);
  EXPECT_FALSE(store_->Contains(info.key));
  EXPECT_EQ(store_->Acquire(info.key).status().code(), absl::StatusCode::kNotFound);
  const BlockStore::Lease published = Put(3, 1);
  EXPECT_TRUE(store_->Contains(info.key));
  const BlockStore::Lease lease = store_->Acquire(info.key, info.token_ids).value();
  EXPECT_EQ(lease.edition(), published.edition());
  EXPECT_EQ(lease.view().bytes().data(), published.view().bytes().data());
  EXPECT_EQ(lease.view().Keys(1)[info.shape.KeyIndex(32, 0, 2, 5)], TestKeyBits(1, 0, 2, 5));
  EXPECT_TRUE(lease.view().VerifyPayload().ok());
  const BlockStoreStats stats = store_->Stats();
  EXPECT_EQ(stats.capacity_bytes, kCapacityBytes);
  EXPECT_EQ(stats.used_bytes, 3 * kPageBytes);
  EXPECT_EQ(stats.blocks, 1u);
  EXPECT_EQ(stats.leases, 2u);
  EXPECT_EQ(stats.hits_total, 1u);
  EXPECT_EQ(stats.misses_total, 1u);
  EXPECT_EQ(stats.published_total, 1u);
}

TEST_F(BlockStoreTest, AReservationThatIsDroppedLeavesNothing) {
  {
    const BlockStore::Reservation reservation = store_->Reserve(5000).value();
    EXPECT_EQ(reservation.bytes().size(), 5000u);
    EXPECT_EQ(store_->Stats().used_bytes, 2 * kPageBytes);
    EXPECT_EQ(store_->Stats().blocks, 0u);
  }
  EXPECT_EQ(store_->Stats().used_bytes, 0u);
}

TEST_F(BlockStoreTest, ReservationsAndLeasesMove) {
  BlockStore::Reservation first = store_->Reserve(5000).value();
  BlockStore::Reservation second = store_->Reserve(9000).value();
  first = std::move(second);
  EXPECT_EQ(first.bytes().size(), 9000u);
  BlockStore::Lease a = Put(1, 1);
  BlockStore::Lease b = Put(1, 2);
  const uint64_t edition = b.edition();
  a = std::move(b);
  EXPECT_FALSE(b);  // NOLINT(bugprone-use-after-move): the state after a move is promised
  EXPECT_EQ(a.edition(), edition);
  EXPECT_EQ(store_->Stats().leases, 1u);
  const BlockStore::Lease shared = a.Share();
  EXPECT_EQ(store_->Stats().leases, 2u);
  a.Reset();
  a.Reset();
  EXPECT_FALSE(a);
  EXPECT_FALSE(a.Share());
  EXPECT_EQ(store_->Stats().leases, 1u);
  EXPECT_EQ(shared.edition(), edition);
}

TEST_F(BlockStoreTest, ReservedMemoryIsZeroWhenItIsUsedAgain) {
  for (int round = 0; round < 4; ++round) {
    std::vector<BlockStore::Reservation> reservations;
    for (size_t bytes : {3 * kPageBytes, 7 * kPageBytes - 100, kPageBytes, (100 + round) * kPageBytes}) {
      reservations.push_back(store_->Reserve(bytes).value());
      const std::span<std::byte> memory = reservations.back().bytes();
      EXPECT_EQ(std::count(memory.begin(), memory.end(), std::byte{0}), static_cast<ptrdiff_t>(memory.size()));
      std::memset(memory.data(), 0xAB, memory.size());
    }
  }
  // The same holds for memory that a published block left.
  for (int32_t i = 0; i < 64; ++i) Put(8, i);
  const BlockStore::Reservation all = store_->Reserve(kCapacityBytes).value();
  EXPECT_EQ(std::count(all.bytes().begin(), all.bytes().end(), std::byte{0}), static_cast<ptrdiff_t>(kCapacityBytes));
}

TEST_F(BlockStoreTest, EvictsTheLeastRecentlyUsed) {
  for (int32_t i = 0; i < 4; ++i) Put(64, i);
  ASSERT_TRUE(store_->Acquire(Key(64, 0)).ok());  // touched: 1 is the oldest now
  EXPECT_TRUE(store_->Contains(Key(64, 1)));      // no touch
  std::vector<ChunkKey> removed;
  store_->SetRemovalObserver([&](const ChunkKey& key) {
    removed.push_back(key);
    EXPECT_FALSE(store_->Contains(key));  // called without the lock, after the removal
  });
  Put(64, 4);
  EXPECT_THAT(removed, ElementsAre(Key(64, 1)));
  Put(128, 5);
  EXPECT_THAT(removed, ElementsAre(Key(64, 1), Key(64, 2), Key(64, 3)));
  EXPECT_TRUE(store_->Contains(Key(64, 0)));
  EXPECT_TRUE(store_->Contains(Key(64, 4)));
  EXPECT_EQ(store_->Stats().evictions_total, 3u);
  EXPECT_EQ(store_->Stats().blocks, 3u);
}

TEST_F(BlockStoreTest, NeverEvictsWhatIsUnderLease) {
  std::vector<BlockStore::Lease> leases;
  for (int32_t i = 0; i < 4; ++i) leases.push_back(Put(64, i));
  const absl::Status status = TryPut(InfoOfPages(1, 9)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("block of 4096 bytes"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tier of 1048576 bytes"));
  EXPECT_EQ(store_->Stats().blocks, 4u);
  leases[2].Reset();
  EXPECT_TRUE(TryPut(InfoOfPages(1, 9)).ok());
  EXPECT_FALSE(store_->Contains(Key(64, 2)));
  for (const int32_t i : {0, 1, 3}) {
    EXPECT_TRUE(store_->Contains(Key(64, i)));
    EXPECT_TRUE(leases[i].view().VerifyPayload().ok());
  }
}

TEST_F(BlockStoreTest, EvictsNeighboursWhereFreeBytesLieScattered) {
  // 32 blocks of 8 pages. Odd ones are used last, so that the least recently used 16 lie scattered.
  for (int32_t i = 0; i < 32; ++i) Put(8, i);
  for (int32_t i = 1; i < 32; i += 2) ASSERT_TRUE(store_->Acquire(Key(8, i)).ok());
  std::optional<BlockStore::Lease> wall = store_->Acquire(Key(8, 15)).value();
  // 16 blocks' worth, and only beside the wall can it be had.
  const BlockStore::Lease large = Put(16 * 8, 100);
  EXPECT_TRUE(store_->Contains(Key(8, 15)));
  EXPECT_TRUE(large.view().VerifyPayload().ok());
  EXPECT_TRUE(wall->view().VerifyPayload().ok());
  EXPECT_LE(store_->Stats().evictions_total, 24u) << "16 by use, and the odd ones between them on one side";
}

TEST_F(BlockStoreTest, LeasesThatLeaveNoRoomInOnePieceAreResourceExhausted) {
  std::vector<BlockStore::Lease> walls;
  for (int32_t i = 0; i < 32; ++i) {
    BlockStore::Lease lease = Put(8, i);
    if (i % 8 == 7) walls.push_back(std::move(lease));
  }
  EXPECT_EQ(TryPut(InfoOfPages(8 * 8, 100)).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(TryPut(InfoOfPages(7 * 8, 101)).ok());
}

TEST_F(BlockStoreTest, ABlockLargerThanTheTierIsRefusedAndEvictsNothing) {
  Put(8, 1);
  const absl::Status status = store_->Reserve(kCapacityBytes + 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1048577"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1048576"));
  EXPECT_EQ(store_->Reserve(SIZE_MAX).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Reserve(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(store_->Contains(Key(8, 1)));
}

TEST_F(BlockStoreTest, ASecondBlockOfTheSameKeyGivesTheFirstEdition) {
  const BlockStore::Lease first = Put(4, 1);
  const KvBlockInfo info = InfoOfPages(4, 1);
  BlockStore::Reservation reservation = store_->Reserve(KvBlockBytes(info)).value();
  KvBlockWriter writer = KvBlockWriter::Create(info, reservation.bytes()).value();
  writer.Keys(0)[0] = 12345;
  ASSERT_NE(writer.Seal(), first.edition());
  const BlockStore::Lease second = store_->Publish(std::move(reservation)).value();
  EXPECT_EQ(second.edition(), first.edition());
  EXPECT_EQ(store_->Stats().used_bytes, 4 * kPageBytes);
  EXPECT_EQ(store_->Stats().published_total, 1u);
}

TEST_F(BlockStoreTest, DamagedBlocksAreNotPublished) {
  const KvBlockInfo info = InfoOfPages(4, 1);
  {
    BlockStore::Reservation reservation = store_->Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    reservation.bytes().back() ^= std::byte{1};
    EXPECT_EQ(store_->Publish(std::move(reservation)).status().code(), absl::StatusCode::kDataLoss);
    BlockStore::Reservation unsealed = store_->Reserve(KvBlockBytes(info)).value();
    EXPECT_EQ(store_->Publish(std::move(unsealed)).status().code(), absl::StatusCode::kDataLoss);
    // A moved-from reservation is no reservation.
    EXPECT_EQ(store_->Publish(std::move(unsealed)).status().code(),  // NOLINT(bugprone-use-after-move)
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(store_->Contains(info.key));
  EXPECT_EQ(store_->Stats().used_bytes, 0u);
}

TEST_F(BlockStoreTest, OtherTokensUnderTheSameKeyAreDataLossAndDropTheBlock) {
  KvBlockInfo forged = InfoOfPages(4, 1);
  forged.key = Key(4, 2);
  ASSERT_TRUE(TryPut(forged).ok());
  std::vector<ChunkKey> removed;
  store_->SetRemovalObserver([&](const ChunkKey& key) { removed.push_back(key); });
  EXPECT_TRUE(store_->Acquire(forged.key, forged.token_ids).ok());
  EXPECT_EQ(store_->Acquire(forged.key, InfoOfPages(4, 2).token_ids).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(store_->Contains(forged.key));
  EXPECT_THAT(removed, ElementsAre(forged.key));
  EXPECT_EQ(store_->Stats().used_bytes, 0u);
  EXPECT_EQ(store_->Stats().leases, 0u);
}

TEST_F(BlockStoreTest, ADroppedBlockStaysReadableUntilItsLastLeaseEnds) {
  BlockStore::Lease lease = Put(4, 1);
  store_->Drop(Key(4, 1));
  store_->Drop(Key(4, 1));
  EXPECT_FALSE(store_->Contains(Key(4, 1)));
  EXPECT_EQ(store_->Stats().used_bytes, 4 * kPageBytes);
  EXPECT_TRUE(lease.view().VerifyPayload().ok());
  BlockStore::Lease shared = lease.Share();
  lease.Reset();
  // A new block of the same key may come while the old one is read.
  const BlockStore::Lease fresh = Put(4, 1);
  EXPECT_NE(fresh.view().bytes().data(), shared.view().bytes().data());
  EXPECT_EQ(store_->Stats().used_bytes, 8 * kPageBytes);
  shared.Reset();
  EXPECT_EQ(store_->Stats().used_bytes, 4 * kPageBytes);
  EXPECT_TRUE(store_->Contains(Key(4, 1)));
}

TEST_F(BlockStoreTest, RandomOperationsNeitherLoseNorOverlapBytes) {
  std::mt19937 random(7);
  std::vector<BlockStore::Lease> leases;
  for (int step = 0; step < 3000; ++step) {
    const int32_t token = static_cast<int32_t>(random() % 60);
    const int pages = 1 + token % 40;
    switch (random() % 5) {
      case 0:
      case 1: {
        absl::StatusOr<BlockStore::Lease> lease = TryPut(InfoOfPages(pages, token));
        if (lease.ok() && random() % 4 == 0) leases.push_back(*std::move(lease));
        break;
      }
      case 2: {
        absl::StatusOr<BlockStore::Lease> lease = store_->Acquire(Key(pages, token));
        if (lease.ok() && random() % 4 == 0) leases.push_back(*std::move(lease));
        break;
      }
      case 3:
        if (!leases.empty()) {
          std::swap(leases[random() % leases.size()], leases.back());
          leases.pop_back();
        }
        break;
      default:
        if (random() % 8 == 0) store_->Drop(Key(pages, token));
    }
    const BlockStoreStats stats = store_->Stats();
    ASSERT_LE(stats.used_bytes, kCapacityBytes);
    ASSERT_EQ(stats.leases, leases.size());
    if (step % 50 == 0) {
      for (const BlockStore::Lease& lease : leases) ASSERT_TRUE(lease.view().VerifyPayload().ok());
    }
    if (leases.size() > 12) leases.erase(leases.begin(), leases.begin() + 6);
  }
  EXPECT_GT(store_->Stats().evictions_total, 100u);
  leases.clear();
  EXPECT_EQ(store_->Reserve(kCapacityBytes)->bytes().size(), kCapacityBytes);
}

TEST_F(BlockStoreTest, APinnedBlockIsNotEvictedAndAnUnpinnedOneIs) {
  const ChunkKey later = Key(64, 9);
  store_->Pin(Key(64, 0));
  store_->Pin(later);  // before it is there
  for (int32_t i = 0; i < 4; ++i) Put(64, i);
  EXPECT_EQ(store_->Stats().pinned_blocks, 1u);
  EXPECT_EQ(store_->Stats().pinned_bytes, 64 * kPageBytes);
  Put(64, 9);
  EXPECT_TRUE(store_->Contains(Key(64, 0)));
  EXPECT_FALSE(store_->Contains(Key(64, 1)));
  EXPECT_EQ(store_->Stats().pinned_blocks, 2u);
  Put(64, 10);
  Put(64, 11);
  EXPECT_TRUE(store_->Contains(Key(64, 0)) && store_->Contains(later));
  // With everything else pinned too, there is no room, and the sentence says why.
  store_->Pin(Key(64, 10));
  store_->Pin(Key(64, 11));
  const absl::Status full = TryPut(InfoOfPages(1, 12)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("pinned"));
  EXPECT_FALSE(store_->Evict(Key(64, 0)));
  store_->Unpin(Key(64, 0));
  EXPECT_TRUE(TryPut(InfoOfPages(1, 12)).ok());
  EXPECT_FALSE(store_->Contains(Key(64, 0)));
}

TEST_F(BlockStoreTest, PinsAreCountedAndOutliveTheirBlock) {
  const ChunkKey key = Key(4, 1);
  Put(4, 1);
  store_->Pin(key);
  store_->Pin(key);
  store_->Unpin(key);
  EXPECT_EQ(store_->Stats().pinned_blocks, 1u);
  store_->Drop(key);  // its document is gone
  EXPECT_EQ(store_->Stats().pinned_bytes, 0u);
  EXPECT_EQ(store_->Stats().used_bytes, 0u);
  Put(4, 1);
  EXPECT_EQ(store_->Stats().pinned_blocks, 1u);
  store_->Unpin(key);
  store_->Unpin(key);  // one too many changes nothing
  EXPECT_EQ(store_->Stats().pinned_blocks, 0u);
  EXPECT_EQ(store_->Reserve(kCapacityBytes)->bytes().size(), kCapacityBytes);
}

TEST_F(BlockStoreTest, AnOperatorEvictsWhatNobodyHolds) {
  BlockStore::Lease lease = Put(4, 1);
  EXPECT_FALSE(store_->Evict(Key(4, 1)));
  EXPECT_FALSE(store_->Evict(Key(4, 2)));
  lease.Reset();
  EXPECT_TRUE(store_->Evict(Key(4, 1)));
  EXPECT_FALSE(store_->Contains(Key(4, 1)));
  EXPECT_EQ(store_->Stats().evictions_requested_total, 1u);
  EXPECT_EQ(store_->Stats().evictions_total, 1u);
}

TEST_F(BlockStoreTest, PeekingNeitherTouchesNorCounts) {
  for (int32_t i = 0; i < 4; ++i) Put(64, i);
  EXPECT_TRUE(*store_->Peek(Key(64, 0)));
  EXPECT_FALSE(*store_->Peek(Key(64, 7)));
  EXPECT_EQ(store_->Stats().hits_total + store_->Stats().misses_total, 0u);
  Put(64, 4);
  EXPECT_FALSE(store_->Contains(Key(64, 0))) << "it was still the least recently used";
  EXPECT_EQ(store_->Keys().size(), 4u);
}

TEST_F(BlockStoreTest, AHeaderThatWentBadInMemoryIsDroppedWhenItIsAskedFor) {
  const KvBlockInfo info = InfoOfPages(4, 1);
  BlockStore::Reservation reservation = store_->Reserve(KvBlockBytes(info)).value();
  WriteTestBlock(info, reservation.bytes());
  std::byte* const bytes = reservation.bytes().data();
  ASSERT_TRUE(store_->Publish(std::move(reservation)).ok());
  bytes[100] ^= std::byte{1};
  EXPECT_EQ(store_->Acquire(info.key).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->Acquire(info.key).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Stats().damaged_total, 1u);
  EXPECT_EQ(store_->Stats().used_bytes, 0u);
}

TEST(BlockStoreCostTest, WhatIsCheapToBringBackGoesFirst) {
  const std::unique_ptr<BlockStore> store =
      BlockStore::Create({.capacity_bytes = kCapacityBytes, .eviction_policy = "cost-aware"}).value();
  const auto put = [&](int32_t token, double cost_us) {
    const KvBlockInfo info = InfoOfPages(64, token);
    BlockStore::Reservation reservation = store->Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    return store->Publish(std::move(reservation), cost_us).value();
  };
  const auto key = [](int32_t token) { return InfoOfPages(64, token).key; };
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(put(i, 1e6).recompile_cost_us(), 1e6);
  store->SetCost(key(2), 1e3);  // a copy of it is on disk now
  store->SetCost(key(3), 1e3);
  store->SetCost(key(3), std::nullopt);  // and this copy is gone again
  put(4, 1e6);
  EXPECT_FALSE(store->Contains(key(2)));
  EXPECT_TRUE(store->Contains(key(0)) && store->Contains(key(1)) && store->Contains(key(3)));
}

TEST(BlockStoreChurnTest, BlocksOfMixedSizesUseNearlyAllOfTheTier) {
  // What is not used when a block had to make room is bounded by what the blocks' sizes make scattered.
  const std::unique_ptr<BlockStore> store = BlockStore::Create({.capacity_bytes = size_t{16} << 20}).value();
  std::mt19937 random(11);
  double used_share = 0;
  constexpr int kSteps = 4000;
  for (int step = 0; step < kSteps; ++step) {
    const KvBlockInfo info = InfoOfPages(4 + static_cast<int>(random() % 60), step);
    BlockStore::Reservation reservation = store->Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    ASSERT_TRUE(store->Publish(std::move(reservation)).ok());
    const BlockStoreStats stats = store->Stats();
    if (step >= kSteps / 2) used_share += static_cast<double>(stats.used_bytes) / stats.capacity_bytes / (kSteps / 2);
    ASSERT_LE(stats.used_bytes, stats.capacity_bytes);
  }
  EXPECT_GT(used_share, 0.9);
}

TEST(BlockStoreOptionsTest, HugePagesExcludeProtectionAndNamesAreChecked) {
  const absl::Status both =
      BlockStoreOptions{.protect_published = true, .arena = {.reserved_huge_pages = true}}.Validate();
  EXPECT_EQ(both.code(), absl::StatusCode::kInvalidArgument);
  const absl::Status name = BlockStoreOptions{.eviction_policy = "mru"}.Validate();
  EXPECT_EQ(name.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(name.message()), HasSubstr("cost-aware"));
}

TEST(BlockStoreOptionsTest, CapacityHasBounds) {
  EXPECT_EQ(BlockStore::Create({.capacity_bytes = 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlockStore::Create({.capacity_bytes = SIZE_MAX}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(BlockStoreOptions().Validate().ok());
}

TEST(BlockStoreDeathTest, AWriteToAPublishedBlockFaultsWhereProtected) {
  const std::unique_ptr<BlockStore> store =
      BlockStore::Create({.capacity_bytes = kCapacityBytes, .protect_published = true}).value();
  const KvBlockInfo info = InfoOfPages(3, 1);
  BlockStore::Reservation reservation = store->Reserve(KvBlockBytes(info)).value();
  WriteTestBlock(info, reservation.bytes());
  volatile std::byte* const bytes = reservation.bytes().data();
  BlockStore::Lease lease = store->Publish(std::move(reservation)).value();
  EXPECT_TRUE(lease.view().VerifyPayload().ok());
  EXPECT_DEATH(bytes[lease.view().header_bytes()] = std::byte{1}, "");
  EXPECT_DEATH(bytes[KvBlockBytes(info) - 1] = std::byte{1}, "");
  // A free block stays protected against stray writes until it is reserved again.
  lease.Reset();
  store->Drop(info.key);
  EXPECT_DEATH(bytes[0] = std::byte{1}, "");
  const BlockStore::Reservation again = store->Reserve(kCapacityBytes).value();
  EXPECT_EQ(again.bytes().data(), bytes);
  EXPECT_EQ(std::count(again.bytes().begin(), again.bytes().end(), std::byte{0}),
            static_cast<ptrdiff_t>(kCapacityBytes));
  again.bytes()[0] = std::byte{1};
}

TEST(BlockStoreDeathTest, DestructionUnderALeaseEndsTheProcess) {
  EXPECT_DEATH(
      {
        std::unique_ptr<BlockStore> store = BlockStore::Create({.capacity_bytes = kCapacityBytes}).value();
        const BlockStore::Reservation reservation = store->Reserve(1).value();
        store.reset();
      },
      "leased or being written");
}

}  // namespace
}  // namespace epic
