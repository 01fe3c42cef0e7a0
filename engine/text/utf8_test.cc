#include "core/utf8.h"

#include <string>
#include <vector>

#include "engine/text/text_golden.h"
#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Token i is the byte i.
class ByteTokenizer final : public Tokenizer {
 public:
  absl::StatusOr<Encoding> EncodeText(std::string_view) const override { return Encoding{}; }
  absl::StatusOr<std::vector<int32_t>> EncodePieces(std::span<const TextPiece>, bool) const override {
    return std::vector<int32_t>{};
  }
  std::string DecodeToken(int32_t id, bool) const override { return std::string(1, static_cast<char>(id)); }
  int32_t vocab_size() const override { return 256; }
  bool IsControl(int32_t) const override { return false; }
  std::optional<int32_t> TokenId(std::string_view) const override { return std::nullopt; }
  std::optional<int32_t> sequence_start_id() const override { return std::nullopt; }
  std::optional<int32_t> eos_id() const override { return std::nullopt; }
  std::span<const int32_t> stop_ids() const override { return {}; }
  bool decode_strips_space() const override { return false; }
};

bool IsWholeUtf8(const std::string& text) { return !FindInvalidUtf8(text).has_value(); }

// The reference is Python's strict and replacing decoders.
TEST(Utf8Test, FindsTheFirstInvalidByteWherePythonDoes) {
  for (const auto& golden : ReadTextGolden("utf8.json")) {
    const std::string bytes = FromHex(golden["hex"]);
    const std::optional<size_t> position = FindInvalidUtf8(bytes);
    EXPECT_EQ(position ? static_cast<int>(*position) : -1, golden["invalid_at"].get<int>()) << golden["hex"];
  }
}

TEST(Utf8Test, StreamDecoderReplacesAsPythonDoesAndNeverCutsACharacter) {
  const ByteTokenizer tokenizer;
  for (const auto& golden : ReadTextGolden("utf8.json")) {
    StreamDecoder decoder(tokenizer);
    std::string text;
    for (const char byte : FromHex(golden["hex"])) {
      const std::string part = decoder.Push(static_cast<uint8_t>(byte));
      EXPECT_TRUE(IsWholeUtf8(part));
      text += part;
    }
    text += decoder.Finish();
    EXPECT_EQ(text, golden["replaced"].get<std::string>()) << golden["hex"];
    EXPECT_EQ(decoder.Finish(), "");
  }
}

TEST(Utf8Test, StreamDecoderShowsACharacterWithItsLastByte) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.Push('a'), "a");
  EXPECT_EQ(decoder.Push(0xF0), "");
  EXPECT_EQ(decoder.Push(0x9F), "");
  EXPECT_EQ(decoder.Push(0x98), "");
  EXPECT_EQ(decoder.Push(0x80), "\U0001F600");
  EXPECT_EQ(decoder.Push(0xE7), "");
  EXPECT_EQ(decoder.Push('b'),
            "\uFFFD"
            "b");
}

TEST(Utf8Test, ReadsCodePoints) {
  const std::string text = "a\u00e9\u7f13\U0010ffff";
  std::vector<char32_t> code_points;
  for (size_t position = 0; position < text.size();) {
    const Utf8Character character = ReadUtf8(text, position);
    ASSERT_EQ(character.kind, Utf8Character::Kind::kValid);
    code_points.push_back(character.code_point);
    position += character.length;
  }
  EXPECT_EQ(code_points, (std::vector<char32_t>{'a', 0xE9, 0x7F13, 0x10FFFF}));
}

}  // namespace
}  // namespace epic
