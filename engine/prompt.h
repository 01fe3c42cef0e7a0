// Prompts as the engine takes them: token ids in segments, chunk or fresh, laid out by the model's chat template.
#ifndef EPIC_ENGINE_PROMPT_H_
#define EPIC_ENGINE_PROMPT_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/kv.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace epic {

// A span of a prompt: a chunk with its KV, or fresh tokens (chunk == nullptr). A chunk without KV for a linker that
// does not use chunks (full, prefix) is given as fresh = false, chunk = nullptr: its tokens still count as cached
// content.
struct PromptSegment {
  std::vector<int32_t> token_ids;
  bool is_chunk = false;
  ChunkKvPtr chunk;  // REQUIRES: set where is_chunk and the linker uses chunks; its token ids equal token_ids
  // Of a chunk: the tokens of its document that it was compiled in sight of (RecipeBehind). Empty: of none.
  std::vector<int32_t> context_token_ids = {};
};

// What a caller has before tokenization: text, token ids, or a chunk.
struct PromptPart {
  enum class Kind { kText, kTokens, kChunk } kind = Kind::kText;
  std::string text;                             // kText
  std::vector<int32_t> token_ids;               // kTokens, kChunk
  ChunkKvPtr chunk;                             // kChunk, may be null (see PromptSegment)
  std::vector<int32_t> context_token_ids = {};  // kChunk, as in PromptSegment
};
struct PromptMessage {
  std::string role;
  std::vector<PromptPart> parts;
};

// The day in UTC, so that every worker writes the same one into its prompts.
std::chrono::year_month_day Today();

// Lays out `messages` by the template: template text with special tokens on, text parts of messages with special tokens
// off, chunks and token ids as they are. All text between two of those is encoded as one, so that a prompt without them
// has the ids of `apply_chat_template`, and adjacent fresh tokens become one segment.
//
// Beginning of sequence, one rule for every linker: where the model's own tokenizer starts a sequence with BOS, the
// prompt has one at its start, written by the template or else put there by us (apply_chat_template would leave it out;
// docs/chat-templates.md, "Beginning of sequence"). Where it does not, there is one where the template writes it.
//
// `today` is for the layouts that name the date (llama-3.2). INVALID_ARGUMENT for text that is not UTF-8, token ids
// outside the vocabulary, or messages that the template refuses.
absl::StatusOr<std::vector<PromptSegment>> BuildChatPrompt(const Tokenizer& tokenizer,
                                                           const ChatTemplate& chat_template,
                                                           const std::vector<PromptMessage>& messages,
                                                           std::chrono::year_month_day today = Today());
// Exactly these parts, text parts that touch encoded as one, behind BOS where the model's tokenizer starts a sequence
// with one and the parts do not begin with it.
absl::StatusOr<std::vector<PromptSegment>> BuildRawPrompt(const Tokenizer& tokenizer,
                                                          const std::vector<PromptPart>& parts);

}  // namespace epic

#endif  // EPIC_ENGINE_PROMPT_H_
