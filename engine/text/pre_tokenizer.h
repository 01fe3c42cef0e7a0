// Cutting text into the pieces that byte-pair merges never cross.
//
// "smollm" is what `tokenizers` calls Sequence[Digits(individual_digits), ByteLevel(use_regex)]: every number character
// stands alone, and what is left between them is cut as GPT-2 does it, by the expression
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// matched within each stretch between numbers, so that a number behind white space counts as the end of the text.
// It is a scanner of our own and not a regular expression: linear time, no stack to overflow, the same classes
// everywhere.
#ifndef EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_
#define EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <string_view>

namespace epic {

// The end of the piece that begins at `begin`. Calling it again from there gives the next one; the pieces cover the
// text. REQUIRES: `text` is UTF-8, begin < text.size(), and begin is 0 or an end returned for the same text.
size_t NextSmolLmPiece(std::string_view text, size_t begin);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_
