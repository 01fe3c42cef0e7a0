#include "engine/link_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::SizeIs;

PromptSegment Segment(int32_t count, bool is_chunk) {
  PromptSegment segment;
  segment.token_ids.resize(count);
  std::iota(segment.token_ids.begin(), segment.token_ids.end(), 100);
  segment.is_chunk = is_chunk;
  return segment;
}

LinkPlan Plan(const std::vector<PromptSegment>& prompt, const char* linker, const Recipe& recipe = {"plain", {}}) {
  return PlanLink(prompt, *Linker::Parse(linker), recipe);
}

// 0-2 fresh, 3-7 chunk, 8-9 chunk, 10-11 fresh.
std::vector<PromptSegment> SmallPrompt() {
  return {Segment(3, false), Segment(5, true), Segment(2, true), Segment(2, false)};
}

TEST(LinkPlanTest, FullAndPrefixRunEverything) {
  EXPECT_EQ(Plan(SmallPrompt(), "full").positions.size(), 12u);
  EXPECT_THAT(Plan(SmallPrompt(), "full").shared, IsEmpty());
  EXPECT_EQ(Plan(SmallPrompt(), "prefix").positions.size(), 12u);
}

TEST(LinkPlanTest, NaiveRunsFreshTokensOnly) {
  const LinkPlan plan = Plan(SmallPrompt(), "naive");
  EXPECT_THAT(plan.positions, ElementsAre(0, 1, 2, 10, 11));
  EXPECT_THAT(plan.shared, ElementsAre(PlannedShared{1, 0, 5}, PlannedShared{2, 0, 2}));
}

TEST(LinkPlanTest, NaiveLastRunsTheLastTokenAndCompilesFreshSpansAlone) {
  const LinkPlan plan = Plan(SmallPrompt(), "naive-last");
  EXPECT_THAT(plan.positions, ElementsAre(11));
  EXPECT_THAT(plan.shared, ElementsAre(PlannedShared{0, 0, 3}, PlannedShared{1, 0, 5}, PlannedShared{2, 0, 2},
                                       PlannedShared{3, 0, 1}));
  EXPECT_THAT(plan.compile_alone, ElementsAre(0, 3));
}

TEST(LinkPlanTest, LegoLinkClipsHeadsToTheirChunk) {
  const LinkPlan plan = Plan(SmallPrompt(), "legolink:4");
  EXPECT_THAT(plan.positions, ElementsAre(0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11));
  EXPECT_THAT(plan.shared, ElementsAre(PlannedShared{1, 4, 5}));
}

TEST(LinkPlanTest, AChunkThatStartsThePromptKeepsItsHead) {
  const std::vector<PromptSegment> prompt = {Segment(5, true), Segment(5, true), Segment(1, false)};
  EXPECT_THAT(Plan(prompt, "legolink:2").positions, ElementsAre(5, 6, 10));
}

TEST(LinkPlanTest, ExactnessNeedsExactlyTheRecipesPrefix) {
  const std::vector<PromptSegment> prompt = {Segment(2, false), Segment(5, true), Segment(1, false)};
  EXPECT_TRUE(ChunkIsExact(prompt, 1, {"x", {100, 101}}));
  EXPECT_FALSE(ChunkIsExact(prompt, 1, {"x", {100}}));
  EXPECT_FALSE(ChunkIsExact(prompt, 1, {"x", {100, 102}}));
  EXPECT_FALSE(ChunkIsExact(prompt, 1, {"x", {}}));
  EXPECT_FALSE(ChunkIsExact(prompt, 1, {"x", {100, 101, 102}}));
}

// Chunks of one document, each compiled in sight of those before it.
std::vector<PromptSegment> Document(const std::vector<std::vector<int32_t>>& chunks) {
  std::vector<PromptSegment> segments;
  std::vector<int32_t> seen;
  for (const std::vector<int32_t>& chunk : chunks) {
    segments.push_back({chunk, true, nullptr, seen});
    seen.insert(seen.end(), chunk.begin(), chunk.end());
  }
  return segments;
}

TEST(LinkPlanTest, OnlyTheFirstChunkOfARunHasAStaleHead) {
  const std::vector<PromptSegment> document = Document({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}});
  // 0 fresh, 1-9 a run from the start, 10 fresh, 11-16 a run from the middle, 17-19 out of order, 20 fresh.
  const std::vector<PromptSegment> prompt = {Segment(1, false), document[0],       document[1],
                                             document[2],       Segment(1, false), document[2],
                                             document[3],       document[1],       Segment(1, false)};
  EXPECT_THAT(Plan(prompt, "legolink:2").positions, ElementsAre(0, 1, 2, 10, 11, 12, 17, 18, 20));
  EXPECT_THAT(Plan(prompt, "naive").positions, ElementsAre(0, 10, 20));
}

TEST(LinkPlanTest, EqualTokensAreNotTheSameContext) {
  const std::vector<PromptSegment> seen = Document({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}});
  // The tokens that the chunk has seen stand before it, but as chunks that were compiled otherwise.
  const std::vector<PromptSegment> alone = {
      Segment(1, false), {{1, 2, 3}, true, nullptr}, {{4, 5, 6}, true, nullptr}, seen[2], Segment(1, false)};
  EXPECT_FALSE(ContinuesRun(alone, 3));
  EXPECT_EQ(Plan(alone, "legolink:1").positions, (std::vector<int32_t>{0, 1, 4, 7, 10}));
  const std::vector<PromptSegment> fresh = {Segment(1, false), {{1, 2, 3}, false, nullptr}, seen[1]};
  EXPECT_FALSE(ContinuesRun(fresh, 2));
  EXPECT_FALSE(ContinuesRun(seen, 0));
  EXPECT_TRUE(ContinuesRun(seen, 1));
  EXPECT_TRUE(ContinuesRun(seen, 2));
  const std::vector<PromptSegment> skipped = {seen[0], seen[2]};
  EXPECT_FALSE(ContinuesRun(skipped, 1));
}

TEST(LinkPlanTest, ADocumentThatStartsThePromptIsExactAsAWhole) {
  std::vector<PromptSegment> prompt = {{{9}, false, nullptr}};
  for (const PromptSegment& chunk : Document({{1, 2, 3}, {4, 5, 6}})) prompt.push_back(chunk);
  const Recipe behind_bos{"plain", {9}};
  EXPECT_TRUE(ChunkIsExact(prompt, 1, behind_bos));
  EXPECT_TRUE(ChunkIsExact(prompt, 2, behind_bos));
  EXPECT_FALSE(ChunkIsExact(prompt, 2, {"plain", {}}));
  EXPECT_THAT(Plan(prompt, "legolink:2", behind_bos).positions, ElementsAre(0, 6));
}

TEST(LinkPlanTest, TheLastTokenAlwaysRuns) {
  const std::vector<PromptSegment> prompt = {Segment(2, false), Segment(5, true)};
  const LinkPlan plan = Plan(prompt, "naive");
  EXPECT_THAT(plan.positions, ElementsAre(0, 1, 6));
  EXPECT_THAT(plan.shared, ElementsAre(PlannedShared{1, 0, 4}));
  EXPECT_THAT(Plan({Segment(1, true)}, "naive").positions, ElementsAre(0));
}

TEST(LinkPlanTest, ChooseLargestBreaksTiesByPosition) {
  const std::vector<int32_t> candidates = {5, 6, 7, 8};
  const std::vector<double> deviations = {1, 3, 3, 2};
  EXPECT_THAT(ChooseLargest(candidates, deviations, 2), ElementsAre(6, 7));
  EXPECT_THAT(ChooseLargest(candidates, deviations, 3), ElementsAre(6, 7, 8));
  EXPECT_THAT(ChooseLargest(candidates, deviations, 9), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(ChooseLargest(candidates, deviations, 0), IsEmpty());
}

// Positions that run, or that are seen as they were compiled: each of the prompt's once.
std::vector<int32_t> Covered(const std::vector<PromptSegment>& prompt, const LinkPlan& plan) {
  const std::vector<int32_t> offsets = SegmentOffsets(prompt);
  std::vector<int32_t> covered = plan.positions;
  for (const PlannedShared& shared : plan.shared) {
    for (int32_t row = shared.row_begin; row < shared.row_end; ++row) {
      if (!std::ranges::binary_search(shared.rerun, row)) covered.push_back(offsets[shared.segment] + row);
    }
  }
  std::ranges::sort(covered);
  return covered;
}

std::vector<int32_t> Numbers(int32_t begin, int32_t end) {
  std::vector<int32_t> numbers(end - begin);
  std::iota(numbers.begin(), numbers.end(), begin);
  return numbers;
}

TEST(RandomPlanTest, RunsTheFreshTokensAndTheShareOfTheChunkTokens) {
  const std::vector<PromptSegment> prompt = {Segment(30, false), Segment(250, true), Segment(51, true),
                                             Segment(20, false)};
  // Of 301 chunk tokens, rounded down.
  for (const auto& [linker, chosen] :
       {std::pair("random:0.3", 0), std::pair("random:0.34", 1), std::pair("random:15", 45),
        std::pair("random:99.9", 300), std::pair("random:100", 301)}) {
    SCOPED_TRACE(linker);
    const LinkPlan plan = Plan(prompt, linker);
    EXPECT_THAT(plan.positions, SizeIs(50 + chosen));
    EXPECT_TRUE(std::ranges::is_sorted(plan.positions));
    EXPECT_THAT(plan.positions, IsSupersetOf(Plan(prompt, "naive").positions));
    EXPECT_EQ(Covered(prompt, plan), Numbers(0, 351));
  }
  EXPECT_EQ(Plan(prompt, "random:0.3").shared, Plan(prompt, "naive").shared);
  EXPECT_EQ(Plan(prompt, "random:100").positions, Plan(prompt, "full").positions);
  EXPECT_THAT(Plan(prompt, "random:100").shared, IsEmpty());
}

TEST(RandomPlanTest, TheLastTokenRunsBesideTheChosenOnes) {
  const std::vector<PromptSegment> prompt = {Segment(2, false), Segment(40, true)};
  const LinkPlan plan = Plan(prompt, "random:50");
  EXPECT_THAT(plan.positions, SizeIs(2 + 20 + 1));
  EXPECT_EQ(plan.positions.back(), 41);
  EXPECT_EQ(Covered(prompt, plan), Numbers(0, 42));
  EXPECT_EQ(Plan(prompt, "random:100").positions, Numbers(0, 42));
}

TEST(RandomPlanTest, OneSetOfRowsForEachPrompt) {
  std::vector<PromptSegment> prompt = {Segment(3, false), Segment(400, true), Segment(2, false)};
  const LinkPlan plan = Plan(prompt, "random:10");
  EXPECT_EQ(Plan(prompt, "random:10").positions, plan.positions);
  EXPECT_THAT(Plan(prompt, "random:25").positions, IsSupersetOf(plan.positions));
  for (const size_t segment : {0u, 1u, 2u}) {
    auto other = prompt;
    ++other[segment].token_ids[1];
    EXPECT_NE(Plan(other, "random:10").positions, plan.positions) << "a token of segment " << segment;
  }
  std::swap(prompt[0].token_ids[0], prompt[0].token_ids[1]);
  EXPECT_NE(Plan(prompt, "random:10").positions, plan.positions);
}

// The numbers are those of tests/golden/dense_linker.py: other rows on another machine, or in another release, would
// make measurements incomparable.
TEST(RandomPlanTest, TheRowsAreTheSameEverywhere) {
  const std::vector<int32_t> ids = {5, 0, 320, 151935, 7};
  EXPECT_THAT(ChooseRandom(Numbers(10, 110), ids, 8), ElementsAre(10, 18, 21, 53, 62, 79, 95, 109));
  EXPECT_THAT(ChooseRandom(Numbers(0, 3), ids, 9), ElementsAre(0, 1, 2));
  EXPECT_THAT(ChooseRandom({}, ids, 2), IsEmpty());
}

TEST(RandomPlanTest, EveryRowAndEveryPairOfRowsIsEquallyLikely) {
  constexpr int32_t kPrompts = 6000, kRows = 10, kCount = 3;
  std::map<int32_t, int32_t> rows;
  std::map<std::pair<int32_t, int32_t>, int32_t> pairs;
  for (int32_t prompt = 0; prompt < kPrompts; ++prompt) {
    const std::vector<int32_t> ids = {prompt, 1, 2};
    const std::vector<int32_t> chosen = ChooseRandom(Numbers(0, kRows), ids, kCount);
    ASSERT_THAT(chosen, SizeIs(kCount));
    for (auto a = chosen.begin(); a != chosen.end(); ++a) {
      ++rows[*a];
      for (auto b = std::next(a); b != chosen.end(); ++b) ++pairs[{*a, *b}];
    }
  }
  ASSERT_THAT(rows, SizeIs(10));
  ASSERT_THAT(pairs, SizeIs(45));
  // 3/10 and 1/15 of the prompts; four standard deviations of a binomial count are 142 and 77.
  for (const auto& [row, count] : rows) EXPECT_NEAR(count, 1800, 142) << row;
  for (const auto& [pair, count] : pairs) EXPECT_NEAR(count, 400, 77) << pair.first << ", " << pair.second;
}

TEST(LinkerTest, NamesRoundTrip) {
  for (const char* name :
       {"full", "prefix", "naive", "naive-last", "cacheblend:15", "cacheblend:0.5", "legolink:0", "legolink:16",
        "random:15", "random:0.5", "random:100", "legolink:16@document", "naive@plain"}) {
    ASSERT_TRUE(Linker::Parse(name).ok()) << name;
    EXPECT_EQ(Linker::Parse(name)->Name(), name);
  }
  EXPECT_EQ(Linker::Parse("")->Name(), "legolink:16");
  EXPECT_EQ(Linker::Parse("legolink:0")->RecipeId(), "sink4");
  EXPECT_EQ(Linker::Parse("legolink:0")->BaseRecipeId(), "sink4");
  EXPECT_EQ(Linker::Parse("legolink:1")->RecipeId(), "");
  EXPECT_EQ(Linker::Parse("legolink:1@document")->RecipeId(), "document");
  EXPECT_EQ(Linker::Parse("legolink:1@document")->BaseRecipeId(), "plain");
  EXPECT_EQ(Linker::Parse("random:1")->BaseRecipeId(), "plain");
  EXPECT_TRUE(Linker::Parse("random:1")->UsesChunks());
}

TEST(LinkerTest, BadNamesAreRefusedWithASentence) {
  for (const char* name : {"legolink:-1",
                           "legolink:",
                           "legolink",
                           "legolink:1.5",
                           "legolink:99999999999",
                           "cacheblend",
                           "cacheblend:0",
                           "cacheblend:101",
                           "cacheblend:nan",
                           "cacheblend:-3",
                           "random",
                           "random:",
                           "random:0",
                           "random:100.1",
                           "random:nan",
                           "random:1e",
                           "full:1",
                           "lego",
                           " full",
                           "FULL",
                           "full@plain",
                           "prefix@document",
                           "legolink:0@plain",
                           "legolink:16@sink4",
                           "naive@",
                           "legolink:16@plain@document"}) {
    const absl::Status status = Linker::Parse(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find("allowed are"), std::string::npos) << name;
  }
  EXPECT_NE(Linker::Parse("legolnk:16").status().message().find("legolink"), std::string::npos);
  EXPECT_NE(Linker::Parse("random:101").status().message().find("as in random:15"), std::string::npos);
}

}  // namespace
}  // namespace epic
