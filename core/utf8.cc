#include "core/utf8.h"

namespace epic {
namespace {

// What a leading byte announces: how many bytes follow it, and the bounds of the first of them. The bounds exclude
// overlong forms (E0, F0), surrogates (ED) and code points above U+10FFFF (F4).
struct LeadingByte {
  size_t following = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

std::optional<LeadingByte> ReadLeadingByte(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return LeadingByte{1, 0x80, 0xBF};
  if (byte == 0xE0) return LeadingByte{2, 0xA0, 0xBF};
  if (byte == 0xED) return LeadingByte{2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return LeadingByte{2, 0x80, 0xBF};
  if (byte == 0xF0) return LeadingByte{3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return LeadingByte{3, 0x80, 0xBF};
  if (byte == 0xF4) return LeadingByte{3, 0x80, 0x8F};
  return std::nullopt;
}

}  // namespace

Utf8Character ReadUtf8(std::string_view text, size_t position) {
  const uint8_t first = static_cast<uint8_t>(text[position]);
  if (first < 0x80) return {Utf8Character::Kind::kValid, 1, first};
  const std::optional<LeadingByte> leading = ReadLeadingByte(first);
  if (!leading) return {Utf8Character::Kind::kInvalid, 1, 0};
  char32_t code_point = first & (0x3Fu >> leading->following);
  for (size_t i = 1; i <= leading->following; ++i) {
    if (position + i >= text.size()) return {Utf8Character::Kind::kUnfinished, i, 0};
    const uint8_t byte = static_cast<uint8_t>(text[position + i]);
    const uint8_t low = i == 1 ? leading->low : 0x80;
    const uint8_t high = i == 1 ? leading->high : 0xBF;
    if (byte < low || byte > high) return {Utf8Character::Kind::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {Utf8Character::Kind::kValid, leading->following + 1, code_point};
}

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    if (static_cast<uint8_t>(text[position]) < 0x80) {
      ++position;
      continue;
    }
    const Utf8Character character = ReadUtf8(text, position);
    if (character.kind != Utf8Character::Kind::kValid) return position;
    position += character.length;
  }
  return std::nullopt;
}

}  // namespace epic
