#include "engine/text/score_merges.h"

#include <limits>
#include <string>
#include <vector>

#include "engine/text/text_golden.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ScoreMergesTest, EqualTransformers) {
  const nlohmann::json golden = ReadTextGolden("score_merges.json");
  const std::vector<std::string> tokens = golden["tokens"];
  const std::vector<TokenKind> kinds(tokens.size(), TokenKind::kNormal);
  const auto merges = MergesFromScores(tokens, kinds, golden["scores"].get<std::vector<float>>());
  ASSERT_TRUE(merges.ok()) << merges.status();
  EXPECT_GT(merges->size(), 100u);
  EXPECT_EQ(*merges, golden["merges"].get<std::vector<std::string>>());
}

TEST(ScoreMergesTest, OnlyOrdinaryTokensTakePart) {
  const std::vector<std::string> tokens = {"a", "b", "ab", "<", "s>", "<s>"};
  std::vector<TokenKind> kinds(tokens.size(), TokenKind::kNormal);
  kinds[5] = TokenKind::kControl;
  EXPECT_THAT(*MergesFromScores(tokens, kinds, {0, 0, -1, 0, 0, 0}), ElementsAre("a b"));
}

TEST(ScoreMergesTest, RefusesWhatCannotBeRanked) {
  const std::vector<std::string> tokens = {"a", std::string(2000, 'b')};
  const std::vector<TokenKind> kinds(tokens.size(), TokenKind::kNormal);
  const auto refusal = [&](const std::vector<float>& scores) {
    return std::string(MergesFromScores(tokens, kinds, scores).status().message());
  };
  EXPECT_THAT(refusal({1}), HasSubstr("2 tokens but 1 scores"));
  EXPECT_THAT(refusal({std::numeric_limits<float>::quiet_NaN(), 1}), HasSubstr("finite"));
  EXPECT_THAT(refusal({1, 2}), HasSubstr("2000 bytes"));
}

}  // namespace
}  // namespace epic
