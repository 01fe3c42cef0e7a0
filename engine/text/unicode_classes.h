// Letters, marks, numbers and white space, as the `tokenizers` package classes them (see make_unicode_ranges.py for why
// the table is ours and not an installed library's). Pure functions, thread-safe.
#ifndef EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_
#define EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_

#include <array>
#include <cstdint>

namespace epic {

enum class CharacterClass : uint8_t {
  kOther,         // punctuation, symbols, control characters and unassigned code points
  kUpper,         // upper and title case: Lu, Lt
  kLower,         // Ll
  kOtherLetter,   // Lm, Lo
  kMark,          // M
  kNumber,        // N
  kDigitsNumber,  // a number to the `Digits` pre-tokenizer, which follows a newer Unicode, and to nothing else
  kSpace,
};

namespace internal {
extern const std::array<CharacterClass, 128> kAsciiClasses;
CharacterClass ClassBehindAscii(char32_t code_point);
}  // namespace internal

inline CharacterClass ClassOf(char32_t code_point) {
  return code_point < 0x80 ? internal::kAsciiClasses[code_point] : internal::ClassBehindAscii(code_point);
}

inline bool IsLetter(CharacterClass character_class) {
  return character_class >= CharacterClass::kUpper && character_class <= CharacterClass::kOtherLetter;
}

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_
