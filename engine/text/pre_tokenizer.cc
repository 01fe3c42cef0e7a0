#include "engine/text/pre_tokenizer.h"

#include "core/utf8.h"
#include "engine/text/unicode_classes.h"

namespace epic {
namespace {

struct ClassedCharacter {
  CharacterClass character_class;
  size_t length;
};

ClassedCharacter ReadClass(std::string_view text, size_t position) {
  const auto byte = static_cast<unsigned char>(text[position]);
  if (byte < 0x80) return {ClassOf(byte), 1};
  const Utf8Character character = ReadUtf8(text, position);
  return {ClassOf(character.code_point), character.length};
}

// The length of one of 's 't 're 've 'm 'll 'd at `begin` (lower case only), or 0.
size_t ContractionLength(std::string_view text, size_t begin) {
  const std::string_view rest = text.substr(begin + 1);
  if (rest.empty()) return 0;
  switch (rest[0]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return rest.size() > 1 && rest[1] == 'e' ? 3 : 0;
    case 'l':
      return rest.size() > 1 && rest[1] == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

size_t EndOfRun(std::string_view text, size_t begin, CharacterClass character_class) {
  size_t end = begin;
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (next.character_class != character_class) break;
    end += next.length;
  }
  return end;
}

// A run of white space. Before a letter or a symbol its last character is left over: a space then joins what follows,
// anything else becomes a piece of its own.
size_t EndOfSpaces(std::string_view text, size_t begin) {
  size_t end = begin;
  size_t last = begin;  // where the run's last character begins
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (next.character_class == CharacterClass::kNumber) return end;
    if (next.character_class != CharacterClass::kSpace) return last > begin ? last : end;
    last = end;
    end += next.length;
  }
  return end;
}

}  // namespace

size_t NextSmolLmPiece(std::string_view text, size_t begin) {
  const ClassedCharacter first = ReadClass(text, begin);
  if (first.character_class == CharacterClass::kNumber) return begin + first.length;
  if (text[begin] == '\'') {
    const size_t length = ContractionLength(text, begin);
    if (length > 0) return begin + length;
  }
  if (first.character_class != CharacterClass::kSpace) return EndOfRun(text, begin, first.character_class);
  if (text[begin] == ' ' && begin + 1 < text.size()) {
    const CharacterClass next = ReadClass(text, begin + 1).character_class;
    if (next == CharacterClass::kLetter || next == CharacterClass::kOther) return EndOfRun(text, begin + 1, next);
  }
  return EndOfSpaces(text, begin);
}

}  // namespace epic
