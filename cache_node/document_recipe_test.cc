// Documents that are compiled as a whole: each chunk in sight of those before it in its section (recipe "document").
#include <string>
#include <thread>
#include <vector>

#include "cache_node/node_harness.h"
#include "core/limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

const std::string kFingerprint(64, 'a');

ResolvedDocument Resolve(NodeHarness& harness, const std::string& id, const std::string& recipe_id = "") {
  const auto resolved = harness.node().ResolveDocuments("", {id}, recipe_id, kFingerprint, Soon());
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return resolved.ok() ? resolved->front() : ResolvedDocument{};
}

// As a router and a worker make it of what the node said.
LocateQuery QueryOf(const ResolvedDocument& document) {
  LocateQuery query;
  query.model_fingerprint_hex = kFingerprint;
  query.recipe = document.recipe;
  std::vector<int32_t> before;
  for (const ResolvedDocument::Chunk& chunk : document.chunks) {
    query.chunks.push_back({chunk.key, chunk.token_ids, {before.end() - chunk.context_token_count, before.end()}});
    before.insert(before.end(), chunk.token_ids.begin(), chunk.token_ids.end());
  }
  return query;
}

TEST(DocumentRecipe, EachChunkIsCompiledOverTheBlocksBeforeIt) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 28), "", "document").ok());
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).compiled_chunk_count, 4);
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 116, 124));
  EXPECT_THAT(harness.compiler().contexts(),
              UnorderedElementsAre(Pair(100, IsEmpty()), Pair(108, ElementsAre(100)), Pair(116, ElementsAre(100, 108)),
                                   Pair(124, ElementsAre(100, 108, 116))));
  const auto located = harness.node().Locate(QueryOf(Resolve(harness, "a")), Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  for (size_t i = 0; i < located->size(); ++i) {
    const BlockProvider::Located& block = (*located)[i];
    ASSERT_EQ(block.origin, BlockOrigin::kHeld);
    EXPECT_EQ(block.view->info().recipe_id, i == 0 ? "plain" : "document");
    EXPECT_EQ(block.view->info().first_position, static_cast<int32_t>(8 * i));
  }
}

TEST(DocumentRecipe, TheFirstChunkIsTheSameByEitherRecipeAndTheOthersAreNot) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("alone", TokenRange(100, 16)).ok());
  harness.WaitFor("alone", DocumentPhase::kReady);
  ASSERT_TRUE(harness.Create("whole", TokenRange(100, 16), "", "document").ok());
  harness.WaitFor("whole", DocumentPhase::kReady);
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 108));
  const ResolvedDocument alone = Resolve(harness, "alone"), whole = Resolve(harness, "whole");
  EXPECT_EQ(alone.chunks[0].key, whole.chunks[0].key);
  EXPECT_NE(alone.chunks[1].key, whole.chunks[1].key);
  EXPECT_EQ(alone.recipe.id, "plain");
  EXPECT_EQ(whole.recipe.id, "plain");
  EXPECT_EQ(alone.chunks[1].context_token_count, 0);
  EXPECT_EQ(whole.chunks[1].context_token_count, 8);
  // Deleting one leaves what the other still refers to.
  ASSERT_TRUE(harness.node().DeleteDocument("", "whole", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 2u);
}

TEST(DocumentRecipe, EitherRecipeCanBeAskedForWhateverADocumentWasRegisteredWith) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  EXPECT_EQ(Resolve(harness, "a").chunks[1].context_token_count, 0);
  EXPECT_EQ(Resolve(harness, "a", "document").chunks[1].context_token_count, 8);
  EXPECT_EQ(Resolve(harness, "a", "plain").chunks[1].context_token_count, 0);
  const auto unknown = harness.node().ResolveDocuments("", {"a"}, "sunk4", kFingerprint, Soon());
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(unknown.status()), HasSubstr("recipe_id is \"sunk4\", expected plain, document, sink4"));
}

TEST(DocumentRecipe, SectionsAreBounded) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < kDocumentSectionTokensMax + 24; ++i) tokens.push_back(i % 4000);
  ASSERT_TRUE(harness.Create("long", tokens, "", "document").ok());
  const ResolvedDocument document = Resolve(harness, "long");
  const size_t chunks_of_section = kDocumentSectionTokensMax / 8;
  ASSERT_EQ(document.chunks.size(), chunks_of_section + 3);
  EXPECT_EQ(document.chunks[chunks_of_section - 1].context_token_count, kDocumentSectionTokensMax - 8);
  EXPECT_EQ(document.chunks[chunks_of_section].context_token_count, 0);
  EXPECT_EQ(document.chunks[chunks_of_section + 2].context_token_count, 16);
}

TEST(DocumentRecipe, TheDefaultIsTheNodesAndARegistrationKeepsItsOwn) {
  NodeHarness harness({.default_recipe_id = "document"});
  ASSERT_TRUE(harness.Create("default", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("alone", TokenRange(200, 16), "", "plain").ok());
  harness.WaitFor("default", DocumentPhase::kReady);
  harness.WaitFor("alone", DocumentPhase::kReady);
  EXPECT_THAT(harness.compiler().contexts()[108], ElementsAre(100));
  EXPECT_THAT(harness.compiler().contexts()[208], IsEmpty());
  harness.Restart();
  EXPECT_EQ(harness.WaitFor("default", DocumentPhase::kReady).chunk_count, 2);
  EXPECT_EQ(harness.node().GetDocument("", "default", Soon())->record.recipe_id, "document");
  EXPECT_EQ(harness.node().GetDocument("", "alone", Soon())->record.recipe_id, "plain");
  EXPECT_EQ(Resolve(harness, "default").chunks[1].context_token_count, 8);
}

TEST(DocumentRecipe, AnotherRecipeForTheSameDocumentIsRefusedAndNoneIsTheSameRegistration) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16), "", "document").ok());
  const auto same = harness.Create("a", TokenRange(100, 16));
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_FALSE(same->created);
  EXPECT_EQ(same->document.record.recipe_id, "document");
  const auto other = harness.Create("a", TokenRange(100, 16), "", "plain");
  EXPECT_EQ(other.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(other.status()), HasSubstr("compiled by recipe document, this registration asks for plain"));
  const auto unknown = harness.Create("b", TokenRange(100, 16), "", "sink4");
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(unknown.status()), HasSubstr("recipe_id is \"sink4\", expected \"plain\", \"document\""));
  EXPECT_EQ(harness.node().GetDocument("", "b", Soon()).status().code(), StatusCode::kNotFound);
}

// All of a document is asked for urgently while the first chunk is compiled in the background and the second waits for
// it: each is compiled once to the end, behind the one before.
TEST(DocumentRecipe, ARequestForAWholeDocumentIsCompiledInOrder) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 32), "", "document").ok());
  harness.compiler().WaitForWaiting(1);
  const LocateQuery query = QueryOf(Resolve(harness, "a"));
  absl::StatusOr<std::vector<BlockProvider::Located>> located = absl::UnknownError("not asked");
  std::thread asking([&] { located = harness.node().Locate(query, Soon()); });
  while (harness.node().CompileStats().waiting < 3) std::this_thread::yield();
  harness.compiler().Resume();
  asking.join();
  ASSERT_TRUE(located.ok()) << located.status();
  EXPECT_THAT(*located, SizeIs(4));
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 116, 124));
  EXPECT_THAT(harness.compiler().contexts()[124], ElementsAre(100, 108, 116));
  located = absl::UnknownError("released");
}

// Chunks whose blocks before them are gone, or whose document is, are compiled all the same.
TEST(DocumentRecipe, WithoutTheBlocksBeforeItAChunkIsCompiledFromTokensAlone) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24), "", "document").ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  LocateQuery query = QueryOf(Resolve(harness, "a"));
  query.chunks.erase(query.chunks.begin(), query.chunks.begin() + 2);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  const auto located = harness.node().Locate(query, Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  EXPECT_EQ(located->front().origin, BlockOrigin::kCompiled);
  EXPECT_EQ(located->front().view->info().first_position, 16);
  EXPECT_THAT(harness.compiler().contexts()[116], IsEmpty());
}

TEST(DocumentRecipe, AChunkThatFailsDoesNotHoldUpThoseBehindIt) {
  NodeHarness harness;
  harness.compiler().FailTokens(100, absl::InternalError("planted"));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24), "", "document").ok());
  EXPECT_THAT(harness.WaitFor("a", DocumentPhase::kFailed).reason, HasSubstr("planted"));
  harness.compiler().FailTokens(100, absl::OkStatus());
  ASSERT_TRUE(harness.node().AskForDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).compiled_chunk_count, 3);
}

TEST(DocumentRecipe, ANodeEndsWithAChunkThatWaitsForTheOneBeforeIt) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24), "", "document").ok());
  harness.compiler().WaitForWaiting(1);
  harness.Restart({.shape = kSmallSyntheticShape});
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).compiled_chunk_count, 3);
}

TEST(DocumentRecipe, ContextsThatCannotBeAreRefused) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24), "", "document").ok());
  const LocateQuery good = QueryOf(Resolve(harness, "a"));
  const auto refused = [&](auto change, const std::string& words) {
    LocateQuery query = good;
    change(query);
    const auto located = harness.node().Locate(query, Soon());
    EXPECT_EQ(located.status().code(), StatusCode::kInvalidArgument) << located.status();
    EXPECT_THAT(Message(located.status()), HasSubstr(words));
  };
  refused([](LocateQuery& q) { q.chunks[1].context_token_ids[3] = 7; }, "chunks[1].key is");
  refused([](LocateQuery& q) { q.chunks[1].context_token_ids.clear(); }, "chunks[1].key is");
  refused([](LocateQuery& q) { q.chunks[2].context_token_ids[0] = -1; }, "chunks[2].context_token_ids holds -1");
  refused([](LocateQuery& q) { q.chunks[1].context_token_ids.assign(kDocumentSectionTokensMax + 1, 1); },
          "chunks[1].context_token_ids has 4097 entries, expected at most 4096");
  refused(
      [](LocateQuery& q) {
        q.recipe = {"sink4", {1, 2, 3, 4}};
        q.chunks.erase(q.chunks.begin());
      },
      "has 8 entries, expected at most 0");
}

}  // namespace
}  // namespace epic
