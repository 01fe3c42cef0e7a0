// The tokenizer and chat template of a real model file against what the reference says of them.
// EPIC_MODEL names the file (SmolLM2-135M-Instruct, GGUF); without it these tests are skipped.
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine/files/model_file.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/chat_template.h"
#include "engine/text/text_golden.h"
#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using Ids = std::vector<int32_t>;

class TokenizerModelTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("EPIC_MODEL");
    if (path == nullptr || *path == '\0') {
      GTEST_SKIP() << "set EPIC_MODEL to SmolLM2-135M-Instruct as GGUF to run this test";
    }
    absl::StatusOr<std::unique_ptr<ModelFile>> file = OpenModelFile(path);
    ASSERT_TRUE(file.ok()) << file.status();
    spec_ = (*file)->tokenizer();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec_);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    golden_ = ReadTextGolden("smollm2.json");
    texts_ = ReadTextGolden("small.json")["cases"];
    if (tokenizer_->vocab_size() != golden_["vocab_size"].get<int32_t>()) {
      GTEST_SKIP() << "EPIC_MODEL is not SmolLM2: its vocabulary has " << tokenizer_->vocab_size() << " tokens";
    }
    ASSERT_EQ(texts_.size(), golden_["cases"].size());
  }

  // This vocabulary has no tokens for 21 bytes, which the reference leaves out.
  std::string WithoutBytesWithoutTokens(const std::string& text) const {
    std::string kept;
    for (const char byte : text) {
      if (tokenizer_->TokenId(ByteToAlphabet(static_cast<uint8_t>(byte)))) kept.push_back(byte);
    }
    return kept;
  }

  TokenizerSpec spec_;
  std::unique_ptr<Tokenizer> tokenizer_;
  nlohmann::json golden_;
  nlohmann::json texts_;
};

TEST_F(TokenizerModelTest, IdsEqualTheReference) {
  for (size_t i = 0; i < texts_.size(); ++i) {
    const std::string text = texts_[i]["text"];
    const nlohmann::json& golden = golden_["cases"][i];
    const Ids expected = golden["ids"];
    const auto encoding = tokenizer_->EncodeText(text);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(encoding->ids, expected) << texts_[i]["text"];
    EXPECT_EQ(tokenizer_->Decode(encoding->ids), WithoutBytesWithoutTokens(text));
    const auto with_specials = tokenizer_->EncodeWithSpecials(text);
    ASSERT_TRUE(with_specials.ok()) << with_specials.status();
    EXPECT_EQ(*with_specials, golden.contains("special_ids") ? golden["special_ids"].get<Ids>() : expected)
        << texts_[i]["text"];
  }
}

TEST_F(TokenizerModelTest, ChatEqualsTheReference) {
  const auto chat = ChatTemplate::Recognise(spec_);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ((*chat)->name(), "chatml-default-system");
  for (const std::string& stop : (*chat)->stop_tokens()) {
    const std::optional<int32_t> id = tokenizer_->TokenId(stop);
    ASSERT_TRUE(id.has_value());
    EXPECT_TRUE(tokenizer_->IsControl(*id));
    EXPECT_EQ(id, tokenizer_->eos_id());
  }
  const nlohmann::json conversations = ReadTextGolden("chat.json")["conversations"];
  for (size_t i = 0; i < conversations.size(); ++i) {
    const std::vector<std::pair<std::string, std::string>> conversation = conversations[i];
    std::vector<ChatMessage> messages;
    for (const auto& [role, content] : conversation) messages.push_back({role, {{content}}});
    const auto spans = (*chat)->Render(messages, {});
    ASSERT_TRUE(spans.ok()) << spans.status();
    std::string text;
    std::vector<TextPiece> pieces;
    for (const TemplateSpan& span : *spans) {
      text += span.text;
      pieces.push_back({span.text, span.kind == TemplateSpan::Kind::kTemplate});
    }
    const auto ids = tokenizer_->EncodePieces(pieces, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(text, golden_["chat"]["rendered"][i]);
    EXPECT_EQ(*ids, golden_["chat"]["ids"][i].get<Ids>());
  }
}

// This model's own tokenizer adds no BOS although the file names one.
TEST_F(TokenizerModelTest, SequencesStartWithoutBos) {
  EXPECT_EQ(tokenizer_->sequence_start_id(), std::nullopt);
  EXPECT_EQ(tokenizer_->eos_id(), tokenizer_->TokenId("<|im_end|>"));
}

}  // namespace
}  // namespace epic
