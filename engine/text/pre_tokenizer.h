// Cutting text into the pieces that byte-pair merges never cross, as each family of models does it.
//
// The families' own descriptions are regular expressions. These are scanners of our own that do what those expressions
// do, alternative by alternative: linear time, no stack to overflow, the same classes of characters everywhere.
#ifndef EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_
#define EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace epic {

enum class PreTokenizer : uint8_t {
  // GPT-2:
  //     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  // SmolLM2: every number character stands alone, and each stretch between them is cut as GPT-2 does it, so that a
  // number behind white space counts as the end of the text.
  kSmolLm,
  // Llama 3: contractions in either case, up to three digits together, line ends with the symbols before them:
  //     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
  //     \s+(?!\S)|\s+
  kLlama3,
  // Qwen 2, 2.5 and 3: as Llama 3, but every digit alone.
  kQwen2,
  // Mistral Nemo: words end where lower case turns to upper, no contractions, every digit alone:
  //     [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|
  //     [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|
  //     ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
  // (the fourth alternative begins with an optional space).
  kTekken,
};

// By the name that GGUF gives it in tokenizer.ggml.pre: "gpt-2", "smollm", "llama-bpe" (also "llama3", "llama-v3"),
// "qwen2", "tekken". Nothing for any other.
std::optional<PreTokenizer> PreTokenizerByName(std::string_view name);

// The same names, for messages.
inline constexpr std::string_view kPreTokenizerNames = R"("gpt-2", "smollm", "llama-bpe", "qwen2" and "tekken")";

// The end of the piece that begins at `begin`. Calling it again from there gives the next one; the pieces cover the
// text. REQUIRES: `text` is UTF-8, begin < text.size(), and begin is 0 or an end returned for the same text.
size_t NextPiece(PreTokenizer pre_tokenizer, std::string_view text, size_t begin);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_PRE_TOKENIZER_H_
