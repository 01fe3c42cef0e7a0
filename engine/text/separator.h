// Separators: tokens that end a sentence or a line and are nothing else.
//
// Models put much of their attention on such tokens (SepLLM, arXiv 2412.12094), as they do on the first tokens of what
// they read: where a chunk was compiled alone, those are the rows that its readers notice most (docs/linking.md).
#ifndef EPIC_ENGINE_TEXT_SEPARATOR_H_
#define EPIC_ENGINE_TEXT_SEPARATOR_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace epic {

// `text`: a token's bytes. Spaces, tabs, line ends and the full stops, question and exclamation marks of Latin and
// Chinese script, and of those that are no space or tab at least one. Pure.
bool IsSeparator(std::string_view text);

// Of every token of the vocabulary, by id.
std::vector<bool> SeparatorsOf(const Tokenizer& tokenizer);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_SEPARATOR_H_
