// Chunks on a node: locating, compiling on demand, eviction, damage, and the transport's conformance in process.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache_node/cache_node.h"
#include "cache_node/node_harness.h"
#include "core/limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transfer/conformance.h"
#include "transfer/in_process_block_source.h"

namespace epic {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class NodeSourceHarness : public BlockSourceHarness {
 public:
  BlockSource& source() override { return source_; }
  KvShape shape() const override { return kSyntheticShape; }
  int64_t leases() override { return static_cast<int64_t>(harness_.node().StoreStats().leases); }

 private:
  NodeHarness harness_{{.compiler = {.shape = kSyntheticShape}, .capacity_bytes = size_t{32} << 20}};
  InProcessBlockSource source_{&harness_.node(), "node-a:1"};
};
std::unique_ptr<BlockSourceHarness> MakeNodeSource() { return std::make_unique<NodeSourceHarness>(); }
INSTANTIATE_TEST_SUITE_P(CacheNode, BlockSourceConformance, testing::Values(&MakeNodeSource));

bool IsBlockOf(const KvBlockView& view, const std::vector<int32_t>& tokens, const KvShape& shape) {
  const std::vector<std::byte> expected =
      MakeSyntheticBlock(SyntheticBlockInfo(shape, Recipe{.id = "plain", .prefix_tokens = {}}, "default", tokens));
  return std::equal(view.bytes().begin(), view.bytes().end(), expected.begin(), expected.end());
}

// Blocks of a chunk take about 790 KiB; the tier has room for two.
NodeHarness::Options RoomForTwo(bool paused = false) {
  return {.compiler = {.shape = kSyntheticShape, .paused = paused}, .capacity_bytes = size_t{2} << 20};
}

TEST(Locate, RefusesWhatIsNotTheNodesOrNotItself) {
  NodeHarness harness;
  const LocateQuery good = SyntheticQuery({TokenRange(1, 8)});
  const auto refused = [&](auto change, StatusCode code, const std::string& words) {
    LocateQuery query = good;
    change(query);
    const auto located = harness.node().Locate(query, Soon());
    EXPECT_EQ(located.status().code(), code) << located.status();
    EXPECT_THAT(Message(located.status()), HasSubstr(words));
  };
  refused([](LocateQuery& q) { q.model_fingerprint_hex = std::string(64, 'b'); }, StatusCode::kFailedPrecondition,
          "this node runs model " + std::string(64, 'a'));
  refused([](LocateQuery& q) { q.chunks[0].key.bytes[3] ^= 1; }, StatusCode::kInvalidArgument, "chunks[0].key is");
  refused([](LocateQuery& q) { q.chunks[0].token_ids[2] = 7; }, StatusCode::kInvalidArgument, "chunks[0].key is");
  refused([](LocateQuery& q) { q.tenant = "other"; }, StatusCode::kInvalidArgument, "chunks[0].key is");
  refused([](LocateQuery& q) { q.chunks[0].token_ids[2] = 4096; }, StatusCode::kInvalidArgument,
          "chunks[0].token_ids holds 4096, expected 0 to 4095");
  refused([](LocateQuery& q) { q.chunks[0].token_ids.clear(); }, StatusCode::kInvalidArgument, "has 0 entries");
  refused([](LocateQuery& q) { q.chunks[0].token_ids.assign(8193, 1); }, StatusCode::kInvalidArgument,
          "has 8193 entries, expected 1 to 8192");
  refused([](LocateQuery& q) { q.chunks.resize(kLocateChunksMax + 1, q.chunks[0]); }, StatusCode::kInvalidArgument,
          "chunks has 4097 entries, the limit is 4096");
  refused([](LocateQuery& q) { q.recipe.prefix_tokens = {5}; }, StatusCode::kInvalidArgument,
          "recipe.prefix_token_ids of \"plain\" are [5], the model's are []");
  refused([](LocateQuery& q) { q.recipe.id = "nope"; }, StatusCode::kInvalidArgument, "nope");
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
  EXPECT_EQ(harness.node().StoreStats().leases, 0u);
}

TEST(Locate, ManyThreadsThatMissTheSameChunkCompileItOnce) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  const LocateQuery query = SyntheticQuery({TokenRange(1, 8), TokenRange(50, 8)});
  std::vector<std::thread> threads;
  std::vector<absl::StatusOr<std::vector<BlockProvider::Located>>> answers(6, absl::UnknownError("none"));
  for (auto& answer : answers) {
    threads.emplace_back([&harness, &query, &answer] { answer = harness.node().Locate(query, Soon()); });
  }
  harness.compiler().WaitForWaiting(2);
  harness.compiler().Resume();
  for (std::thread& thread : threads) thread.join();
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_EQ(answer->size(), 2u);
    EXPECT_TRUE(IsBlockOf(*(*answer)[0].view, TokenRange(1, 8), kSmallSyntheticShape));
    EXPECT_EQ((*answer)[0].view->edition(), (*answers[0])[0].view->edition());
  }
  EXPECT_EQ(harness.compiler().CompiledCount(1), 1);
  EXPECT_EQ(harness.compiler().CompiledCount(50), 1);
}

TEST(Locate, AChunkInTheBackgroundBecomesUrgentWhenARequestWaitsForIt) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  harness.compiler().WaitForWaiting(2);
  EXPECT_EQ(harness.compiler().waiting(), (std::map<int32_t, bool>{{100, false}, {108, false}}));
  absl::StatusOr<std::vector<BlockProvider::Located>> answer = absl::UnknownError("none");
  std::thread reader([&] {
    answer = harness.node().Locate(SyntheticQuery({TokenRange(108, 8), TokenRange(116, 8)}), Soon());
  });
  harness.compiler().WaitForWaiting(3);
  while (harness.compiler().waiting() != std::map<int32_t, bool>{{100, false}, {108, true}, {116, true}}) {
    std::this_thread::yield();
  }
  harness.compiler().Resume();
  reader.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  harness.WaitFor("a", DocumentPhase::kReady);
  // The request's chunks were compiled first, and each once.
  EXPECT_EQ(harness.compiler().compiled_total(), 3);
  EXPECT_EQ(harness.compiler().order().back(), 100);
  EXPECT_GE(harness.compiler().cancelled_total(), 1);
}

TEST(Locate, ADeadlineEndsTheWaitAndTheChunkIsThereTheNextTime) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(1, 8)).ok());
  const LocateQuery query = SyntheticQuery({TokenRange(1, 8)});
  const auto late = harness.node().Locate(query, std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
  EXPECT_EQ(late.status().code(), StatusCode::kDeadlineExceeded) << late.status();
  harness.compiler().Resume();
  harness.WaitFor("a", DocumentPhase::kReady);
  const auto located = harness.node().Locate(query, Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  EXPECT_EQ((*located)[0].origin, BlockOrigin::kHeld);
  EXPECT_EQ(harness.compiler().CompiledCount(1), 1);
}

TEST(Locate, AnEvictedChunkIsCompiledAgainAndTheDocumentStaysReady) {
  NodeHarness harness(RoomForTwo());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  const DocumentProgress ready = harness.WaitFor("a", DocumentPhase::kReady);
  EXPECT_EQ(ready.compiled_chunk_count, 3);
  // More KV than the tier: each chunk was compiled once all the same.
  EXPECT_EQ(harness.compiler().compiled_total(), 3);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "a"}), 2);
  EXPECT_EQ(harness.node().StoreStats().evictions_total, 1u);
  for (int32_t first : {100, 108, 116}) {
    const auto located = harness.node().Locate(SyntheticQuery({TokenRange(first, 8)}), Soon());
    ASSERT_TRUE(located.ok()) << located.status();
    EXPECT_TRUE(IsBlockOf(*(*located)[0].view, TokenRange(first, 8), kSyntheticShape));
  }
  EXPECT_GT(harness.compiler().compiled_total(), 3);
  EXPECT_EQ(harness.node().Progress({"default", "a"})->phase, DocumentPhase::kReady);
}

TEST(Locate, ATierFullOfLeasesRefusesRequestsAndDocumentsWaitUntilThereIsRoom) {
  NodeHarness harness(RoomForTwo());
  auto held = harness.node().Locate(SyntheticQuery({TokenRange(1, 8), TokenRange(20, 8)}), Soon());
  ASSERT_TRUE(held.ok()) << held.status();
  const auto refused = harness.node().Locate(SyntheticQuery({TokenRange(40, 8)}), Soon());
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted) << refused.status();
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  while (harness.node().CompileStats().postponed_total < 2) std::this_thread::yield();
  EXPECT_EQ(harness.node().Progress({"default", "a"})->phase, DocumentPhase::kCompiling);
  held->clear();
  harness.WaitFor("a", DocumentPhase::kReady);
  EXPECT_EQ(harness.node().CompileStats().failures_total, 0u);
}

TEST(Locate, AnUrgentChunkWaitsForRoomThatBackgroundWorkTakes) {
  NodeHarness harness(RoomForTwo(true));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  harness.compiler().WaitForWaiting(2);  // both reservations fill the tier
  absl::StatusOr<std::vector<BlockProvider::Located>> answer = absl::UnknownError("none");
  std::thread reader([&] { answer = harness.node().Locate(SyntheticQuery({TokenRange(300, 8)}), Soon()); });
  while (harness.node().CompileStats().waiting < 1) std::this_thread::yield();
  harness.compiler().Resume();
  reader.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(IsBlockOf(*(*answer)[0].view, TokenRange(300, 8), kSyntheticShape));
}

TEST(Locate, ABlockLargerThanTheTierFailsItsDocumentWithBothSizes) {
  NodeHarness harness({.compiler = {.shape = {.layers = 64, .kv_heads = 8, .head_dim = 64}}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 8)).ok());
  const DocumentProgress failed = harness.WaitFor("a", DocumentPhase::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("more than the whole tier of 1048576 bytes"));
  EXPECT_EQ(harness.node().Locate(SyntheticQuery({TokenRange(100, 8)}), Soon()).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST(Locate, ADamagedBlockIsNeverServedButCompiledAgain) {
  NodeHarness harness;
  harness.compiler().CorruptNext(1);
  const auto located = harness.node().Locate(SyntheticQuery({TokenRange(1, 8)}), Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  EXPECT_TRUE(IsBlockOf(*(*located)[0].view, TokenRange(1, 8), kSmallSyntheticShape));
  EXPECT_EQ(harness.node().CompileStats().damaged_total, 1u);
  EXPECT_EQ(harness.compiler().CompiledCount(1), 2);
}

TEST(Locate, AChunkThatIsDamagedEveryTimeIsAnErrorAndNothingIsHeld) {
  NodeHarness harness;
  harness.compiler().CorruptNext(1000);
  const auto located = harness.node().Locate(SyntheticQuery({TokenRange(1, 8)}), Soon());
  EXPECT_EQ(located.status().code(), StatusCode::kDataLoss) << located.status();
  EXPECT_EQ(harness.node().StoreStats().blocks, 0u);
  EXPECT_EQ(harness.node().StoreStats().leases, 0u);
  harness.compiler().CorruptNext(0);
  EXPECT_TRUE(harness.node().Locate(SyntheticQuery({TokenRange(1, 8)}), Soon()).ok());
}

TEST(Locate, AFailedCompilationIsTheCallersErrorAndReleasesTheRest) {
  NodeHarness harness;
  harness.compiler().FailTokens(50, absl::InternalError("the multiplier melted"));
  const auto located = harness.node().Locate(SyntheticQuery({TokenRange(1, 8), TokenRange(50, 8)}), Soon());
  EXPECT_EQ(located.status().code(), StatusCode::kInternal);
  EXPECT_THAT(Message(located.status()), HasSubstr("melted"));
  EXPECT_EQ(harness.node().StoreStats().leases, 0u);
}

TEST(Locate, ShutdownEndsWaitingRequests) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 32)).ok());
  absl::StatusOr<std::vector<BlockProvider::Located>> answer = absl::UnknownError("none");
  std::thread reader([&] { answer = harness.node().Locate(SyntheticQuery({TokenRange(1, 8)}), Soon()); });
  harness.compiler().WaitForWaiting(3);
  harness.node().Shutdown();
  reader.join();
  EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable) << answer.status();
  EXPECT_EQ(harness.node().Locate(SyntheticQuery({TokenRange(1, 8)}), Soon()).status().code(),
            StatusCode::kUnavailable);
}

TEST(Locate, ManyThreadsOverATierThatIsTooSmallGetTheRightBytesOrARefusal) {
  NodeHarness harness(RoomForTwo());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 48)).ok());
  std::vector<std::thread> threads;
  std::atomic<int> served{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&harness, &served, t] {
      for (int round = 0; round < 12; ++round) {
        const int32_t first = 100 + 8 * ((round * (t + 1) + t) % 6);
        const auto located = harness.node().Locate(SyntheticQuery({TokenRange(first, 8)}), Soon());
        if (!located.ok()) {
          EXPECT_EQ(located.status().code(), StatusCode::kResourceExhausted) << located.status();
          continue;
        }
        EXPECT_TRUE(IsBlockOf(*(*located)[0].view, TokenRange(first, 8), kSyntheticShape));
        ++served;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(served, 0);
  harness.WaitFor("a", DocumentPhase::kReady);
  // The queue lets go of the last block a moment after it has reported it.
  while (harness.node().StoreStats().leases != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace epic
