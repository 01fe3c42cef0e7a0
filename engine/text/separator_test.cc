#include "engine/text/separator.h"

#include <gtest/gtest.h>

namespace epic {
namespace {

TEST(SeparatorTest, EndsOfSentencesAndLinesAreSeparators) {
  for (const char* text : {".", "!", "?", "\n", "\n\n", ".\n", " .", "?!", "...", "\r\n", " \n", "。", "？\n"}) {
    EXPECT_TRUE(IsSeparator(text)) << text;
  }
}

TEST(SeparatorTest, AnythingElseInATokenMakesItNone) {
  for (const char* text : {"", " ", "\t", "\r", ",", ";", "a", "a.", ".a", "Dr.", ".5", ".\"", "、", "\xe3\x80"}) {
    EXPECT_FALSE(IsSeparator(text)) << text;
  }
}

}  // namespace
}  // namespace epic
