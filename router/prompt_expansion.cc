#include "router/prompt_expansion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "engine/linker_gate.h"

namespace epic {
namespace {

// Bytes of text behind one token, about, for the estimate of work; the worker counts exactly.
constexpr double kTextBytesPerToken = 4;

// What has been counted of a prompt so far.
struct PromptSize {
  size_t segments = 0;
  size_t text_bytes = 0;
};

absl::Status ValidateSegment(const v1::Segment& segment, const std::string& field, PromptSize* size) {
  if (++size->segments > kPromptSegmentsMax) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt has more than {} segments, the limit", kPromptSegmentsMax));
  }
  switch (segment.content_case()) {
    case v1::Segment::kDocument:
      EPIC_RETURN_IF_ERROR(ValidateDocumentId(field + ".document.document_id", segment.document().document_id()));
      if (segment.document().first_chunk() < 0 || segment.document().chunk_count() < 0) {
        return absl::InvalidArgumentError(
            fmt::format("{}.document: first_chunk is {} and chunk_count {}; neither may be "
                        "negative",
                        field, segment.document().first_chunk(), segment.document().chunk_count()));
      }
      return absl::OkStatus();
    case v1::Segment::kText:
      size->text_bytes += segment.text().size();
      break;
    case v1::Segment::kTokenIds:
      for (const int32_t id : segment.token_ids().ids()) {
        if (id < 0)
          return absl::InvalidArgumentError(fmt::format("{}.token_ids has {}; ids are not negative", field, id));
      }
      size->text_bytes += static_cast<size_t>(segment.token_ids().ids_size()) * sizeof(int32_t);
      break;
    case v1::Segment::CONTENT_NOT_SET:
      return absl::InvalidArgumentError(fmt::format("{} is empty; expected document, text or token_ids", field));
  }
  if (size->text_bytes > kPromptTextBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt's text and token ids have more than {} bytes, the limit", kPromptTextBytesMax));
  }
  return absl::OkStatus();
}

absl::Status ValidatePrompt(const v1::GenerateRequest& request) {
  PromptSize size;
  if (request.has_raw()) {
    if (request.raw().segments().empty())
      return absl::InvalidArgumentError("raw.segments is empty; expected at least one");
    for (int i = 0; i < request.raw().segments_size(); ++i) {
      EPIC_RETURN_IF_ERROR(ValidateSegment(request.raw().segments(i), fmt::format("raw.segments[{}]", i), &size));
    }
    return absl::OkStatus();
  }
  if (!request.has_chat()) return absl::InvalidArgumentError("prompt is absent; expected chat or raw");
  if (request.chat().messages().empty()) {
    return absl::InvalidArgumentError("chat.messages is empty; expected at least one");
  }
  for (int i = 0; i < request.chat().messages_size(); ++i) {
    const v1::ChatMessage& message = request.chat().messages(i);
    const std::string field = fmt::format("chat.messages[{}]", i);
    if (message.role() != "system" && message.role() != "user" && message.role() != "assistant") {
      return absl::InvalidArgumentError(fmt::format("{}.role is {}; expected \"system\", \"user\" or \"assistant\"",
                                                    field, QuoteForMessage(message.role())));
    }
    // A message without segments costs room as well.
    if (++size.segments > kPromptSegmentsMax) {
      return absl::InvalidArgumentError(
          fmt::format("the prompt has more than {} messages and segments, the limit", kPromptSegmentsMax));
    }
    for (int k = 0; k < message.segments_size(); ++k) {
      EPIC_RETURN_IF_ERROR(ValidateSegment(message.segments(k), fmt::format("{}.segments[{}]", field, k), &size));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateSampling(const v1::Sampling& sampling) {
  if (!std::isfinite(sampling.temperature()) || sampling.temperature() < 0) {
    return absl::InvalidArgumentError(
        fmt::format("sampling.temperature is {}; expected a number of 0 (greedy) or more", sampling.temperature()));
  }
  if (!std::isfinite(sampling.top_p()) || sampling.top_p() < 0 || sampling.top_p() > 1) {
    return absl::InvalidArgumentError(fmt::format("sampling.top_p is {}; expected 0 to 1", sampling.top_p()));
  }
  if (sampling.top_k() < 0) {
    return absl::InvalidArgumentError(fmt::format("sampling.top_k is {}; expected 0 or more", sampling.top_k()));
  }
  if (sampling.max_output_tokens() < 0) {
    return absl::InvalidArgumentError(
        fmt::format("sampling.max_output_tokens is {}; expected 0 (for 256) or more", sampling.max_output_tokens()));
  }
  if (static_cast<size_t>(sampling.stop_size()) > kStopStringsMax) {
    return absl::InvalidArgumentError(
        fmt::format("sampling.stop has {} strings; the limit is {}", sampling.stop_size(), kStopStringsMax));
  }
  for (const std::string& stop : sampling.stop()) {
    if (stop.empty() || stop.size() > kStopStringBytesMax) {
      return absl::InvalidArgumentError(fmt::format("sampling.stop {} has {} bytes; expected 1 to {}",
                                                    QuoteForMessage(stop), stop.size(), kStopStringBytesMax));
    }
  }
  return absl::OkStatus();
}

// Calls visit(segment) for every segment of the prompt, in order.
template <typename Visit>
void ForEachSegment(const v1::GenerateRequest& request, const Visit& visit) {
  for (const v1::Segment& segment : request.raw().segments()) visit(segment);
  for (const v1::ChatMessage& message : request.chat().messages()) {
    for (const v1::Segment& segment : message.segments()) visit(segment);
  }
}

// Rows of one chunk that the linker runs through the model.
double LinkedTokens(const Linker& linker, double chunk_tokens) {
  switch (linker.kind) {
    case LinkerKind::kFull:
    case LinkerKind::kPrefix:
      return chunk_tokens;
    case LinkerKind::kNaive:
    case LinkerKind::kNaiveLast:
      return 0;
    case LinkerKind::kCacheBlend:
    case LinkerKind::kRandom:
      return chunk_tokens * linker.percent / 100;
    case LinkerKind::kLegoLink:
      return std::min<double>(chunk_tokens, linker.legolink_tokens);
  }
  return chunk_tokens;
}

// Builds the expanded prompt segment by segment.
class Expander {
 public:
  Expander(const Linker& linker, const v1::ModelInfo& model, const v1::ResolveDocumentsResponse& resolved)
      : linker_(linker), model_(model) {
    for (const v1::ResolvedDocument& document : resolved.documents()) documents_[document.document_id()] = &document;
  }

  absl::Status Add(const v1::Segment& segment, v1::InferMessage* message) {
    if (segment.has_document()) return AddDocument(segment.document(), message);
    if (segment.has_text()) {
      expanded_.link_tokens += static_cast<double>(segment.text().size()) / kTextBytesPerToken;
      message->add_segments()->set_text(segment.text());
      return absl::OkStatus();
    }
    EPIC_RETURN_IF_ERROR(CheckTokenIds(segment.token_ids()));
    expanded_.link_tokens += segment.token_ids().ids_size();
    *message->add_segments()->mutable_token_ids() = segment.token_ids();
    return CountTokens(segment.token_ids().ids_size());
  }

  ExpandedPrompt Take() { return std::move(expanded_); }
  v1::InferRequest* request() { return &expanded_.request; }

 private:
  absl::Status CheckTokenIds(const v1::TokenIds& token_ids) const {
    if (!token_ids.model_fingerprint().empty() && token_ids.model_fingerprint() != model_.fingerprint()) {
      return absl::FailedPreconditionError(fmt::format("token_ids are of model {}; the request runs on model {}",
                                                       QuoteForMessage(token_ids.model_fingerprint()),
                                                       model_.fingerprint()));
    }
    for (const int32_t id : token_ids.ids()) {
      if (model_.vocab_size() > 0 && id >= model_.vocab_size()) {
        return absl::InvalidArgumentError(
            fmt::format("token_ids has {}; the model's vocabulary ends at {}", id, model_.vocab_size() - 1));
      }
    }
    return absl::OkStatus();
  }

  // Stops a prompt that cannot fit before its tokens are copied, sent and run.
  absl::Status CountTokens(int64_t count) {
    tokens_ += count;
    if (model_.context_length() <= 0 || tokens_ <= model_.context_length()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("the prompt's documents and token ids have at least {} tokens; the "
                    "context of model {} is {}",
                    tokens_, QuoteForMessage(model_.name()), model_.context_length()));
  }

  absl::Status AddDocument(const v1::DocumentRef& reference, v1::InferMessage* message) {
    const v1::ResolvedDocument& document = *documents_.at(reference.document_id());
    const int64_t count = document.chunks_size();
    const int64_t first = reference.first_chunk();
    const int64_t end = reference.chunk_count() == 0 ? count : first + reference.chunk_count();
    if (first >= count || end > count) {
      return absl::InvalidArgumentError(
          fmt::format("document {} has {} chunks; the range of {} from chunk {} is outside",
                      QuoteForMessage(reference.document_id()), count, reference.chunk_count(), first));
    }
    if (!expanded_.request.has_recipe()) *expanded_.request.mutable_recipe() = document.recipe();
    // The tokens of the document before chunk i, as far as any chunk can have seen them.
    std::vector<int32_t> before;
    for (int64_t i = 0; i < first; ++i) {
      const auto& ids = document.chunks(static_cast<int>(i)).token_ids();
      before.insert(before.end(), ids.begin(), ids.end());
    }
    for (int64_t i = first; i < end; ++i) {
      const v1::ResolvedChunk& chunk = document.chunks(static_cast<int>(i));
      EPIC_RETURN_IF_ERROR(CountTokens(chunk.token_ids_size()));
      v1::InferChunk* out = message->add_segments()->mutable_chunk();
      *out->mutable_chunk() = chunk;
      out->set_document_id(reference.document_id());
      out->set_chunk_index(static_cast<int32_t>(i));
      const int32_t context = chunk.context_token_count();
      if (context < 0 || context > static_cast<int64_t>(before.size())) {
        return absl::InternalError(
            fmt::format("cache node {} says that chunk {} of document {} has seen {} tokens of {}", chunk.home(), i,
                        QuoteForMessage(reference.document_id()), context, before.size()));
      }
      out->mutable_context_token_ids()->Add(before.end() - context, before.end());
      before.insert(before.end(), chunk.token_ids().begin(), chunk.token_ids().end());
      const bool continues_run = i > first && context > 0 && linker_.kind == LinkerKind::kLegoLink;
      if (!continues_run) expanded_.link_tokens += LinkedTokens(linker_, chunk.token_ids_size());
      if (!linker_.UsesChunks() || !seen_keys_.insert(chunk.key()).second) continue;
      expanded_.chunk_bytes += static_cast<double>(chunk.block_bytes());
      v1::ResolvedChunk& distinct = expanded_.distinct_chunks.emplace_back();
      distinct.set_key(chunk.key());
      distinct.set_block_bytes(chunk.block_bytes());
    }
    return absl::OkStatus();
  }

  const Linker& linker_;
  const v1::ModelInfo& model_;
  std::map<std::string, const v1::ResolvedDocument*> documents_;
  std::set<std::string> seen_keys_;
  int64_t tokens_ = 0;
  ExpandedPrompt expanded_;
};

}  // namespace

absl::Status ValidateGenerateRequest(const v1::GenerateRequest& request) {
  EPIC_RETURN_IF_ERROR(Linker::Parse(request.linker()).status());
  EPIC_RETURN_IF_ERROR(ValidatePrompt(request));
  EPIC_RETURN_IF_ERROR(ValidateSampling(request.sampling()));
  if (request.continuation_token_ids_size() > kContinuationTokensMax) {
    return absl::InvalidArgumentError(fmt::format("continuation_token_ids has {} ids; the limit is {}",
                                                  request.continuation_token_ids_size(), kContinuationTokensMax));
  }
  for (const int32_t id : request.continuation_token_ids()) {
    if (id < 0)
      return absl::InvalidArgumentError(fmt::format("continuation_token_ids has {}; ids are not negative", id));
  }
  if (request.top_logprobs() < 0 || request.top_logprobs() > kTopLogprobsMax) {
    return absl::InvalidArgumentError(
        fmt::format("top_logprobs is {}; expected 0 to {}", request.top_logprobs(), kTopLogprobsMax));
  }
  return absl::OkStatus();
}

std::vector<std::string> DocumentsOf(const v1::GenerateRequest& request) {
  std::vector<std::string> ids;
  std::set<std::string> seen;
  ForEachSegment(request, [&](const v1::Segment& segment) {
    if (segment.has_document() && seen.insert(segment.document().document_id()).second) {
      ids.push_back(segment.document().document_id());
    }
  });
  return ids;
}

std::vector<std::string> RecipesOf(const v1::GenerateRequest& request, const v1::ResolveDocumentsResponse& resolved) {
  std::map<std::string, const v1::ResolvedDocument*> documents;
  for (const v1::ResolvedDocument& document : resolved.documents()) documents[document.document_id()] = &document;
  PromptRecipes recipes;
  ForEachSegment(request, [&](const v1::Segment& segment) {
    if (!segment.has_document()) return;
    const v1::DocumentRef& reference = segment.document();
    const v1::ResolvedDocument& document = *documents.at(reference.document_id());
    const int64_t first = reference.first_chunk();
    const int64_t last = reference.chunk_count() == 0 ? document.chunks_size() : first + reference.chunk_count();
    // What reaches behind the document is refused when it is expanded.
    for (int64_t i = first; i < std::min<int64_t>(last, document.chunks_size()); ++i) {
      recipes.AddChunk(reference.document_id(), document.chunks(static_cast<int>(i)).context_token_count() > 0);
    }
  });
  return recipes.Ids();
}

absl::StatusOr<ExpandedPrompt> ExpandPrompt(const v1::GenerateRequest& request, const Linker& linker,
                                            const v1::ModelInfo& model, const v1::ResolveDocumentsResponse& resolved) {
  Expander expander(linker, model, resolved);
  v1::InferRequest* out = expander.request();
  *out->mutable_context() = request.context();
  out->set_model_fingerprint(model.fingerprint());
  out->set_chat(request.has_chat());
  out->set_linker(linker.Name());
  *out->mutable_sampling() = request.sampling();
  *out->mutable_continuation_token_ids() = request.continuation_token_ids();
  out->set_logprobs(request.logprobs());
  out->set_top_logprobs(request.top_logprobs());
  out->set_explain(request.explain());
  out->set_afresh(request.afresh());
  if (request.has_raw()) {
    v1::InferMessage* message = out->add_messages();
    for (const v1::Segment& segment : request.raw().segments()) EPIC_RETURN_IF_ERROR(expander.Add(segment, message));
  }
  for (const v1::ChatMessage& chat_message : request.chat().messages()) {
    v1::InferMessage* message = out->add_messages();
    message->set_role(chat_message.role());
    for (const v1::Segment& segment : chat_message.segments()) EPIC_RETURN_IF_ERROR(expander.Add(segment, message));
  }
  return expander.Take();
}

}  // namespace epic
