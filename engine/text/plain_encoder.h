// Text in which no added token is left to find, to token ids: the part of a tokenizer in which the families differ.
//
// Immutable once made, thread-safe. Views the vocabulary, which must outlive it.
#ifndef EPIC_ENGINE_TEXT_PLAIN_ENCODER_H_
#define EPIC_ENGINE_TEXT_PLAIN_ENCODER_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_spec.h"
#include "engine/text/vocabulary.h"
#include "engine/text/word_cache.h"

namespace epic {

class PlainEncoder {
 public:
  virtual ~PlainEncoder() = default;

  // Appends the tokens of text[begin, end); their byte_ends are positions in `text`. `with_space`: as if a space stood
  // before the text, of which no byte counts; only for tokenizers that put one there. REQUIRES: `text` is UTF-8.
  virtual void Encode(std::string_view text, size_t begin, size_t end, bool with_space, WordCache& cache,
                      Tokenizer::Encoding& encoding) const = 0;

  // What a token decodes to, whatever its kind.
  virtual std::string BytesOf(int32_t id) const = 0;
};

// Byte-level BPE ("bpe"). INVALID_ARGUMENT where a byte of printable ASCII or the line feed has no token, or for the
// merges' reasons (Vocabulary::AddMerges); UNIMPLEMENTED names a pre-tokenizer that is not run.
absl::StatusOr<std::unique_ptr<PlainEncoder>> MakeByteLevelEncoder(const TokenizerSpec& spec,
                                                                   const Vocabulary& vocabulary);

// SentencePiece's BPE with byte fallback ("spm"). INVALID_ARGUMENT where a byte or the mark for spaces has no token, or
// for the reasons of the merges (Vocabulary::AddMerges) or scores (MergesFromScores).
absl::StatusOr<std::unique_ptr<PlainEncoder>> MakeSentencePieceEncoder(const TokenizerSpec& spec,
                                                                       const Vocabulary& vocabulary);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_PLAIN_ENCODER_H_
