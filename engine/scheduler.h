// The scheduler: one thread that owns the batch, and with it every sequence's state.
//
// Each step it admits what fits, in order of arrival, then runs one batch through all layers: a row of every decoding
// sequence, then pieces of linking, then of compile jobs (urgent ones take turns with linking; background ones run when
// nothing else wants rows, and one piece in kBackgroundInterval steps so that they end at all). CacheBlend's own passes
// follow.
#ifndef EPIC_ENGINE_SCHEDULER_H_
#define EPIC_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "core/sync.h"
#include "engine/engine.h"
#include "engine/prefix_cache.h"
#include "engine/request_state.h"

namespace epic {

// A compile job inside the scheduler.
struct CompileState {
  CompileState(CompileRequest compile_request, const Recipe& recipe)
      : request(std::move(compile_request)), compilation(request.info, recipe) {}
  CompileRequest request;
  ChunkCompilation compilation;
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
  void DropEnded();
  void AdmitWaiting();
  void Step();
  void AddDecodeRows(Batch& batch);
  void AddLinkRows(Batch& batch, int32_t rows_max);
  void AddCompileRows(Batch& batch, bool urgent, int32_t rows_max);
  void RunBatch(Batch& batch);
  void FinishCompile(const CompilePtr& job);
  void RunOwnPasses(int32_t rows_max);
  void AcceptLogits(const std::vector<RequestPtr>& requests, const std::vector<float>& hidden);
  void Retire(const RequestPtr& request);
  void MeasureRate(int64_t rows, SteadyTime begin, SteadyTime end);
  void PublishLoad();
  void EndAll();
  void Wake();

  RequestEnvironment environment_;
  EngineOptions options_;
  PrefixCache prefix_cache_;

  // The scheduler thread's own.
  std::list<RequestPtr> waiting_;
  std::list<RequestPtr> running_;  // in order of arrival
  std::list<CompilePtr> urgent_compiles_;
  std::list<CompilePtr> background_compiles_;
  size_t reserved_bytes_ = 0;
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
