#include "engine/link_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

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

TEST(LinkerTest, NamesRoundTrip) {
  for (const char* name :
       {"full", "prefix", "naive", "naive-last", "cacheblend:15", "cacheblend:0.5", "legolink:0", "legolink:16"}) {
    ASSERT_TRUE(Linker::Parse(name).ok()) << name;
    EXPECT_EQ(Linker::Parse(name)->Name(), name);
  }
  EXPECT_EQ(Linker::Parse("")->Name(), "legolink:16");
  EXPECT_EQ(Linker::Parse("legolink:0")->RecipeId(), "sink4");
  EXPECT_EQ(Linker::Parse("legolink:1")->RecipeId(), "plain");
}

TEST(LinkerTest, BadNamesAreRefusedWithASentence) {
  for (const char* name :
       {"legolink:-1", "legolink:", "legolink", "legolink:1.5", "legolink:99999999999", "cacheblend", "cacheblend:0",
        "cacheblend:101", "cacheblend:nan", "cacheblend:-3", "full:1", "lego", " full", "FULL"}) {
    const absl::Status status = Linker::Parse(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find("allowed are"), std::string::npos) << name;
  }
  EXPECT_NE(Linker::Parse("legolnk:16").status().message().find("legolink"), std::string::npos);
}

}  // namespace
}  // namespace epic
