// kill -9 in the middle of writing, evicting and dropping: what Write returned for is found, and no entry points at
// another block's bytes.
//
// The test starts its own program again as a child that writes blocks into a small tier and says on a pipe what was
// done. The parent kills it and looks at the folder.
#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "storage/disk_tier.h"
#include "storage/disk_tier_testing.h"
#include "storage/killed_child_testing.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

constexpr int kRounds = 12;
constexpr size_t kRecent = 20;  // blocks that the policy does not evict yet

DiskTierOptions Options(const std::string& folder) {
  return {.folder = folder, .capacity_bytes = size_t{6} << 20, .segment_bytes = size_t{1} << 20, .free_bytes_min = 0};
}
TestBlock Block(int number) { return TestBlock(number, 1 + number * 7 % 20, 32); }

// The child: writes blocks and drops every fifth one, until it is killed. Does nothing when run by hand.
TEST(DiskTierCrashChild, DISABLED_WritesUntilKilled) {
  const char* const folder = std::getenv(kChildFolderVariable);
  if (folder == nullptr) GTEST_SKIP() << "started by DiskTierCrashTest only";
  const std::unique_ptr<DiskTier> tier = DiskTier::Open(Options(folder), std::make_unique<TestLruPolicy>()).value();
  for (int number = std::atoi(std::getenv(kChildFirstNumberVariable));; ++number) {
    const TestBlock block = Block(number);
    ASSERT_TRUE(tier->Write(block.view(), 1).value());
    ReportToParent(fmt::format("written {}\n", number));
    if (number % 5 != 0) continue;
    tier->Drop(block.key());
    ReportToParent(fmt::format("dropped {}\n", number));
  }
}

TEST(DiskTierCrashTest, WhatWasWrittenSurvivesKill) {
  const TemporaryFolder folder;
  std::mt19937 random(17);
  int next_number = 1;
  uint64_t evicted_blocks = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::istringstream report(
        RunAndKillChild("DiskTierCrashChild.*", folder.path(), next_number, 1 + static_cast<int>(random() % 300)));
    std::vector<int> written;
    std::set<int> dropped;
    std::string what;
    int number = 0;
    while (report >> what >> number) {
      if (what == "written") {
        written.push_back(number);
      } else {
        dropped.insert(number);
      }
    }
    ASSERT_FALSE(written.empty());
    next_number = written.back() + 2;  // the one behind it may be there, or not
    absl::StatusOr<std::unique_ptr<DiskTier>> tier =
        DiskTier::Open(Options(folder.path()), std::make_unique<TestLruPolicy>());
    ASSERT_TRUE(tier.ok()) << tier.status();
    EXPECT_EQ((*tier)->Stats().index_resets_total, 0u);
    EXPECT_EQ((*tier)->Stats().dropped_at_start_total, 0u);
    EXPECT_EQ((*tier)->VerifyAll([](const VerifyProgress&) { return true; })->faults.size(), 0u);
    for (size_t i = 0; i < written.size(); ++i) {
      const bool is_there = (*tier)->Find(Block(written[i]).key()).has_value();
      if (dropped.contains(written[i])) {
        EXPECT_FALSE(is_there) << "dropped, round " << round << ", block " << written[i];
      } else if (i + kRecent >= written.size() && i + 1 < written.size()) {
        EXPECT_TRUE(is_there) << "written, round " << round << ", block " << written[i];
      } else if (i + 1 == written.size()) {
        // Its drop may have begun.
        EXPECT_TRUE(is_there || written[i] % 5 == 0) << "round " << round << ", block " << written[i];
      } else {
        evicted_blocks += is_there ? 0 : 1;
      }
    }
  }
  EXPECT_GT(evicted_blocks, 0u);
}

}  // namespace
}  // namespace epic
