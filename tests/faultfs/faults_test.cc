#include "tests/faultfs/faults.h"

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"

namespace epic::faultfs {
namespace {

Rules ParseRules(const std::string& text) {
  std::string error;
  std::optional<Rules> rules = Rules::Parse(text, &error);
  EXPECT_TRUE(rules.has_value()) << error;
  return rules.value_or(Rules());
}

TEST(RulesTest, WithoutRulesNothingFails) {
  Rules rules = ParseRules("");
  EXPECT_FALSE(rules.Fails(Operation::kRead, "a"));
  EXPECT_EQ(rules.TakeSpace(1 << 30), 1 << 30);
  EXPECT_TRUE(rules.HasSpaceFor(1 << 30));
}

TEST(RulesTest, FailEveryTheNthOrAllBehindTheNth) {
  Rules rules = ParseRules("read every every/*\nread nth 2 nth\nread after 2 after\n");
  std::string failed;
  for (int i = 1; i <= 4; ++i) {
    for (const char* const path : {"every/deep/down", "nth", "after", "other"}) {
      failed += rules.Fails(Operation::kRead, path) ? 'x' : '-';
      EXPECT_FALSE(rules.Fails(Operation::kSync, path));
    }
    failed += ' ';
  }
  EXPECT_EQ(failed, "x--- xx-- x-x- x-x- ");
}

TEST(RulesTest, SpaceIsUsedUpByWritesAlone) {
  Rules rules = ParseRules("space 10");
  EXPECT_TRUE(rules.HasSpaceFor(10));
  EXPECT_FALSE(rules.HasSpaceFor(11));
  EXPECT_EQ(rules.TakeSpace(6), 6);
  EXPECT_EQ(rules.TakeSpace(6), 4);
  EXPECT_EQ(rules.TakeSpace(6), 0);
}

TEST(RulesTest, WhatCannotBeUnderstoodIsNamed) {
  for (const std::string line :
       {"reed every *", "read sometimes *", "read nth *", "read every", "space much", "space -1", "read every a b"}) {
    std::string error;
    EXPECT_FALSE(Rules::Parse("space 1\n" + line + "\n", &error).has_value()) << line;
    EXPECT_EQ(error, line);
  }
}

TEST(FaultsTest, TheControlFileIsReadAgainWhenItIsReplaced) {
  std::string folder = testing::TempDir() + "/epic-faults-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/control";
  const auto replace = [&](const std::string& text) {
    std::ofstream(path + ".next") << text;
    std::filesystem::rename(path + ".next", path);
  };
  Faults faults(path);
  EXPECT_FALSE(faults.Fails(Operation::kRead, "a"));
  replace("read nth 1 a\n");
  EXPECT_TRUE(faults.Fails(Operation::kRead, "a"));
  EXPECT_FALSE(faults.Fails(Operation::kRead, "a"));
  replace("read nth 1 a\nspace 3\n");
  EXPECT_TRUE(faults.Fails(Operation::kRead, "a")) << "counting begins anew";
  EXPECT_EQ(faults.TakeSpace(5, "b"), 3);
  std::filesystem::remove(path);
  EXPECT_EQ(faults.TakeSpace(5, "b"), 5);
  std::ifstream record(path + ".injected");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(record), {}), "read a\nread a\nspace b\n");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace epic::faultfs
