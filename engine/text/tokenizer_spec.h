// What a model file says of its tokenizer and chat template, before anything is built from it.
// Both GGUF metadata and tokenizer.json / tokenizer_config.json are brought to this one form.
#ifndef EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_
#define EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace epic {

enum class TokenKind : uint8_t { kNormal, kControl, kUserDefined, kUnknown, kUnused, kByte };

// Where a tokenizer of SentencePiece's kind puts a space that the text does not have.
enum class SpacePrefix : uint8_t {
  kNever,
  kFirst,  // before the text that begins the prompt
  kEvery,  // there, and behind every control token
};

// How an added token is found in text. The default is that of every family's own control tokens.
struct AddedTokenRule {
  bool strips_left = false;         // white space before it belongs to it
  bool strips_right = false;        // white space behind it belongs to it
  bool in_normalized_text = false;  // looked for behind the normaliser, in what the others leave (user-defined only)

  bool operator==(const AddedTokenRule&) const = default;
};

// A new field that changes token ids must also be covered by TokenizerDigest (engine/files/fingerprint.h).
struct TokenizerSpec {
  // "bpe": byte-level BPE. "spm": BPE over characters with byte fallback, as SentencePiece does it for Llama 2, Mistral
  // and Yi. Anything else is refused by the tokenizer.
  std::string model;
  // "bpe" only: how text is cut before merges run; pre_tokenizer.h has the names. tokenizer.json's own description is
  // recognised and brought to one of them.
  std::string pre_tokenizer;
  bool normalizes_nfc = false;  // text is brought to Unicode's form NFC first
  bool ignore_merges = false;   // "bpe" only: a piece that is a token as a whole is that token, whatever the merges say
  SpacePrefix space_prefix = SpacePrefix::kNever;  // "spm" only
  bool space_prefix_unless_space = false;          // "spm" only: none before text that begins with a space already
  bool decode_strips_space = false;                // decoded text loses one space at its beginning

  // By id. "bpe": in the byte-level alphabet (GPT-2's printable stand-ins for bytes); "spm": with U+2581 for spaces.
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;                   // by id, same length
  std::vector<std::string> merges;                // "left right", in rank order
  std::vector<float> scores;                      // "spm" only, by id: where there are no merges they follow from these
  std::map<int32_t, AddedTokenRule> added_rules;  // by id, for control and user-defined tokens that are not the default

  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::vector<int32_t> stop_ids;  // what ends a generation beside eos_id; may repeat it
  bool add_bos = false;           // the model's tokenizer starts a sequence with bos_id
  std::string chat_template;      // Jinja source, or empty
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TOKENIZER_SPEC_H_
