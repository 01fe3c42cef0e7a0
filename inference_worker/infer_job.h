// A question as a worker takes it: documents already resolved to chunks, and what comes back for it.
//
// Plain values without gRPC, so that the worker and its tests know no wire. Thread-compatible.
#ifndef EPIC_INFERENCE_WORKER_INFER_JOB_H_
#define EPIC_INFERENCE_WORKER_INFER_JOB_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/chunk_key.h"
#include "engine/engine.h"
#include "engine/linker.h"
#include "engine/text/sampler.h"

namespace epic {

// A chunk of a document, and where its KV lives.
struct JobChunk {
  ChunkKey key;
  std::vector<int32_t> token_ids;
  std::vector<int32_t> context_token_ids = {};  // of its document, that it is compiled in sight of (RecipeBehind)
  std::string home;  // address of the cache node that holds it, or will; empty: nobody, the worker compiles it
  std::string document_id;
  int32_t chunk_index = 0;
};

struct JobPart {
  enum class Kind { kText, kTokens, kChunk } kind = Kind::kText;
  std::string text;                // kText
  std::vector<int32_t> token_ids;  // kTokens
  JobChunk chunk;                  // kChunk
};

struct JobMessage {
  std::string role;  // ignored where the prompt is raw
  std::vector<JobPart> parts;
};

struct InferJob {
  std::string tenant;
  std::string request_id;
  std::string traceparent;
  std::string model_fingerprint_hex;  // empty: whatever the worker runs

  bool chat = true;  // false: one message, its parts exactly as they are
  std::vector<JobMessage> messages;
  std::string linker;  // a name for Linker::Parse; empty: the default
  Recipe recipe;       // of the chunks without context; an empty id where there are no chunks

  SamplingOptions sampling;
  int32_t max_output_tokens = 256;
  std::vector<std::string> stop_strings;
  bool ignore_end_of_turn = false;
  std::vector<int32_t> continuation;
  bool logprobs = false;
  int32_t top_logprobs = 0;
  bool explain = false;
  bool afresh = false;  // no rows of earlier requests are used, and none are kept of this one

  int64_t router_lookup_us = 0;   // spent by the router on resolving documents
  int64_t router_elapsed_us = 0;  // since the request arrived at the router, that included
  std::chrono::steady_clock::time_point arrival = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

// Where a chunk's KV came from.
enum class ChunkSource { kNotUsed, kWorkerCache, kHeldByNode, kCompiledByNode, kCompiledByWorker };
// "not used", "worker cache", "held by node", "compiled by node", "compiled by worker".
std::string ChunkSourceName(ChunkSource source);

// What was done with one chunk of the prompt, and why.
struct ChunkPlanEntry {
  std::string document_id;
  int32_t chunk_index = 0;
  int32_t token_count = 0;
  int32_t offset = 0;  // position of its first token in the prompt
  int32_t recomputed_tokens = 0;
  ChunkSource source = ChunkSource::kNotUsed;
  std::string reason;
  ChunkKey key;
};

// Wall time, split as in proto/epic/v1/inference.proto.
struct JobTiming {
  int64_t queue_us = 0;
  int64_t lookup_us = 0;
  int64_t load_us = 0;
  int64_t compile_us = 0;
  int64_t link_us = 0;
  int64_t first_token_us = 0;
  int64_t ttft_us = 0;
  int64_t total_us = 0;
  int64_t bytes_pulled = 0;
};

// The end of a job that succeeded.
struct JobFinal {
  FinishReason finish_reason = FinishReason::kStop;
  GenerationStats stats;
  JobTiming timing;
  std::vector<ChunkPlanEntry> plan;  // where `explain` was set
  std::string linker;                // canonical name
  std::string linker_note;           // why it is not the default, where the request named none
};

// What can be refused without a model: INVALID_ARGUMENT naming field, value and limit, or DEADLINE_EXCEEDED where the
// deadline has passed already. `stream_bytes_max` bounds what a scored continuation may answer at once.
absl::Status ValidateJob(const InferJob& job, int64_t stream_bytes_max);

// Bytes that log-probabilities of `count` most likely tokens take in a stream's buffer.
inline constexpr int64_t kTopLogprobBytes = 8;

// By which recipes the documents of the job's chunks are compiled (PromptRecipes).
std::vector<std::string> RecipesOf(const InferJob& job);

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_INFER_JOB_H_
