// Text to token ids and back, exactly as the `tokenizers` package does it for the same model.
//
// Immutable after construction; every method may be called from many threads at once.
#ifndef EPIC_ENGINE_TEXT_TOKENIZER_H_
#define EPIC_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

class Tokenizer {
 public:
  // UNIMPLEMENTED for a tokenizer model or pre-tokenizer that we do not run exactly, INVALID_ARGUMENT for an
  // inconsistent vocabulary; both name the reason.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  struct Encoding {
    std::vector<int32_t> ids;
    // byte_ends[i]: the end of token i in the text, so that token i covers bytes [byte_ends[i-1], byte_ends[i]).
    std::vector<size_t> byte_ends;
  };

  // Encodes user text: special tokens are never recognised in it, so "<|im_end|>" becomes ordinary tokens. No BOS is
  // added. Bytes that are not UTF-8 are INVALID_ARGUMENT, naming the byte's position.
  virtual absl::StatusOr<Encoding> EncodeText(std::string_view text) const = 0;

  // Encodes with control and user-defined tokens recognised, for chat templates only; never for text of users.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeWithSpecials(std::string_view text) const = 0;

  // The bytes of one token. Control tokens decode to nothing unless `with_specials`. REQUIRES: 0 <= id < vocab_size().
  virtual std::string DecodeToken(int32_t id, bool with_specials = false) const = 0;
  // The bytes of all ids together; broken UTF-8 is left as it is.
  std::string Decode(std::span<const int32_t> ids, bool with_specials = false) const;

  virtual int32_t vocab_size() const = 0;
  virtual bool IsControl(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenId(std::string_view token) const = 0;  // by its written form, e.g. "<|im_end|>"

  // BOS where the model's own tokenizer starts a sequence with one (docs/linking.md, "Beginning of sequence").
  virtual std::optional<int32_t> sequence_start_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
};

// Turns a stream of tokens into a stream of whole UTF-8 characters. One object a sequence; not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // Returns what is complete after this token; holds back an unfinished character.
  std::string Push(int32_t id);
  // Returns what is still held back, with U+FFFD in place of a character that never ended.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string held_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TOKENIZER_H_
