#include "inference_worker/infer_job.h"

#include "core/limits.h"
#include "core/status_macros.h"
#include "engine/linker_gate.h"
#include "fmt/format.h"

namespace epic {
namespace {

absl::Status Above(const char* field, size_t seen, size_t limit) {
  return absl::InvalidArgumentError(fmt::format("{} is {}; at most {} are allowed", field, seen, limit));
}

absl::Status ValidatePrompt(const InferJob& job) {
  if (job.messages.empty()) return absl::InvalidArgumentError("prompt is empty; give at least one message or segment");
  if (!job.chat && job.messages.size() != 1) {
    return absl::InvalidArgumentError(
        fmt::format("a raw prompt has {} messages; it is one list of segments", job.messages.size()));
  }
  size_t parts = 0;
  size_t text_bytes = 0;
  for (const JobMessage& message : job.messages) {
    parts += message.parts.size();
    for (const JobPart& part : message.parts) {
      text_bytes += part.text.size();
      if (part.kind == JobPart::Kind::kChunk && part.chunk.token_ids.empty()) {
        return absl::InvalidArgumentError(fmt::format("chunk {} of document \"{}\" has no token ids",
                                                      part.chunk.chunk_index, part.chunk.document_id));
      }
    }
  }
  if (parts > kPromptSegmentsMax) return Above("the number of segments in the prompt", parts, kPromptSegmentsMax);
  if (text_bytes > kPromptTextBytesMax) return Above("bytes of text in the prompt", text_bytes, kPromptTextBytesMax);
  return absl::OkStatus();
}

absl::Status ValidateOutput(const InferJob& job, int64_t stream_bytes_max) {
  EPIC_RETURN_IF_ERROR(job.sampling.Validate());
  if (job.max_output_tokens < 1) {
    return absl::InvalidArgumentError(
        fmt::format("sampling.max_output_tokens is {}; it must be at least 1", job.max_output_tokens));
  }
  if (job.stop_strings.size() > kStopStringsMax) {
    return Above("the number of sampling.stop strings", job.stop_strings.size(), kStopStringsMax);
  }
  for (const std::string& stop : job.stop_strings) {
    if (stop.empty())
      return absl::InvalidArgumentError("sampling.stop holds an empty string, which would stop at once");
    if (stop.size() > kStopStringBytesMax)
      return Above("bytes of a sampling.stop string", stop.size(), kStopStringBytesMax);
  }
  if (job.continuation.size() > static_cast<size_t>(kContinuationTokensMax)) {
    return Above("the number of continuation_token_ids", job.continuation.size(), kContinuationTokensMax);
  }
  if (job.top_logprobs < 0 || job.top_logprobs > kTopLogprobsMax) {
    return absl::InvalidArgumentError(
        fmt::format("top_logprobs is {}; it must be between 0 and {}", job.top_logprobs, kTopLogprobsMax));
  }
  // A continuation is scored in one go, faster than any reader, so all of its answer must fit into the stream's buffer.
  const int64_t scored_bytes = static_cast<int64_t>(job.continuation.size()) * job.top_logprobs * kTopLogprobBytes;
  if (scored_bytes > stream_bytes_max / 2) {
    return absl::InvalidArgumentError(fmt::format(
        "continuation_token_ids x top_logprobs is {} x {}; at most {} log-probabilities are answered in one request",
        job.continuation.size(), job.top_logprobs, stream_bytes_max / 2 / kTopLogprobBytes));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ChunkSourceName(ChunkSource source) {
  switch (source) {
    case ChunkSource::kNotUsed:
      return "not used";
    case ChunkSource::kWorkerCache:
      return "worker cache";
    case ChunkSource::kHeldByNode:
      return "held by node";
    case ChunkSource::kCompiledByNode:
      return "compiled by node";
    case ChunkSource::kCompiledByWorker:
      return "compiled by worker";
  }
  return "unknown";
}

absl::Status ValidateJob(const InferJob& job, int64_t stream_bytes_max) {
  if (job.deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the request's deadline had passed when it reached the worker; nothing was run");
  }
  if (job.request_id.size() > kRequestIdBytesMax) {
    return Above("bytes of context.request_id", job.request_id.size(), kRequestIdBytesMax);
  }
  if (job.tenant.size() > kTenantBytesMax) return Above("bytes of context.tenant", job.tenant.size(), kTenantBytesMax);
  EPIC_RETURN_IF_ERROR(ValidatePrompt(job));
  return ValidateOutput(job, stream_bytes_max);
}

std::vector<std::string> RecipesOf(const InferJob& job) {
  PromptRecipes recipes;
  for (const JobMessage& message : job.messages) {
    for (const JobPart& part : message.parts) {
      if (part.kind != JobPart::Kind::kChunk) continue;
      recipes.AddChunk(part.chunk.document_id, !part.chunk.context_token_ids.empty());
    }
  }
  return recipes.Ids();
}

}  // namespace epic
