#include "engine/text/chat_template.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/status_macros.h"
#include "engine/text/chat_template_layouts.h"
#include "engine/text/chat_template_table.h"
#include "engine/text/template_source.h"
#include "fmt/format.h"

namespace epic {
namespace {

using Kind = TemplateStep::Kind;

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";

std::string OnOneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// Walks over the steps of a template, front to back, as far as they are what ChatML consists of.
class StepMatcher {
 public:
  explicit StepMatcher(const std::vector<TemplateStep>& steps) : steps_(steps) {}

  bool Take(Kind kind, std::string_view text = "") {
    if (position_ >= steps_.size() || steps_[position_].kind != kind || steps_[position_].text != text) return false;
    ++position_;
    return true;
  }
  bool TakeStatement(std::string_view text) { return Take(Kind::kStatement, text); }

  // A guard that only sets add_generation_prompt where it is missing; we always render with it on.
  bool TakeOptionalGuard() {
    if (!TakeStatement("if not add_generation_prompt is defined") &&
        !TakeStatement("if add_generation_prompt is not defined")) {
      return true;
    }
    return TakeStatement("set add_generation_prompt = false") && TakeStatement("endif");
  }

  // {% if CONDITION %} one literal system turn {% endif %}
  bool TakeOptionalDefault(std::string_view condition, std::optional<std::string>& default_system) {
    if (!TakeStatement(condition)) return true;
    if (position_ >= steps_.size() || steps_[position_].kind != Kind::kText) return false;
    default_system = MessageOfSystemTurn(steps_[position_].text);
    if (!default_system) return false;
    ++position_;
    return TakeStatement("endif");
  }

  bool TakeTurn() {
    return Take(Kind::kText, kTurnStart) && Take(Kind::kRole) && Take(Kind::kText, "\n") && Take(Kind::kContent) &&
           Take(Kind::kText, fmt::format("{}\n", kTurnEnd));
  }

  // {% if add_generation_prompt %} the assistant's opening {% endif %}, with nothing behind it
  bool TakeGenerationPrompt() {
    return TakeStatement("if add_generation_prompt") && Take(Kind::kText, fmt::format("{}assistant\n", kTurnStart)) &&
           TakeStatement("endif") && position_ == steps_.size();
  }

  // What stands where the match ended, for the error message.
  std::string Here() const {
    if (position_ >= steps_.size()) return "its end";
    const TemplateStep& step = steps_[position_];
    if (step.kind == Kind::kStatement) return fmt::format("{{% {:.80} %}}", OnOneLine(step.text));
    if (step.kind == Kind::kText) return fmt::format("the text \"{:.80}\"", OnOneLine(step.text));
    if (step.kind == Kind::kOther) return fmt::format("{{{{ {:.80} }}}}", OnOneLine(step.text));
    if (step.kind == Kind::kBos || step.kind == Kind::kEos) return step.kind == Kind::kBos ? "bos_token" : "eos_token";
    return step.kind == Kind::kRole ? "a message's role" : "a message's content";
  }

 private:
  const std::vector<TemplateStep>& steps_;
  size_t position_ = 0;
};

// What the template is by its structure: ChatML, with or without BOS and a system message of its own.
struct Structure {
  bool is_chatml = false;
  bool has_bos = false;
  std::optional<std::string> default_system;
  std::string unexpected;  // where it is not: what stands there
};

Structure MatchChatMl(const std::vector<TemplateStep>& steps) {
  Structure found;
  StepMatcher matcher(steps);
  const bool guarded = matcher.TakeOptionalGuard();
  found.has_bos = matcher.Take(Kind::kBos);
  found.is_chatml = guarded &&
                    matcher.TakeOptionalDefault("if messages [ 0 ] [ 'role' ] != 'system'", found.default_system) &&
                    matcher.TakeStatement("for message in messages") &&
                    (found.default_system ||
                     matcher.TakeOptionalDefault("if loop [ 'first' ] and messages [ 0 ] [ 'role' ] != 'system'",
                                                 found.default_system)) &&
                    matcher.TakeTurn() && matcher.TakeStatement("endfor") && matcher.TakeGenerationPrompt();
  found.unexpected = matcher.Here();
  return found;
}

std::string TokenText(const TokenizerSpec& spec, std::optional<int32_t> id) {
  if (!id || *id < 0 || static_cast<size_t>(*id) >= spec.tokens.size()) return "";
  return spec.tokens[static_cast<size_t>(*id)];
}

// A layout that writes BOS or EOS needs the vocabulary to say which tokens these are, and every token that it writes.
absl::Status CheckVocabulary(const ChatTemplate& layout, const TokenizerSpec& spec) {
  for (const std::string& token : layout.control_tokens()) {
    if (token.empty()) {
      return absl::UnimplementedError(
          fmt::format("the model's chat template ({}) writes its tokenizer's BOS and EOS tokens, and the model's files "
                      "do not say which these are; use raw prompts, without chat",
                      layout.name()));
    }
    if (std::find(spec.tokens.begin(), spec.tokens.end(), token) == spec.tokens.end()) {
      return absl::UnimplementedError(
          fmt::format("the model's chat template ({}) writes the token {:.40}, which its vocabulary does not have; use "
                      "raw prompts, without chat",
                      layout.name(), token));
    }
  }
  return absl::OkStatus();
}

absl::Status Unrecognised(std::string_view reason) {
  return absl::UnimplementedError(
      fmt::format("the model's chat template is none of those that are rendered exactly (docs/chat-templates.md): {}; "
                  "use raw prompts, without chat",
                  reason));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Recognise(const TokenizerSpec& spec) {
  if (spec.chat_template.empty()) {
    return absl::UnimplementedError("the model's files carry no chat template; use raw prompts, without chat");
  }
  absl::StatusOr<std::vector<TemplateStep>> steps = ReadTemplateSource(spec.chat_template);
  if (!steps.ok()) return Unrecognised(std::string(steps.status().message()));

  LayoutTexts texts{TokenText(spec, spec.bos_id), TokenText(spec, spec.eos_id), std::nullopt};
  std::unique_ptr<ChatTemplate> layout;
  if (Structure structure = MatchChatMl(*steps); structure.is_chatml) {
    if (!structure.has_bos) texts.bos.clear();
    texts.default_system = std::move(structure.default_system);
    layout = MakeChatLayout(ChatLayout::kChatMl, std::move(texts));
  } else {
    texts.default_system = TakeDefaultSystem(*steps);
    const std::optional<ChatLayout> known = FindKnownLayout(HashOfSteps(*steps));
    if (!known) return Unrecognised(fmt::format("{} stands where ChatML has something else", structure.unexpected));
    if (*known == ChatLayout::kChatMl) texts.bos.clear();  // no template of the table's ChatML writes it
    layout = MakeChatLayout(*known, std::move(texts));
  }
  EPIC_RETURN_IF_ERROR(CheckVocabulary(*layout, spec));
  return layout;
}

void ProtectControlTokens(const ChatTemplate& chat_template, TokenizerSpec& spec) {
  for (const std::string& token : chat_template.control_tokens()) {
    const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), token);
    if (found == spec.tokens.end()) continue;
    const auto id = static_cast<int32_t>(found - spec.tokens.begin());
    spec.kinds[static_cast<size_t>(id)] = TokenKind::kControl;
    // Control tokens are found in the text as it is.
    if (const auto rule = spec.added_rules.find(id); rule != spec.added_rules.end()) {
      rule->second.in_normalized_text = false;
    }
  }
}

}  // namespace epic
