// The layouts of Llama 2 and Llama 3, and Mistral's, which began as Llama 2's.
#include <array>
#include <utility>

#include "core/status_macros.h"
#include "engine/text/chat_template_content.h"
#include "engine/text/chat_template_layouts.h"
#include "fmt/format.h"

namespace epic {
namespace {

class Llama2 final : public ChatTemplate {
 public:
  Llama2(LayoutTexts texts, bool trims_system) : texts_(std::move(texts)), trims_system_(trims_system) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override {
    EPIC_RETURN_IF_ERROR(CheckAlternation(messages, true, name()));
    TemplateSpans spans;
    TemplateSpans content;  // of the next message; begins with the system message
    for (size_t i = 0; i < messages.size(); ++i) {
      TemplateSpans text = ContentOf(messages[i], i);
      if (messages[i].role == "system") {
        AppendTemplate("<<SYS>>\n", content);
        if (trims_system_) Trim(text);
        AppendSpans(std::move(text), content);
        AppendTemplate("\n<</SYS>>\n\n", content);
        continue;
      }
      AppendSpans(std::move(text), content);
      Trim(content);  // with the layout's own line ends behind <</SYS>>, where nothing follows them
      const bool is_user = messages[i].role == "user";
      AppendTemplate(is_user ? texts_.bos + "[INST] " : " ", spans);
      AppendSpans(std::exchange(content, {}), spans);
      AppendTemplate(is_user ? " [/INST]" : " " + texts_.eos, spans);
    }
    return spans;
  }
  std::string name() const override { return "llama-2"; }
  std::vector<std::string> stop_tokens() const override { return {texts_.eos}; }
  std::vector<std::string> control_tokens() const override { return {texts_.bos, texts_.eos}; }

 private:
  static void Trim(TemplateSpans& spans) {
    StripLeft(Blanks::kAll, spans);
    StripRight(Blanks::kAll, spans);
  }

  LayoutTexts texts_;
  bool trims_system_;
};

class Llama3 final : public ChatTemplate {
 public:
  Llama3(LayoutTexts texts, DateLine date) : texts_(std::move(texts)), date_(date) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day today) const override {
    EPIC_RETURN_IF_ERROR(CheckRoles(messages));
    TemplateSpans spans;
    AppendTemplate(texts_.bos, spans);
    size_t next = 0;
    if (date_ != DateLine::kNone) {
      const std::string date = date_ == DateLine::kToday ? Written(today) : "26 Jul 2024";
      Open("system", spans);
      AppendTemplate(fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", date), spans);
      if (messages[0].role == "system") AppendTrimmed(messages[next++], 0, spans);
      AppendTemplate(kTurnEnd, spans);
    }
    for (; next < messages.size(); ++next) {
      Open(messages[next].role, spans);
      AppendTrimmed(messages[next], next, spans);
      AppendTemplate(kTurnEnd, spans);
    }
    Open("assistant", spans);
    return spans;
  }
  std::string name() const override {
    if (date_ == DateLine::kNone) return "llama-3";
    return date_ == DateLine::kFixed ? "llama-3.1" : "llama-3.2";
  }
  std::vector<std::string> stop_tokens() const override { return {std::string(kTurnEnd)}; }
  std::vector<std::string> control_tokens() const override {
    return {texts_.bos, "<|start_header_id|>", "<|end_header_id|>", std::string(kTurnEnd)};
  }

 private:
  static constexpr std::string_view kTurnEnd = "<|eot_id|>";

  static void Open(std::string_view role, TemplateSpans& spans) {
    AppendTemplate(fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role), spans);
  }
  static void AppendTrimmed(const ChatMessage& message, size_t index, TemplateSpans& spans) {
    TemplateSpans content = ContentOf(message, index);
    StripLeft(Blanks::kAll, content);
    StripRight(Blanks::kAll, content);
    AppendSpans(std::move(content), spans);
  }
  // As strftime's "%d %b %Y" in the C locale.
  static std::string Written(std::chrono::year_month_day day) {
    constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    return fmt::format("{:02} {} {}", static_cast<unsigned>(day.day()),
                       kMonths[(static_cast<unsigned>(day.month()) - 1) % kMonths.size()],
                       static_cast<int>(day.year()));
  }

  LayoutTexts texts_;
  DateLine date_;
};

enum class SystemPlace { kNowhere, kFirstUser, kLastUser };

struct MistralStyle {
  std::string_view name;
  std::string_view before_user;
  std::string_view behind_user;
  std::string_view before_assistant;
  std::string_view before_eos;
  std::string_view behind_eos;
  SystemPlace system = SystemPlace::kNowhere;
  bool trims_assistant = false;
  bool has_control_tokens = false;  // [INST] and [/INST] are tokens of the vocabulary
};

MistralStyle StyleOf(ChatLayout layout) {
  switch (layout) {
    case ChatLayout::kMistral01:
      return {"mistral-v0.1", "[INST] ", " [/INST]", "", "", " "};
    case ChatLayout::kMistral02:
      return {"mistral-v0.2", "[INST] ", " [/INST]", "", "", ""};
    case ChatLayout::kMixtral8x22:
      return {"mixtral-8x22b", " [INST] ", " [/INST]", " ", " ", ""};
    case ChatLayout::kMistralV1Last:
      return {"mistral-v1", " [INST] ", " [/INST]", " ", "", "", SystemPlace::kLastUser};
    case ChatLayout::kMistralV3:
      return {"mistral-v3", "[INST] ", "[/INST]", " ", "", "", SystemPlace::kLastUser, true, true};
    case ChatLayout::kMistralV3Plain:
      return {"mistral-v3", "[INST] ", "[/INST]", " ", "", "", SystemPlace::kLastUser, false, true};
    case ChatLayout::kMistralTekken:
      return {"mistral-tekken", "[INST]", "[/INST]", "", "", "", SystemPlace::kLastUser, false, true};
    default:
      return {"mistral-v1", " [INST] ", " [/INST]", " ", "", "", SystemPlace::kFirstUser};
  }
}

class Mistral final : public ChatTemplate {
 public:
  Mistral(LayoutTexts texts, ChatLayout layout) : texts_(std::move(texts)), style_(StyleOf(layout)) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override;
  std::string name() const override { return std::string(style_.name); }
  std::vector<std::string> stop_tokens() const override { return {texts_.eos}; }
  std::vector<std::string> control_tokens() const override {
    std::vector<std::string> tokens = {texts_.bos, texts_.eos};
    if (style_.has_control_tokens) tokens.insert(tokens.end(), {"[INST]", "[/INST]"});
    return tokens;
  }

 private:
  LayoutTexts texts_;
  MistralStyle style_;
};

absl::StatusOr<std::vector<TemplateSpan>> Mistral::Render(std::span<const ChatMessage> messages,
                                                          std::chrono::year_month_day) const {
  EPIC_RETURN_IF_ERROR(CheckAlternation(messages, style_.system != SystemPlace::kNowhere, name()));
  const size_t first = messages[0].role == "system" ? 1 : 0;
  const size_t bearer = style_.system == SystemPlace::kLastUser ? messages.size() - 1 : first;
  if (first > 0 && messages[bearer].role != "user") {
    return absl::InvalidArgumentError(
        fmt::format("message 0 has the role \"system\", which the model's chat template ({}) writes into the last "
                    "message where that is the user's; message {} has the role \"{}\"",
                    name(), bearer, messages[bearer].role));
  }
  TemplateSpans spans;
  AppendTemplate(texts_.bos, spans);
  for (size_t i = first; i < messages.size(); ++i) {
    TemplateSpans content = ContentOf(messages[i], i);
    if (messages[i].role == "user") {
      AppendTemplate(style_.before_user, spans);
      if (first > 0 && i == bearer) {
        AppendSpans(ContentOf(messages[0], 0), spans);
        AppendTemplate("\n\n", spans);
      }
      AppendSpans(std::move(content), spans);
      AppendTemplate(style_.behind_user, spans);
      continue;
    }
    if (style_.trims_assistant) {
      StripLeft(Blanks::kAll, content);
      StripRight(Blanks::kAll, content);
    }
    AppendTemplate(style_.before_assistant, spans);
    AppendSpans(std::move(content), spans);
    AppendTemplate(fmt::format("{}{}{}", style_.before_eos, texts_.eos, style_.behind_eos), spans);
  }
  return spans;
}

}  // namespace

std::unique_ptr<ChatTemplate> MakeLlama2(LayoutTexts texts, bool trims_system) {
  return std::make_unique<Llama2>(std::move(texts), trims_system);
}
std::unique_ptr<ChatTemplate> MakeLlama3(LayoutTexts texts, DateLine date) {
  return std::make_unique<Llama3>(std::move(texts), date);
}
std::unique_ptr<ChatTemplate> MakeMistral(LayoutTexts texts, ChatLayout layout) {
  return std::make_unique<Mistral>(std::move(texts), layout);
}

}  // namespace epic
