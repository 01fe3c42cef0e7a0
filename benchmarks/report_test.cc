#include "benchmarks/report.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

TEST(PercentileTest, IsTheSmallestValueThatTheShareDoesNotPass) {
  std::vector<double> hundred;
  for (int i = 100; i >= 1; --i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 0.99), 99);
  EXPECT_EQ(Percentile(hundred, 0.50), 50);
  EXPECT_EQ(Percentile(hundred, 1.0), 100);
  EXPECT_EQ(Percentile({3, 1, 2}, 0.99), 3);
  EXPECT_EQ(Percentile({7}, 0.01), 7);
}

TEST(MedianTest, TakesTheUpperOfTwo) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 3);
}

TEST(ReportTest, BarsHoldAtTheBarItself) {
  Report report = StartReport("x", 2);
  EXPECT_TRUE(AddBar(report, "speed", 2, 2));
  EXPECT_FALSE(AddBar(report, "speed", 1.99, 2));
  EXPECT_TRUE(AddUpperBar(report, "cost", 0.05, 0.05));
  EXPECT_FALSE(AddUpperBar(report, "cost", 0.06, 0.05));
  EXPECT_THAT(BarsTable(report),
              ::testing::AllOf(::testing::HasSubstr("speed (at least)"), ::testing::HasSubstr("cost (at most)"),
                               ::testing::HasSubstr("FAILS")));
}

TEST(ReportTest, TheBarsArePrintedLastWhateverIsAddedAfterThem) {
  Report report = StartReport("x", 2);
  AddBar(report, "speed", 2, 2);
  report["calibration"] = 1;
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(PrintReport(report, "the table", "json", ""), 0);
  const Report printed = Report::parse(::testing::internal::GetCapturedStdout());
  std::vector<std::string> members;
  for (const auto& [name, value] : printed.items()) members.push_back(name);
  EXPECT_THAT(members, ::testing::ElementsAre("benchmark", "processor", "threads", "calibration", "results", "bars"));
}

TEST(ReportTest, AFileThatCannotBeWrittenIsAnError) {
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(PrintReport(StartReport("x", 2), "the table", "table", "/no/such/folder/report.json"), 1);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "the table");
}

}  // namespace
}  // namespace epic
