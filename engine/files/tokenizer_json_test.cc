// tokenizer.json of every family that we run, against what the `tokenizers` package makes of the same file: small
// vocabularies, trained with each family's own pipeline (tests/golden/make_tokenizer_golden.py).
#include "engine/files/tokenizer_json.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/files/tiny_model_for_test.h"
#include "engine/text/text_golden.h"
#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

class TokenizerJsonTest : public testing::Test {
 protected:
  TokenizerJsonTest() : families_(ReadTextGolden("families.json")), folder_(FreshFolder("tokenizer_json")) {}

  const json& Family(const std::string& name) const {
    for (const json& family : families_) {
      if (family["name"] == name) return family;
    }
    throw std::runtime_error("no family " + name);
  }

  absl::StatusOr<TokenizerSpec> Read(const json& tokenizer, const json& config = json::object()) const {
    WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
    WriteFile(folder_ + "/tokenizer_config.json", config.dump());
    return TokenizerFromFolder(folder_, 5000, {});
  }

  std::unique_ptr<Tokenizer> Open(const json& tokenizer, const json& config = json::object()) const {
    absl::StatusOr<TokenizerSpec> spec = Read(tokenizer, config);
    EXPECT_TRUE(spec.ok()) << spec.status();
    absl::StatusOr<std::unique_ptr<Tokenizer>> opened = Tokenizer::Create(*std::move(spec));
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }

  void ExpectRefused(const std::string& family, const std::string& reason, const std::function<void(json&)>& change) {
    json tokenizer = Family(family)["tokenizer"];
    change(tokenizer);
    const absl::Status status = Read(tokenizer).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status << ", expected one about " << reason;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  const json families_;
  const std::string folder_;
};

Ids Encode(const Tokenizer& tokenizer, const std::string& text, bool specials, bool at_start = true) {
  const TextPiece piece = {text, specials};
  const auto ids = tokenizer.EncodePieces({&piece, 1}, at_start);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

TEST_F(TokenizerJsonTest, IdsAndDecodedTextEqualTheReference) {
  EXPECT_EQ(families_.size(), 9u);
  for (const json& family : families_) {
    SCOPED_TRACE(family["name"]);
    const std::unique_ptr<Tokenizer> tokenizer = Open(family["tokenizer"]);
    EXPECT_GT(family["cases"].size(), 100u);
    for (const json& expected : family["cases"]) {
      const std::string text = expected["text"];
      const Ids ids = Encode(*tokenizer, text, false);
      EXPECT_EQ(ids, expected["ids"].get<Ids>()) << expected["text"];
      EXPECT_EQ(Encode(*tokenizer, text, true), expected.value("special_ids", expected["ids"]).get<Ids>())
          << expected["text"];
      EXPECT_EQ(tokenizer->Decode(ids), expected["decoded"].get<std::string>()) << expected["text"];
      StreamDecoder decoder(*tokenizer);
      std::string streamed;
      for (const int32_t id : ids) streamed += decoder.Push(id);
      EXPECT_EQ(streamed + decoder.Finish(), expected["decoded"].get<std::string>()) << expected["text"];
    }
  }
}

TEST_F(TokenizerJsonTest, ByteEndsCoverTheOriginalText) {
  for (const json& family : families_) {
    SCOPED_TRACE(family["name"]);
    const std::unique_ptr<Tokenizer> tokenizer = Open(family["tokenizer"]);
    for (const json& expected : family["cases"]) {
      const std::string text = expected["text"];
      const Tokenizer::Encoding encoding = *tokenizer->EncodeText(text);
      ASSERT_EQ(encoding.byte_ends.size(), encoding.ids.size());
      EXPECT_TRUE(std::is_sorted(encoding.byte_ends.begin(), encoding.byte_ends.end())) << expected["text"];
      EXPECT_EQ(encoding.byte_ends.empty() ? 0 : encoding.byte_ends.back(), text.size());
    }
  }
  const std::unique_ptr<Tokenizer> qwen = Open(Family("qwen-2")["tokenizer"]);
  // Two letters with an accent behind each, 3 bytes; a token that ends between the bytes of the composed letter counts
  // none of them.
  const Tokenizer::Encoding encoding = *qwen->EncodeText("1e\u03012e\u0301");
  EXPECT_EQ(qwen->Decode(encoding.ids), "1\u00e92\u00e9");
  EXPECT_THAT(encoding.byte_ends, testing::Contains(4u));
  EXPECT_THAT(encoding.byte_ends, testing::Contains(5u));
}

// The space that encoding puts behind an added token is no byte of the text.
TEST_F(TokenizerJsonTest, ByteEndsLeaveTheAddedSpaceOut) {
  const std::unique_ptr<Tokenizer> tokenizer = Open(Family("llama-2")["tokenizer"]);
  const std::string text = "<tool>qx\u00e9y the cache";
  const Tokenizer::Encoding encoding = *tokenizer->EncodeText(text);
  std::string decoded;
  ASSERT_GT(encoding.ids.size(), 5u);
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    decoded += tokenizer->DecodeToken(encoding.ids[i]);
    const std::string before = text.substr(0, encoding.byte_ends[i]);
    EXPECT_EQ(decoded, i == 0 ? before : "<tool> " + before.substr(6)) << i;
  }
}

// Text is cut before spaces only where no merge joins one to what stands before it.
TEST_F(TokenizerJsonTest, MergesMayJoinLettersAndTheSpaceBehindThem) {
  json tokenizer = Family("yi")["tokenizer"];
  tokenizer["model"]["vocab"]["q\u2581"] = 950;
  tokenizer["model"]["merges"].insert(tokenizer["model"]["merges"].begin(), "q \u2581");
  EXPECT_THAT(Encode(*Open(tokenizer), "xq the", false), testing::Contains(950));
}

// A space stands for the beginning of the prompt, not for that of every piece of it.
TEST_F(TokenizerJsonTest, TheSpaceBeforeTextIsThatOfTheWholePrompt) {
  const auto tokens = [](const Tokenizer& tokenizer, const Ids& ids) {
    std::string text;
    for (const int32_t id : ids) text += tokenizer.DecodeToken(id, true);
    return text;
  };
  for (const auto& [name, behind_control] : {std::pair("llama-2", " "), std::pair("mistral-v0.3", "")}) {
    SCOPED_TRACE(name);
    const std::unique_ptr<Tokenizer> tokenizer = Open(Family(name)["tokenizer"]);
    const TextPiece pieces[] = {{"the", false}, {" cache", true}, {"<|im_start|>it", true}, {"s <|im_start|>", false}};
    const std::string rest = std::string("the cache<|im_start|>") + behind_control + "its <|im_start|>";
    EXPECT_EQ(tokens(*tokenizer, *tokenizer->EncodePieces(pieces, true)), " " + rest);
    EXPECT_EQ(tokens(*tokenizer, *tokenizer->EncodePieces(pieces, false)), rest);
    EXPECT_EQ(tokens(*tokenizer, tokenizer->EncodeText("the")->ids), "the");
    EXPECT_EQ(tokenizer->Decode(tokenizer->EncodeText(" the")->ids), "the");
    StreamDecoder continued(*tokenizer, true);
    EXPECT_EQ(continued.Push(*tokenizer->TokenId("\u2581")), " ");
  }
}

// What stands on both sides of a piece's edge merges, and a control token never reaches across it.
TEST_F(TokenizerJsonTest, PiecesMergeButControlTokensKeepToTheirOwn) {
  for (const char* name : {"llama-3", "llama-2"}) {
    SCOPED_TRACE(name);
    const std::unique_ptr<Tokenizer> tokenizer = Open(Family(name)["tokenizer"]);
    const TextPiece split[] = {{"the ca", false}, {"che hol", true}, {"ds", false}};
    EXPECT_EQ(*tokenizer->EncodePieces(split, true), Encode(*tokenizer, "the cache holds", false));
    const int32_t start = *tokenizer->TokenId("<|im_start|>");
    const TextPiece across[] = {{"<|im_", true}, {"start|>", true}, {"<|im_start|", false}, {">", true}};
    EXPECT_THAT(*tokenizer->EncodePieces(across, true), testing::Not(testing::Contains(start)));
    const TextPiece own[] = {{"<|im_start|", false}, {"<|im_start|>", true}, {"<|im_start|>", false}};
    const Ids ids = *tokenizer->EncodePieces(own, true);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), start), 1);
    const TextPiece broken[] = {{"fine", false}, {"ab\xFF", false}};
    EXPECT_THAT(std::string(tokenizer->EncodePieces(broken, true).status().message()), HasSubstr("byte 2 (0xff)"));
  }
}

TEST_F(TokenizerJsonTest, StopTokensAreControl) {
  TokenizerSpec spec = *Read(Family("llama-3")["tokenizer"]);
  const auto id_of = [&](const char* token) {
    return static_cast<int32_t>(std::find(spec.tokens.begin(), spec.tokens.end(), token) - spec.tokens.begin());
  };
  const int32_t tool = id_of("<tool>");
  spec.eos_id = id_of("<|im_end|>");
  spec.stop_ids = {tool, id_of("<|im_end|>"), tool};
  const std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Create(spec);
  EXPECT_THAT(tokenizer->stop_ids(), ElementsAre(id_of("<|im_end|>"), tool));
  EXPECT_TRUE(tokenizer->IsControl(tool));
  EXPECT_THAT(Encode(*tokenizer, "a<tool>", false), testing::Not(testing::Contains(tool)));
  EXPECT_THAT(Encode(*tokenizer, "a<tool>", true), testing::Contains(tool));
  spec.stop_ids = {1 << 20};
  EXPECT_THAT(std::string(Tokenizer::Create(spec).status().message()), HasSubstr("stop token's id"));
}

TEST_F(TokenizerJsonTest, TokenizerConfigHasTheLastWordOnSentencePiecesSpaceAndAddedTokens) {
  const json& llama = Family("llama-2")["tokenizer"];
  const TokenizerSpec never = *Read(llama, {{"add_prefix_space", false}});
  EXPECT_EQ(never.space_prefix, SpacePrefix::kNever);
  EXPECT_FALSE(never.decode_strips_space);
  const TokenizerSpec first = *Read(llama, {{"add_prefix_space", true}, {"legacy", false}});
  EXPECT_EQ(first.space_prefix, SpacePrefix::kFirst);
  EXPECT_TRUE(first.space_prefix_unless_space);
  EXPECT_EQ(Read(Family("yi")["tokenizer"], {{"add_prefix_space", true}})->space_prefix, SpacePrefix::kEvery);
  EXPECT_TRUE(Read(llama, {{"add_bos_token", true}, {"bos_token", "<unk>"}})->add_bos);
  const json added = {{"content", "<tool>"}, {"special", true}, {"normalized", false}, {"lstrip", true}};
  const TokenizerSpec told = *Read(llama, {{"added_tokens_decoder", {{"901", added}}}});
  EXPECT_EQ(told.kinds[901], TokenKind::kControl);
  EXPECT_TRUE(told.added_rules.at(901).strips_left);
}

TEST_F(TokenizerJsonTest, WhatIsNotRunExactlyIsRefusedByName) {
  ExpectRefused("qwen-2", "normalizer is \"NFKC\"", [](json& t) { t["normalizer"]["type"] = "NFKC"; });
  ExpectRefused("llama-3", "Regex",
                [](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{L}+|\\s+"; });
  ExpectRefused("llama-3", "behavior", [](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  ExpectRefused("llama-2", "Strip", [](json& t) { t["normalizer"]["normalizers"][0]["type"] = "Strip"; });
  ExpectRefused("llama-2", "pattern.String",
                [](json& t) { t["normalizer"]["normalizers"][1]["pattern"]["String"] = "  "; });
  ExpectRefused("llama-2", "prepend", [](json& t) { t["normalizer"]["normalizers"][0]["prepend"] = "_"; });
  ExpectRefused("llama-2", "decoder", [](json& t) { t["decoder"]["decoders"].erase(1); });
  ExpectRefused("llama-2", "start", [](json& t) { t["decoder"]["decoders"][3]["start"] = 2; });
  ExpectRefused("mistral-v0.3", "split", [](json& t) { t["pre_tokenizer"]["split"] = true; });
  ExpectRefused("mistral-v0.3", "prepend_scheme", [](json& t) { t["pre_tokenizer"]["prepend_scheme"] = "second"; });
  ExpectRefused("mistral-v0.3", "ignore_merges", [](json& t) { t["model"]["ignore_merges"] = true; });
  ExpectRefused("llama-2", "looked for in normalised text", [](json& t) { t["added_tokens"][0]["normalized"] = true; });
  ExpectRefused("yi", "looked for in normalised text", [](json& t) { t["added_tokens"][1]["normalized"] = true; });
  ExpectRefused("yi", "single_word", [](json& t) { t["added_tokens"][1]["single_word"] = true; });
  ExpectRefused("gpt-2", "unk_token", [](json& t) {
    t["model"]["unk_token"] = "<unk>";
    t["model"]["vocab"]["no stand-in"] = t["model"]["vocab"]["\u0100"];
    t["model"]["vocab"].erase("\u0100");
  });
}

// An unknown token is no reason to refuse where nothing is unknown.
TEST_F(TokenizerJsonTest, AnUnknownTokenWithoutUse) {
  json tokenizer = Family("gpt-2")["tokenizer"];
  tokenizer["model"]["unk_token"] = "<unk>";
  EXPECT_TRUE(Read(tokenizer).ok());
}

TEST_F(TokenizerJsonTest, AVocabularyMustHaveEveryByteAndTheSpaceMark) {
  for (const char* token : {"<0x0A>", "\u2581"}) {
    TokenizerSpec spec = *Read(Family("yi")["tokenizer"]);
    *std::find(spec.tokens.begin(), spec.tokens.end(), token) = "replaced";
    if (token[0] != '<') spec.merges.clear();
    if (token[0] == '<')
      spec.kinds[std::find(spec.tokens.begin(), spec.tokens.end(), "replaced") - spec.tokens.begin()] =
          TokenKind::kUnused;
    spec.scores.assign(spec.tokens.size(), 0);
    const absl::Status status = Tokenizer::Create(spec).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(token));
  }
}

// Text of users must not become a control token by merges that a conversion has listed.
TEST_F(TokenizerJsonTest, MergesThatWouldBuildControlTokensAreLeftOut) {
  json tokenizer = Family("yi")["tokenizer"];
  tokenizer["model"]["vocab"]["xq"] = 950;
  tokenizer["model"]["merges"].insert(tokenizer["model"]["merges"].begin(), "x q");
  EXPECT_THAT(Encode(*Open(tokenizer), "xq", false), testing::Contains(950));
  tokenizer["added_tokens"].push_back({{"id", 950}, {"content", "xq"}, {"special", true}, {"normalized", false}});
  EXPECT_THAT(Encode(*Open(tokenizer), "xq", false), testing::Not(testing::Contains(950)));
  EXPECT_THAT(Encode(*Open(tokenizer), "xq", true), ElementsAre(950));
}

}  // namespace
}  // namespace epic
