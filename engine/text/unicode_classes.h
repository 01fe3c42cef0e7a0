// Letters, numbers and white space, as the `tokenizers` package classes them (see make_unicode_ranges.py for why the
// table is ours and not an installed library's). Pure function, thread-safe.
#ifndef EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_
#define EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_

#include <cstdint>

namespace epic {

enum class CharacterClass : uint8_t { kOther, kLetter, kNumber, kSpace };

// Combining marks, punctuation, symbols, control characters and unassigned code points are kOther.
CharacterClass ClassOf(char32_t code_point);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_UNICODE_CLASSES_H_
