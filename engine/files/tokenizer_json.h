// tokenizer.json of the `tokenizers` library, with tokenizer_config.json and chat_template.jinja beside it, as a
// TokenizerSpec.
//
// tokenizer.json describes a pipeline (normaliser, pre-tokenizer, model, post-processor, decoder). We recognise the
// ones that we run - byte-level BPE as Llama 3, Qwen, Mistral Nemo, SmolLM2 and GPT-2 have it, and SentencePiece's BPE
// with byte fallback as Llama 2, Mistral and Yi have it - and refuse every other by the name of the part that differs
// (UNIMPLEMENTED); contradictions are INVALID_ARGUMENT. `truncation` and `padding` concern batches of its own library
// and are passed over. What tokenizer_config.json says of added tokens, and of SentencePiece's space and BOS, has
// precedence, as in transformers. docs/tokenizers.md has the whole list.
#ifndef EPIC_ENGINE_FILES_TOKENIZER_JSON_H_
#define EPIC_ENGINE_FILES_TOKENIZER_JSON_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

// The tokens by which config.json begins and ends a sequence; tokenizer_config.json, where it names any, has
// precedence.
struct SequenceTokens {
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

// `vocab_size` is the number of the embedding's rows: no token may have an id beyond it. Not yet padded to it.
[[nodiscard]] absl::StatusOr<TokenizerSpec> TokenizerFromFolder(const std::string& folder, int32_t vocab_size,
                                                                const SequenceTokens& defaults);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_TOKENIZER_JSON_H_
