// The scheduler: one thread that owns the batch, and with it every sequence's state.
//
// Admission is strictly in order of arrival: the oldest waiting request starts when the bytes that it can come to need
// (RequestState::reserved_bytes) fit into the budget. Nobody overtakes one that does not fit yet, so none starves, and
// no request can run out of memory in the middle.
//
// Each step runs one batch through all layers: a row of every decoding sequence first, then pieces of linking, shared
// among the prompts by ShareRows, then of compile jobs (urgent ones take half of the piece where there is linking to
// do; background ones run when nothing else wants rows, and one piece in kBackgroundInterval steps so that they end at
// all). CacheBlend's first pass runs other layers than the rest and its second starts inside one, so they are passes of
// their own behind the batch: one request a step, within its share of the piece. While sequences decode, the piece is
// as long as the measured rate allows in kDecodeDelaySeconds.
//
// A request that ends, however it ends, first gives its rows to the cache (row_cache.h), then lets go of every page and
// chunk; then its caller is told.
#ifndef EPIC_ENGINE_SCHEDULER_H_
#define EPIC_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/sync.h"
#include "engine/engine.h"
#include "engine/request_state.h"
#include "engine/row_cache.h"

namespace epic {

// A compile job inside the scheduler.
struct CompileState {
  CompileState(CompileRequest compile_request, const Recipe& recipe) : request(std::move(compile_request)) {
    compilation.emplace(request.info, recipe, std::move(request.context));
  }
  CompileRequest request;
  std::optional<ChunkCompilation> compilation;  // gone once the job has ended, whoever still holds its handle
  std::atomic<bool> cancelled{false};
};

class Scheduler {
 public:
  Scheduler(RequestEnvironment environment, const EngineOptions& options);
  // Ends everything that runs or waits with CANCELLED, then joins the thread.
  ~Scheduler();

  absl::StatusOr<std::shared_ptr<Engine::Handle>> Submit(GenerationRequest request, const Recipe& recipe);
  absl::StatusOr<std::shared_ptr<Engine::Handle>> Submit(CompileRequest request);
  EngineLoad Load() const;

 private:
  using RequestPtr = std::shared_ptr<RequestState>;
  using CompilePtr = std::shared_ptr<CompileState>;
  struct RequestHandle;
  struct CompileHandle;
  struct Batch;

  void Run();
  bool CollectSubmitted();  // false: stopping
  void EndCancelledAndLate();
  void RetireEnded();
  void AdmitWaiting();
  void Step();
  int32_t PieceRows(bool decoding) const;
  void AddDecodeRows(Batch& batch);
  void AddLinkRows(Batch& batch, int32_t rows_max);
  RequestPtr NextOwnPass() const;
  void AddCompileRows(Batch& batch, bool urgent, int32_t rows_max);
  void RunBatch(Batch& batch);
  void EndCompile(const CompilePtr& job, absl::StatusOr<uint64_t> outcome);
  void RunOwnPass(const RequestPtr& request, int32_t rows_max);
  void AcceptLogits(const std::vector<RequestPtr>& requests, const std::vector<float>& hidden);
  void PublishLinked(const RequestPtr& request);
  void MeasureRate(int64_t rows, SteadyTime begin, SteadyTime end);
  void PublishLoad();
  void EndAll();
  void Wake();

  RequestEnvironment environment_;
  EngineOptions options_;
  RowCache row_cache_;

  // The scheduler thread's own.
  std::list<RequestPtr> waiting_;
  std::list<RequestPtr> running_;  // in order of arrival
  std::list<CompilePtr> urgent_compiles_;
  std::list<CompilePtr> background_compiles_;
  size_t reserved_bytes_ = 0;  // of running_
  uint64_t step_ = 0;
  std::vector<float> hidden_;
  std::vector<float> logits_;
  EngineLoad totals_;  // counters and the measured rate

  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<RequestPtr> submitted_requests_ EPIC_GUARDED_BY(mutex_);
  std::deque<CompilePtr> submitted_compiles_ EPIC_GUARDED_BY(mutex_);
  size_t requests_held_ EPIC_GUARDED_BY(mutex_) = 0;  // submitted, waiting or running
  size_t compiles_held_ EPIC_GUARDED_BY(mutex_) = 0;
  int64_t submitted_rows_ EPIC_GUARDED_BY(mutex_) = 0;
  EngineLoad load_ EPIC_GUARDED_BY(mutex_);
  bool cancel_seen_ EPIC_GUARDED_BY(mutex_) = false;
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: everything above exists before it starts
};

}  // namespace epic

#endif  // EPIC_ENGINE_SCHEDULER_H_
