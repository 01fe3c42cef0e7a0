#include "engine/text/tokenizer.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/byte_alphabet.h"
#include "engine/text/text_golden.h"
#include "engine/text/unicode_classes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using Ids = std::vector<int32_t>;
using testing::ElementsAre;
using testing::HasSubstr;

class TokenizerTest : public testing::Test {
 protected:
  TokenizerTest() : golden_(ReadTextGolden("small.json")), spec_(SmallTokenizerSpec(golden_)) {}

  std::unique_ptr<Tokenizer> Create() {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }

  void ExpectRefused(absl::StatusCode code, const std::string& reason) {
    const absl::Status status = Tokenizer::Create(spec_).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  int32_t Find(const std::string& token) const {
    const auto found = std::find(spec_.tokens.begin(), spec_.tokens.end(), token);
    EXPECT_NE(found, spec_.tokens.end()) << token;
    return static_cast<int32_t>(found - spec_.tokens.begin());
  }

  int32_t AddToken(const std::string& token, TokenKind kind) {
    spec_.tokens.push_back(token);
    spec_.kinds.push_back(kind);
    return static_cast<int32_t>(spec_.tokens.size()) - 1;
  }

  nlohmann::json golden_;
  TokenizerSpec spec_;
};

TEST_F(TokenizerTest, IdsEqualTheReference) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_GT(golden_["cases"].size(), 400u);
  for (const auto& golden : golden_["cases"]) {
    const std::string text = golden["text"];
    const Ids expected = golden["ids"];
    const auto encoding = tokenizer->EncodeText(text);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(encoding->ids, expected) << golden["text"];
    const auto with_specials = tokenizer->EncodeWithSpecials(text);
    ASSERT_TRUE(with_specials.ok()) << with_specials.status();
    EXPECT_EQ(*with_specials, golden.contains("special_ids") ? golden["special_ids"].get<Ids>() : expected)
        << golden["text"];
  }
}

TEST_F(TokenizerTest, ByteEndsCutTheTextIntoTheTokensBytes) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  for (const auto& golden : golden_["cases"]) {
    const std::string text = golden["text"];
    const Tokenizer::Encoding encoding = *tokenizer->EncodeText(text);
    ASSERT_EQ(encoding.byte_ends.size(), encoding.ids.size());
    size_t begin = 0;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      ASSERT_GT(encoding.byte_ends[i], begin);
      ASSERT_LE(encoding.byte_ends[i], text.size());
      EXPECT_EQ(tokenizer->DecodeToken(encoding.ids[i]), text.substr(begin, encoding.byte_ends[i] - begin));
      begin = encoding.byte_ends[i];
    }
    EXPECT_EQ(begin, text.size());
  }
}

TEST_F(TokenizerTest, DecodingGivesTheTextBack) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  for (const auto& golden : golden_["cases"]) {
    const std::string text = golden["text"];
    EXPECT_EQ(tokenizer->Decode(tokenizer->EncodeText(text)->ids), text);
    EXPECT_EQ(tokenizer->Decode(*tokenizer->EncodeWithSpecials(text), true), text);
    StreamDecoder decoder(*tokenizer);
    std::string streamed;
    const Ids ids = tokenizer->EncodeText(text)->ids;
    for (const int32_t id : ids) streamed += decoder.Push(id);
    EXPECT_EQ(streamed + decoder.Finish(), text);
  }
}

TEST_F(TokenizerTest, ControlTokensAreNotTextOfUsers) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  const int32_t end = Find("<|im_end|>");
  EXPECT_TRUE(tokenizer->IsControl(end));
  EXPECT_FALSE(tokenizer->IsControl(Find("a")));
  EXPECT_FALSE(tokenizer->IsControl(Find("[[ref]]")));
  EXPECT_FALSE(tokenizer->IsControl(-1));
  EXPECT_FALSE(tokenizer->IsControl(tokenizer->vocab_size()));
  for (const auto& golden : golden_["cases"]) {
    const Ids ids = tokenizer->EncodeText(golden["text"].get<std::string>())->ids;
    for (const int32_t id : ids) {
      EXPECT_FALSE(tokenizer->IsControl(id)) << golden["text"];
    }
  }
  EXPECT_EQ(tokenizer->DecodeToken(end), "");
  EXPECT_EQ(tokenizer->DecodeToken(end, true), "<|im_end|>");
  EXPECT_EQ(tokenizer->Decode(Ids{Find("a"), end, Find("b")}), "ab");
}

TEST_F(TokenizerTest, BosAndEosAreControlWhateverTheFileSays) {
  spec_.kinds[Find("<|im_end|>")] = TokenKind::kUserDefined;
  spec_.eos_id = Find("<|im_end|>");
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_TRUE(tokenizer->IsControl(*tokenizer->eos_id()));
  EXPECT_THAT(tokenizer->EncodeText("<|im_end|>")->ids, testing::Not(testing::Contains(*tokenizer->eos_id())));
  EXPECT_THAT(*tokenizer->EncodeWithSpecials("<|im_end|>"), ElementsAre(*tokenizer->eos_id()));
}

TEST_F(TokenizerTest, LooksUpWrittenForms) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_EQ(tokenizer->TokenId("<|im_start|>"), Find("<|im_start|>"));
  EXPECT_EQ(tokenizer->TokenId("\u0120"), Find("\u0120"));
  EXPECT_EQ(tokenizer->DecodeToken(Find("\u0120")), " ");
  EXPECT_EQ(tokenizer->TokenId("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), static_cast<int32_t>(spec_.tokens.size()));
}

TEST_F(TokenizerTest, IdsOutsideTheVocabularyDecodeToNothing) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_EQ(tokenizer->DecodeToken(-1), "");
  EXPECT_EQ(tokenizer->DecodeToken(tokenizer->vocab_size(), true), "");
}

TEST_F(TokenizerTest, SequenceStartOnlyWhereTheTokenizerAddsOne) {
  spec_.bos_id = Find("<|im_start|>");
  EXPECT_EQ(Create()->sequence_start_id(), std::nullopt);
  spec_.add_bos = true;
  EXPECT_EQ(Create()->sequence_start_id(), spec_.bos_id);
  EXPECT_EQ(Create()->eos_id(), std::nullopt);
}

TEST_F(TokenizerTest, NamesThePositionOfAByteThatIsNotUtf8) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  for (const auto& [text, position] :
       std::vector<std::pair<std::string, std::string>>{{"abc\xFFx", "byte 3 (0xff)"},
                                                        {"\u00e9\xC3", "byte 2 (0xc3)"},
                                                        {"\xED\xA0\x80", "byte 0 (0xed)"},
                                                        {"<|im_end|>\x80", "byte 10 (0x80)"}}) {
    for (const absl::Status& status :
         {tokenizer->EncodeText(text).status(), tokenizer->EncodeWithSpecials(text).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr(position));
    }
  }
}

TEST_F(TokenizerTest, RefusesOtherModelsAndPreTokenizers) {
  spec_.pre_tokenizer = "default";
  ExpectRefused(absl::StatusCode::kUnimplemented, "the pre-tokenizer is \"default\"");
  spec_.model = "llama\n";
  ExpectRefused(absl::StatusCode::kUnimplemented, "the tokenizer model is \"llama\\x0a\"");
}

// Bytes without a token are left out, and what stood around them merges.
TEST_F(TokenizerTest, VocabularyWithGapsEqualsTheReference) {
  const nlohmann::json golden = ReadTextGolden("gaps.json");
  spec_ = SmallTokenizerSpec(golden);
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_EQ(tokenizer->TokenId(ByteToAlphabet(0x04)), std::nullopt);
  for (const auto& expected : golden["cases"]) {
    const std::string text = expected["text"];
    const auto encoding = tokenizer->EncodeText(text);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(encoding->ids, expected["ids"].get<Ids>()) << expected["text"];
    std::string kept;
    for (const char byte : text) {
      if (tokenizer->TokenId(ByteToAlphabet(static_cast<uint8_t>(byte)))) kept.push_back(byte);
    }
    const bool has_added_token = text.find("\u2603") != std::string::npos;  // whose bytes alone have no tokens
    if (!has_added_token) {
      EXPECT_EQ(tokenizer->Decode(encoding->ids), kept);
    }
    EXPECT_TRUE(std::is_sorted(encoding->byte_ends.begin(), encoding->byte_ends.end()));
    EXPECT_EQ(encoding->ids.empty() ? text.size() : encoding->byte_ends.back(), text.size());
  }
}

TEST_F(TokenizerTest, BytesWithoutATokenCountToTheTokenBehindThem) {
  spec_.tokens[Find(ByteToAlphabet(0x04))] = "[unused]";
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_THAT(tokenizer->EncodeText("\x04~\x04\x04{\x04")->byte_ends, ElementsAre(2, 6));
  EXPECT_THAT(tokenizer->EncodeText("\x04\x04")->ids, testing::IsEmpty());
  const std::string run = std::string(60, '\x04') + "~" + std::string(60, '\x04');
  EXPECT_THAT(tokenizer->EncodeText(run + "{")->byte_ends, ElementsAre(61, 122));
}

TEST_F(TokenizerTest, RefusesAPlainByteWithoutAToken) {
  const int32_t id = Find("\u0120");
  spec_.tokens[id] = "[unused]";
  ExpectRefused(absl::StatusCode::kInvalidArgument, "no ordinary token for the byte 0x20");
  spec_.tokens[id] = "\u0120";
  spec_.kinds[id] = TokenKind::kControl;
  ExpectRefused(absl::StatusCode::kInvalidArgument, "no ordinary token for the byte 0x20");
}

TEST_F(TokenizerTest, RefusesTokensTwiceEmptyOrBroken) {
  AddToken("<|im_end|>", TokenKind::kNormal);
  ExpectRefused(absl::StatusCode::kInvalidArgument, "are both \"<|im_end|>\"");
  spec_.tokens.back() = "";
  ExpectRefused(absl::StatusCode::kInvalidArgument, "is empty");
  spec_.tokens.back() = "a\xFF";
  ExpectRefused(absl::StatusCode::kInvalidArgument, "(\"a\\xff\") is not UTF-8");
  spec_.tokens.back() = "<0x0A>";
  spec_.kinds.back() = TokenKind::kByte;
  ExpectRefused(absl::StatusCode::kInvalidArgument, "of the kind \"byte\"");
  spec_.kinds.pop_back();
  ExpectRefused(absl::StatusCode::kInvalidArgument, "token kinds");
}

TEST_F(TokenizerTest, RefusesInconsistentMerges) {
  const std::vector<std::string> merges = spec_.merges;
  const auto expect_refused = [&](const std::string& merge, const std::string& reason) {
    spec_.merges = merges;
    spec_.merges.push_back(merge);
    ExpectRefused(absl::StatusCode::kInvalidArgument, reason);
  };
  expect_refused("nosuch a", "names \"nosuch\", which is not in the vocabulary");
  expect_refused("a \u20ac", "names \"\u20ac\"");
  expect_refused("~ ~", "names \"~~\"");
  expect_refused("ab", "expected two tokens with one space");
  expect_refused("a b c", "expected two tokens with one space");
  expect_refused(" a", "names \"\"");
  expect_refused(merges[0], "twice");
}

// A hostile file could else let the text of a user end a turn.
TEST_F(TokenizerTest, RefusesMergesThatBuildControlTokens) {
  AddToken("~~", TokenKind::kControl);
  spec_.merges.push_back("~ ~");
  ExpectRefused(absl::StatusCode::kInvalidArgument, "would build the control token \"~~\"");
  spec_.kinds.back() = TokenKind::kUserDefined;
  EXPECT_TRUE(Tokenizer::Create(spec_).ok());
}

TEST_F(TokenizerTest, RefusesSpecialIdsOutsideTheVocabulary) {
  spec_.eos_id = static_cast<int32_t>(spec_.tokens.size());
  ExpectRefused(absl::StatusCode::kInvalidArgument, "the EOS token's id");
  spec_.eos_id = std::nullopt;
  spec_.bos_id = -1;
  ExpectRefused(absl::StatusCode::kInvalidArgument, "the BOS token's id -1");
  spec_.bos_id = std::nullopt;
  spec_.add_bos = true;
  ExpectRefused(absl::StatusCode::kInvalidArgument, "names none");
  spec_ = TokenizerSpec();
  spec_.model = "bpe";
  spec_.pre_tokenizer = "smollm";
  ExpectRefused(absl::StatusCode::kInvalidArgument, "no ordinary token for the byte 0x0a");
}

TEST_F(TokenizerTest, UnusedTokensNeverComeUp) {
  const int32_t id = AddToken("[PAD1]", TokenKind::kUnused);
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  EXPECT_THAT(*tokenizer->EncodeWithSpecials("[PAD1]"), testing::Not(testing::Contains(id)));
  EXPECT_EQ(tokenizer->DecodeToken(id), "");
}

TEST_F(TokenizerTest, LongWordsTakeNoQuadraticTime) {
  const std::unique_ptr<Tokenizer> tokenizer = Create();
  const std::string text = std::string(400000, 'a') + std::string(400000, '\n') + std::string(400000, '<');
  const Tokenizer::Encoding encoding = *tokenizer->EncodeText(text);
  EXPECT_EQ(tokenizer->Decode(encoding.ids), text);
  EXPECT_EQ(encoding.byte_ends.back(), text.size());
}

TEST(ByteAlphabetTest, EveryByteHasAStandInOfItsOwn) {
  std::vector<std::string> stand_ins;
  for (int byte = 0; byte < 256; ++byte) {
    stand_ins.push_back(ByteToAlphabet(static_cast<uint8_t>(byte)));
    EXPECT_EQ(AlphabetToBytes(stand_ins.back()), std::string(1, static_cast<char>(byte)));
  }
  std::sort(stand_ins.begin(), stand_ins.end());
  EXPECT_EQ(std::unique(stand_ins.begin(), stand_ins.end()), stand_ins.end());
  EXPECT_EQ(ByteToAlphabet(' '), "\u0120");
  EXPECT_EQ(ByteToAlphabet('\n'), "\u010a");
  for (const char* outside : {" ", "\u00ad", "\u0144", "\u7f13", "\xFF"})
    EXPECT_EQ(AlphabetToBytes(outside), std::nullopt);
}

TEST(UnicodeClassesTest, KnowsTheEdges) {
  using enum CharacterClass;
  const std::vector<std::pair<char32_t, CharacterClass>> expected = {
      {0, kOther},
      {'\t', kSpace},
      {'\r', kSpace},
      {0x1C, kOther},
      {' ', kSpace},
      {'/', kOther},
      {'0', kNumber},
      {'9', kNumber},
      {':', kOther},
      {'A', kUpper},
      {'Z', kUpper},
      {'_', kOther},
      {'z', kLower},
      {0x7F, kOther},
      {0x85, kSpace},
      {0xA0, kSpace},
      {0xAA, kOtherLetter},
      {0xB2, kNumber},
      {0xBD, kNumber},
      {0x1C5, kUpper},
      {0x2B0, kOtherLetter},
      {0x301, kMark},
      {0x661, kNumber},
      {0x903, kMark},
      {0x200B, kOther},
      {0x2028, kSpace},
      {0x2167, kNumber},
      {0x3000, kSpace},
      {0x3007, kNumber},
      {0x4E00, kOtherLetter},
      {0xAC00, kOtherLetter},
      {0xD7A3, kOtherLetter},
      {0xFEFF, kOther},
      {0x1F600, kOther},
      {0x1D7D8, kNumber},
      {0x323AF, kOtherLetter},
      {0x323B0, kOther},
      {0x11DE0, kDigitsNumber},
      {0x10FFFF, kOther},
  };
  for (const auto& [code_point, character_class] : expected) {
    EXPECT_EQ(ClassOf(code_point), character_class) << "U+" << std::hex << static_cast<uint32_t>(code_point);
  }
}

}  // namespace
}  // namespace epic
