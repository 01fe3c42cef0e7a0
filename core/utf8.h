// Reading UTF-8 one character at a time, as strict as the Unicode standard: no overlong forms, no surrogates, nothing
// above U+10FFFF. Pure functions.
#ifndef EPIC_CORE_UTF8_H_
#define EPIC_CORE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace epic {

struct Utf8Character {
  enum class Kind {
    kValid,       // `length` bytes are the character `code_point`
    kInvalid,     // `length` bytes (at least one) cannot begin or belong to any character
    kUnfinished,  // the text ends inside a character that began rightly; `length` bytes of it are there
  } kind = Kind::kInvalid;
  size_t length = 0;
  char32_t code_point = 0;
};

// The character that begins at `position`. An invalid sequence is as long as the standard's "maximal subpart", which is
// what one U+FFFD stands for in every common decoder.
// REQUIRES: position < text.size().
Utf8Character ReadUtf8(std::string_view text, size_t position);

// The position of the first byte that is not part of a whole character, or nothing where all of `text` is UTF-8.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

}  // namespace epic

#endif  // EPIC_CORE_UTF8_H_
