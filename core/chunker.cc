#include "core/chunker.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace epic {
namespace {

// Bounds how far a test for a sentence's end looks back, so that a text of nothing but spaces costs no more than prose.
constexpr size_t kLookBackBytesMax = 64;

constexpr std::array<std::string_view, 6> kAsciiTerminators = {".", "!", "?", "\u2026", "\u203d", "\u0964"};
// Full-width marks end a sentence whether or not a space follows.
constexpr std::array<std::string_view, 4> kWideTerminators = {"\u3002", "\uff01", "\uff1f", "\uff61"};
constexpr std::array<std::string_view, 15> kClosers = {
    "\"", "'", ")", "]", "}", "*", "_", "`", "\u201d", "\u2019", "\u00bb", "\u300d", "\u300f", "\uff09", "\u203a"};

bool IsSpace(char byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }

template <size_t kCount>
bool EndsWithAny(std::string_view text, const std::array<std::string_view, kCount>& endings, size_t* length) {
  for (const std::string_view ending : endings) {
    if (text.ends_with(ending)) {
      *length = ending.size();
      return true;
    }
  }
  return false;
}

bool IsCharacterBoundary(std::string_view text, size_t position) {
  return position >= text.size() || (static_cast<unsigned char>(text[position]) & 0xC0) != 0x80;
}

// A sentence ends behind . ! ? and their kin, closing quotes and brackets included, where white space or the text's end
// follows, and behind an empty line (a heading has no full stop). An abbreviation counts as an end: a cut there is no
// worse than one in the middle of a sentence, which is what a cut without it would be.
bool EndsSentence(std::string_view text, size_t position) {
  if (position >= text.size()) return true;
  if (!IsCharacterBoundary(text, position)) return false;
  std::string_view before = text.substr(0, position);
  before.remove_prefix(position - std::min(position, kLookBackBytesMax));
  bool spaced = IsSpace(text[position]);
  int newlines = 0;
  while (!before.empty() && IsSpace(before.back())) {
    newlines += before.back() == '\n';
    spaced = true;
    before.remove_suffix(1);
  }
  if (newlines >= 2) return true;
  size_t length = 0;
  while (EndsWithAny(before, kClosers, &length)) before.remove_suffix(length);
  return EndsWithAny(before, kWideTerminators, &length) || (spaced && EndsWithAny(before, kAsciiTerminators, &length));
}

bool EndsLine(std::string_view text, size_t position) {
  return position >= text.size() || text[position] == '\n' || (position > 0 && text[position - 1] == '\n');
}

// The end of the chunk that begins at `begin`. REQUIRES: more than `target` tokens are left.
int32_t FindCut(int32_t begin, int32_t token_count, int32_t target, std::string_view text,
                std::span<const size_t> token_byte_ends) {
  const auto limit = [&](int64_t tokens) {
    return static_cast<int32_t>(std::min<int64_t>(token_count, int64_t{begin} + tokens));
  };
  const int32_t first = begin + target;
  const auto first_end_where = [&](int32_t last, auto&& holds) {
    for (int32_t end = first; end <= last; ++end) {
      if (holds(text, token_byte_ends[end - 1])) return end;
    }
    return -1;
  };
  int32_t cut = first_end_where(limit(int64_t{target} + target / 2), EndsSentence);
  if (cut < 0) cut = first_end_where(limit(2 * int64_t{target}), EndsLine);
  if (cut < 0) cut = first_end_where(limit(2 * int64_t{target}), IsCharacterBoundary);
  // Only a character of more tokens than a whole chunk may have gets here: the hard maximum wins over its unity.
  return cut < 0 ? limit(2 * int64_t{target}) : cut;
}

}  // namespace

std::vector<TokenSpan> ChunkDocument(int32_t token_count, std::string_view text,
                                     std::span<const size_t> token_byte_ends, const ChunkerOptions& options) {
  const int32_t target = std::max(options.target_tokens, 1);
  std::vector<TokenSpan> spans;
  int32_t begin = 0;
  while (begin < token_count) {
    int32_t end = token_count;
    if (token_count - begin > target) {
      end = text.empty() ? begin + target : FindCut(begin, token_count, target, text, token_byte_ends);
    }
    spans.push_back({begin, end});
    begin = end;
  }
  if (spans.size() >= 2) {
    const TokenSpan tail = spans.back();
    TokenSpan& predecessor = spans[spans.size() - 2];
    const bool fits = int64_t{tail.end} - predecessor.begin <= 2 * int64_t{target};
    if (tail.end - tail.begin < options.tail_tokens_min && fits) {
      predecessor.end = tail.end;
      spans.pop_back();
    }
  }
  return spans;
}

std::vector<int32_t> SectionBegins(std::span<const TokenSpan> spans, int32_t section_tokens_max) {
  std::vector<int32_t> begins;
  for (const TokenSpan& span : spans) {
    const bool joins = !begins.empty() && span.end - begins.back() <= section_tokens_max;
    begins.push_back(joins ? begins.back() : span.begin);
  }
  return begins;
}

}  // namespace epic
