// Cuts a document into chunks. Pure: the same tokens, text and options give the same chunks everywhere.
//
// A chunk takes `target_tokens`, is extended token by token to the end of a sentence as far as 1.5 x target, failing
// that to the end of a line as far as 2 x target, failing that it is cut at target_tokens, or at the first later token
// that ends on a UTF-8 character boundary. The end of the text ends a sentence and a line. A tail under
// `tail_tokens_min` joins its predecessor. No chunk is longer than 2 x target: that maximum wins over the joining of a
// tail, which then stays a short chunk, and over the unity of a character. Never across documents.
#ifndef EPIC_CORE_CHUNKER_H_
#define EPIC_CORE_CHUNKER_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace epic {

inline constexpr int32_t kChunkerVersion = 1;  // goes up with every change of where chunks are cut

struct ChunkerOptions {
  int32_t target_tokens = 512;  // values below 1 count as 1
  int32_t tail_tokens_min = 64;
};

struct TokenSpan {
  int32_t begin = 0;
  int32_t end = 0;  // exclusive
  friend bool operator==(const TokenSpan&, const TokenSpan&) = default;
};

// `token_byte_ends[i]` is the end of token i in `text`; pass an empty text and no ends for a document that was
// registered as token ids, which is then cut at target_tokens.
// REQUIRES: text.empty() or token_byte_ends.size() == token_count, ends ascending and within the text.
std::vector<TokenSpan> ChunkDocument(int32_t token_count, std::string_view text,
                                     std::span<const size_t> token_byte_ends, const ChunkerOptions& options);

// Where the section of each chunk begins, as the index of its first token: chunks of a section see each other when a
// document is compiled as a whole (recipe "document"). A section takes chunks as long as all of it has at most
// `section_tokens_max` tokens; a chunk that alone has more is a section of its own. REQUIRES: spans without gaps.
std::vector<int32_t> SectionBegins(std::span<const TokenSpan> spans, int32_t section_tokens_max);

}  // namespace epic

#endif  // EPIC_CORE_CHUNKER_H_
