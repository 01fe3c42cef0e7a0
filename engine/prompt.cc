#include "engine/prompt.h"

#include <string>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Collects a prompt front to back. Text is held until something that is not text follows, and then encoded as one.
class PromptBuilder {
 public:
  explicit PromptBuilder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // `text` must stay in place until the prompt is taken.
  void AddText(std::string_view text, bool specials) { pieces_.push_back({text, specials}); }
  absl::Status AddPart(const PromptPart& part);
  absl::StatusOr<std::vector<PromptSegment>> Take();

 private:
  absl::Status EncodeHeldText();
  absl::Status CheckIds(const std::vector<int32_t>& ids) const;
  void AddFresh(const std::vector<int32_t>& ids);

  const Tokenizer& tokenizer_;
  std::vector<TextPiece> pieces_;
  std::vector<PromptSegment> segments_;
};

absl::Status PromptBuilder::AddPart(const PromptPart& part) {
  switch (part.kind) {
    case PromptPart::Kind::kText:
      AddText(part.text, false);
      return absl::OkStatus();
    case PromptPart::Kind::kTokens:
      EPIC_RETURN_IF_ERROR(CheckIds(part.token_ids));
      EPIC_RETURN_IF_ERROR(EncodeHeldText());
      AddFresh(part.token_ids);
      return absl::OkStatus();
    case PromptPart::Kind::kChunk:
      if (part.token_ids.empty()) return absl::InvalidArgumentError("a chunk of the prompt has no tokens");
      EPIC_RETURN_IF_ERROR(CheckIds(part.token_ids));
      EPIC_RETURN_IF_ERROR(EncodeHeldText());
      segments_.push_back({part.token_ids, true, part.chunk, part.context_token_ids});
      return absl::OkStatus();
  }
  return absl::InternalError("unknown kind of prompt part");
}

absl::StatusOr<std::vector<PromptSegment>> PromptBuilder::Take() {
  EPIC_RETURN_IF_ERROR(EncodeHeldText());
  if (const std::optional<int32_t> start = tokenizer_.sequence_start_id()) {
    const bool begins_fresh = !segments_.empty() && !segments_.front().is_chunk;
    if (!begins_fresh) segments_.insert(segments_.begin(), PromptSegment{});
    std::vector<int32_t>& ids = segments_.front().token_ids;
    if (ids.empty() || ids.front() != *start) ids.insert(ids.begin(), *start);
  }
  return std::move(segments_);
}

absl::Status PromptBuilder::EncodeHeldText() {
  if (pieces_.empty()) return absl::OkStatus();
  EPIC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_.EncodePieces(pieces_, segments_.empty()));
  pieces_.clear();
  AddFresh(ids);
  return absl::OkStatus();
}

absl::Status PromptBuilder::CheckIds(const std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= tokenizer_.vocab_size()) {
      return absl::InvalidArgumentError(
          fmt::format("token id {} at index {} is outside the model's vocabulary of {} tokens", ids[i], i,
                      tokenizer_.vocab_size()));
    }
  }
  return absl::OkStatus();
}

void PromptBuilder::AddFresh(const std::vector<int32_t>& ids) {
  if (ids.empty()) return;
  if (segments_.empty() || segments_.back().is_chunk) segments_.emplace_back();
  segments_.back().token_ids.insert(segments_.back().token_ids.end(), ids.begin(), ids.end());
}

}  // namespace

std::chrono::year_month_day Today() {
  return std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()));
}

absl::StatusOr<std::vector<PromptSegment>> BuildChatPrompt(const Tokenizer& tokenizer,
                                                           const ChatTemplate& chat_template,
                                                           const std::vector<PromptMessage>& messages,
                                                           std::chrono::year_month_day today) {
  std::vector<ChatMessage> chat;
  for (const PromptMessage& message : messages) {
    ChatMessage& added = chat.emplace_back(ChatMessage{message.role, {}});
    for (const PromptPart& part : message.parts) {
      added.parts.push_back({part.text, part.kind != PromptPart::Kind::kText});
    }
  }
  EPIC_ASSIGN_OR_RETURN(const std::vector<TemplateSpan> spans, chat_template.Render(chat, today));
  PromptBuilder prompt(tokenizer);
  for (const TemplateSpan& span : spans) {
    if (span.kind == TemplateSpan::Kind::kOpaque) {
      EPIC_RETURN_IF_ERROR(prompt.AddPart(messages[span.message].parts[span.part]));
    } else {
      prompt.AddText(span.text, span.kind == TemplateSpan::Kind::kTemplate);
    }
  }
  return prompt.Take();
}

absl::StatusOr<std::vector<PromptSegment>> BuildRawPrompt(const Tokenizer& tokenizer,
                                                          const std::vector<PromptPart>& parts) {
  PromptBuilder prompt(tokenizer);
  for (const PromptPart& part : parts) EPIC_RETURN_IF_ERROR(prompt.AddPart(part));
  return prompt.Take();
}

}  // namespace epic
