#include "engine/text/nfc.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/text/text_golden.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

TEST(NfcTest, EqualsTheReference) {
  const nlohmann::json golden = ReadTextGolden("nfc.json");
  EXPECT_GT(golden.size(), 400u);
  for (const auto& expected : golden) {
    const std::string text = expected["text"];
    const std::optional<NormalizedText> normalized = NormalizeNfc(text);
    EXPECT_EQ(normalized ? normalized->text : text, expected["nfc"].get<std::string>()) << expected["text"];
    EXPECT_EQ(normalized.has_value(), expected["text"] != expected["nfc"]);
  }
}

TEST(NfcTest, TextThatIsNfcIsLeftAlone) {
  for (const char* text : {"", "plain", "caf\u00e9", "\u4e2d\u6587", "q\u0323\u0307", "\uac01", "\u0915\u093c"}) {
    EXPECT_FALSE(NormalizeNfc(text).has_value()) << text;
  }
}

TEST(NfcTest, PositionsLeadBackToTheOriginal) {
  // "e" with an accent behind it takes 3 bytes and becomes 2; the second change makes 3 bytes (the angstrom sign) 2.
  const std::optional<NormalizedText> normalized = NormalizeNfc("xe\u0301y\u212bz");
  ASSERT_TRUE(normalized.has_value());
  EXPECT_EQ(normalized->text, "x\u00e9y\u00c5z");
  std::vector<size_t> positions = {0, 1, 2, 3, 4, 5, 6, 7};
  normalized->ToOriginal(positions);
  // Within a change: the beginning of it. "y", which stands before the sign, is a border and part of the stretch.
  EXPECT_EQ(positions.front(), 0u);
  EXPECT_EQ(positions[1], 1u);
  EXPECT_EQ(positions[2], 1u);
  EXPECT_EQ(positions[3], 4u);
  EXPECT_EQ(positions.back(), 9u);
  EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
}

TEST(NfcTest, MarksOfOneClassKeepTheirOrder) {
  std::string marks;
  for (int i = 0; i < 40; ++i) marks += i % 3 == 0 ? "\u0301" : "\u0300";
  const std::optional<NormalizedText> normalized = NormalizeNfc("q" + marks + "\u0323");
  ASSERT_TRUE(normalized.has_value());
  EXPECT_EQ(normalized->text, "q\u0323" + marks);
}

TEST(NfcTest, LongRunsOfMarksTakeNoQuadraticTime) {
  std::string text = "e";
  for (int i = 0; i < 200000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  const std::optional<NormalizedText> normalized = NormalizeNfc(text);
  ASSERT_TRUE(normalized.has_value());
  EXPECT_TRUE(normalized->text.starts_with("\u1eb9\u0323"));
}

}  // namespace
}  // namespace epic
