// Shadow checks: whether linked answers still agree with full recompute while the worker serves (docs/quality.md).
//
//   request chosen by lot -> its first token's distribution is kept -> bounded queue -> once the worker is idle, the
//   same token ids run by `full` -> the two distributions compared -> counted, and shown in the worker's status
//
// Never in the way of requests: a check starts only where the worker has no request and the engine no work at all, and
// the next request that arrives cancels it. It waits again then, and is given up after kShadowStartsMax starts. Checks
// neither use rows that were kept for anybody nor leave any, so that no tenant can learn of another's by them.
//
// One thread, which sleeps while there is nothing to check; none where the share is 0. Thread-safe. Where a method may
// be called from is said with it; none blocks for longer than it takes to copy a check.
#ifndef EPIC_INFERENCE_WORKER_SHADOW_CHECKS_H_
#define EPIC_INFERENCE_WORKER_SHADOW_CHECKS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "core/sync.h"
#include "engine/engine.h"
#include "inference_worker/infer_job.h"
#include "inference_worker/shadow_figures.h"
#include "inference_worker/shadow_queue.h"
#include "inference_worker/shadow_selection.h"
#include "inference_worker/worker_observer.h"

namespace epic {

struct ShadowStatus {
  std::vector<ShadowFigures> figures;
  size_t waiting_checks = 0;
  // Rows of the check that the engine runs; 0 where it runs none. They are in the engine's load.
  int64_t running_rows = 0;
};

class ShadowChecks {
 public:
  // `engine` and `observer` must outlive it. REQUIRES: `share` of the candidates, in [0, 1].
  ShadowChecks(double share, Engine* engine, WorkerObserver* observer, const ShadowQueueLimits& limits = {});
  ~ShadowChecks();
  ShadowChecks(const ShadowChecks&) = delete;
  ShadowChecks& operator=(const ShadowChecks&) = delete;

  // Has `request`, which is about to be submitted, checked after its first token, where it is a candidate and the lot
  // says so. Costs a copy of its token ids then, and nothing else. REQUIRES: not called from the engine's threads.
  void MayFollow(const InferJob& job, GenerationRequest* request) EPIC_EXCLUDES(mutex_);
  // The worker has one request more, or one less. From any thread, the engine's too.
  void RequestArrived() EPIC_EXCLUDES(mutex_);
  void RequestEnded() EPIC_EXCLUDES(mutex_);

  ShadowStatus Status() const EPIC_EXCLUDES(mutex_);
  // Drops what waits and cancels what runs; returns when no callback of ours is left in the engine, which takes one of
  // its steps. Nothing is checked afterwards.
  void Stop() EPIC_EXCLUDES(mutex_);

 private:
  using Candidates = std::vector<std::pair<int32_t, float>>;

  // A chosen request has said its first token. On the engine's scheduler thread.
  void Offer(ShadowCheck check) EPIC_EXCLUDES(mutex_);
  void Loop() EPIC_EXCLUDES(mutex_);
  bool EngineIsIdle() const;
  void Run(ShadowCheck check) EPIC_EXCLUDES(mutex_);
  // Runs the prompt by `full`; `full` gets the first token's candidates where the status is OK.
  absl::Status AskFull(const ShadowCheck& check, Candidates* full) EPIC_EXCLUDES(mutex_);
  void Compare(const ShadowCheck& check, const Candidates& full) EPIC_EXCLUDES(mutex_);
  void Lose(ShadowLoss loss, size_t checks);

  const bool enabled_;
  Engine* const engine_;
  WorkerObserver* const observer_;

  mutable Mutex mutex_;
  CondVar changed_;
  ShadowSelection selection_ EPIC_GUARDED_BY(mutex_);
  ShadowQueue queue_ EPIC_GUARDED_BY(mutex_);
  ShadowWindow window_ EPIC_GUARDED_BY(mutex_);
  int64_t requests_ EPIC_GUARDED_BY(mutex_) = 0;
  bool must_yield_ EPIC_GUARDED_BY(mutex_) = false;  // a request has come since the check was taken
  int64_t running_rows_ EPIC_GUARDED_BY(mutex_) = 0;
  bool run_ended_ EPIC_GUARDED_BY(mutex_) = false;
  absl::Status run_status_ EPIC_GUARDED_BY(mutex_);
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: everything above exists before it starts
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_SHADOW_CHECKS_H_
