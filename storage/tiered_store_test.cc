#include "storage/tiered_store.h"

#include <atomic>
#include <future>
#include <string>
#include <utility>

#include "core/kv_block_testing.h"
#include "core/kv_encoding.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/fake_tier.h"
#include "storage/scratch_block.h"

namespace epic {
namespace {

using testing::HasSubstr;

constexpr size_t kCapacityBytes = size_t{1} << 20;

KvBlockInfo Info(int32_t first_token) {
  return MakeTestBlockInfo({.layers = 4, .kv_heads = 2, .head_dim = 64}, {first_token, 2, 3});
}

TieredStore::Clock::time_point Soon() { return TieredStore::Clock::now() + std::chrono::seconds(60); }

class TieredStoreTest : public testing::Test {
 protected:
  void Start(TieredStoreOptions options = {}) {
    auto disk = std::make_unique<FakeTier>();
    disk_ = disk.get();
    store_ = std::make_unique<TieredStore>(
        options, BlockStore::Create({.capacity_bytes = kCapacityBytes, .protect_published = true}).value(),
        std::move(disk));
  }
  // Compiles a block: as the node does it, by a reservation that is published.
  BlockStore::Lease Put(int32_t first_token, double compile_us = 500) {
    const KvBlockInfo info = Info(first_token);
    BlockStore::Reservation reservation = store_->host().Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    return store_->Publish(std::move(reservation), compile_us).value();
  }
  // Loads a block and publishes it.
  absl::StatusOr<BlockStore::Lease> Load(int32_t first_token) {
    const KvBlockInfo info = store_->HostInfo(Info(first_token));
    BlockStore::Reservation reservation = store_->host().Reserve(KvBlockBytes(info)).value();
    std::promise<absl::StatusOr<uint64_t>> done;
    const absl::Status begun = store_->Load(info, reservation.padded_bytes(), [&](absl::StatusOr<uint64_t> edition) {
      done.set_value(std::move(edition));
    });
    if (!begun.ok()) return begun;
    const absl::StatusOr<uint64_t> edition = done.get_future().get();
    if (!edition.ok()) return edition.status();
    return store_->Publish(std::move(reservation), 0);
  }

  FakeTier* disk_ = nullptr;
  std::unique_ptr<TieredStore> store_;
};

TEST_F(TieredStoreTest, WhatIsPublishedIsCopiedAndComesBack) {
  Start();
  const uint64_t edition = Put(1, 700).edition();
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  ASSERT_TRUE(store_->OnDisk(Info(1).key));
  EXPECT_EQ(disk_->Find(Info(1).key)->edition, edition);
  EXPECT_EQ(disk_->Find(Info(1).key)->recompile_cost_us, 700);
  ASSERT_TRUE(store_->host().Evict(Info(1).key));
  EXPECT_TRUE(store_->Holds(Info(1).key));
  const absl::StatusOr<BlockStore::Lease> back = Load(1);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->edition(), edition);
  EXPECT_EQ(store_->Stats().writes_total, 1u);
  EXPECT_EQ(store_->Stats().loads_total, 1u);
  EXPECT_EQ(store_->Stats().writes_waiting, 0u) << "it has its copy already";
}

TEST_F(TieredStoreTest, AHitInMemoryWaitsForNothing) {
  Start();
  disk_->Close();
  Put(1);
  disk_->WaitForWaiting(1);  // the copy is stuck
  EXPECT_TRUE(store_->host().Acquire(Info(1).key).ok());
  Put(2);
  EXPECT_TRUE(store_->host().Acquire(Info(2).key).ok());
  EXPECT_FALSE(store_->WaitForWrites(TieredStore::Clock::now()));
  disk_->Open();
  EXPECT_TRUE(store_->WaitForWrites(Soon()));
  EXPECT_EQ(store_->host().Stats().leases, 0u);
}

TEST_F(TieredStoreTest, OnlyWhatIsWantedIsCopiedAlsoWhereThatChangesMeanwhile) {
  Start({.io_threads = 1});
  std::atomic<bool> wanted{false};
  store_->SetDiskFilter([&](const ChunkKey&) { return wanted.load(); });
  Put(1);
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  EXPECT_FALSE(store_->OnDisk(Info(1).key));
  // A document that is deleted while its block is written.
  wanted = true;
  disk_->Close();
  Put(2);
  disk_->WaitForWaiting(1);
  wanted = false;
  store_->Drop(Info(2).key);
  disk_->Open();
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  EXPECT_FALSE(store_->Holds(Info(2).key));
  EXPECT_EQ(store_->host().Stats().used_bytes, store_->host().Peek(Info(1).key)->view().bytes().size() / 4096 * 4096 +
                                                   (KvBlockBytes(Info(1)) % 4096 == 0 ? 0 : 4096));
  EXPECT_EQ(store_->Stats().writes_total, 0u);
}

TEST_F(TieredStoreTest, FailedCopiesAreCountedAndTheBlockStays) {
  Start();
  disk_->FailWrites(absl::ResourceExhaustedError("full"));
  Put(1);
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  disk_->FailWrites(absl::UnavailableError("broken"));
  Put(2);
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  EXPECT_EQ(store_->Stats().writes_declined_total, 1u);
  EXPECT_EQ(store_->Stats().write_failures_total, 1u);
  EXPECT_TRUE(store_->host().Contains(Info(1).key) && store_->host().Contains(Info(2).key));
  disk_->FailWrites(absl::OkStatus());
  store_->QueueMissingCopies();
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  EXPECT_TRUE(store_->OnDisk(Info(1).key) && store_->OnDisk(Info(2).key));
}

TEST_F(TieredStoreTest, ABadCopyIsAnErrorAndNoBlock) {
  Start();
  Put(1);
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  ASSERT_TRUE(store_->host().Evict(Info(1).key));
  disk_->FailReads(absl::DataLossError("turned"));
  EXPECT_EQ(Load(1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(store_->Holds(Info(1).key));
  EXPECT_EQ(store_->Stats().load_failures_total, 2u);
  EXPECT_EQ(store_->host().Stats().used_bytes, 0u);
}

TEST_F(TieredStoreTest, AnotherChunkUnderTheSameKeyIsDropped) {
  Start();
  KvBlockInfo forged = Info(1);
  forged.key = Info(2).key;
  BlockStore::Reservation reservation = store_->host().Reserve(KvBlockBytes(forged)).value();
  WriteTestBlock(forged, reservation.bytes());
  ASSERT_TRUE(store_->Publish(std::move(reservation), 1).ok());
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  ASSERT_TRUE(store_->host().Evict(forged.key));
  EXPECT_EQ(Load(2).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(store_->OnDisk(forged.key));
}

TEST_F(TieredStoreTest, TiersMayKeepDifferentEncodings) {
  Start({.disk_dtype = KvDtype::kInt8});
  const BlockStore::Lease first = Put(1);
  const KvBlockView exact = first.view();
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  KvBlockInfo small = Info(1);
  small.shape.dtype = KvDtype::kInt8;
  EXPECT_EQ(disk_->Bytes(small.key).size(), KvBlockBytes(small));
  EXPECT_LT(KvBlockBytes(small), KvBlockBytes(Info(1)) * 2 / 3);
  // What comes back is what encoding there and back gives.
  ScratchBlock encoded(KvBlockBytes(small));
  ASSERT_TRUE(EncodeKvBlock(exact, KvDtype::kInt8, encoded.bytes()).ok());
  ScratchBlock decoded(KvBlockBytes(Info(1)));
  ASSERT_TRUE(EncodeKvBlock(KvBlockView::Parse(encoded.bytes()).value(), KvDtype::kBf16, decoded.bytes()).ok());
  const uint64_t expected = KvBlockView::Parse(decoded.bytes())->edition();
  EXPECT_NE(expected, first.edition());
  const auto aside = store_->View(small);
  ASSERT_TRUE(aside.ok()) << aside.status();
  EXPECT_EQ((*aside)->edition(), KvBlockView::Parse(encoded.bytes())->edition()) << "made from the copy in memory";
  store_->host().Drop(Info(1).key);
  const absl::StatusOr<BlockStore::Lease> back = Load(1);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->edition(), expected);
  store_->host().Drop(Info(1).key);
  EXPECT_EQ((*store_->View(Info(1)))->edition(), expected) << "and so is what is read aside";
}

TEST_F(TieredStoreTest, ACopyInAnEarlierConfigurationsEncodingIsRead) {
  Start({.disk_dtype = KvDtype::kInt8});
  Put(1);
  ASSERT_TRUE(store_->WaitForWrites(Soon()));
  const std::vector<std::byte> bytes = disk_->Bytes(Info(1).key);
  Start();  // bf16 everywhere
  const KvBlockView old = KvBlockView::Parse(bytes).value();
  ASSERT_TRUE(*disk_->Write(old, 1));
  EXPECT_TRUE(Load(1).ok());
  // fp16 and bf16 have the same size: the header tells them apart.
  KvBlockInfo half = Info(3);
  half.shape.dtype = KvDtype::kFp16;
  ScratchBlock source(KvBlockBytes(Info(3)));
  KvBlockWriter::Create(Info(3), source.bytes())->Seal();  // zeros
  ScratchBlock encoded(KvBlockBytes(half));
  ASSERT_TRUE(EncodeKvBlock(KvBlockView::Parse(source.bytes()).value(), KvDtype::kFp16, encoded.bytes()).ok());
  ASSERT_TRUE(*disk_->Write(KvBlockView::Parse(encoded.bytes()).value(), 1));
  const absl::StatusOr<BlockStore::Lease> loaded = Load(3);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->view().info().shape.dtype, KvDtype::kBf16);
}

TEST_F(TieredStoreTest, QueuesAreBounded) {
  Start({.io_threads = 1, .loads_waiting_max = 1, .writes_waiting_max = 1});
  disk_->Close();
  Put(1);
  disk_->WaitForWaiting(1);  // its copy is under way
  Put(2);                    // waits
  Put(3);                    // no room in the queue
  EXPECT_EQ(store_->Stats().writes_skipped_total, 1u);
  EXPECT_EQ(store_->Stats().writes_waiting, 2u);
  const KvBlockInfo info = Info(9);
  ScratchBlock first(KvBlockBytes(info));
  std::promise<absl::Status> ended;
  ASSERT_TRUE(store_
                  ->Load(info, first.padded_bytes(),
                         [&](absl::StatusOr<uint64_t> edition) { ended.set_value(edition.status()); })
                  .ok());
  ScratchBlock second(KvBlockBytes(info));
  const absl::Status refused = store_->Load(info, second.padded_bytes(), [](absl::StatusOr<uint64_t>) { FAIL(); });
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  disk_->Open();
  EXPECT_EQ(ended.get_future().get().code(), absl::StatusCode::kNotFound);
}

TEST_F(TieredStoreTest, StoppingGivesUpWhatWaits) {
  Start({.io_threads = 1});
  disk_->Close();
  Put(1);
  disk_->WaitForWaiting(1);
  const KvBlockInfo info = Info(9);
  ScratchBlock block(KvBlockBytes(info));
  std::promise<absl::Status> ended;
  ASSERT_TRUE(store_
                  ->Load(info, block.padded_bytes(),
                         [&](absl::StatusOr<uint64_t> edition) { ended.set_value(edition.status()); })
                  .ok());
  std::thread stopper([&] { store_->Stop(); });
  disk_->Open();
  stopper.join();
  const absl::StatusCode code = ended.get_future().get().code();
  EXPECT_TRUE(code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Load(info, block.padded_bytes(), [](absl::StatusOr<uint64_t>) { FAIL(); }).code(),
            absl::StatusCode::kUnavailable);
}

TEST(TieredStoreMemoryTest, WithoutADiskMemoryIsAllThereIs) {
  TieredStore store({}, BlockStore::Create({.capacity_bytes = kCapacityBytes}).value(), nullptr);
  const KvBlockInfo info = Info(1);
  BlockStore::Reservation reservation = store.host().Reserve(KvBlockBytes(info)).value();
  WriteTestBlock(info, reservation.bytes());
  ASSERT_TRUE(store.Publish(std::move(reservation), 1).ok());
  EXPECT_TRUE(store.Holds(info.key));
  EXPECT_FALSE(store.OnDisk(info.key));
  EXPECT_TRUE(store.WaitForWrites(Soon()));
  EXPECT_EQ(store.View(Info(2)).status().code(), absl::StatusCode::kNotFound);
  store.Drop(info.key);
  EXPECT_FALSE(store.Holds(info.key));
}

TEST(TieredStoreMemoryTest, VerificationFindsAndDropsWhatWentBad) {
  TieredStore store({}, BlockStore::Create({.capacity_bytes = kCapacityBytes}).value(), nullptr);
  std::byte* bad = nullptr;
  for (int32_t i = 0; i < 3; ++i) {
    BlockStore::Reservation reservation = store.host().Reserve(KvBlockBytes(Info(i))).value();
    WriteTestBlock(Info(i), reservation.bytes());
    if (i == 1) bad = &reservation.bytes().back();
    ASSERT_TRUE(store.Publish(std::move(reservation), 1).ok());
  }
  *bad ^= std::byte{4};
  int calls = 0;
  const auto verified = store.VerifyHost([&](const VerifyProgress&) { return ++calls > 0; });
  ASSERT_TRUE(verified.ok());
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(verified->blocks_done, 3u);
  ASSERT_EQ(verified->faults.size(), 1u);
  EXPECT_THAT(verified->faults.front(), HasSubstr(Info(1).key.Hex()));
  EXPECT_FALSE(store.host().Contains(Info(1).key));
  EXPECT_EQ(store.VerifyHost([](const VerifyProgress&) { return false; }).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace epic
