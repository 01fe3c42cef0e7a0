#include "engine/prompt.h"

#include <string>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Collects segments, joining fresh tokens that touch.
class SegmentList {
 public:
  void AddFresh(std::span<const int32_t> ids) {
    if (ids.empty()) return;
    if (segments_.empty() || segments_.back().is_chunk) segments_.emplace_back();
    segments_.back().token_ids.insert(segments_.back().token_ids.end(), ids.begin(), ids.end());
  }
  void AddChunk(const PromptPart& part) { segments_.push_back({part.token_ids, true, part.chunk}); }
  std::vector<PromptSegment> Take() { return std::move(segments_); }

 private:
  std::vector<PromptSegment> segments_;
};

absl::Status CheckIds(const Tokenizer& tokenizer, const PromptPart& part) {
  for (size_t i = 0; i < part.token_ids.size(); ++i) {
    if (part.token_ids[i] < 0 || part.token_ids[i] >= tokenizer.vocab_size()) {
      return absl::InvalidArgumentError(
          fmt::format("token id {} at index {} is outside the model's vocabulary of {} tokens", part.token_ids[i], i,
                      tokenizer.vocab_size()));
    }
  }
  return absl::OkStatus();
}

absl::Status AddPart(const Tokenizer& tokenizer, const PromptPart& part, SegmentList& segments) {
  EPIC_RETURN_IF_ERROR(CheckIds(tokenizer, part));
  switch (part.kind) {
    case PromptPart::Kind::kText: {
      EPIC_ASSIGN_OR_RETURN(const Tokenizer::Encoding encoding, tokenizer.EncodeText(part.text));
      segments.AddFresh(encoding.ids);
      return absl::OkStatus();
    }
    case PromptPart::Kind::kTokens:
      segments.AddFresh(part.token_ids);
      return absl::OkStatus();
    case PromptPart::Kind::kChunk:
      if (part.token_ids.empty()) return absl::InvalidArgumentError("a chunk of the prompt has no tokens");
      segments.AddChunk(part);
      return absl::OkStatus();
  }
  return absl::InternalError("unknown kind of prompt part");
}

}  // namespace

absl::StatusOr<std::vector<PromptSegment>> BuildChatPrompt(const Tokenizer& tokenizer,
                                                           const ChatTemplate& chat_template,
                                                           const std::vector<PromptMessage>& messages) {
  std::vector<std::string> roles;
  for (const PromptMessage& message : messages) roles.push_back(message.role);
  EPIC_ASSIGN_OR_RETURN(const std::vector<TemplateSpan> spans, chat_template.Render(roles));
  SegmentList segments;
  if (const auto start = tokenizer.sequence_start_id()) segments.AddFresh({{*start}});
  for (const TemplateSpan& span : spans) {
    if (span.kind != TemplateSpan::Kind::kContent) {
      EPIC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.EncodeWithSpecials(span.text));
      segments.AddFresh(ids);
      continue;
    }
    for (const PromptPart& part : messages[span.message].parts) {
      EPIC_RETURN_IF_ERROR(AddPart(tokenizer, part, segments));
    }
  }
  return segments.Take();
}

absl::StatusOr<std::vector<PromptSegment>> BuildRawPrompt(const Tokenizer& tokenizer,
                                                          const std::vector<PromptPart>& parts) {
  SegmentList segments;
  if (const auto start = tokenizer.sequence_start_id()) segments.AddFresh({{*start}});
  for (const PromptPart& part : parts) EPIC_RETURN_IF_ERROR(AddPart(tokenizer, part, segments));
  return segments.Take();
}

}  // namespace epic
