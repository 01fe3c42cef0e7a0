// The engine: one model, its weights once, one scheduler thread, one pool of compute threads.
//
// Compiles chunks and answers requests. Everything public is thread-safe; callbacks come from the scheduler thread,
// must not block and must not call back into the engine. Requests run in a continuous batch: decode steps first, then
// bounded pieces of linking and prefill in order of arrival, then compile jobs. A request's tokens are the same alone
// and in any batch.
#ifndef EPIC_ENGINE_ENGINE_H_
#define EPIC_ENGINE_ENGINE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"
#include "engine/files/model_config.h"
#include "engine/linker.h"
#include "engine/prompt.h"
#include "engine/text/chat_template.h"
#include "engine/text/sampler.h"
#include "engine/text/tokenizer.h"

namespace epic {

struct EngineOptions {
  std::string model_path;
  std::string cache_dir;                      // for the remembered fingerprint; empty: remember nothing
  int32_t threads = 0;                        // compute threads; 0: one a core, never more than cores
  size_t private_kv_bytes = size_t{1} << 30;  // rows of running requests, pages of 64 tokens
  // Private rows that are kept for requests to come (row_cache.h); 0: none. Beside private_kv_bytes, not part of it.
  size_t prefix_cache_bytes = size_t{256} << 20;
  int32_t piece_tokens = 256;  // rows of prefill or link in one step; fewer where sequences wait for their next token
  int32_t running_requests_max = 64;
  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
};

// Everything that a request's timing and usage are made from.
struct GenerationStats {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;      // in chunks
  int32_t selected_tokens = 0;    // M: rows that ran through all layers, without those that were kept from before
  int32_t prefix_hit_tokens = 0;  // rows of the linker's choice that were kept from before
  double recomputed_tokens = 0;   // row-layers run for the prompt / layers
  int32_t completion_tokens = 0;
  int64_t queue_us = 0;
  int64_t compile_us = 0;  // naive-last: fresh spans compiled alone
  int64_t link_us = 0;
  int64_t first_token_us = 0;
  std::vector<int32_t> recomputed_per_segment;  // rows chosen in each segment of the prompt
  std::vector<int32_t> selected_positions;      // filled where GenerationRequest::record_selection
};

struct GeneratedToken {
  // The id of an event that carries text only: text that was held back, when generation ended.
  static constexpr int32_t kNoToken = -1;
  int32_t id = 0;
  std::string text;  // what may be shown now; may be empty
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // most likely first
};

enum class FinishReason { kStop, kLength, kScored };

struct GenerationRequest {
  std::vector<PromptSegment> prompt;
  Linker linker;
  SamplingOptions sampling;
  int32_t max_output_tokens = 256;
  std::vector<std::string> stop_strings;
  bool ignore_end_of_turn = false;
  // The prompt ends within a text that the answer goes on with (a raw prompt), so that a space at its start is text.
  bool continues_text = false;
  std::vector<int32_t> continuation;  // score these instead of sampling
  int32_t top_logprobs = 0;
  bool logprobs = false;
  bool record_selection = false;
  // The likeliest first tokens, at most this many, for whoever compares linkers: told once, before the first on_token
  // and also where that token ends the answer, whatever of the distribution the client asked for. 0: not told.
  int32_t first_token_candidates = 0;
  // Most likely first, with log-probabilities. Not called where the request ends before its first token.
  std::function<void(std::vector<std::pair<int32_t, float>>)> on_first_token_candidates;
  // Rows that requests ran are kept for later ones with the same salt, and for no others: the tenant.
  std::string cache_salt;
  // False: neither uses rows that were kept nor keeps its own. For measurements of what a linker costs.
  bool reuses_rows = true;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

  std::function<void(const GeneratedToken&)> on_token;
  // Exactly once, last. CANCELLED, DEADLINE_EXCEEDED or the engine's error; stats are filled as far as they are known.
  std::function<void(const absl::Status&, FinishReason, const GenerationStats&)> on_done;
};

// Compiles one chunk into `block`: memory of KvBlockBytes(info) zero bytes that stays in place until on_done.
struct CompileRequest {
  KvBlockInfo info;
  Recipe recipe;
  std::vector<ChunkKvPtr> context = {};  // of the recipe's prefix, what is compiled already (ChunkCompilation)
  std::span<std::byte> block;
  bool urgent = false;  // a request waits for it: before other compile jobs and shared fairly with link pieces
  // Exactly once: the edition, or why there is none. Runs on the scheduler thread.
  std::function<void(absl::StatusOr<uint64_t>)> on_done;
};

struct EngineLoad {
  int64_t running_requests = 0;
  int64_t waiting_requests = 0;
  int64_t queued_tokens = 0;             // rows still to be run by admitted and waiting requests and compile jobs
  double prefill_tokens_per_second = 0;  // measured, smoothed; 0 before the first measurement
  size_t private_kv_used_bytes = 0;  // reserved by running requests, without the pages that they share with the cache
  size_t private_kv_peak_bytes = 0;  // the largest it has been
  size_t private_kv_capacity_bytes = 0;
  size_t prefix_cache_used_bytes = 0;
  size_t prefix_cache_capacity_bytes = 0;
  uint64_t requests_total = 0;
  uint64_t generated_tokens_total = 0;
  uint64_t linked_rows_total = 0;
  uint64_t compiled_chunks_total = 0;
  uint64_t compiled_tokens_total = 0;
  uint64_t prefix_hit_tokens_total = 0;
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  // Cancels everything that runs; every on_done has been called when it returns.
  virtual ~Engine() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const std::string& fingerprint_hex() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  // FAILED_PRECONDITION with the reason where the model has no chat layout that we render.
  virtual absl::StatusOr<const ChatTemplate*> chat_template() const = 0;
  virtual KvShape kv_shape() const = 0;
  virtual size_t weight_bytes() const = 0;
  // "plain" or "sink4", the recipes of chunks without context; INVALID_ARGUMENT names both.
  virtual absl::StatusOr<Recipe> RecipeById(const std::string& id) const = 0;

  // Refuses at once what can never run: INVALID_ARGUMENT (prompt beyond the context, no fresh token at its end, chunk
  // of another model, token id outside the vocabulary), RESOURCE_EXHAUSTED (queue full, larger than the KV budget).
  // Else returns a handle.
  class Handle {
   public:
    virtual ~Handle() = default;
    virtual void Cancel() = 0;  // on_done follows with CANCELLED unless it was done
  };
  virtual absl::StatusOr<std::shared_ptr<Handle>> Generate(GenerationRequest request) = 0;
  virtual absl::StatusOr<std::shared_ptr<Handle>> Compile(CompileRequest request) = 0;

  virtual EngineLoad Load() const = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_ENGINE_H_
