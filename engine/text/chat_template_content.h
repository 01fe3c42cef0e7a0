// For chat layouts: lists of spans, put together and trimmed as Jinja does it with strings.
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_CONTENT_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_CONTENT_H_

#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/text/chat_template.h"

namespace epic {

using TemplateSpans = std::vector<TemplateSpan>;

// Neighbouring template texts become one span, and so do neighbouring texts of users; empty ones are left out.
void AppendTemplate(std::string_view text, TemplateSpans& spans);
void AppendSpans(TemplateSpans more, TemplateSpans& spans);

TemplateSpans ContentOf(const ChatMessage& message, size_t index);

enum class Blanks {
  kAll,        // what Python's str.strip() takes, which is what Jinja's `trim` does
  kLineFeeds,  // "\n" alone
};
// Take blanks off the beginning or end, up to the first span that is opaque.
void StripLeft(Blanks blanks, TemplateSpans& spans);
void StripRight(Blanks blanks, TemplateSpans& spans);

// What stands before and behind an occurrence of `mark` in text of users (never across an opaque span).
std::optional<std::pair<TemplateSpans, TemplateSpans>> SplitAtFirst(const TemplateSpans& spans, std::string_view mark);
std::optional<std::pair<TemplateSpans, TemplateSpans>> SplitAtLast(const TemplateSpans& spans, std::string_view mark);

size_t CountOpaque(const TemplateSpans& spans);

// INVALID_ARGUMENT where there is no message, or one of a role other than "system", "user" and "assistant".
absl::Status CheckRoles(std::span<const ChatMessage> messages);
// The same where, behind an optional system message, users and assistants do not take turns, the user first.
// `layout` is named in the sentence.
absl::Status CheckAlternation(std::span<const ChatMessage> messages, bool takes_system, std::string_view layout);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_CONTENT_H_
