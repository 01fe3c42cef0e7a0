#include "engine/text/chat_template_content.h"

#include <algorithm>
#include <string>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

using Kind = TemplateSpan::Kind;

// The code points that Python calls white space beyond ASCII, in UTF-8.
constexpr std::string_view kWideBlanks[] = {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
                                            "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200A",
                                            "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};

bool IsAsciiBlank(char character, Blanks blanks) {
  if (blanks == Blanks::kLineFeeds) return character == '\n';
  return (character >= '\t' && character <= '\r') || (character >= 0x1C && character <= ' ');
}

// The length of the blank that `text` begins with, or 0.
size_t BlankAtBegin(std::string_view text, Blanks blanks) {
  if (text.empty()) return 0;
  if (IsAsciiBlank(text.front(), blanks)) return 1;
  if (blanks == Blanks::kLineFeeds) return 0;
  for (const std::string_view blank : kWideBlanks) {
    if (text.starts_with(blank)) return blank.size();
  }
  return 0;
}

size_t BlankAtEnd(std::string_view text, Blanks blanks) {
  if (text.empty()) return 0;
  if (IsAsciiBlank(text.back(), blanks)) return 1;
  if (blanks == Blanks::kLineFeeds) return 0;
  for (const std::string_view blank : kWideBlanks) {
    if (text.ends_with(blank)) return blank.size();
  }
  return 0;
}

void AppendText(Kind kind, std::string_view text, TemplateSpans& spans) {
  if (text.empty()) return;
  if (spans.empty() || spans.back().kind != kind) spans.push_back({kind, "", -1, -1});
  spans.back().text += text;
}

std::pair<TemplateSpans, TemplateSpans> SplitAt(const TemplateSpans& spans, size_t span, size_t begin, size_t length) {
  std::pair<TemplateSpans, TemplateSpans> halves;
  halves.first.assign(spans.begin(), spans.begin() + static_cast<ptrdiff_t>(span));
  const std::string_view text = spans[span].text;
  AppendText(Kind::kText, text.substr(0, begin), halves.first);
  AppendText(Kind::kText, text.substr(begin + length), halves.second);
  halves.second.insert(halves.second.end(), spans.begin() + static_cast<ptrdiff_t>(span) + 1, spans.end());
  return halves;
}

}  // namespace

void AppendTemplate(std::string_view text, TemplateSpans& spans) { AppendText(Kind::kTemplate, text, spans); }

void AppendSpans(TemplateSpans more, TemplateSpans& spans) {
  for (TemplateSpan& span : more) {
    if (span.kind == Kind::kOpaque) {
      spans.push_back(std::move(span));
    } else {
      AppendText(span.kind, span.text, spans);
    }
  }
}

TemplateSpans ContentOf(const ChatMessage& message, size_t index) {
  TemplateSpans spans;
  for (size_t part = 0; part < message.parts.size(); ++part) {
    if (message.parts[part].is_opaque) {
      spans.push_back({Kind::kOpaque, "", static_cast<int>(index), static_cast<int>(part)});
    } else {
      AppendText(Kind::kText, message.parts[part].text, spans);
    }
  }
  return spans;
}

void StripLeft(Blanks blanks, TemplateSpans& spans) {
  while (!spans.empty() && spans.front().kind != Kind::kOpaque) {
    const std::string_view text = spans.front().text;
    size_t begin = 0;
    while (const size_t length = BlankAtBegin(text.substr(begin), blanks)) begin += length;
    if (begin < text.size()) {
      spans.front().text.erase(0, begin);
      return;
    }
    spans.erase(spans.begin());
  }
}

void StripRight(Blanks blanks, TemplateSpans& spans) {
  while (!spans.empty() && spans.back().kind != Kind::kOpaque) {
    const std::string_view text = spans.back().text;
    size_t end = text.size();
    while (const size_t length = BlankAtEnd(text.substr(0, end), blanks)) end -= length;
    if (end > 0) {
      spans.back().text.resize(end);
      return;
    }
    spans.pop_back();
  }
}

std::optional<std::pair<TemplateSpans, TemplateSpans>> SplitAtFirst(const TemplateSpans& spans, std::string_view mark) {
  for (size_t i = 0; i < spans.size(); ++i) {
    const size_t begin = spans[i].kind == Kind::kText ? spans[i].text.find(mark) : std::string::npos;
    if (begin != std::string::npos) return SplitAt(spans, i, begin, mark.size());
  }
  return std::nullopt;
}

std::optional<std::pair<TemplateSpans, TemplateSpans>> SplitAtLast(const TemplateSpans& spans, std::string_view mark) {
  for (size_t i = spans.size(); i-- > 0;) {
    const size_t begin = spans[i].kind == Kind::kText ? spans[i].text.rfind(mark) : std::string::npos;
    if (begin != std::string::npos) return SplitAt(spans, i, begin, mark.size());
  }
  return std::nullopt;
}

size_t CountOpaque(const TemplateSpans& spans) {
  return static_cast<size_t>(
      std::count_if(spans.begin(), spans.end(), [](const TemplateSpan& span) { return span.kind == Kind::kOpaque; }));
}

absl::Status CheckRoles(std::span<const ChatMessage> messages) {
  if (messages.empty()) return absl::InvalidArgumentError("the conversation has no messages; send at least one");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string_view role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      return absl::InvalidArgumentError(
          fmt::format("message {} has the role \"{:.40}\"; expected one of system, user, assistant", i, role));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAlternation(std::span<const ChatMessage> messages, bool takes_system, std::string_view layout) {
  EPIC_RETURN_IF_ERROR(CheckRoles(messages));
  const size_t first = takes_system && messages[0].role == "system" ? 1 : 0;
  if (first == messages.size()) {
    return absl::InvalidArgumentError(
        fmt::format("message 0 is the only one and has the role \"system\"; the model's chat template ({}) writes it "
                    "into a message of the user: add one",
                    layout));
  }
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string_view expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (messages[i].role == expected) continue;
    const std::string_view system = takes_system ? "behind an optional system message " : "without a system message ";
    return absl::InvalidArgumentError(
        fmt::format("message {} has the role \"{}\"; the model's chat template ({}) has {}user and assistant in turn, "
                    "so {} is expected there",
                    i, messages[i].role, layout, system, expected));
  }
  return absl::OkStatus();
}

}  // namespace epic
