// From a client's GenerateRequest to a worker's InferRequest: checks, the documents that it names, and their chunks in
// their place. Pure.
#ifndef EPIC_ROUTER_PROMPT_EXPANSION_H_
#define EPIC_ROUTER_PROMPT_EXPANSION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/linker.h"
#include "epic/v1/document.pb.h"
#include "epic/v1/inference.pb.h"

namespace epic {

// Everything that can be said without knowing model or documents. INVALID_ARGUMENT names field, value and limit.
absl::Status ValidateGenerateRequest(const v1::GenerateRequest& request);

// Every document that the prompt names, once, in the order of first mention. REQUIRES: the request is valid.
std::vector<std::string> DocumentsOf(const v1::GenerateRequest& request);

// By which recipes the chunks that the prompt names are compiled (PromptRecipes): of a range, its chunks alone, so that
// the worker, which sees no others, judges the same. REQUIRES: as for ExpandPrompt.
std::vector<std::string> RecipesOf(const v1::GenerateRequest& request, const v1::ResolveDocumentsResponse& resolved);

struct ExpandedPrompt {
  v1::InferRequest request;
  // For placement: every distinct chunk once, and estimates of the work.
  std::vector<v1::ResolvedChunk> distinct_chunks;  // without token ids
  double chunk_bytes = 0;
  double link_tokens = 0;
};

// Puts documents' chunks in their place. `resolved` has an entry for each of DocumentsOf, in that order.
// INVALID_ARGUMENT: a chunk range outside its document; more chunk and id tokens than the model's context; a token id
// outside the vocabulary. FAILED_PRECONDITION: token ids of another model. REQUIRES: the request is valid.
absl::StatusOr<ExpandedPrompt> ExpandPrompt(const v1::GenerateRequest& request, const Linker& linker,
                                            const v1::ModelInfo& model, const v1::ResolveDocumentsResponse& resolved);

}  // namespace epic

#endif  // EPIC_ROUTER_PROMPT_EXPANSION_H_
