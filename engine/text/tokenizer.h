// Text to token ids and back, exactly as the `tokenizers` package does it for the same model.
//
// Byte-level BPE with the pre-tokenizers of Llama 3, Qwen, Mistral Nemo, SmolLM2 and GPT-2, and SentencePiece's BPE as
// Llama 2, Mistral and Yi have it; docs/tokenizers.md says how each is recognised. A token is one of
//   normal        built by merges from bytes or characters; written in the byte-level alphabet ("Ġthe") or with U+2581
//                 for spaces ("▁the");
//   byte          of SentencePiece's kind only: a byte of a character that is no token, written "<0x0A>";
//   control       never recognised in text of users, decodes to nothing; written as itself ("<|im_end|>");
//   user-defined  an added token that is not special; recognised in every text before merges run, decodes to itself.
// This is what `tokenizers` does with `encode_special_tokens` on, except that added tokens decode to their written form
// even where that is not ASCII. A token named as BOS, EOS or a stop token is treated as control, because text of users
// must never end or begin a turn; a loader checks the same of ChatTemplate's stop tokens with IsControl.
//
// Some vocabularies lack tokens for single bytes (SmolLM2's for 21: a few control characters and the first bytes of
// rare planes). The reference leaves such bytes out without a word, and so do we: the text decodes without them.
//
// Immutable after construction; every method may be called from many threads at once. The length of a text is the
// caller's to limit; time grows linearly with it, but for single words of kilobytes, where it is n log n.
#ifndef EPIC_ENGINE_TEXT_TOKENIZER_H_
#define EPIC_ENGINE_TEXT_TOKENIZER_H_

#include <cstddef>
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

// A part of a prompt's text. Control tokens are recognised only inside pieces with `specials`: the literal text of a
// chat template, never text of users.
struct TextPiece {
  std::string_view text;
  bool specials = false;
};

class Tokenizer {
 public:
  // UNIMPLEMENTED for a tokenizer model or pre-tokenizer that we do not run exactly, INVALID_ARGUMENT for an
  // inconsistent vocabulary; both name the reason. Inconsistent is: a byte of printable ASCII or the line feed
  // without a token, a token twice, a merge that names an unknown token or comes twice, a merge that would build a
  // control token out of ordinary text.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  struct Encoding {
    std::vector<int32_t> ids;
    // byte_ends[i]: the end of token i in the text, so that token i covers bytes [byte_ends[i-1], byte_ends[i]).
    // A token may end inside a character. Bytes that the vocabulary has no token for count to the token behind them,
    // at the end of the text to the last one: where there is any token, byte_ends.back() is the text's length. Where
    // text was normalised first, all bytes of a stretch that changed count to the token that ends with it or behind it.
    std::vector<size_t> byte_ends;
  };

  // Encodes user text: special tokens are never recognised in it, so "<|im_end|>" becomes ordinary tokens. No BOS is
  // added, and no space that stands for the beginning of a prompt. Bytes that are not UTF-8 are INVALID_ARGUMENT,
  // naming the byte's position.
  virtual absl::StatusOr<Encoding> EncodeText(std::string_view text) const = 0;

  // The ids of all pieces' text put together, as the reference encodes the whole: what stands between two control
  // tokens is encoded as one text, so that a template's literal text merges with the content beside it. A control token
  // never reaches across the edge of its piece. No BOS is added. `at_start`: the text begins the prompt, which is where
  // tokenizers of SentencePiece's kind put a space before it; text behind a chunk continues and gets none. A BOS that
  // the template writes out stays in the text, in a piece with `specials`: what stands behind it is not the beginning.
  // Bytes that are not UTF-8 are INVALID_ARGUMENT, naming the byte's position in its piece.
  virtual absl::StatusOr<std::vector<int32_t>> EncodePieces(std::span<const TextPiece> pieces, bool at_start) const = 0;

  // Encodes with control and user-defined tokens recognised, for chat templates only; never for text of users.
  // Control tokens are found first, the longest at the leftmost place; user-defined ones in what is left between them.
  absl::StatusOr<std::vector<int32_t>> EncodeWithSpecials(std::string_view text) const;

  // The bytes of one token. Control tokens decode to nothing unless `with_specials`. An id outside [0, vocab_size())
  // decodes to nothing: a model may have more logits than its vocabulary has tokens.
  virtual std::string DecodeToken(int32_t id, bool with_specials = false) const = 0;
  // The bytes of all ids together, less one space at the beginning where decode_strips_space(); broken UTF-8 is left as
  // it is.
  std::string Decode(std::span<const int32_t> ids, bool with_specials = false) const;

  virtual int32_t vocab_size() const = 0;
  virtual bool IsControl(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenId(std::string_view token) const = 0;  // by its written form, e.g. "<|im_end|>"

  // BOS where the model's own tokenizer starts a sequence with one (docs/chat-templates.md, "Beginning of sequence").
  virtual std::optional<int32_t> sequence_start_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
  // Every token that ends a generation: EOS and TokenizerSpec::stop_ids, ascending, each once. All are control.
  virtual std::span<const int32_t> stop_ids() const = 0;
  // Whether a text loses one space at its beginning when it is decoded, because encoding puts one there.
  virtual bool decode_strips_space() const = 0;
};

// Turns a stream of tokens into a stream of whole UTF-8 characters. One object a sequence; not thread-safe.
// The concatenation of all that it returns is the decoded bytes with U+FFFD for each invalid sequence, however the
// bytes fall into tokens.
class StreamDecoder {
 public:
  // `tokenizer` must outlive the decoder. `continues`: the tokens continue a text, so that a space at their beginning
  // stays although the tokenizer's decoder strips one; without it the stream is what Decode gives for all of it.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool continues = false)
      : tokenizer_(tokenizer), strips_space_(tokenizer.decode_strips_space() && !continues) {}
  // Returns what is complete after this token; holds back an unfinished character (at most three bytes).
  std::string Push(int32_t id);
  // Returns what is still held back, with U+FFFD in place of a character that never ended.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool strips_space_;  // nothing has come yet, and a space would be stripped
  std::string held_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TOKENIZER_H_
