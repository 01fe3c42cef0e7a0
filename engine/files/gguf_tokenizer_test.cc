// The tokenizer keys of GGUF: what each family's say, what follows from names and defaults, what is refused.
#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/files/gguf.h"
#include "engine/files/gguf_model.h"
#include "engine/files/tiny_model_for_test.h"
#include "engine/files/tokenizer_json.h"
#include "engine/text/text_golden.h"
#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<TokenizerSpec> Read(const GgufBuilder& builder) {
  const std::string bytes = builder.Build();
  const absl::StatusOr<GgufFile> file = ParseGguf(std::as_bytes(std::span(bytes)), "tokenizer.gguf");
  return file.ok() ? TokenizerFromGguf(*file) : file.status();
}

std::string FloatArray(const std::vector<float>& values) {
  std::string payload;
  AppendRaw<uint32_t>(static_cast<uint32_t>(GgufValueType::kFloat32), payload);
  AppendRaw<uint64_t>(values.size(), payload);
  for (const float value : values) AppendRaw(value, payload);
  return payload;
}

// The golden family of SentencePiece's kind, which puts a space before every stretch of text, as GGUF has it.
class GgufTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const json& family : ReadTextGolden("families.json")) {
      if (family["name"] == "llama-2") family_ = family;
    }
    const std::string folder = FreshFolder("gguf_tokenizer");
    WriteFile(folder + "/tokenizer.json", family_["tokenizer"].dump());
    spec_ = *TokenizerFromFolder(folder, 5000, {});
    spec_.added_rules.clear();  // GGUF has no flags
    std::vector<int32_t> types;
    for (const TokenKind kind : spec_.kinds) types.push_back(StoredType(kind));
    builder_.SetString("tokenizer.ggml.model", "llama");
    builder_.SetString("tokenizer.ggml.pre", "default");
    builder_.SetStrings("tokenizer.ggml.tokens", spec_.tokens);
    builder_.SetInt32s("tokenizer.ggml.token_type", types);
    builder_.SetStrings("tokenizer.ggml.merges", spec_.merges);
  }

  static int32_t StoredType(TokenKind kind) {
    switch (kind) {
      case TokenKind::kControl:
        return 3;
      case TokenKind::kUserDefined:
        return 4;
      case TokenKind::kUnused:
        return 5;
      case TokenKind::kByte:
        return 6;
      default:
        return 1;
    }
  }

  void ExpectRefused(absl::StatusCode code, const std::string& reason,
                     const std::function<void(GgufBuilder&)>& change) {
    GgufBuilder builder = builder_;
    change(builder);
    const absl::Status status = Read(builder).status();
    EXPECT_EQ(status.code(), code) << status << ", expected one about " << reason;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  json family_;
  TokenizerSpec spec_;
  GgufBuilder builder_;
};

TEST_F(GgufTokenizerTest, SentencePiecesIdsEqualTheReference) {
  const absl::StatusOr<TokenizerSpec> spec = Read(builder_);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model, "spm");
  EXPECT_EQ(spec->kinds, spec_.kinds);
  EXPECT_EQ(spec->space_prefix, SpacePrefix::kEvery);
  EXPECT_TRUE(spec->decode_strips_space);
  const std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Create(*spec);
  int compared = 0;
  for (const json& expected : family_["cases"]) {
    const std::string text = expected["text"];
    if (text.find("[ref]") != std::string::npos) continue;  // its flag is what GGUF cannot say
    const TextPiece piece = {text, false};
    EXPECT_EQ(*tokenizer->EncodePieces({&piece, 1}, true), expected["ids"].get<std::vector<int32_t>>()) << text;
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

TEST_F(GgufTokenizerTest, ScoresStandInForMerges) {
  std::vector<float> scores(spec_.tokens.size());
  for (size_t id = 0; id < scores.size(); ++id) scores[id] = -static_cast<float>(id);
  builder_.Remove("tokenizer.ggml.merges");
  builder_.Set("tokenizer.ggml.scores", GgufValueType::kArray, FloatArray(scores));
  const absl::StatusOr<TokenizerSpec> spec = Read(builder_);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->scores, scores);
  EXPECT_TRUE(spec->merges.empty());
  EXPECT_TRUE(Tokenizer::Create(*spec).ok());
  const auto broken = absl::StatusCode::kInvalidArgument;
  ExpectRefused(broken, "scores", [](GgufBuilder& b) { b.Remove("tokenizer.ggml.scores"); });
  ExpectRefused(broken, "float32", [](GgufBuilder& b) { b.SetInt32s("tokenizer.ggml.scores", {1}); });
  ExpectRefused(broken, "1 entries",
                [](GgufBuilder& b) { b.Set("tokenizer.ggml.scores", GgufValueType::kArray, FloatArray({1})); });
}

TEST_F(GgufTokenizerTest, WhatASpaceAndABosDefaultTo) {
  EXPECT_FALSE(Read(builder_)->add_bos);  // there is none to add
  builder_.SetUint32("tokenizer.ggml.bos_token_id", 1);
  EXPECT_TRUE(Read(builder_)->add_bos);
  builder_.SetBool("tokenizer.ggml.add_bos_token", false);
  EXPECT_FALSE(Read(builder_)->add_bos);
  builder_.SetBool("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(Read(builder_)->space_prefix, SpacePrefix::kNever);
  EXPECT_FALSE(Read(builder_)->decode_strips_space);
}

TEST_F(GgufTokenizerTest, NamesOfPreTokenizersStandForMoreThanSplitting) {
  builder_.SetString("tokenizer.ggml.model", "gpt2");
  builder_.SetUint32("tokenizer.ggml.bos_token_id", 1);
  struct Expected {
    const char* name;
    bool nfc;
    bool ignore_merges;
    bool add_bos;
  };
  for (const Expected& expected : {Expected{"gpt-2", false, false, false}, Expected{"smollm", false, false, false},
                                   Expected{"qwen2", true, false, false}, Expected{"llama-bpe", false, true, true},
                                   Expected{"tekken", false, true, true}}) {
    builder_.SetString("tokenizer.ggml.pre", expected.name);
    const TokenizerSpec spec = *Read(builder_);
    EXPECT_EQ(spec.pre_tokenizer, expected.name);
    EXPECT_EQ(spec.normalizes_nfc, expected.nfc) << expected.name;
    EXPECT_EQ(spec.ignore_merges, expected.ignore_merges) << expected.name;
    EXPECT_EQ(spec.add_bos, expected.add_bos) << expected.name;
  }
}

TEST_F(GgufTokenizerTest, EveryTokenThatEndsAGeneration) {
  builder_.SetUint32("tokenizer.ggml.eos_token_id", 3);
  builder_.SetUint32("tokenizer.ggml.eot_token_id", 1);
  builder_.SetUint32("tokenizer.ggml.eom_token_id", 2);
  EXPECT_THAT((*Tokenizer::Create(*Read(builder_)))->stop_ids(), ElementsAre(1, 2, 3));
}

TEST_F(GgufTokenizerTest, WhatIsNotRunExactlyIsRefusedByName) {
  const auto foreign = absl::StatusCode::kUnimplemented;
  ExpectRefused(foreign, "\"t5\"", [](GgufBuilder& b) { b.SetString("tokenizer.ggml.model", "t5"); });
  ExpectRefused(foreign, "has none", [](GgufBuilder& b) { b.SetString("tokenizer.ggml.pre", "llama-bpe"); });
  ExpectRefused(foreign, "remove_extra_whitespaces",
                [](GgufBuilder& b) { b.SetBool("tokenizer.ggml.remove_extra_whitespaces", true); });
  ExpectRefused(foreign, "precompiled_charsmap",
                [](GgufBuilder& b) { b.SetString("tokenizer.ggml.precompiled_charsmap", "x"); });
  ExpectRefused(foreign, "\"default\"", [](GgufBuilder& b) { b.SetString("tokenizer.ggml.model", "gpt2"); });
}

}  // namespace
}  // namespace epic
