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
#include "engine/row_cache.h"

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
  // Bytes that this request can come to need for itself: private pages, CacheBlend's hidden states, naive-last's own
  // compilations. Known from the start, reserved at admission. From admission on without the pages that it shares with
  // the cache of rows, which are counted there.
  size_t reserved_bytes() const { return reserved_bytes_; }
  // Rows still to run before decoding, in all stages or in the present one.
  int64_t remaining_rows() const;
  int64_t remaining_rows_of_stage() const;

  // What is kept of this request's rows. The last row always runs: its logits begin the answer.
  RowCache::Match FindRows(RowCache& cache) const;
  // kWaiting -> kCompilingFresh or kLinking, with the rows that were found.
  void Admit(RowCache::Match match, SteadyTime now);
  // The next rows for a batch that runs all layers (compiling fresh spans, linking, or the next token). 0 where the
  // linker runs its own pass.
  int32_t TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions, SequenceKv** kv);
  // The rows taken have run; `hidden` is [rows, width]. Returns true where logits of the last row are wanted: give them
  // to AcceptLogits.
  bool FinishRows(const float* hidden, int32_t rows, SteadyTime now);
  bool NeedsOwnPass() const { return stage_ == Stage::kLinking && link_->NeedsOwnPass(); }
  int32_t OwnPassRowsPerRow() const { return link_->OwnPassRowsPerRow(); }
  // Returns true where the prompt is linked: logits of link().last_hidden() are wanted.
  bool RunOwnPass(int32_t rows_max, int32_t* rows_run, SteadyTime* finished);
  const float* last_hidden() const { return link_->last_hidden().data(); }

  // Logits after the sequence's last row: chooses, or scores, the next token and reports it. May end the request.
  void AcceptLogits(std::span<const float> logits, SteadyTime now);
  // Ends the request with this status, once; later calls do nothing. What follows, in this order: PublishRows, Release,
  // Report.
  void Finish(const absl::Status& status, FinishReason reason);
  // Offers the rows that have run to the cache, between two batches. Returns the bytes by which the reservation shrank.
  size_t PublishRows(RowCache& cache, RowCache::LastPage last_page);
  // Lets go of every page and every chunk, whoever still holds the request's handle. REQUIRES: kDone.
  void Release();
  // Calls on_done. REQUIRES: kDone; called once.
  void Report();
  int32_t prefix_hit_tokens() const { return stats_.prefix_hit_tokens; }
  int32_t completion_tokens() const { return stats_.completion_tokens; }

 private:
  void StartLink();
  void StartNextFresh();
  absl::Status FinishFresh();
  void Linked(SteadyTime now);
  void EmitToken(int32_t id, std::span<const float> logits, const std::string& text);
  void ComputeReservation();
  bool KeepsRows() const;

  const RequestEnvironment& environment_;
  GenerationRequest request_;
  Recipe recipe_;
  Stage stage_ = Stage::kWaiting;
  LinkPlan plan_;
  size_t reserved_bytes_ = 0;
  std::unique_ptr<LinkJob> link_;
  std::vector<RowId> row_ids_;  // of the private rows, run or to be run; empty where none may be kept
  RowCache::Match match_;

  size_t next_fresh_ = 0;  // in plan_.compile_alone
  std::optional<ChunkCompilation> fresh_;

  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  int32_t next_token_ = 0;
  int32_t next_position_ = 0;
  std::vector<int32_t> generated_;

  absl::Status end_status_;
  FinishReason end_reason_ = FinishReason::kStop;
  GenerationStats stats_;
  SteadyTime submitted_;
  SteadyTime admitted_;
  SteadyTime link_started_;
  SteadyTime linked_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_REQUEST_STATE_H_
