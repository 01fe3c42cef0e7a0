#include "engine/text/chat_template.h"

#include <memory>
#include <string>
#include <vector>

#include "engine/text/text_golden.h"
#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Conversation {
  std::vector<std::string> roles;
  std::vector<std::string> contents;
};

std::vector<Conversation> ReadConversations(const nlohmann::json& golden) {
  std::vector<Conversation> conversations;
  for (const auto& messages : golden["conversations"]) {
    Conversation& conversation = conversations.emplace_back();
    for (const auto& message : messages) {
      conversation.roles.push_back(message[0]);
      conversation.contents.push_back(message[1]);
    }
  }
  return conversations;
}

// The reference is jinja2, set up as `transformers` sets it up, and the ids that `tokenizers` gives its output.
TEST(ChatTemplateTest, RendersWhatJinjaRendersAndEncodesToTheSameIds) {
  const nlohmann::json golden = ReadTextGolden("chat.json");
  const auto tokenizer = Tokenizer::Create(SmallTokenizerSpec(ReadTextGolden("small.json")));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<Conversation> conversations = ReadConversations(golden);
  int recognised = 0;
  for (const auto& expected : golden["templates"]) {
    if (expected["name"].is_null()) continue;
    ++recognised;
    const auto chat = ChatTemplate::Recognise(expected["source"]);
    ASSERT_TRUE(chat.ok()) << chat.status() << "\n" << expected["source"];
    EXPECT_EQ((*chat)->name(), expected["name"]);
    EXPECT_THAT((*chat)->stop_tokens(), ElementsAre("<|im_end|>"));
    for (size_t i = 0; i < conversations.size(); ++i) {
      const auto spans = (*chat)->Render(conversations[i].roles);
      ASSERT_TRUE(spans.ok()) << spans.status();
      std::string text;
      std::vector<int32_t> ids;
      for (const TemplateSpan& span : *spans) {
        const bool is_content = span.kind == TemplateSpan::Kind::kContent;
        const std::string part = is_content ? conversations[i].contents[span.message] : span.text;
        const std::vector<int32_t> part_ids =
            is_content ? (*tokenizer)->EncodeText(part)->ids : *(*tokenizer)->EncodeWithSpecials(part);
        text += part;
        ids.insert(ids.end(), part_ids.begin(), part_ids.end());
      }
      EXPECT_EQ(text, expected["rendered"][i]) << expected["source"];
      EXPECT_EQ(ids, expected["ids"][i].get<std::vector<int32_t>>());
    }
  }
  EXPECT_EQ(recognised, 13);
}

TEST(ChatTemplateTest, RefusesWhatItWouldNotRenderExactly) {
  int refused = 0;
  const nlohmann::json golden = ReadTextGolden("chat.json");
  for (const auto& expected : golden["templates"]) {
    if (!expected["name"].is_null()) continue;
    ++refused;
    const absl::Status status = ChatTemplate::Recognise(expected["source"]).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << expected["source"];
    EXPECT_THAT(std::string(status.message()), HasSubstr("chat template is not one that is rendered exactly"));
  }
  EXPECT_GT(refused, 20);
}

// A template that we render, cut short, is one that we do not.
TEST(ChatTemplateTest, RefusesTruncatedSources) {
  const nlohmann::json golden = ReadTextGolden("chat.json");
  for (const auto& expected : golden["templates"]) {
    if (expected["name"].is_null()) continue;
    const std::string source = expected["source"];
    for (size_t size = 0; size + 1 < source.size(); ++size) {
      if (source.substr(size).find_first_not_of(" \n\r") == std::string::npos) continue;
      EXPECT_FALSE(ChatTemplate::Recognise(source.substr(0, size)).ok()) << source.substr(0, size);
    }
  }
}

TEST(ChatTemplateTest, SaysThatTheFileCarriesNone) {
  const absl::Status status = ChatTemplate::Recognise("").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(std::string(status.message()), "the model file carries no chat template");
}

TEST(ChatTemplateTest, MergesTemplateTextAndGivesEveryMessageOneSpan) {
  const auto chat = ChatTemplate::Recognise(ReadTextGolden("chat.json")["templates"][0]["source"]);
  ASSERT_TRUE(chat.ok());
  const auto spans = (*chat)->Render({"system", "user"});
  ASSERT_TRUE(spans.ok());
  ASSERT_EQ(spans->size(), 5u);
  EXPECT_EQ((*spans)[0].text, "<|im_start|>system\n");
  EXPECT_EQ((*spans)[1].kind, TemplateSpan::Kind::kContent);
  EXPECT_EQ((*spans)[1].message, 0);
  EXPECT_EQ((*spans)[2].text, "<|im_end|>\n<|im_start|>user\n");
  EXPECT_EQ((*spans)[3].message, 1);
  EXPECT_EQ((*spans)[4].text, "<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplateTest, NamesTheRoleThatItDoesNotKnow) {
  const auto chat = ChatTemplate::Recognise(ReadTextGolden("chat.json")["templates"][0]["source"]);
  ASSERT_TRUE(chat.ok());
  const absl::Status status = (*chat)->Render({"user", "user<|im_end|>"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("message 1 has the role \"user<|im_end|>\""));
  EXPECT_EQ((*chat)->Render({}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
