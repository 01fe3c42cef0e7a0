#include "engine/prompt.h"

#include <memory>
#include <string>
#include <vector>

#include "engine/text/chat_golden.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr std::chrono::year_month_day kDay(std::chrono::year(2026), std::chrono::month(3), std::chrono::day(5));

PromptPart Text(std::string text) { return {PromptPart::Kind::kText, std::move(text), {}, nullptr}; }
PromptPart Tokens(Ids ids) { return {PromptPart::Kind::kTokens, "", std::move(ids), nullptr}; }
PromptPart Chunk(Ids ids) { return {PromptPart::Kind::kChunk, "", std::move(ids), nullptr}; }

// The golden vocabularies, with or without BOS at the beginning of sequences.
class PromptTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Tokenizer> TokenizerOf(const ChatTemplate* layout, bool adds_bos, const std::string& bos = "<s>") {
    TokenizerSpec spec = ChatTokenizerSpec(golden_, GetParam());
    if (layout != nullptr) LeaveBracketsText(*layout, spec);
    spec.bos_id = static_cast<int32_t>(std::find(spec.tokens.begin(), spec.tokens.end(), bos) - spec.tokens.begin());
    spec.add_bos = adds_bos;
    auto tokenizer = Tokenizer::Create(std::move(spec));
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  }
  static std::unique_ptr<ChatTemplate> Layout(const std::string& name) {
    return MakeChatLayout(GoldenLayout(name).layout, GoldenLayout(name).texts);
  }
  static std::vector<PromptMessage> MessagesOf(const Conversation& conversation) {
    std::vector<PromptMessage> messages;
    for (const auto& [role, content] : conversation) messages.push_back({role, {Text(content)}});
    return messages;
  }

  const nlohmann::json golden_ = ReadChatGolden("chat.json");
  const std::vector<Conversation> conversations_ = golden_["conversations"];
};

INSTANTIATE_TEST_SUITE_P(Vocabularies, PromptTest, testing::Values("bytes", "spm"),
                         [](const auto& parameter) { return parameter.param; });

// A prompt without documents is one segment with the ids of apply_chat_template, whose BOS is never doubled.
TEST_P(PromptTest, HasTheIdsOfTransformers) {
  for (const auto& expected : golden_["layouts"]) {
    const std::string name = expected["layout"];
    const auto layout = Layout(name);
    const std::string bos = GoldenLayout(name).texts.bos;
    const bool writes_bos = !bos.empty();
    const auto tokenizer = TokenizerOf(layout.get(), writes_bos, writes_bos ? bos : "<s>");
    for (size_t i = 0; i < conversations_.size(); ++i) {
      const auto prompt = BuildChatPrompt(*tokenizer, *layout, MessagesOf(conversations_[i]), kDay);
      ASSERT_EQ(prompt.ok(), !expected["cases"][i].is_null()) << name << " " << i;
      if (!prompt.ok()) continue;
      ASSERT_EQ(prompt->size(), 1u);
      EXPECT_FALSE((*prompt)[0].is_chunk);
      EXPECT_EQ((*prompt)[0].token_ids, expected["cases"][i][GetParam()].get<Ids>()) << name << " " << i;
    }
  }
}

// ChatML writes none: where the tokenizer starts a sequence with BOS, the prompt has it all the same.
TEST_P(PromptTest, BosStandsWhereTheTokenizerStartsWithIt) {
  const auto layout = Layout("chatml");
  const std::vector<PromptMessage> messages = MessagesOf(conversations_[0]);
  const auto without = BuildChatPrompt(*TokenizerOf(layout.get(), false), *layout, messages, kDay);
  const auto tokenizer = TokenizerOf(layout.get(), true);
  const auto with = BuildChatPrompt(*tokenizer, *layout, messages, kDay);
  ASSERT_TRUE(without.ok() && with.ok());
  Ids expected = (*without)[0].token_ids;
  expected.insert(expected.begin(), *tokenizer->sequence_start_id());
  EXPECT_EQ((*with)[0].token_ids, expected);
}

// The same ids around a document whatever its message has before it; only the document's place is its own.
TEST_P(PromptTest, DocumentsAreSegmentsOfTheirOwn) {
  const auto layout = Layout("llama-3");
  const auto tokenizer = TokenizerOf(layout.get(), true, "<|begin_of_text|>");
  const auto prompt = BuildChatPrompt(
      *tokenizer, *layout, {{"user", {Text(" Read: "), Chunk({20, 21}), Chunk({22}), Text(" and"), Text(" answer. ")}}},
      kDay);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  ASSERT_EQ(prompt->size(), 4u);
  EXPECT_TRUE((*prompt)[1].is_chunk && (*prompt)[2].is_chunk);
  EXPECT_THAT((*prompt)[1].token_ids, ElementsAre(20, 21));
  EXPECT_THAT((*prompt)[2].token_ids, ElementsAre(22));
  const std::vector<TextPiece> before = {{"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", true},
                                         {"Read: ", false}};
  const std::vector<TextPiece> behind = {{" and answer.", false},
                                         {"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", true}};
  EXPECT_EQ((*prompt)[0].token_ids, *tokenizer->EncodePieces(before, true));
  EXPECT_EQ((*prompt)[3].token_ids, *tokenizer->EncodePieces(behind, false));
}

TEST_P(PromptTest, TokenIdsJoinTheFreshTokensBesideThem) {
  const auto tokenizer = TokenizerOf(nullptr, false);
  const auto prompt =
      BuildRawPrompt(*tokenizer, {Text("one"), Tokens({30, 31}), Text("two"), Chunk({9}), Text("three")});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  ASSERT_EQ(prompt->size(), 3u);
  const auto ids_of = [&](std::string_view text, bool at_start) {
    return *tokenizer->EncodePieces(std::vector<TextPiece>{{text, false}}, at_start);
  };
  Ids expected = ids_of("one", true);
  expected.insert(expected.end(), {30, 31});
  const Ids two = ids_of("two", false);
  expected.insert(expected.end(), two.begin(), two.end());
  EXPECT_EQ((*prompt)[0].token_ids, expected);
  EXPECT_EQ((*prompt)[2].token_ids, ids_of("three", false));
}

TEST_P(PromptTest, RawPromptsStartWithBosOnce) {
  const auto tokenizer = TokenizerOf(nullptr, true);
  const int32_t bos = *tokenizer->sequence_start_id();
  const auto chunk_first = BuildRawPrompt(*tokenizer, {Chunk({20, 21}), Text("x")});
  ASSERT_TRUE(chunk_first.ok());
  ASSERT_EQ(chunk_first->size(), 3u);
  EXPECT_THAT((*chunk_first)[0].token_ids, ElementsAre(bos));
  EXPECT_FALSE((*chunk_first)[0].is_chunk);
  const auto given = BuildRawPrompt(*tokenizer, {Tokens({bos, 20})});
  ASSERT_TRUE(given.ok());
  EXPECT_THAT((*given)[0].token_ids, ElementsAre(bos, 20));
  const auto text = BuildRawPrompt(*tokenizer, {Text("<s>x")});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ((*text)[0].token_ids[0], bos);
  EXPECT_EQ(std::count((*text)[0].token_ids.begin(), (*text)[0].token_ids.end(), bos), 1) << "text never holds control";
}

TEST_P(PromptTest, RefusesBrokenParts) {
  const auto tokenizer = TokenizerOf(nullptr, false);
  const auto says = [&](const PromptPart& part, const std::string& words) {
    const absl::Status status = BuildRawPrompt(*tokenizer, {Text("x"), part}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  says(Chunk({}), "has no tokens");
  says(Chunk({3, tokenizer->vocab_size()}), "at index 1 is outside the model's vocabulary");
  says(Tokens({-1}), "token id -1 at index 0");
  says(Text("\xff"), "not UTF-8");
  const auto layout = Layout("mistral-v0.2");
  EXPECT_EQ(BuildChatPrompt(*tokenizer, *layout, {{"system", {Text("x")}}}, kDay).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
