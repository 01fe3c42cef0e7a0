// The inference worker: takes a question over chunks, brings their KV, has the engine link and answer, and streams
// tokens.
//
// No gRPC and no sockets here: infer_service.h puts it on a wire. A request goes through
//
//   Infer -> bounded queue -> loading thread: checks, prompt, ChunkLoader -> Engine -> ResponseStream -> reader
//
// The engine's scheduler thread only ever pushes into the stream's bounded buffer. A reader that falls too far behind
// has its request ended (RESOURCE_EXHAUSTED), so that it costs neither memory without limit nor anybody else's time.
//
// Thread-safe. Errors reach the reader as the stream's end:
//   INVALID_ARGUMENT     the request can never run; names field, value and limit
//   FAILED_PRECONDITION  another model, another recipe, or a chat prompt where the model has no chat template
//   RESOURCE_EXHAUSTED   too many requests, no memory for chunks, or the reader was too slow
//   DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE (the worker is stopping), and whatever the engine says
#ifndef EPIC_INFERENCE_WORKER_WORKER_H_
#define EPIC_INFERENCE_WORKER_WORKER_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/limits.h"
#include "core/sync.h"
#include "engine/engine.h"
#include "engine/linker_gate.h"
#include "inference_worker/block_sources.h"
#include "inference_worker/chunk_loader.h"
#include "inference_worker/chunk_memory.h"
#include "inference_worker/infer_job.h"
#include "inference_worker/node_reader.h"
#include "inference_worker/response_stream.h"
#include "inference_worker/shadow_checks.h"
#include "inference_worker/worker_observer.h"
#include "storage/block_store.h"

namespace epic {

struct WorkerOptions {
  // The worker's own cache of pulled and compiled chunks, and what chunks outside it may take when it is full.
  BlockStoreOptions cache;
  size_t heap_bytes_max = size_t{1} << 30;
  // What may wait to be read by one client. At least 1 MiB.
  size_t stream_bytes_max = size_t{32} << 20;
  // Requests whose chunks are brought at the same time. In [1, 256].
  int32_t loading_threads = 16;
  // Requests in any state; beyond it they are refused. In [1, kSchedulerRequestsMax].
  int32_t requests_max = static_cast<int32_t>(kSchedulerRequestsMax);
  NodeReaderOptions nodes;
  // Of the linked answers that are checked against full recompute when the worker is idle (shadow_checks.h). In [0, 1];
  // 0: none.
  double shadow_share = 0.01;
  // Which linkers requests get.
  LinkerGate gate;

  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
};

// What the worker is busy with, for routers and for `epic status`.
struct WorkerStatus {
  EngineLoad engine;             // without a shadow check, which gives way to every request
  int64_t loading_requests = 0;  // accepted and not with the engine yet
  int64_t loading_rows = 0;      // rows that they will ask of the engine, estimated
  BlockStoreStats cache;
  size_t heap_bytes = 0;
  double pull_bytes_per_second = 0;
  uint64_t requests_total = 0;
  int64_t uptime_ms = 0;
  std::vector<ShadowFigures> shadow;  // by linker
  size_t shadow_waiting_checks = 0;
};

class Worker;

// One request, from both ends: the reader reads its stream and may cancel it. Thread-safe.
class InferCall : public std::enable_shared_from_this<InferCall> {
 public:
  ResponseStream& stream() { return stream_; }
  // The stream then ends, with CANCELLED unless it had ended otherwise. REQUIRES: the worker lives.
  void Cancel() EPIC_EXCLUDES(mutex_);

 private:
  friend class Worker;
  InferCall(Worker* worker, InferJob job, size_t stream_bytes_max, std::function<void()> on_ready)
      : worker_(worker), job_(std::move(job)), stream_(stream_bytes_max, std::move(on_ready)) {}

  Worker* const worker_;
  const InferJob job_;
  Linker linker_;
  std::string linker_note_;  // why it is not the default, where the request named none
  int64_t estimated_rows_ = 0;
  ResponseStream stream_;
  std::atomic<bool> cancelled_{false};

  // Written by the loading thread, later by the engine's scheduler thread, never by both at once.
  int64_t waited_us_ = 0;  // for a loading thread
  ChunkLoadResult load_;
  std::vector<ChunkPlanEntry> plan_;
  std::vector<size_t> chunk_segments_;  // which segments of the prompt are the chunks
  int64_t ttft_us_ = -1;

  Mutex mutex_;
  std::shared_ptr<Engine::Handle> handle_ EPIC_GUARDED_BY(mutex_);
  bool finished_ EPIC_GUARDED_BY(mutex_) = false;
};

class Worker {
 public:
  // `engine` and `observer` must outlive the worker. INVALID_ARGUMENT for bad options, RESOURCE_EXHAUSTED where the
  // cache cannot be mapped.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const WorkerOptions& options, Engine* engine,
                                                        BlockSourceFactory sources, WorkerObserver* observer);
  // Cancels what runs and returns when every stream has ended.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Never blocks. The answer, or why there is none, comes through the call's stream; `on_ready` as in ResponseStream,
  // and possibly before this returns.
  std::shared_ptr<InferCall> Infer(InferJob job, std::function<void()> on_ready = {}) EPIC_EXCLUDES(mutex_);

  WorkerStatus Status() const EPIC_EXCLUDES(mutex_);
  // Whether the worker's own cache holds this chunk.
  bool Holds(const ChunkKey& key) const { return memory_.Holds(key); }
  Engine* engine() const { return engine_; }
  const LinkerGate& gate() const { return options_.gate; }

 private:
  friend class InferCall;
  using CallPtr = std::shared_ptr<InferCall>;

  Worker(const WorkerOptions& options, Engine* engine, std::shared_ptr<BlockStore> cache, BlockSourceFactory sources,
         WorkerObserver* observer);
  // OK once the call is queued.
  absl::Status Admit(const CallPtr& call) EPIC_EXCLUDES(mutex_);
  absl::Status Enqueue(const CallPtr& call) EPIC_EXCLUDES(mutex_);
  void LoadingLoop() EPIC_EXCLUDES(mutex_);
  // Ends calls that nobody else can: readers that are too slow, and calls whose deadline passes in the queue.
  void JanitorLoop() EPIC_EXCLUDES(mutex_);
  std::vector<CallPtr> TakeExpired(std::chrono::steady_clock::time_point* next_deadline) EPIC_REQUIRES(mutex_);

  absl::Status Start(const CallPtr& call) EPIC_EXCLUDES(mutex_);
  absl::StatusOr<std::vector<PromptSegment>> BuildPrompt(const CallPtr& call) const;
  absl::Status CheckModel(const InferJob& job, const Linker& linker) const;
  absl::Status LoadChunks(const CallPtr& call, std::vector<PromptSegment>* prompt);
  void LeaveLoading(const CallPtr& call) EPIC_EXCLUDES(mutex_);
  void OnToken(const CallPtr& call, const GeneratedToken& token);
  void OnDone(const CallPtr& call, const absl::Status& status, FinishReason reason, const GenerationStats& stats);
  // Removes a call from the queue; false where a loading thread has it already.
  bool Unqueue(const CallPtr& call) EPIC_EXCLUDES(mutex_);
  void Finish(const CallPtr& call, absl::Status status, JobFinal final) EPIC_EXCLUDES(mutex_);

  const WorkerOptions options_;
  Engine* const engine_;
  WorkerObserver* const observer_;
  BlockSources sources_;
  ChunkMemory memory_;
  NodeReader nodes_;
  ChunkLoader loader_;
  ShadowChecks shadow_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();

  mutable Mutex mutex_;
  CondVar work_;     // for loading threads
  CondVar janitor_;  // for the janitor
  CondVar idle_;     // for the destructor
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;
  std::deque<CallPtr> queued_ EPIC_GUARDED_BY(mutex_);
  std::deque<CallPtr> overflowed_ EPIC_GUARDED_BY(mutex_);
  std::set<CallPtr> active_ EPIC_GUARDED_BY(mutex_);   // queued, loading and running
  std::set<CallPtr> loading_ EPIC_GUARDED_BY(mutex_);  // queued and loading
  int64_t loading_rows_ EPIC_GUARDED_BY(mutex_) = 0;
  uint64_t requests_total_ EPIC_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_H_
