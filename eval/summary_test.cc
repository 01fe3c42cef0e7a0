#include "eval/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

// fontconfig keeps what it found for the process's life, by pointers that the leak checker cannot follow.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): the sanitizer looks for this name
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig"; }

namespace epic::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class SummaryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "epic_summary_test_" + std::to_string(getpid());
    std::filesystem::remove_all(path_);
    RunIdentity identity;
    identity.task = "needle";
    identity.metric = "F1";
    identity.model = "tiny";
    identity.processor = "a processor";
    identity.prompt_template = "Read {documents}";
    identity.seed = 1;
    folder_ = *RunFolder::Open(path_, identity);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  void Add(const std::string& example, const std::string& linker, double score, double kl, int64_t ttft_us,
           int32_t selected) {
    Outcome outcome;
    outcome.example = example;
    outcome.linker = linker;
    outcome.score = score;
    outcome.names_gold = score == 1;
    outcome.mean_kl = kl;
    outcome.first_token_agrees = kl < 0.15;
    outcome.rouge_l_to_full = score;
    outcome.usage.prompt_tokens = 1000;
    outcome.usage.selected_tokens = selected;
    outcome.usage.recomputed_tokens = selected;
    outcome.timing.ttft_us = ttft_us;
    outcome.timing.link_us = ttft_us / 2;
    ASSERT_TRUE(folder_->Add(outcome).ok());
  }
  void AddAll() {
    for (int i = 0; i < 4; ++i) {
      const std::string example = std::to_string(i);
      Add(example, "full", 1, 0, 100'000 + i * 1000, 1000);
      Add(example, "naive", i < 2 ? 1 : 0, 0.2, 10'000 + i * 1000, 50);
      Add(example, "legolink:16", 1, 0.05, 20'000 + i * 1000, 100);
      Add(example, "random:=legolink:16", 1, i == 0 ? 0.01 : 0.15, 21'000, 100);
      Add(example, "cacheblend:=legolink:16", 1, 0.04, 30'000, 100);
    }
  }

  std::string path_;
  std::unique_ptr<RunFolder> folder_;
};

TEST_F(SummaryTest, FiguresAreTheExamplesMeans) {
  AddAll();
  const RunSummary summary = *Summarize(*folder_, {});
  EXPECT_EQ(summary.examples, 4U);
  EXPECT_DOUBLE_EQ(summary.prompt_tokens, 1000);
  ASSERT_EQ(summary.linkers.size(), 5U);
  const LinkerSummary& naive = summary.linkers[1];
  EXPECT_EQ(naive.linker, "naive");
  EXPECT_DOUBLE_EQ(naive.score.mean, 0.5);
  EXPECT_DOUBLE_EQ(naive.score_difference.mean, -0.5);
  EXPECT_DOUBLE_EQ(naive.names_gold, 0.5);
  EXPECT_DOUBLE_EQ(naive.first_token_agreement, 0);
  EXPECT_NEAR(naive.kl_gap_closed.mean, 0, 1e-12);
  EXPECT_DOUBLE_EQ(naive.ttft_ms, 11.5);
  EXPECT_DOUBLE_EQ(naive.link_ms, 5.75);
  EXPECT_DOUBLE_EQ(naive.selected_share, 0.05);
  const LinkerSummary& legolink = summary.linkers[2];
  EXPECT_DOUBLE_EQ(legolink.first_token_agreement, 1);
  EXPECT_NEAR(legolink.kl.mean, 0.05, 1e-12);
  EXPECT_NEAR(legolink.kl_gap_closed.mean, 0.75, 1e-12);
  EXPECT_DOUBLE_EQ(summary.linkers[0].kl_gap_closed.mean, 1);
}

TEST_F(SummaryTest, BarsSayWhatHoldsAndWhatDoesNot) {
  AddAll();
  const RunSummary summary = *Summarize(*folder_, {});
  ASSERT_EQ(summary.bars.size(), 3U);
  std::vector<bool> holds;
  for (const BarResult& bar : summary.bars) holds.push_back(bar.holds);
  // More KL than CacheBlend, less than random, as often right as full.
  EXPECT_THAT(holds, ElementsAre(false, true, true));
  const std::string text = SummaryMarkdown(summary);
  EXPECT_THAT(text, HasSubstr("**does not hold: legolink:16 has no more KL than cacheblend at equal rows: difference "
                              "+0.0100 [+0.0100, +0.0100]**"));
  EXPECT_THAT(text, HasSubstr("- holds: legolink:16 names the gold answer within 2 points"));
}

TEST_F(SummaryTest, DocumentsCompiledAsAWholeAreComparedWithChunksCompiledAlone) {
  AddAll();
  for (int i = 0; i < 4; ++i) {
    Add(std::to_string(i), "legolink:16@document", 1, 0.01 + 0.02 * i, 1, 60);  // 0.05 - mean 0.04, once more than it
    Add(std::to_string(i), "naive@document", 1, 0.1, 1, 50);
    Add(std::to_string(i), "cacheblend:=legolink:16@document", 1, 0.1, 1, 60);
  }
  const std::string text = SummaryMarkdown(*Summarize(*folder_, {}));
  EXPECT_THAT(text,
              HasSubstr("**does not hold: legolink:16@document has less KL than legolink:16, with an interval that "
                        "excludes 0: difference -0.0100 ["));
  EXPECT_THAT(text, HasSubstr("- holds: legolink:16@document closes at least 0.6 of naive's KL: 0.80 ["));
  EXPECT_THAT(text, HasSubstr("- holds: naive@document has less KL than naive, with an interval that excludes 0: "
                              "difference -0.1000 [-0.1000, -0.1000]"));
  EXPECT_THAT(text, HasSubstr("- holds: legolink:16@document has no more KL than cacheblend at equal rows"));
}

TEST_F(SummaryTest, WhereNoDocumentHasSeveralChunksNothingIsSaidOfRecipes) {
  AddAll();
  for (int i = 0; i < 4; ++i) Add(std::to_string(i), "legolink:16@document", 1, 0.05, 1, 100);
  EXPECT_EQ(Summarize(*folder_, {})->bars.size(), 3U);
}

TEST_F(SummaryTest, BelowNineInTenThereIsNoBar) {
  for (int i = 0; i < 10; ++i) {
    Add(std::to_string(i), "full", i < 8 ? 1 : 0, 0, 100'000, 1000);
    Add(std::to_string(i), "legolink:16", 0, 1, 20'000, 100);
  }
  EXPECT_TRUE(Summarize(*folder_, {})->bars.empty());
}

TEST_F(SummaryTest, OnlyExamplesOfAllLinkersCount) {
  AddAll();
  Add("half", "full", 0, 0, 1, 1000);
  ASSERT_TRUE(folder_->Add(Skip{"long", "too long"}).ok());
  ASSERT_TRUE(folder_->Add(Skip{"longer", "too long"}).ok());
  const RunSummary summary = *Summarize(*folder_, {"full", "naive"});
  EXPECT_EQ(summary.examples, 4U);
  EXPECT_EQ(summary.incomplete, 1U);
  EXPECT_EQ(summary.linkers.size(), 2U);
  const std::string text = SummaryMarkdown(summary);
  EXPECT_THAT(text, HasSubstr("1 examples were not done"));
  EXPECT_THAT(text, HasSubstr("2 x too long"));
  EXPECT_THAT(std::string(Summarize(*folder_, {"full", "prefix"}).status().message()), HasSubstr("5 begun, 2 skipped"));
}

TEST_F(SummaryTest, WithoutNaiveThereIsNoGap) {
  Add("a", "full", 1, 0, 100'000, 1000);
  Add("a", "legolink:16", 1, 0.1, 20'000, 100);
  const RunSummary summary = *Summarize(*folder_, {});
  EXPECT_TRUE(std::isnan(summary.linkers[1].kl_gap_closed.mean));
  EXPECT_TRUE(SummaryJson(summary)["linkers"][1]["kl_gap_closed"].is_null());
  EXPECT_THAT(SummaryMarkdown(summary), Not(HasSubstr("nan")));
  EXPECT_TRUE(GapPlot(summary).series.empty());
  ASSERT_TRUE(WriteSummary(summary, path_).ok());
  EXPECT_TRUE(std::filesystem::exists(path_ + "/score.png"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/kl-gap.png"));
}

TEST_F(SummaryTest, WritesEverythingAndPlotsAFamilyAsOneSeries) {
  AddAll();
  const RunSummary summary = *Summarize(*folder_, {});
  ASSERT_TRUE(WriteSummary(summary, path_).ok());
  for (const char* name : {"summary.md", "summary.json", "score.svg", "score.png", "kl-gap.svg", "kl-gap.png"}) {
    EXPECT_TRUE(std::filesystem::exists(path_ + "/" + name)) << name;
  }
  std::ifstream file(path_ + "/summary.json");
  const auto json = nlohmann::ordered_json::parse(file);
  EXPECT_EQ(json["examples"], 4);
  EXPECT_EQ(json["bars"].size(), 3U);
  const ParetoPlot plot = ScorePlot(summary);
  std::vector<std::string> names;
  for (const PlotSeries& series : plot.series) names.push_back(series.name);
  EXPECT_THAT(names, ElementsAre("full", "naive", "legolink", "random", "cacheblend"));
  EXPECT_DOUBLE_EQ(plot.series[1].points[0].x, 11.5);
  EXPECT_DOUBLE_EQ(plot.series[1].points[0].y, 0.5);
}

}  // namespace
}  // namespace epic::eval
