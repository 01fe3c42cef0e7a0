#include "engine/text/pre_tokenizer.h"

#include <string>
#include <vector>

#include "engine/text/text_golden.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

// The characters before each end of a piece, as Python counts them.
std::vector<size_t> PieceEnds(PreTokenizer pre_tokenizer, const std::string& text) {
  std::vector<size_t> ends;
  size_t characters = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = NextPiece(pre_tokenizer, text, begin);
    if (end <= begin || end > text.size()) {
      ADD_FAILURE() << "a piece of " << text << " from " << begin << " to " << end;
      break;
    }
    for (size_t i = begin; i < end; ++i) characters += (static_cast<uint8_t>(text[i]) & 0xC0) != 0x80 ? 1 : 0;
    ends.push_back(characters);
    begin = end;
  }
  return ends;
}

TEST(PreTokenizerTest, CutsWhereTheReferenceDoes) {
  const nlohmann::json golden = ReadTextGolden("pieces.json");
  EXPECT_GT(golden.size(), 200u);
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"}) {
    SCOPED_TRACE(name);
    for (const auto& expected : golden) {
      EXPECT_EQ(PieceEnds(*PreTokenizerByName(name), expected["text"]), expected[name].get<std::vector<size_t>>())
          << expected["text"];
    }
  }
}

TEST(PreTokenizerTest, HasNoNamesBesides) {
  EXPECT_EQ(PreTokenizerByName("llama-v3"), PreTokenizer::kLlama3);
  for (const char* name : {"", "default", "GPT-2", "falcon", "qwen"}) EXPECT_EQ(PreTokenizerByName(name), std::nullopt);
}

// Every scanner looks ahead; none may look ahead over the same text again and again.
TEST(PreTokenizerTest, HostileRunsTakeLinearTime) {
  for (const char* unit : {" ", "\n ", "A", "\u4e2dA", "\u0301", "'", " '", "1", "/\n", "\u3000"}) {
    std::string text;
    while (text.size() < 400000) text += unit;
    for (const PreTokenizer pre_tokenizer : {PreTokenizer::kGpt2, PreTokenizer::kSmolLm, PreTokenizer::kLlama3,
                                             PreTokenizer::kQwen2, PreTokenizer::kTekken}) {
      EXPECT_GT(PieceEnds(pre_tokenizer, text + "x").size(), 0u);
    }
  }
}

}  // namespace
}  // namespace epic
