// Whatever goes wrong on the way to a chunk's KV, the answer is the same; what the worker did instead is counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "inference_worker/worker_harness.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

class WorkerFaultsTest : public WorkerHarness {
 protected:
  using WorkerHarness::WorkerHarness;
  // Asks over chunks 1 and 2, which the node holds, and expects the right answer.
  Answer AskAnyway() {
    PutAtNode(1);
    PutAtNode(2);
    Answer answer = Ask(Question({1, 2}));
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.text, ExpectedText({1, 2}));
    return answer;
  }
};

TEST_F(WorkerFaultsTest, AbsentChunksAreCompiledAndKept) {
  StartWorker(SmallOptions());
  PutAtNode(1);
  const Answer answer = Ask(Question({1, 2}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1, 2}));
  EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kHeldByNode);
  EXPECT_EQ(answer.final.plan[1].source, ChunkSource::kCompiledByWorker);
  EXPECT_THAT(answer.final.plan[1].reason, HasSubstr("does not hold it"));
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kAbsent, 1)));
  EXPECT_TRUE(worker_->Holds(Info(2).key));
  EXPECT_EQ(Ask(Question({1, 2})).text, answer.text);
  EXPECT_EQ(engine_.compilations(), 1);
}

TEST_F(WorkerFaultsTest, ChunksThatTheNodeCompilesAreSaidToBe) {
  StartWorker(SmallOptions());
  node_->SetCompile([this](const LocateQuery& query, const LocateQuery::Chunk& chunk) {
    EXPECT_TRUE(query.compile_missing);
    return MakeSyntheticBlock(SyntheticBlockInfo(engine_.kv_shape(), query.recipe, "default", chunk.token_ids));
  });
  const Answer answer = Ask(Question({7}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({7}));
  EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kCompiledByNode);
  EXPECT_THAT(observer_.fallbacks(), IsEmpty());
}

TEST_F(WorkerFaultsTest, ANodeThatIsDownCostsOneCallAndNoAnswer) {
  StartWorker(SmallOptions());
  faulty_->SetFaults({.locate_error = absl::UnavailableError("injected: connection refused")});
  const Answer answer = AskAnyway();
  EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kCompiledByWorker);
  EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("connection refused"));
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kUnreachable, 2)));
}

TEST_F(WorkerFaultsTest, AnUnknownHomeIsLikeANodeThatIsDown) {
  StartWorker(SmallOptions());
  const Answer answer = Ask(Question({1}, "nowhere:9"));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1}));
  EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("no such node"));
}

TEST_F(WorkerFaultsTest, ANodeThatDoesNotAnswerIsNotWaitedForLongerThanItsTime) {
  WorkerOptions options = SmallOptions();
  options.nodes.node_timeout = milliseconds(20);
  StartWorker(options);
  faulty_->SetFaults({.hold_locates = true});
  AskAnyway();
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kSlow, 2)));
}

TEST_F(WorkerFaultsTest, NearItsDeadlineARequestLeavesTimeToCompile) {
  StartWorker(SmallOptions());  // whose patience with nodes is far longer than this deadline
  faulty_->SetFaults({.hold_locates = true});
  InferJob job = Question({1});
  job.deadline = steady_clock::now() + std::chrono::seconds(4);
  const Answer answer = Ask(job);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1}));
}

TEST_F(WorkerFaultsTest, ATransferThatHangsIsGivenUp) {
  WorkerOptions options = SmallOptions();
  options.nodes.node_timeout = milliseconds(20);
  StartWorker(options);
  faulty_->SetFaults({.hold_reads = true});
  AskAnyway();
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kSlow, 2)));
}

TEST_F(WorkerFaultsTest, CorruptBytesAreNeverUsed) {
  // In the header, in the token ids and in the payload.
  const size_t block_bytes = KvBlockBytes(Info(1));
  for (const size_t byte : {size_t{0}, size_t{40}, size_t{300}, block_bytes / 2, block_bytes - 1}) {
    StartWorker(SmallOptions());
    const int before = observer_.fallbacks()[FallbackCause::kCorrupt];
    faulty_->SetFaults({.corrupt_byte = byte});
    PutAtNode(1);
    const Answer answer = Ask(Question({1}));
    ASSERT_TRUE(answer.status.ok()) << byte << ": " << answer.status;
    EXPECT_EQ(answer.text, ExpectedText({1})) << byte;
    EXPECT_EQ(observer_.fallbacks()[FallbackCause::kCorrupt], before + 1) << byte;
    EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kCompiledByWorker);
  }
}

TEST_F(WorkerFaultsTest, ABrokenConnectionInTheMiddleOfABlockIsNoAnswer) {
  StartWorker(SmallOptions());
  faulty_->SetFaults({.read_fails_after_bytes = 1000});
  AskAnyway();
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kUnreachable, 2)));
}

TEST_F(WorkerFaultsTest, LostLeasesAndOtherEditionsAreNoAnswer) {
  StartWorker(SmallOptions());
  faulty_->SetFaults({.leases_lost = true});
  AskAnyway();
  StartWorker(SmallOptions());
  faulty_->SetFaults({.other_edition = true});
  AskAnyway();
  EXPECT_EQ(observer_.fallbacks()[FallbackCause::kUnreachable], 4);
}

TEST_F(WorkerFaultsTest, ABlockOfAnotherModelOrChunkIsNoAnswer) {
  StartWorker(SmallOptions());
  // Right key, other shape: another length.
  KvBlockInfo wide = Info(1);
  wide.shape.head_dim *= 2;
  ASSERT_TRUE(node_->Put(MakeSyntheticBlock(wide)).ok());
  // Right key and length, other tokens.
  KvBlockInfo other = Info(2);
  other.token_ids = ChunkTokens(9);
  ASSERT_TRUE(node_->Put(MakeSyntheticBlock(other)).ok());
  const Answer answer = Ask(Question({1, 2}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1, 2}));
  EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kCompiledByWorker);
  EXPECT_EQ(answer.final.plan[1].source, ChunkSource::kCompiledByWorker);
}

TEST_F(WorkerFaultsTest, InPlaceBlocksOfAnotherChunkAreNoAnswerEither) {
  StartNode(true);
  StartWorker(SmallOptions());
  KvBlockInfo other = Info(2);
  other.recipe_id = "sink4";
  ASSERT_TRUE(node_->Put(MakeSyntheticBlock(other)).ok());
  const Answer answer = Ask(Question({2}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({2}));
}

// Fails the first Read and lets all others pass.
class FailsOnce : public BlockSource {
 public:
  explicit FailsOnce(BlockSource* source) : source_(source) {}
  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override {
    return source_->Locate(query, deadline);
  }
  absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                    Deadline deadline) override {
    if (!failed_.exchange(true)) return absl::UnavailableError("injected: once");
    return source_->Read(block, range, out, deadline);
  }
  std::string address() const override { return source_->address(); }

 private:
  BlockSource* const source_;
  std::atomic<bool> failed_{false};
};

class WorkerRetryTest : public WorkerFaultsTest {
 protected:
  absl::StatusOr<std::shared_ptr<BlockSource>> SourceFor(const std::string&) override {
    return std::make_shared<FailsOnce>(node_.get());
  }
};

TEST_F(WorkerRetryTest, APullIsTriedTwiceBeforeItsChunkIsCompiled) {
  StartWorker(SmallOptions());
  const Answer answer = AskAnyway();
  EXPECT_EQ(engine_.compilations(), 0);
  EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kHeldByNode);
  EXPECT_EQ(node_->locate_calls(), 2) << "the second try takes a new lease";
}

// Blocks of more than a MiB each, so that the smallest cache there is holds none of them.
class WorkerLargeBlocksTest : public WorkerFaultsTest {
 protected:
  static constexpr size_t kSmallestCacheBytes = 1 << 20;
  WorkerLargeBlocksTest() : WorkerFaultsTest({.shape = kSyntheticShape}) {}
};

TEST_F(WorkerLargeBlocksTest, ChunksThatTheCacheCannotHoldLiveOnTheHeapMeanwhile) {
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = KvBlockBytes(Info(1)) + kBlockAlignmentBytes;  // one chunk
  StartWorker(options);
  for (const int number : {1, 2, 3}) PutAtNode(number);
  engine_.Hold();
  auto call = worker_->Infer(Question({1, 2, 3, 4}));
  engine_.WaitForJobs(1);  // the compilation of 4
  EXPECT_GE(worker_->Status().heap_bytes, 3 * KvBlockBytes(Info(1)));
  engine_.Release();
  const Answer answer = ReadAnswer(call.get());
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1, 2, 3, 4}));
  EXPECT_LE(worker_->Status().cache.used_bytes, options.cache.capacity_bytes);
}

TEST_F(WorkerLargeBlocksTest, RequestsOverTheSameDocumentsHoldThemOnceOnTheHeapToo) {
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = kSmallestCacheBytes;
  StartWorker(options);
  for (const int number : {1, 2}) PutAtNode(number);
  engine_.Hold();
  auto first = worker_->Infer(Question({1, 2}));
  engine_.WaitForJobs(1);
  const size_t bytes = worker_->Status().heap_bytes;
  EXPECT_GE(bytes, 2 * KvBlockBytes(Info(1)));
  auto second = worker_->Infer(Question({2, 1}));
  engine_.WaitForJobs(2);
  EXPECT_EQ(worker_->Status().heap_bytes, bytes);
  engine_.Release();
  EXPECT_EQ(ReadAnswer(first.get()).text, ExpectedText({1, 2}));
  EXPECT_EQ(ReadAnswer(second.get()).text, ExpectedText({2, 1}));
}

TEST_F(WorkerLargeBlocksTest, CorruptBytesAreFoundOnTheHeapToo) {
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = kSmallestCacheBytes;
  StartWorker(options);
  faulty_->SetFaults({.corrupt_byte = KvBlockBytes(Info(1)) - 1});
  AskAnyway();
  EXPECT_THAT(observer_.fallbacks(), ElementsAre(Pair(FallbackCause::kCorrupt, 2)));
}

TEST_F(WorkerLargeBlocksTest, WithoutMemoryForItsChunksARequestIsRefused) {
  WorkerOptions options = SmallOptions();
  options.cache.capacity_bytes = kSmallestCacheBytes;
  options.heap_bytes_max = KvBlockBytes(Info(1)) + kBlockAlignmentBytes;
  StartWorker(options);
  PutAtNode(1);
  EXPECT_TRUE(Ask(Question({1})).status.ok());
  const Answer answer = Ask(Question({1, 2}));
  EXPECT_TRUE(absl::IsResourceExhausted(answer.status)) << answer.status;
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("no room"));
}

TEST_F(WorkerFaultsTest, WhatTheEngineCannotCompileFailsItsRequestAlone) {
  StartWorker(SmallOptions());
  engine_.SetCompileError(absl::InternalError("injected: no"));
  const Answer failed = Ask(Question({1, 2}, ""));
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.status.message()), HasSubstr("document-1"));
  engine_.SetCompileError(absl::OkStatus());
  EXPECT_EQ(Ask(Question({1, 2}, "")).text, ExpectedText({1, 2}));
}

TEST_F(WorkerFaultsTest, BlocksThatLieInTheCacheUnderAWrongNameAreReplaced) {
  StartWorker(SmallOptions());
  ASSERT_TRUE(Ask(Question({1}, "")).status.ok());
  // The same key with other tokens: what a bug elsewhere, or a forged request, would look like.
  InferJob job = Question({1}, "");
  job.messages[0].parts[0].chunk.token_ids = ChunkTokens(5);
  const Answer answer = Ask(job);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_NE(answer.text, ExpectedText({1}));
  EXPECT_EQ(Ask(Question({1}, "")).text, ExpectedText({1}));
}

}  // namespace
}  // namespace epic
