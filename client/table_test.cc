#include "client/table.h"

#include <gtest/gtest.h>

namespace epic::client {
namespace {

TEST(TableTest, AlignsByCharactersAndLeavesNoBlanksAtTheEnd) {
  Table table({{"name", Table::Align::kLeft}, {"n", Table::Align::kRight}, {"note", Table::Align::kLeft}});
  table.AddRow({"größe", "7", "x"});
  table.AddRow({"a", "1234", ""});
  EXPECT_EQ(table.ToString(),
            "name      n  note\n"
            "-----  ----  ----\n"
            "größe     7  x\n"
            "a      1234\n");
}

TEST(TableTest, FormatsBytes) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(int64_t{3} << 30), "3.0 GiB");
}

TEST(TableTest, ShortensOnCharactersAndCleansControlCharacters) {
  EXPECT_EQ(Shorten("short", 10), "short");
  EXPECT_EQ(Shorten("  two\nlines\x1b[31m", 30), "two lines [31m");
  EXPECT_EQ(Shorten("äöüäöüäöü", 5), "äöüä…");
}

}  // namespace
}  // namespace epic::client
