// Merges from the scores of a SentencePiece vocabulary.
#ifndef EPIC_ENGINE_TEXT_SCORE_MERGES_H_
#define EPIC_ENGINE_TEXT_SCORE_MERGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

// Every way in which a normal token is two others put together, "left right", in the order in which the reference's own
// conversion ranks them (`generate_merges` of transformers): the higher score of the whole first, then the longer left
// part, then the longer right one, then by the parts' ids.
// INVALID_ARGUMENT for as many scores as there are no tokens, a score that is no finite number, or a token longer than
// any real one.
absl::StatusOr<std::vector<std::string>> MergesFromScores(const std::vector<std::string>& tokens,
                                                          const std::vector<TokenKind>& kinds,
                                                          const std::vector<float>& scores);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_SCORE_MERGES_H_
