// One request inside the scheduler: its stages from waiting to done, and what its tokens turn into.
// Touched by the scheduler's thread alone, but for `cancelled`.
#ifndef EPIC_ENGINE_REQUEST_STATE_H_
#define EPIC_ENGINE_REQUEST_STATE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/chunk_compilation.h"
#include "engine/engine.h"
#include "engine/link_job.h"
#include "engine/prefix_cache.h"

namespace epic {

using SteadyTime = std::chrono::steady_clock::time_point;

// What every request of an engine shares.
struct RequestEnvironment {
  Backend& backend;
  const Tokenizer& tokenizer;
  std::vector<int32_t> stop_tokens;  // end of turn, end of sequence
  Recipe plain;
  std::string fingerprint_hex;
};

class RequestState {
 public:
  enum class Stage { kWaiting, kCompilingFresh, kLinking, kDecoding, kDone };

  // `recipe` is the one that the request's linker uses.
  RequestState(const RequestEnvironment& environment, GenerationRequest request, const Recipe& recipe, SteadyTime now);

  std::atomic<bool> cancelled{false};

  Stage stage() const { return stage_; }
  const GenerationRequest& request() const { return request_; }
  // Bytes of private pages that this request can come to need; known from the start, reserved at admission.
  size_t reserved_bytes() const { return reserved_bytes_; }
  int64_t remaining_rows() const;

  // kWaiting -> kCompilingFresh or kLinking.
  void Admit(PrefixCache& prefix_cache, SteadyTime now);
  // The next rows for a batch that runs all layers (compiling fresh spans, linking, or the next token). 0 where the
  // linker runs its own pass.
  int32_t TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions, SequenceKv** kv);
  // The rows taken have run; `hidden` is [rows, width]. Returns true where logits of the last row are wanted: give them
  // to AcceptLogits.
  bool FinishRows(const float* hidden, int32_t rows, SteadyTime now);
  bool NeedsOwnPass() const { return stage_ == Stage::kLinking && link_->NeedsOwnPass(); }
  // Returns true where the prompt is linked: logits of link().last_hidden() are wanted.
  bool RunOwnPass(int32_t rows_max, int32_t* rows_run, SteadyTime* finished);
  const float* last_hidden() const { return link_->last_hidden().data(); }

  // Logits after the sequence's last row: chooses, or scores, the next token and reports it. May end the request.
  void AcceptLogits(std::span<const float> logits, SteadyTime now);
  // Ends the request with this status, once; later calls do nothing.
  void Finish(const absl::Status& status, FinishReason reason);
  // Offers finished pages to the prefix cache (linker `prefix` only).
  void PublishPrefix(PrefixCache& prefix_cache) const;
  int32_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  int32_t completion_tokens() const { return stats_.completion_tokens; }

 private:
  void StartLink();
  void StartNextFresh();
  absl::Status FinishFresh();
  void Linked(SteadyTime now);
  void EmitToken(int32_t id, std::span<const float> logits, const std::string& text);
  void ComputeReservation(const LinkPlan& plan);

  const RequestEnvironment& environment_;
  GenerationRequest request_;
  Recipe recipe_;
  Stage stage_ = Stage::kWaiting;
  LinkPlan plan_;
  size_t reserved_bytes_ = 0;
  std::unique_ptr<LinkJob> link_;
  std::vector<std::shared_ptr<KvPage>> cached_pages_;
  int32_t prefix_hit_tokens_ = 0;

  size_t next_fresh_ = 0;  // in plan_.compile_alone
  std::optional<ChunkCompilation> fresh_;

  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  int32_t next_token_ = 0;
  int32_t next_position_ = 0;
  std::vector<int32_t> generated_;

  GenerationStats stats_;
  SteadyTime submitted_;
  SteadyTime admitted_;
  SteadyTime link_started_;
  SteadyTime linked_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_REQUEST_STATE_H_
