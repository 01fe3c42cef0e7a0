#include "engine/text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/status_macros.h"
#include "engine/text/template_source.h"
#include "fmt/format.h"

namespace epic {
namespace {

using Kind = TemplateStep::Kind;

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kRoles[] = {"system", "user", "assistant"};

class ChatMl final : public ChatTemplate {
 public:
  explicit ChatMl(std::optional<std::string> default_system) : default_system_(std::move(default_system)) {}

  absl::StatusOr<std::vector<TemplateSpan>> Render(const std::vector<std::string>& roles) const override;
  std::string name() const override { return default_system_ ? "chatml-default-system" : "chatml"; }
  std::vector<std::string> stop_tokens() const override { return {std::string(kTurnEnd)}; }

 private:
  std::optional<std::string> default_system_;  // a whole turn, as written
};

absl::StatusOr<std::vector<TemplateSpan>> ChatMl::Render(const std::vector<std::string>& roles) const {
  if (roles.empty()) return absl::InvalidArgumentError("the conversation has no messages; send at least one");
  std::vector<TemplateSpan> spans;
  std::string pending = default_system_ && roles[0] != "system" ? *default_system_ : "";
  for (size_t message = 0; message < roles.size(); ++message) {
    const std::string& role = roles[message];
    if (std::find(std::begin(kRoles), std::end(kRoles), role) == std::end(kRoles)) {
      return absl::InvalidArgumentError(
          fmt::format("message {} has the role \"{:.40}\"; expected one of system, user, assistant", message, role));
    }
    pending += fmt::format("{}{}\n", kTurnStart, role);
    spans.push_back({TemplateSpan::Kind::kTemplate, std::move(pending), -1});
    spans.push_back({TemplateSpan::Kind::kContent, "", static_cast<int>(message)});
    pending = fmt::format("{}\n", kTurnEnd);
  }
  pending += fmt::format("{}assistant\n", kTurnStart);
  spans.push_back({TemplateSpan::Kind::kTemplate, std::move(pending), -1});
  return spans;
}

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
    const std::string& turn = steps_[position_].text;
    const std::string start = fmt::format("{}system\n", kTurnStart);
    const std::string end = fmt::format("{}\n", kTurnEnd);
    if (!turn.starts_with(start) || !turn.ends_with(end) || turn.size() < start.size() + end.size()) return false;
    const std::string_view message =
        std::string_view(turn).substr(start.size(), turn.size() - start.size() - end.size());
    if (message.find("<|") != std::string_view::npos) return false;
    default_system = turn;
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
    return step.kind == Kind::kRole ? "a message's role" : "a message's content";
  }

 private:
  const std::vector<TemplateStep>& steps_;
  size_t position_ = 0;
};

absl::Status Unrecognised(std::string_view reason) {
  return absl::UnimplementedError(
      fmt::format("the model's chat template is not one that is rendered exactly (ChatML, with or without a default "
                  "system message): {}",
                  reason));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Recognise(const std::string& jinja_source) {
  if (jinja_source.empty()) return absl::UnimplementedError("the model file carries no chat template");
  const absl::StatusOr<std::vector<TemplateStep>> steps = ReadTemplateSource(jinja_source);
  if (!steps.ok()) return Unrecognised(std::string(steps.status().message()));
  StepMatcher matcher(*steps);
  std::optional<std::string> default_system;
  const bool matches =
      matcher.TakeOptionalGuard() &&
      matcher.TakeOptionalDefault("if messages [ 0 ] [ 'role' ] != 'system'", default_system) &&
      matcher.TakeStatement("for message in messages") &&
      (default_system ||
       matcher.TakeOptionalDefault("if loop [ 'first' ] and messages [ 0 ] [ 'role' ] != 'system'", default_system)) &&
      matcher.TakeTurn() && matcher.TakeStatement("endfor") && matcher.TakeGenerationPrompt();
  if (!matches) return Unrecognised(fmt::format("{} stands where something else was expected", matcher.Here()));
  return std::make_unique<ChatMl>(std::move(default_system));
}

}  // namespace epic
