#include "benchmarks/row_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

PromptSegment Segment(int32_t count, bool is_chunk) {
  PromptSegment segment;
  segment.token_ids.resize(count);
  std::iota(segment.token_ids.begin(), segment.token_ids.end(), 0);
  segment.is_chunk = is_chunk;
  return segment;
}

// One fresh token, chunks at 1-20 and 21-60, one fresh token.
const std::vector<PromptSegment> kPrompt = {Segment(1, false), Segment(20, true), Segment(40, true), Segment(1, false)};

// Token 10 ends sentences, token 5 is a comma.
std::vector<Separation> Separations() {
  std::vector<Separation> separations(100, Separation::kNone);
  separations[5] = Separation::kPause;
  separations[10] = Separation::kStop;
  return separations;
}

PolicyPlan Plan(const char* policy, int32_t budget, const std::vector<PromptSegment>& prompt = kPrompt,
                const Recipe& recipe = {"plain", {}}) {
  return PlanPolicy(prompt, *RowPolicy::Parse(policy), recipe, budget, Separations());
}

TEST(RowPolicyTest, HeadsAndTails) {
  EXPECT_THAT(Plan("naive", 4).plan.positions, ElementsAre(0, 61));
  EXPECT_THAT(Plan("head:2", 4).plan.positions, ElementsAre(0, 1, 2, 21, 22, 61));
  EXPECT_THAT(Plan("tail:2", 4).plan.positions, ElementsAre(0, 19, 20, 59, 60, 61));
  EXPECT_THAT(Plan("head:1+tail:1", 4).plan.positions, ElementsAre(0, 1, 20, 21, 60, 61));
  EXPECT_THAT(Plan("head:1+tail:1", 4).plan.shared, ElementsAre(PlannedShared{1, 1, 19}, PlannedShared{2, 1, 39}));
  EXPECT_THAT(Plan("head:100", 4).plan.shared, IsEmpty());
}

TEST(RowPolicyTest, HeadsByLengthShareTheBudget) {
  // 6 rows a chunk are 12 in all: 4 and 8 of them.
  EXPECT_THAT(Plan("share", 6).plan.positions, ElementsAre(0, 1, 2, 3, 4, 21, 22, 23, 24, 25, 26, 27, 28, 61));
}

TEST(RowPolicyTest, SeparatorsFillTheBudget) {
  EXPECT_THAT(Plan("head:1+stops", 2).plan.positions, ElementsAre(0, 1, 11, 21, 31, 61));
  EXPECT_THAT(Plan("head:1+pauses", 3).plan.positions, ElementsAre(0, 1, 6, 11, 21, 26, 31, 61));
  EXPECT_THAT(Plan("head:1+stops", 3).plan.positions, ElementsAre(0, 1, 2, 11, 21, 22, 31, 61));
  EXPECT_THAT(Plan("head:1+spread", 2).plan.positions, ElementsAre(0, 1, 11, 21, 31, 61));
  EXPECT_THAT(Plan("head:1+stops", 2).plan.shared,
              ElementsAre(PlannedShared{1, 1, 20, {10}}, PlannedShared{2, 1, 40, {10}}));
}

TEST(RowPolicyTest, RandomAndBlendTakeWhatTheBudgetHas) {
  EXPECT_EQ(Plan("random", 5).plan.positions.size(), 12u);
  const PolicyPlan blend = Plan("head:2+blend", 5);
  EXPECT_EQ(blend.linker.kind, LinkerKind::kCacheBlend);
  EXPECT_EQ(ChosenCount(kPrompt, blend.linker.percent), 6u);
  EXPECT_THAT(blend.plan.positions, ElementsAre(0, 1, 2, 21, 22, 61));
  EXPECT_EQ(ChosenCount(kPrompt, Plan("head:5+blend", 5).linker.percent), 0u);
}

TEST(RowPolicyTest, ARunHasOneHeadAndOneTailAndAnExactOneNeither) {
  std::vector<PromptSegment> prompt = kPrompt;
  prompt[2].context_token_ids = prompt[1].token_ids;
  EXPECT_THAT(Plan("head:2+tail:1@document", 4, prompt).plan.positions, ElementsAre(0, 1, 2, 60, 61));
  EXPECT_THAT(Plan("head:2@document/behind:1", 4, prompt, {"behind", {0}}).plan.positions, ElementsAre(0, 61));
  EXPECT_THAT(Plan("share@document/behind:1", 4, prompt, {"behind", {0}}).plan.positions, ElementsAre(0, 61));
}

TEST(RowPolicyTest, NamesAreReadWhole) {
  const RowPolicy policy = *RowPolicy::Parse("head:4+blend@document/behind:16");
  EXPECT_EQ(policy.head, 4);
  EXPECT_EQ(policy.rest, RowPolicy::Rest::kBlend);
  EXPECT_TRUE(policy.whole_documents);
  EXPECT_EQ(policy.behind, 16);
  for (const char* name : {"", "head", "head:0", "head:4+", "head:4x", "blends", "naive@documents",
                           "naive/behind:", "naive/behind:4@document", "tail:2+head:2"}) {
    const absl::Status status = RowPolicy::Parse(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find("is not one of"), std::string::npos) << name;
  }
}

TEST(RowPolicyTest, SeparationsAreToldByText) {
  EXPECT_EQ(SeparationOf(".\n"), Separation::kStop);
  EXPECT_EQ(SeparationOf(", "), Separation::kPause);
  EXPECT_EQ(SeparationOf(" "), Separation::kNone);
  EXPECT_EQ(SeparationOf(""), Separation::kNone);
  EXPECT_EQ(SeparationOf(",a"), Separation::kNone);
}

}  // namespace
}  // namespace epic
