// What a model file says of its tokenizer and chat template, before anything is built from it.
// Both GGUF metadata and tokenizer.json / tokenizer_config.json are brought to this one form.
#ifndef EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_
#define EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace epic {

enum class TokenKind : uint8_t { kNormal, kControl, kUserDefined, kUnknown, kUnused, kByte };

struct TokenizerSpec {
  std::string model;          // "bpe": byte-level BPE. Anything else is refused by the tokenizer.
  std::string pre_tokenizer;  // "smollm". tokenizer.json's own description is recognised and brought to this name.
  std::vector<std::string> tokens;  // by id, in the byte-level alphabet (GPT-2's printable stand-ins for bytes)
  std::vector<TokenKind> kinds;     // by id, same length
  std::vector<std::string> merges;  // "left right", in rank order
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  bool add_bos = false;       // the model's tokenizer starts a sequence with bos_id
  std::string chat_template;  // Jinja source, or empty
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_
