// ChatML and what grew from it: Qwen 3 and Yi.
#include <algorithm>
#include <utility>

#include "core/status_macros.h"
#include "engine/text/chat_template_content.h"
#include "engine/text/chat_template_layouts.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";

class ChatMlFamily : public ChatTemplate {
 public:
  std::vector<std::string> stop_tokens() const override { return {std::string(kTurnEnd)}; }
  std::vector<std::string> control_tokens() const override { return {std::string(kTurnStart), std::string(kTurnEnd)}; }

 protected:
  static void Open(std::string_view role, TemplateSpans& spans) {
    AppendTemplate(fmt::format("{}{}\n", kTurnStart, role), spans);
  }
  static void Close(TemplateSpans& spans) { AppendTemplate(fmt::format("{}\n", kTurnEnd), spans); }
};

class ChatMl final : public ChatMlFamily {
 public:
  explicit ChatMl(LayoutTexts texts) : texts_(std::move(texts)) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override {
    EPIC_RETURN_IF_ERROR(CheckRoles(messages));
    TemplateSpans spans;
    AppendTemplate(texts_.bos, spans);
    if (texts_.default_system && messages[0].role != "system") {
      Open("system", spans);
      AppendTemplate(*texts_.default_system, spans);
      Close(spans);
    }
    for (size_t i = 0; i < messages.size(); ++i) {
      Open(messages[i].role, spans);
      AppendSpans(ContentOf(messages[i], i), spans);
      Close(spans);
    }
    Open("assistant", spans);
    return spans;
  }
  std::string name() const override { return texts_.default_system ? "chatml-default-system" : "chatml"; }
  std::vector<std::string> control_tokens() const override {
    std::vector<std::string> tokens = ChatMlFamily::control_tokens();
    if (!texts_.bos.empty() && std::find(tokens.begin(), tokens.end(), texts_.bos) == tokens.end()) {
      tokens.push_back(texts_.bos);
    }
    return tokens;
  }

 private:
  LayoutTexts texts_;
};

class Qwen3 final : public ChatMlFamily {
 public:
  explicit Qwen3(bool opens_thinking) : opens_thinking_(opens_thinking) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override;
  std::string name() const override { return opens_thinking_ ? "qwen3-thinking" : "qwen3"; }

 private:
  bool opens_thinking_;
};

// Answers of tools come as messages of the user, and are no questions of his.
bool IsToolResponse(const TemplateSpans& content) {
  return !content.empty() && content.front().kind == TemplateSpan::Kind::kText &&
         content.back().kind == TemplateSpan::Kind::kText && content.front().text.starts_with("<tool_response>") &&
         content.back().text.ends_with("</tool_response>");
}

// The last question of the user, or the last message where there is none.
size_t LastQuestion(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role == "user" && !IsToolResponse(ContentOf(messages[i], i))) return i;
  }
  return messages.size() - 1;
}

// What an assistant's message says and what it thought before, where it shows that.
struct Answer {
  TemplateSpans reasoning;
  TemplateSpans content;
};

Answer SplitReasoning(TemplateSpans content) {
  Answer answer;
  const auto last = SplitAtLast(content, "</think>");
  if (!last) {
    answer.content = std::move(content);
    return answer;
  }
  answer.reasoning = SplitAtFirst(content, "</think>")->first;
  StripRight(Blanks::kLineFeeds, answer.reasoning);
  if (auto opened = SplitAtLast(answer.reasoning, "<think>")) answer.reasoning = std::move(opened->second);
  StripLeft(Blanks::kLineFeeds, answer.reasoning);
  answer.content = last->second;
  StripLeft(Blanks::kLineFeeds, answer.content);
  return answer;
}

absl::StatusOr<std::vector<TemplateSpan>> Qwen3::Render(std::span<const ChatMessage> messages,
                                                        std::chrono::year_month_day) const {
  EPIC_RETURN_IF_ERROR(CheckRoles(messages));
  const size_t last_question = LastQuestion(messages);
  TemplateSpans spans;
  for (size_t i = 0; i < messages.size(); ++i) {
    TemplateSpans content = ContentOf(messages[i], i);
    Open(messages[i].role, spans);
    if (messages[i].role == "assistant") {
      const size_t opaque = CountOpaque(content);
      Answer answer = SplitReasoning(std::move(content));
      const bool shows_reasoning = i > last_question && (i + 1 == messages.size() || !answer.reasoning.empty());
      const size_t kept = CountOpaque(answer.content) + (shows_reasoning ? CountOpaque(answer.reasoning) : 0);
      if (kept < opaque) {
        return absl::InvalidArgumentError(
            fmt::format("message {} has a document or token ids in its reasoning (before </think>), which the model's "
                        "chat template ({}) leaves out; move them behind it",
                        i, name()));
      }
      if (shows_reasoning) {
        StripLeft(Blanks::kLineFeeds, answer.reasoning);
        StripRight(Blanks::kLineFeeds, answer.reasoning);
        AppendTemplate("<think>\n", spans);
        AppendSpans(std::move(answer.reasoning), spans);
        AppendTemplate("\n</think>\n\n", spans);
        StripLeft(Blanks::kLineFeeds, answer.content);
      }
      content = std::move(answer.content);
    }
    AppendSpans(std::move(content), spans);
    Close(spans);
  }
  Open("assistant", spans);
  if (opens_thinking_) AppendTemplate("<think>\n", spans);
  return spans;
}

class Yi final : public ChatMlFamily {
 public:
  explicit Yi(bool plain_system) : plain_system_(plain_system) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override {
    EPIC_RETURN_IF_ERROR(CheckRoles(messages));
    TemplateSpans spans;
    for (size_t i = 0; i < messages.size(); ++i) {
      const bool is_system = messages[i].role == "system";
      if (is_system && i > 0) {
        return absl::InvalidArgumentError(
            fmt::format("message {} has the role \"system\"; the model's chat template ({}) writes a system message at "
                        "the beginning only: make it message 0 or give it another role",
                        i, name()));
      }
      // The template opens the assistant's turn behind a message of the user, and nowhere else.
      if (messages[i].role == "user" || (is_system && !plain_system_)) Open(messages[i].role, spans);
      AppendSpans(ContentOf(messages[i], i), spans);
      if (!is_system || !plain_system_) Close(spans);
      if (messages[i].role == "user") Open("assistant", spans);
    }
    return spans;
  }
  std::string name() const override { return plain_system_ ? "yi-1.5" : "yi-coder"; }

 private:
  bool plain_system_;
};

}  // namespace

std::unique_ptr<ChatTemplate> MakeChatMl(LayoutTexts texts) { return std::make_unique<ChatMl>(std::move(texts)); }
std::unique_ptr<ChatTemplate> MakeQwen3(bool opens_thinking) { return std::make_unique<Qwen3>(opens_thinking); }
std::unique_ptr<ChatTemplate> MakeYi(bool plain_system) { return std::make_unique<Yi>(plain_system); }

}  // namespace epic
