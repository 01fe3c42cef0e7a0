#include "engine/text/chat_template.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/text/chat_golden.h"
#include "engine/text/chat_template_table.h"
#include "engine/text/template_source.h"
#include "engine/text/tokenizer.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using std::chrono::day;
using std::chrono::month;
using std::chrono::year;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using Kind = TemplateSpan::Kind;

constexpr std::chrono::year_month_day kDay(year(2026), month(3), day(5));

// For layouts: a vocabulary that has every token that one of them writes.
TokenizerSpec SpecOf(const std::string& source, const std::string& bos = "<s>", const std::string& eos = "</s>") {
  TokenizerSpec spec;
  spec.tokens = {"<s>",        "</s>",   "<|im_start|>",      "<|im_end|>",          "<|begin_of_text|>",
                 "<|eot_id|>", "[INST]", "<|end_header_id|>", "<|start_header_id|>", "[/INST]"};
  spec.kinds.assign(spec.tokens.size(), TokenKind::kControl);
  const auto id_of = [&](const std::string& token) {
    return static_cast<int32_t>(std::find(spec.tokens.begin(), spec.tokens.end(), token) - spec.tokens.begin());
  };
  spec.bos_id = id_of(bos);
  spec.eos_id = id_of(eos);
  spec.chat_template = source;
  return spec;
}

std::vector<ChatMessage> MessagesOf(const Conversation& conversation) {
  std::vector<ChatMessage> messages;
  for (const auto& [role, content] : conversation) messages.push_back({role, {{content}}});
  return messages;
}

std::string TextOf(const std::vector<TemplateSpan>& spans) {
  std::string text;
  for (const TemplateSpan& span : spans) text += span.text;
  return text;
}

std::unique_ptr<ChatTemplate> Layout(const std::string& golden_name) {
  return MakeChatLayout(GoldenLayout(golden_name).layout, GoldenLayout(golden_name).texts);
}

absl::Status RefusalOf(const std::string& golden_name, const Conversation& conversation) {
  return Layout(golden_name)->Render(MessagesOf(conversation), kDay).status();
}

// The reference is `transformers` with the published templates (tests/golden/make_chat_golden.py).
TEST(ChatLayoutTest, RendersWhatTransformersRenders) {
  const nlohmann::json golden = ReadChatGolden("chat.json");
  const std::vector<Conversation> conversations = golden["conversations"];
  std::set<ChatLayout> seen;
  for (const auto& expected : golden["layouts"]) {
    const std::string name = expected["layout"];
    seen.insert(GoldenLayout(name).layout);
    const auto layout = Layout(name);
    for (size_t i = 0; i < conversations.size(); ++i) {
      const auto spans = layout->Render(MessagesOf(conversations[i]), kDay);
      if (expected["cases"][i].is_null()) {
        EXPECT_EQ(spans.status().code(), absl::StatusCode::kInvalidArgument) << name << " " << i;
        EXPECT_THAT(std::string(spans.status().message()), HasSubstr("message ")) << name;
        continue;
      }
      ASSERT_TRUE(spans.ok()) << name << ": " << spans.status();
      EXPECT_EQ(TextOf(*spans), expected["cases"][i]["text"]) << name << " " << i;
    }
  }
  EXPECT_EQ(seen.size(), 18u) << "every layout has a golden";
}

TEST(ChatLayoutTest, EncodesToTheSameIds) {
  const nlohmann::json golden = ReadChatGolden("chat.json");
  const std::vector<Conversation> conversations = golden["conversations"];
  for (const std::string kind : {"bytes", "spm"}) {
    for (const auto& expected : golden["layouts"]) {
      const std::string name = expected["layout"];
      const auto layout = Layout(name);
      TokenizerSpec spec = ChatTokenizerSpec(golden, kind);
      LeaveBracketsText(*layout, spec);
      const auto tokenizer = Tokenizer::Create(std::move(spec));
      ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
      for (size_t i = 0; i < conversations.size(); ++i) {
        if (expected["cases"][i].is_null()) continue;
        const auto spans = layout->Render(MessagesOf(conversations[i]), kDay);
        ASSERT_TRUE(spans.ok()) << spans.status();
        std::vector<TextPiece> pieces;
        for (const TemplateSpan& span : *spans) pieces.push_back({span.text, span.kind == Kind::kTemplate});
        const auto ids = (*tokenizer)->EncodePieces(pieces, true);
        ASSERT_TRUE(ids.ok()) << ids.status();
        EXPECT_EQ(*ids, expected["cases"][i][kind].get<std::vector<int32_t>>()) << name << " " << kind << " " << i;
      }
    }
  }
}

// However a message's text is cut into parts, it is the same prompt.
TEST(ChatLayoutTest, PartsOfTextAreOneText) {
  const nlohmann::json golden = ReadChatGolden("chat.json");
  const std::vector<Conversation> conversations = golden["conversations"];
  for (const auto& expected : golden["layouts"]) {
    const auto layout = Layout(expected["layout"]);
    for (const Conversation& conversation : conversations) {
      std::vector<ChatMessage> cut;
      for (const auto& [role, content] : conversation) {
        ChatMessage& message = cut.emplace_back(ChatMessage{role, {}});
        for (const char& byte : content) message.parts.push_back({std::string_view(&byte, 1)});
      }
      const auto whole = layout->Render(MessagesOf(conversation), kDay);
      const auto spans = layout->Render(cut, kDay);
      ASSERT_EQ(spans.ok(), whole.ok());
      if (whole.ok()) {
        EXPECT_EQ(*spans, *whole) << expected["layout"];
      }
    }
  }
}

// What a message has before and behind a document is trimmed on its outer side only, and the document stays.
TEST(ChatLayoutTest, DocumentsStandWhereTheirMessageHasThem) {
  const auto golden = ReadChatGolden("chat.json");
  for (const auto& expected : golden["layouts"]) {
    const auto layout = Layout(expected["layout"]);
    const std::vector<ChatMessage> messages = {{"user", {{" before "}, {"", true}, {"", true}, {" behind "}}}};
    const auto spans = layout->Render(messages, kDay);
    ASSERT_TRUE(spans.ok()) << spans.status();
    size_t first = 0;
    while (first < spans->size() && (*spans)[first].kind != Kind::kOpaque) ++first;
    ASSERT_LT(first + 2, spans->size());
    EXPECT_EQ((*spans)[first], (TemplateSpan{Kind::kOpaque, "", 0, 1}));
    EXPECT_EQ((*spans)[first + 1], (TemplateSpan{Kind::kOpaque, "", 0, 2}));
    EXPECT_THAT((*spans)[first - 1].text, testing::EndsWith("before ")) << expected["layout"];
    EXPECT_THAT((*spans)[first + 2].text, testing::StartsWith(" behind")) << expected["layout"];
    // In the place of text that holds them, nothing else changes.
    const std::vector<ChatMessage> text = {{"user", {{" before DOCUMENTS behind "}}}};
    const auto whole = layout->Render(text, kDay);
    ASSERT_TRUE(whole.ok());
    std::string expected_text = TextOf(*whole);
    expected_text.erase(expected_text.find("DOCUMENTS"), std::string("DOCUMENTS").size());
    EXPECT_EQ(TextOf(*spans), expected_text);
  }
}

TEST(ChatLayoutTest, WhiteSpaceBesideADocumentStays) {
  const std::vector<ChatMessage> messages = {{"user", {{" \n"}, {"", true}, {"\u00a0\n"}}}};
  const auto spans = Layout("llama-3")->Render(messages, kDay);
  ASSERT_TRUE(spans.ok()) << spans.status();
  ASSERT_EQ(spans->size(), 3u) << "the outer white space is trimmed away";
  EXPECT_EQ((*spans)[1].kind, Kind::kOpaque);
  const std::vector<ChatMessage> inner = {{"user", {{"", true}, {" \n"}, {"", true}}}};
  const auto kept = Layout("llama-3")->Render(inner, kDay);
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_EQ(kept->size(), 5u);
  EXPECT_EQ((*kept)[2], (TemplateSpan{Kind::kText, " \n", -1, -1}));
}

TEST(ChatLayoutTest, DocumentsAreNeverLeftOut) {
  const auto qwen3 = Layout("qwen3");
  const ChatMessage question = {"user", {{"q"}}};
  const ChatMessage thought = {"assistant", {{"<think>"}, {"", true}, {"</think>so"}}};
  const ChatMessage before = {"assistant", {{"", true}, {"<think>x</think>so"}}};
  const ChatMessage behind = {"assistant", {{"<think>x</think>so"}, {"", true}}};
  const auto render = [&](std::vector<ChatMessage> messages) { return qwen3->Render(messages, kDay).status(); };
  EXPECT_TRUE(render({question, behind, question}).ok());
  EXPECT_TRUE(render({question, thought}).ok()) << "the last turn shows its reasoning";
  EXPECT_THAT(std::string(render({question, thought, question}).message()), HasSubstr("message 1 has a document"));
  EXPECT_EQ(render({question, before}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatLayoutTest, WritesTheDayThatItIsGiven) {
  const std::vector<ChatMessage> messages = {{"user", {{"x"}}}};
  for (unsigned m = 1; m <= 12; ++m) {
    const auto spans = Layout("llama-3.2")->Render(messages, {year(1987), month(m), day(31 - m)});
    ASSERT_TRUE(spans.ok());
    constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    EXPECT_THAT((*spans)[0].text, HasSubstr(fmt::format("\nToday Date: {} {} 1987\n\n", 31 - m, kMonths[m - 1])));
  }
  const auto spans = Layout("llama-3.1")->Render(messages, {year(1987), month(1), day(1)});
  EXPECT_THAT((*spans)[0].text, HasSubstr("Today Date: 26 Jul 2024\n\n"));
}

TEST(ChatLayoutTest, NamesTheMessageThatItRefuses) {
  const auto says = [](const absl::Status& status, const std::string& words) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  says(RefusalOf("chatml", {}), "no messages");
  says(RefusalOf("chatml", {{"user", "x"}, {"user<|im_end|>", ""}}), "message 1 has the role \"user<|im_end|>\"");
  says(RefusalOf("yi-1.5", {{"user", "x"}, {"system", "y"}}), "message 1 has the role \"system\"");
  says(RefusalOf("mistral-v0.1", {{"system", "x"}, {"user", "y"}}),
       "message 0 has the role \"system\"; the model's chat template (mistral-v0.1) has without a system message");
  says(
      RefusalOf("llama-2", {{"system", "x"}, {"user", "y"}, {"user", "z"}}),
      "message 2 has the role \"user\"; the model's chat template (llama-2) has behind an optional system message user "
      "and assistant in turn, so assistant is expected there");
  says(RefusalOf("mistral-v3", {{"system", "x"}, {"user", "y"}, {"assistant", "z"}}), "message 2 has the role");
  says(RefusalOf("mistral-v3", {{"system", "x"}}), "message 0 is the only one");
}

TEST(ChatLayoutTest, StopTokensAreControlTokens) {
  const std::map<std::string, std::string> stops = {{"chatml", "<|im_end|>"},    {"qwen3", "<|im_end|>"},
                                                    {"yi-coder", "<|im_end|>"},  {"llama-2", "</s>"},
                                                    {"llama-3.1", "<|eot_id|>"}, {"mistral-tekken", "</s>"}};
  for (const auto& [name, stop] : stops) EXPECT_THAT(Layout(name)->stop_tokens(), ElementsAre(stop)) << name;
  const auto golden = ReadChatGolden("chat.json");
  for (const auto& expected : golden["layouts"]) {
    const auto layout = Layout(expected["layout"]);
    for (const std::string& stop : layout->stop_tokens()) EXPECT_THAT(layout->control_tokens(), Contains(stop));
  }
}

TEST(RecogniseTest, KnowsChatMlInEverySpelling) {
  const std::vector<Conversation> conversations = ReadChatGolden("chat.json")["conversations"];
  int recognised = 0;
  for (const auto& expected : ReadChatGolden("spellings.json")) {
    if (expected["name"].is_null()) continue;
    ++recognised;
    const auto chat = ChatTemplate::Recognise(SpecOf(expected["source"]));
    ASSERT_TRUE(chat.ok()) << chat.status() << "\n" << expected["source"];
    EXPECT_EQ((*chat)->name(), expected["name"]);
    for (size_t i = 0; i < conversations.size(); ++i) {
      const auto spans = (*chat)->Render(MessagesOf(conversations[i]), kDay);
      ASSERT_TRUE(spans.ok()) << spans.status();
      EXPECT_EQ(TextOf(*spans), expected["rendered"][i]) << expected["source"];
    }
  }
  EXPECT_EQ(recognised, 15);
}

TEST(RecogniseTest, RefusesWhatItWouldNotRenderExactly) {
  int refused = 0;
  for (const auto& expected : ReadChatGolden("spellings.json")) {
    if (!expected["name"].is_null()) continue;
    ++refused;
    const absl::Status status = ChatTemplate::Recognise(SpecOf(expected["source"])).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << expected["source"];
    EXPECT_THAT(std::string(status.message()), HasSubstr("none of those that are rendered exactly"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("use raw prompts"));
  }
  EXPECT_GT(refused, 20);
}

// A template that we render, cut short, is one that we do not.
TEST(RecogniseTest, RefusesTruncatedSources) {
  for (const auto& expected : ReadChatGolden("spellings.json")) {
    if (expected["name"].is_null()) continue;
    const std::string source = expected["source"];
    for (size_t size = 0; size + 1 < source.size(); ++size) {
      if (source.substr(size).find_first_not_of(" \n\r") == std::string::npos) continue;
      EXPECT_FALSE(ChatTemplate::Recognise(SpecOf(source.substr(0, size))).ok()) << source.substr(0, size);
    }
  }
}

TEST(RecogniseTest, SaysWhatItDidNotExpect) {
  const auto message = [](const std::string& source) {
    return std::string(ChatTemplate::Recognise(SpecOf(source)).status().message());
  };
  EXPECT_EQ(message(""), "the model's files carry no chat template; use raw prompts, without chat");
  EXPECT_THAT(message("{%   for m in\n messages %}"), HasSubstr("{% for m in messages %} stands where ChatML has"));
  EXPECT_THAT(message("{% for message in messages %}Hello"), HasSubstr("the text \"Hello\" stands where"));
  EXPECT_THAT(message("{% for message in messages %}{{ message.role|upper }}"),
              HasSubstr("{{ message [ 'role' ] | upper }}"));
  EXPECT_THAT(message("{{ 'a"), HasSubstr("a string of it is never closed"));
}

std::string ChatMlSource() { return ReadChatGolden("spellings.json")[0]["source"]; }

TEST(RecogniseTest, NeedsTheTokensThatTheTemplateWrites) {
  TokenizerSpec spec = SpecOf(ChatMlSource());
  ASSERT_TRUE(ChatTemplate::Recognise(spec).ok());
  spec.tokens[3] = "<|im_over|>";
  const absl::Status status = ChatTemplate::Recognise(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(chatml) writes the token <|im_end|>, which its vocabulary"));
}

TEST(RecogniseTest, BosIsWhatTheVocabularySays) {
  const std::string source = "{{ bos_token }}" + ChatMlSource();
  const std::vector<ChatMessage> messages = {{"user", {{"x"}}}};
  const auto chat = ChatTemplate::Recognise(SpecOf(source, "<|begin_of_text|>"));
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ((*(*chat)->Render(messages, kDay))[0].text, "<|begin_of_text|><|im_start|>user\n");
  EXPECT_THAT((*chat)->control_tokens(), Contains("<|begin_of_text|>"));
  TokenizerSpec without = SpecOf(source);
  without.bos_id.reset();
  const auto none = ChatTemplate::Recognise(without);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ((*(*none)->Render(messages, kDay))[0].text, "<|im_start|>user\n");
}

TEST(RecogniseTest, ProtectsTheTokensThatTheTemplateWrites) {
  TokenizerSpec spec = SpecOf(ChatMlSource());
  spec.kinds.assign(spec.kinds.size(), TokenKind::kUserDefined);
  spec.added_rules = {{2, {true, false, true}}, {4, {true, false, true}}};
  const auto chat = ChatTemplate::Recognise(spec);
  ASSERT_TRUE(chat.ok()) << chat.status();
  ProtectControlTokens(**chat, spec);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const bool is_written = spec.tokens[id] == "<|im_start|>" || spec.tokens[id] == "<|im_end|>";
    EXPECT_EQ(spec.kinds[id], is_written ? TokenKind::kControl : TokenKind::kUserDefined) << spec.tokens[id];
  }
  EXPECT_EQ(spec.added_rules[2], (AddedTokenRule{true, false, false})) << "found in the text as it is";
  EXPECT_EQ(spec.added_rules[4], (AddedTokenRule{true, false, true}));
}

// Templates that differ in the words of their default system message only are one in the table.
TEST(RecogniseTest, TakesTheDefaultSystemMessageOut) {
  const auto steps_of = [](const std::string& words) {
    return *ReadTemplateSource("{% if tools %}{{ '" + words + "' }}{% else %}{{ '<|im_start|>system\\n" + words +
                               "<|im_end|>\\n' }}{% endif %}");
  };
  std::vector<TemplateStep> one = steps_of("Be kind.");
  std::vector<TemplateStep> two = steps_of("Be brief, and kind.");
  EXPECT_NE(HashOfSteps(one), HashOfSteps(two));
  EXPECT_EQ(TakeDefaultSystem(one), "Be kind.");
  EXPECT_EQ(TakeDefaultSystem(two), "Be brief, and kind.");
  EXPECT_EQ(HashOfSteps(one), HashOfSteps(two));
  std::vector<TemplateStep> none = *ReadTemplateSource("{{ '<|im_start|>system\\nx<|im_end|>y<|im_end|>\\n' }}");
  EXPECT_EQ(TakeDefaultSystem(none), std::nullopt);
}

TEST(RecogniseTest, KnowsNoHashThatIsNotInTheTable) {
  EXPECT_EQ(FindKnownLayout(""), std::nullopt);
  EXPECT_EQ(FindKnownLayout(std::string(64, '0')), std::nullopt);
}

// The published templates themselves, where somebody has collected them (tests/golden/collect_chat_templates.py).
TEST(RecogniseTest, KnowsThePublishedTemplates) {
  const char* folder = std::getenv("EPIC_CHAT_TEMPLATES");
  if (folder == nullptr) GTEST_SKIP() << "EPIC_CHAT_TEMPLATES names no folder of templates";
  const nlohmann::json golden = ReadChatGolden("chat.json");
  const std::vector<Conversation> conversations = golden["conversations"];
  int known = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename();
    const std::string layout = file.substr(0, file.find("--"));
    std::ifstream stream(entry.path());
    const std::string source((std::istreambuf_iterator<char>(stream)), {});
    const LayoutTexts texts = GoldenLayout(layout).texts;
    // A vocabulary may have BOS and EOS that the template does not write.
    const auto chat = ChatTemplate::Recognise(
        SpecOf(source, texts.bos.empty() ? "<s>" : texts.bos, texts.eos.empty() ? "</s>" : texts.eos));
    std::vector<TemplateStep> steps = *ReadTemplateSource(source);
    TakeDefaultSystem(steps);
    ASSERT_TRUE(chat.ok()) << file << ": " << chat.status() << "; its hash is " << HashOfSteps(steps);
    EXPECT_EQ((*chat)->name(), Layout(layout)->name()) << file;
    for (size_t i = 0; i < conversations.size(); ++i) {
      const auto spans = (*chat)->Render(MessagesOf(conversations[i]), kDay);
      const auto expected = Layout(layout)->Render(MessagesOf(conversations[i]), kDay);
      ASSERT_EQ(spans.ok(), expected.ok()) << file;
      if (spans.ok()) {
        EXPECT_EQ(*spans, *expected) << file;
      }
    }
    ++known;
  }
  EXPECT_GT(known, 5) << "too few templates in " << folder;
}

}  // namespace
}  // namespace epic
