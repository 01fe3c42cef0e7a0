// A node over memory and disk: what a restart finds again, what a bad copy does, pins, eviction on request.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache_node/cache_node.h"
#include "cache_node/node_harness.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/fake_tier.h"

namespace epic {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

constexpr size_t kMegabyte = size_t{1} << 20;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Chunks of 8 tokens take about 790 KiB; memory has room for `blocks` of them, the disk for twenty.
NodeHarness::Options Large(size_t blocks) {
  return {.compiler = {.shape = kSyntheticShape},
          .capacity_bytes = blocks * kMegabyte,
          .disk_capacity_bytes = 24 * kMegabyte,
          .pinned_bytes_max = blocks * kMegabyte};
}
// Chunks whose blocks take one page.
NodeHarness::Options Small() {
  return {.compiler = {.shape = kSmallSyntheticShape}, .disk_capacity_bytes = 16 * kMegabyte};
}

bool IsBlockOf(const KvBlockView& view, const std::vector<int32_t>& tokens, const KvShape& shape) {
  const std::vector<std::byte> expected =
      MakeSyntheticBlock(SyntheticBlockInfo(shape, Recipe{.id = "plain", .prefix_tokens = {}}, "default", tokens));
  return std::equal(view.bytes().begin(), view.bytes().end(), expected.begin(), expected.end());
}

void WaitForCopies(NodeHarness& harness) { ASSERT_TRUE(harness.node().tiers().WaitForWrites(Soon())); }

BlockOrigin OriginOf(NodeHarness& harness, const std::vector<int32_t>& tokens, bool compile_missing = true) {
  LocateQuery query = SyntheticQuery({tokens});
  query.compile_missing = compile_missing;
  const auto located = harness.node().Locate(query, Soon());
  EXPECT_TRUE(located.ok()) << located.status();
  return located.ok() ? located->front().origin : BlockOrigin::kAbsent;
}

// Waits until all of a document's chunks are in memory.
void WaitForResident(NodeHarness& harness, const std::string& id, int32_t chunks) {
  while (harness.node().ResidentChunks({"default", id}) < chunks) std::this_thread::yield();
}

// Turns a byte in the middle of each block of the disk tier's segments.
void DamageSegments(const std::string& folder) {
  int damaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().rfind("segment-", 0) != 0) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    for (size_t offset = 2048; offset < std::filesystem::file_size(entry.path()); offset += 4096) {
      file.seekg(static_cast<std::streamoff>(offset));
      const char byte = static_cast<char>(file.get());
      file.seekp(static_cast<std::streamoff>(offset));
      file.put(static_cast<char>(byte ^ 0x10));
      ++damaged;
    }
  }
  ASSERT_GT(damaged, 0);
}

TEST(NodeTiers, ARestartFindsItsBlocksOnDiskAndCompilesNothing) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  harness.Restart();
  EXPECT_EQ(harness.node().adoption().adopted_blocks, 3);
  EXPECT_EQ(harness.node().adoption().orphaned_blocks, 0);
  EXPECT_EQ(harness.node().Progress({"default", "a"})->phase, DocumentPhase::kReady) << "from the first moment";
  EXPECT_EQ(OriginOf(harness, TokenRange(108, 8)), BlockOrigin::kHeld);
  const auto located = harness.node().Locate(SyntheticQuery({TokenRange(100, 8)}), Soon());
  ASSERT_TRUE(located.ok());
  EXPECT_TRUE(IsBlockOf(*located->front().view, TokenRange(100, 8), kSmallSyntheticShape));
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
  EXPECT_EQ(harness.node().tiers().Stats().loads_total, 2u);
}

TEST(NodeTiers, WhatMemoryHasNoRoomForComesFromDisk) {
  NodeHarness harness(Large(2));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 48)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  for (int round = 0; round < 3; ++round) {
    for (int32_t first = 100; first < 148; first += 8) {
      const auto located = harness.node().Locate(SyntheticQuery({TokenRange(first, 8)}), Soon());
      ASSERT_TRUE(located.ok()) << located.status();
      EXPECT_EQ(located->front().origin, BlockOrigin::kHeld);
      EXPECT_TRUE(IsBlockOf(*located->front().view, TokenRange(first, 8), kSyntheticShape));
    }
  }
  EXPECT_EQ(harness.compiler().compiled_total(), 6);
  EXPECT_EQ(harness.node().StoreStats().leases, 0u);
}

TEST(NodeTiers, ABadCopyIsCompiledAgainAndNobodySeesIt) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  harness.Stop();
  DamageSegments(harness.disk_folder());
  harness.StartAgain();
  auto located =
      harness.node().Locate(SyntheticQuery({TokenRange(100, 8), TokenRange(108, 8), TokenRange(116, 8)}), Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*located)[i].origin, BlockOrigin::kCompiled);
    EXPECT_TRUE(IsBlockOf(*(*located)[i].view, TokenRange(100 + 8 * static_cast<int32_t>(i), 8), kSmallSyntheticShape));
  }
  EXPECT_EQ(harness.compiler().compiled_total(), 3);
  EXPECT_EQ(harness.node().CompileStats().load_fallbacks_total, 3u);
  EXPECT_EQ(harness.node().tiers().disk()->TierStats().checksum_failures_total, 3u);
  located->clear();
  // The good ones take the bad ones' place on disk.
  WaitForCopies(harness);
  harness.Restart();
  EXPECT_EQ(OriginOf(harness, TokenRange(116, 8)), BlockOrigin::kHeld);
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
}

TEST(NodeTiers, AnAskerWhoWantsNothingCompiledGetsWhatDiskHas) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 8)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  harness.Restart();
  EXPECT_EQ(OriginOf(harness, TokenRange(100, 8), false), BlockOrigin::kHeld);
  EXPECT_EQ(OriginOf(harness, TokenRange(500, 8), false), BlockOrigin::kAbsent);
  // Not even where the copy turns out bad.
  harness.Stop();
  DamageSegments(harness.disk_folder());
  harness.StartAgain();
  EXPECT_EQ(OriginOf(harness, TokenRange(100, 8), false), BlockOrigin::kAbsent);
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
  EXPECT_EQ(OriginOf(harness, TokenRange(100, 8), true), BlockOrigin::kCompiled);
}

TEST(NodeTiers, DeletionFreesBothTiersAndSharedChunksStay) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(108, 8)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.WaitFor("b", DocumentPhase::kReady);
  WaitForCopies(harness);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
  EXPECT_EQ(harness.node().tiers().disk()->TierStats().blocks, 1u);
  ASSERT_TRUE(harness.node().DeleteDocument("", "b", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().used_bytes, 0u);
  EXPECT_EQ(harness.node().tiers().disk()->TierStats().used_bytes, 0u);
}

TEST(NodeTiers, ACrashBetweenADeletionAndItsBlocksLeavesNoOrphan) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(200, 8)).ok());
  harness.WaitFor("b", DocumentPhase::kReady);
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  harness.Stop();
  // What a crash leaves: the record is gone, the blocks are there.
  ASSERT_TRUE((*Manifest::Open(harness.folder() + "/manifest"))->DeleteDocument("default", "a").ok());
  harness.StartAgain();
  EXPECT_EQ(harness.node().adoption().orphaned_blocks, 2);
  EXPECT_EQ(harness.node().adoption().adopted_blocks, 1);
  EXPECT_EQ(harness.node().tiers().disk()->TierStats().blocks, 1u);
}

TEST(NodeTiers, AnotherModelsBlocksOutliveANodeThatRunsThisOne) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 8)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  harness.Restart({.fingerprint_hex = std::string(64, 'b'), .shape = kSmallSyntheticShape});
  EXPECT_EQ(harness.node().adoption().adopted_blocks + harness.node().adoption().orphaned_blocks, 0);
  harness.Restart({.shape = kSmallSyntheticShape});
  EXPECT_EQ(harness.node().adoption().adopted_blocks, 1);
  EXPECT_EQ(OriginOf(harness, TokenRange(100, 8)), BlockOrigin::kHeld);
}

TEST(NodeTiers, APinnedDocumentStaysInMemoryAndComesBackAfterARestart) {
  NodeHarness harness(Large(3));
  ASSERT_TRUE(harness.Create("kept", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("others", TokenRange(500, 64)).ok());
  harness.WaitFor("others", DocumentPhase::kReady);
  WaitForCopies(harness);
  const auto pinned = harness.node().PinDocument("", "kept", Soon());
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(pinned->chunk_count, 2);
  WaitForResident(harness, "kept", 2);
  for (int32_t first = 500; first < 564; first += 8)
    EXPECT_EQ(OriginOf(harness, TokenRange(first, 8)), BlockOrigin::kHeld);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "kept"}), 2);
  WaitForCopies(harness);
  harness.Restart();
  EXPECT_TRUE(harness.node().IsPinned({"default", "kept"}));
  WaitForResident(harness, "kept", 2);
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
  EXPECT_EQ(harness.node().StoreStats().pinned_blocks, 2u);
  EXPECT_TRUE(*harness.node().UnpinDocument("", "kept", Soon()));
  EXPECT_FALSE(*harness.node().UnpinDocument("", "kept", Soon()));
  EXPECT_EQ(harness.node().StoreStats().pinned_blocks, 0u);
  harness.Restart();
  EXPECT_FALSE(harness.node().IsPinned({"default", "kept"}));
}

TEST(NodeTiers, APinnedDocumentsCopiesStayOnDiskToo) {
  NodeHarness harness(Large(3));
  ASSERT_TRUE(harness.Create("kept", TokenRange(100, 16)).ok());
  harness.WaitFor("kept", DocumentPhase::kReady);
  ASSERT_TRUE(harness.node().PinDocument("", "kept", Soon()).ok());
  WaitForResident(harness, "kept", 2);
  WaitForCopies(harness);
  // More than the disk holds.
  ASSERT_TRUE(harness.Create("others", TokenRange(500, 8 * 40)).ok());
  harness.WaitFor("others", DocumentPhase::kReady);
  WaitForCopies(harness);
  EXPECT_GT(harness.node().tiers().disk()->TierStats().evictions_total, 0u);
  harness.Restart();
  WaitForResident(harness, "kept", 2);
  EXPECT_EQ(harness.compiler().CompiledCount(100), 0);
  EXPECT_EQ(harness.compiler().CompiledCount(108), 0);
}

TEST(NodeTiers, PinsHaveALimitAndEndWithTheirDocument) {
  NodeHarness harness(Large(3));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(200, 16)).ok());
  EXPECT_EQ(harness.node().PinDocument("", "absent", Soon()).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(harness.node().PinDocument("", "a", Soon()).ok());
  ASSERT_TRUE(harness.node().PinDocument("", "a", Soon()).ok()) << "once more changes nothing";
  const absl::Status refused = harness.node().PinDocument("", "b", Soon()).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(refused), HasSubstr("limit is 3145728"));
  EXPECT_FALSE(harness.node().IsPinned({"default", "b"}));
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.node().pinned().bytes(), 0u);
  ASSERT_TRUE(harness.node().PinDocument("", "b", Soon()).ok());
  harness.Restart();
  EXPECT_FALSE(harness.node().IsPinned({"default", "a"}));
  EXPECT_TRUE(harness.node().IsPinned({"default", "b"}));
}

TEST(NodeTiers, APinEndsWhenItsDocumentExpires) {
  NodeHarness harness(Small());
  NewDocument brief;
  brief.id = "brief";
  brief.token_ids = TokenRange(100, 8);
  brief.ttl_ms = 1000;
  ASSERT_TRUE(harness.node().CreateDocument(brief, Soon()).ok());
  ASSERT_TRUE(harness.node().PinDocument("", "brief", Soon()).ok());
  WaitForResident(harness, "brief", 1);
  harness.now_unix_ms() += 2000;
  harness.node().SweepExpired(Soon());
  EXPECT_FALSE(harness.node().IsPinned({"default", "brief"}));
  EXPECT_EQ(harness.node().StoreStats().pinned_blocks, 0u);
  EXPECT_EQ(harness.node().StoreStats().used_bytes, 0u);
}

TEST(NodeTiers, WithEverythingPinnedOthersAreRefusedByNameAndServedAfterwards) {
  NodeHarness harness(Large(2));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.node().PinDocument("", "a", Soon()).ok());
  WaitForResident(harness, "a", 2);
  const auto refused = harness.node().Locate(SyntheticQuery({TokenRange(300, 8)}), Soon());
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(refused.status()), HasSubstr("pinned"));
  // What is pinned is served meanwhile.
  EXPECT_EQ(OriginOf(harness, TokenRange(108, 8)), BlockOrigin::kHeld);
  ASSERT_TRUE(*harness.node().UnpinDocument("", "a", Soon()));
  EXPECT_EQ(OriginOf(harness, TokenRange(300, 8)), BlockOrigin::kCompiled);
  EXPECT_EQ(harness.node().StoreStats().leases, 0u);
}

TEST(NodeTiers, ARequestWaitsForRoomThatCopiesToDiskKeep) {
  FakeTier* disk = nullptr;
  NodeHarness::Options options = Large(2);
  options.make_disk = [&disk] {
    auto tier = std::make_unique<FakeTier>();
    disk = tier.get();
    tier->Close();
    return tier;
  };
  NodeHarness harness(options);
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.node().Locate(SyntheticQuery({TokenRange(100, 8), TokenRange(108, 8)}), Soon()).ok());
  disk->WaitForWaiting(2);  // both blocks are kept in place, and there is room for two
  absl::StatusOr<std::vector<BlockProvider::Located>> located = absl::UnknownError("none");
  std::thread asker([&] { located = harness.node().Locate(SyntheticQuery({TokenRange(300, 8)}), Soon()); });
  while (harness.node().CompileStats().waiting + harness.node().CompileStats().running == 0) std::this_thread::yield();
  disk->Open();
  asker.join();
  ASSERT_TRUE(located.ok()) << located.status();
  EXPECT_EQ(located->front().origin, BlockOrigin::kCompiled);
}

TEST(NodeTiers, AnOperatorEvictsFromEitherTier) {
  NodeHarness harness(Small());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(200, 16)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.WaitFor("b", DocumentPhase::kReady);
  WaitForCopies(harness);
  const auto held = harness.node().Locate(SyntheticQuery({TokenRange(100, 8)}), Soon());
  auto report = harness.node().Evict("", {"a"}, true, false, Soon());
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->evicted_host_blocks, 1);
  EXPECT_EQ(report->kept_blocks, 1) << "it is under a lease";
  EXPECT_EQ(report->evicted_disk_blocks, 0);
  EXPECT_EQ(OriginOf(harness, TokenRange(108, 8)), BlockOrigin::kHeld) << "from disk";
  EXPECT_EQ(harness.node().Evict("", {"absent"}, true, true, Soon()).status().code(), StatusCode::kNotFound);
  report = harness.node().Evict("", {}, true, true, Soon());
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->evicted_host_blocks, 3);
  EXPECT_EQ(report->evicted_disk_blocks, 4);
  EXPECT_EQ(OriginOf(harness, TokenRange(200, 8)), BlockOrigin::kCompiled);
}

TEST(NodeTiers, MemoryMayKeepAnotherEncoding) {
  NodeHarness::Options options = Small();
  options.tiers.host_dtype = KvDtype::kFp16;
  options.tiers.disk_dtype = KvDtype::kInt8;
  options.default_recipe_id = "document";
  NodeHarness harness(options);
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  WaitForCopies(harness);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "a"}), 3);
  // Later chunks were compiled in sight of the earlier ones, decoded for the compiler.
  EXPECT_EQ(harness.compiler().contexts()[116].size(), 2u);
  EXPECT_EQ(OriginOf(harness, TokenRange(300, 8)), BlockOrigin::kCompiled);
  auto located = harness.node().Locate(SyntheticQuery({TokenRange(300, 8)}), Soon());
  ASSERT_TRUE(located.ok());
  EXPECT_EQ(located->front().view->info().shape.dtype, KvDtype::kFp16);
  located->clear();
  harness.Restart();
  EXPECT_EQ(harness.node().adoption().adopted_blocks, 3);
}

}  // namespace
}  // namespace epic
