// Nodes may keep blocks in dtypes that the engine does not read: the worker decodes them into memory of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/kv_block_testing.h"
#include "core/kv_encoding.h"
#include "inference_worker/worker_harness.h"

namespace epic {
namespace {

using testing::HasSubstr;

std::vector<std::byte> EncodedAs(const std::vector<std::byte>& block, KvDtype dtype) {
  const KvBlockView view = KvBlockView::Parse(block).value();
  KvBlockInfo info = view.info();
  info.shape.dtype = dtype;
  const PageAlignedBytes out(KvBlockBytes(info));
  EXPECT_TRUE(EncodeKvBlock(view, dtype, out.span()).ok());
  return {out.span().begin(), out.span().end()};
}

class WorkerDtypesTest : public WorkerHarness {
 protected:
  using WorkerHarness::WorkerHarness;

  // A fresh node and a fresh worker.
  void Restart(bool in_place, const WorkerOptions& options = SmallOptions()) {
    worker_.reset();  // before the node that it reads from
    StartNode(in_place);
    StartWorker(options);
  }
  void PutAs(int number, KvDtype dtype) {
    ASSERT_TRUE(node_->Put(EncodedAs(MakeSyntheticBlock(Info(number)), dtype)).ok());
  }
  // The answer over chunk 1 where the node has it in bf16, decoded from `dtype`: what a worker must make of `dtype`.
  std::string TextDecodedFrom(KvDtype dtype) {
    Restart(true);
    EXPECT_TRUE(node_->Put(EncodedAs(EncodedAs(MakeSyntheticBlock(Info(1)), dtype), KvDtype::kBf16)).ok());
    return Ask(Question({1})).text;
  }
};

TEST_F(WorkerDtypesTest, BlocksInOtherDtypesAreDecodedAndKept) {
  for (const KvDtype dtype : {KvDtype::kFp16, KvDtype::kInt8}) {
    const std::string expected = TextDecodedFrom(dtype);
    // Synthetic numbers have no more bits than fp16 holds; int8 loses some, which shows that its block was used.
    EXPECT_EQ(expected == ExpectedText({1}), dtype == KvDtype::kFp16);
    for (const bool in_place : {false, true}) {
      SCOPED_TRACE(std::string(KvDtypeName(dtype)) + (in_place ? " in place" : " pulled"));
      Restart(in_place);
      PutAs(1, dtype);
      const int64_t pulled_before = observer_.bytes_pulled();
      const Answer answer = Ask(Question({1}));
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      EXPECT_EQ(answer.text, expected);
      EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kHeldByNode) << answer.final.plan[0].reason;
      KvBlockInfo encoded = Info(1);
      encoded.shape.dtype = dtype;
      EXPECT_EQ(observer_.bytes_pulled() - pulled_before, in_place ? 0 : static_cast<int64_t>(KvBlockBytes(encoded)));
      // The node's bytes are let go of, and the decoded block serves the next request.
      EXPECT_EQ(node_->leases(), 0);
      EXPECT_EQ(worker_->Status().cache.blocks, 1U);
      EXPECT_LT(worker_->Status().cache.used_bytes, KvBlockBytes(Info(1)) + kBlockAlignmentBytes);
      EXPECT_EQ(Ask(Question({1})).text, expected);
      EXPECT_EQ(node_->locate_calls(), 1);
    }
  }
  EXPECT_EQ(engine_.compilations(), 0);
  EXPECT_TRUE(observer_.fallbacks().empty());
}

TEST_F(WorkerDtypesTest, DamagedBlocksInOtherDtypesAreNoAnswer) {
  for (const KvDtype dtype : {KvDtype::kFp16, KvDtype::kInt8}) {
    for (const bool in_place : {false, true}) {
      SCOPED_TRACE(std::string(KvDtypeName(dtype)) + (in_place ? " in place" : " pulled"));
      Restart(in_place);
      std::vector<std::byte> block = EncodedAs(MakeSyntheticBlock(Info(1)), dtype);
      block.back() ^= std::byte{1};
      ASSERT_TRUE(node_->Put(std::move(block)).ok());
      const int before = observer_.fallbacks()[FallbackCause::kCorrupt];
      const Answer answer = Ask(Question({1}));
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      EXPECT_EQ(answer.text, ExpectedText({1}));
      EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kCompiledByWorker);
      EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("checksum"));
      EXPECT_EQ(observer_.fallbacks()[FallbackCause::kCorrupt], before + 1);
    }
  }
}

TEST_F(WorkerDtypesTest, AnotherChunkInAnotherDtypeIsNoAnswer) {
  for (const bool in_place : {false, true}) {
    Restart(in_place);
    KvBlockInfo other = Info(1);
    other.recipe_id = "sink4";
    ASSERT_TRUE(node_->Put(EncodedAs(MakeSyntheticBlock(other), KvDtype::kInt8)).ok());
    const Answer answer = Ask(Question({1}));
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.text, ExpectedText({1}));
    EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("sink4"));
  }
}

// Says of its blocks that they are far larger than any dtype makes them.
class Boaster : public BlockSource {
 public:
  explicit Boaster(BlockSource* source) : source_(source) {}
  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override {
    auto blocks = source_->Locate(query, deadline);
    if (blocks.ok()) {
      for (auto& block : *blocks) block->block_bytes = size_t{1} << 40;
    }
    return blocks;
  }
  absl::Status Read(const LocatedBlock&, const BlockRange&, std::span<std::byte>, Deadline) override {
    ADD_FAILURE() << "memory was taken for it";
    return absl::UnavailableError("unexpected");
  }
  std::string address() const override { return source_->address(); }

 private:
  BlockSource* const source_;
};

class WorkerBoastTest : public WorkerDtypesTest {
 protected:
  absl::StatusOr<std::shared_ptr<BlockSource>> SourceFor(const std::string&) override {
    return std::make_shared<Boaster>(node_.get());
  }
};

TEST_F(WorkerBoastTest, NoMemoryIsTakenForSizesThatNoDtypeHas) {
  Restart(false);
  PutAs(1, KvDtype::kInt8);
  const Answer answer = Ask(Question({1}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1}));
  EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("its block has 1099511627776 bytes"));
}

// Blocks that the smallest cache cannot hold.
class WorkerLargeDtypesTest : public WorkerDtypesTest {
 protected:
  WorkerLargeDtypesTest() : WorkerDtypesTest({.shape = kSyntheticShape}) {}
};

TEST_F(WorkerLargeDtypesTest, BlocksAreDecodedOnTheHeapWhereTheCacheHasNoRoom) {
  const std::string expected = TextDecodedFrom(KvDtype::kInt8);
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = 1 << 20;
  for (const bool in_place : {false, true}) {
    Restart(in_place, options);
    PutAs(1, KvDtype::kInt8);
    EXPECT_EQ(Ask(Question({1})).text, expected);
    EXPECT_EQ(worker_->Status().cache.blocks, 0U);
  }
}

TEST_F(WorkerLargeDtypesTest, WithoutMemoryToDecodeTheRequestIsRefused) {
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = 1 << 20;
  options.heap_bytes_max = kBlockAlignmentBytes;
  for (const bool in_place : {false, true}) {
    Restart(in_place, options);
    PutAs(1, KvDtype::kInt8);
    const Answer answer = Ask(Question({1}));
    EXPECT_TRUE(absl::IsResourceExhausted(answer.status)) << answer.status;
    EXPECT_EQ(worker_->Status().heap_bytes, 0U);
  }
}

}  // namespace
}  // namespace epic
