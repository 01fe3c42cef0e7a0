// Brings chunks into memory: from disk where a copy is there, else by compiling; urgently for requests that wait, in
// the background for documents.
//
// One map of chunks in flight makes sure that a key is compiled once, however many ask for it at the same time.
// Background work is pulled, one chunk at a time, when nothing urgent waits, so that it needs no queue here. A request
// for a chunk that is being compiled in the background makes that compilation urgent: it is cancelled and submitted
// again, because the compiler orders jobs when they come in.
//
// A chunk that is compiled in sight of others (recipe "document") goes to the compiler with the blocks of those that
// are held, and waits for the one right before it where that is in flight: urgent work only for urgent work. So a
// document is compiled from its beginning, each token once. Where blocks are missing the compiler runs their tokens
// again.
//
// A chunk with a copy on disk is loaded, beside the compilations and not behind them. Where the copy turns out bad it
// is compiled after all: its request learns nothing of it.
//
// One thread submits, publishes and reports; callbacks of compiler and store only hand over. Thread-safe.
#ifndef EPIC_CACHE_NODE_COMPILE_QUEUE_H_
#define EPIC_CACHE_NODE_COMPILE_QUEUE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_node/compiler.h"
#include "core/limits.h"
#include "core/sync.h"
#include "storage/block_store.h"
#include "storage/tiered_store.h"

namespace epic {

struct CompileQueueOptions {
  // Chunks with the compiler at one time, and how many of them may be background work. Two keep the compiler busy while
  // the block before is verified and published.
  int running_max = 8;
  int background_running_max = 2;
  // Chunks that are loaded from disk at one time.
  int loading_max = 8;
  // How soon a request that found no room looks again while blocks are kept in place by being copied to disk.
  std::chrono::milliseconds copy_delay{2};
  // Urgent chunks that wait; beyond it RESOURCE_EXHAUSTED.
  size_t waiting_max = kCompileQueueMax;
  // How long background work rests when leases hold all of the tier.
  std::chrono::milliseconds retry_delay{500};
  // How often a chunk is compiled again when its block turns out damaged.
  int attempts_max = 2;
};

struct CompileJob {
  KvBlockInfo info;
  Recipe recipe;
  std::vector<ContextChunk> context;  // whose tokens end the recipe's prefix
  bool load_only = false;             // from disk or not at all
};

// Whose work it is. Called on the queue's thread, without a lock.
class CompileObserver {
 public:
  virtual ~CompileObserver() = default;
  // The next background chunk, if there is one.
  virtual std::optional<CompileJob> NextBackgroundJob() = 0;
  // A chunk that was in flight is held now (OK), or is not: RESOURCE_EXHAUSTED and CANCELLED mean not now, everything
  // else that it cannot be compiled. `requested`: somebody asked for it urgently.
  virtual void OnCompileFinished(const CompileJob& job, const absl::Status& status, bool requested) = 0;
};

struct CompileQueueStats {
  size_t waiting = 0;
  size_t running = 0;
  uint64_t compiled_chunks_total = 0;
  uint64_t compiled_tokens_total = 0;
  uint64_t failures_total = 0;   // chunks that could not be compiled
  uint64_t damaged_total = 0;    // blocks whose checksums did not hold when they were published
  uint64_t postponed_total = 0;  // background chunks for which the tier had no room
  size_t loading = 0;
  uint64_t load_fallbacks_total = 0;  // chunks that were compiled because their copy on disk was bad
};

class CompileQueue {
 private:
  struct Entry;

 public:
  // All four must outlive the queue.
  CompileQueue(const CompileQueueOptions& options, ChunkCompiler* compiler, TieredStore* store,
               CompileObserver* observer);
  // Stops first.
  ~CompileQueue();

  // A request's hold on a chunk in flight, and then on its block. Must not outlive the queue. Movable.
  class Ticket {
   public:
    Ticket(Ticket&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)), entry_(std::move(other.entry_)) {}
    Ticket& operator=(Ticket&&) = delete;
    ~Ticket();

   private:
    friend class CompileQueue;
    Ticket(CompileQueue* queue, std::shared_ptr<Entry> entry) : queue_(queue), entry_(std::move(entry)) {}
    CompileQueue* queue_;
    std::shared_ptr<Entry> entry_;
  };
  // Asks for a chunk urgently. RESOURCE_EXHAUSTED: too many wait. UNAVAILABLE: the queue was stopped.
  absl::StatusOr<Ticket> Request(CompileJob job) EPIC_EXCLUDES(mutex_);

  struct Compiled {
    BlockStore::Lease lease;
    bool was_held = false;  // it was there already when its turn came
    int64_t compile_us = 0;
  };
  // Waits for a requested chunk. DEADLINE_EXCEEDED, or why it could not be compiled; NOT_FOUND for one that was only to
  // be loaded and is not on disk.
  absl::StatusOr<Compiled> Wait(const Ticket& ticket, std::chrono::steady_clock::time_point deadline)
      EPIC_EXCLUDES(mutex_);

  // There may be background work again.
  void Wake() EPIC_EXCLUDES(mutex_);
  // Cancels everything and returns when nothing runs any more. Requests that wait get UNAVAILABLE.
  void Stop() EPIC_EXCLUDES(mutex_);

  CompileQueueStats Stats() const EPIC_EXCLUDES(mutex_);

 private:
  struct Step;
  using EntryPointer = std::shared_ptr<Entry>;

  void Run();
  Step NextStep() EPIC_EXCLUDES(mutex_);
  bool TakeUrgent(Step* step) EPIC_REQUIRES(mutex_);
  bool TakeBackground(Step* step) EPIC_REQUIRES(mutex_);
  // Whether the chunk right before this one is in flight and will be there sooner than it could be run again.
  bool MustWait(const Entry& entry) const EPIC_REQUIRES(mutex_);
  bool TakeLoad(Step* step) EPIC_REQUIRES(mutex_);
  // Whether it found no room, and nothing has changed since that could have made some. Notes when to look again.
  bool WaitsForRoom(const Entry& entry) EPIC_REQUIRES(mutex_);
  void SetRunning(Entry& entry, bool running) EPIC_REQUIRES(mutex_);
  std::vector<std::shared_ptr<const KvBlockView>> HeldContext(const CompileJob& job);
  void SubmitLoad(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);
  // Puts a chunk whose copy on disk was bad in line to be compiled.
  void FallBack(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);
  absl::StatusOr<BlockStore::Lease> Publish(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);
  void AskForBackground() EPIC_EXCLUDES(mutex_);
  void Start(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);
  void Submit(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);
  // `is_copying`: blocks were kept in place by being copied to disk.
  void OnNoRoom(const EntryPointer& entry, const absl::Status& status, bool is_copying) EPIC_EXCLUDES(mutex_);
  void Finish(const EntryPointer& entry, const absl::StatusOr<uint64_t>& edition) EPIC_EXCLUDES(mutex_);
  void Complete(const EntryPointer& entry, absl::StatusOr<BlockStore::Lease> result) EPIC_EXCLUDES(mutex_);
  void Release(const EntryPointer& entry) EPIC_EXCLUDES(mutex_);

  const CompileQueueOptions options_;
  ChunkCompiler* const compiler_;
  TieredStore* const store_;
  CompileObserver* const observer_;

  mutable Mutex mutex_;
  CondVar work_;      // for the thread
  CondVar finished_;  // for those who wait for a chunk
  absl::flat_hash_map<ChunkKey, EntryPointer> entries_ EPIC_GUARDED_BY(mutex_);
  std::deque<EntryPointer> urgent_ EPIC_GUARDED_BY(mutex_);  // to be compiled
  std::deque<EntryPointer> to_load_ EPIC_GUARDED_BY(mutex_);
  std::deque<std::pair<EntryPointer, absl::StatusOr<uint64_t>>> done_ EPIC_GUARDED_BY(mutex_);
  // Background chunks that wait for the one before them; each counts as running in the background.
  std::deque<EntryPointer> background_ EPIC_GUARDED_BY(mutex_);
  int running_ EPIC_GUARDED_BY(mutex_) = 0;  // compilations
  int loading_ EPIC_GUARDED_BY(mutex_) = 0;
  int background_running_ EPIC_GUARDED_BY(mutex_) = 0;
  bool may_have_background_ EPIC_GUARDED_BY(mutex_) = true;
  std::chrono::steady_clock::time_point background_after_ EPIC_GUARDED_BY(mutex_){};
  // When what waits for room looks again; the end of time where only a completion helps.
  std::chrono::steady_clock::time_point look_again_at_ EPIC_GUARDED_BY(mutex_){};
  uint64_t completions_ EPIC_GUARDED_BY(mutex_) = 0;  // each may have made room in the tier
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;
  CompileQueueStats stats_ EPIC_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_COMPILE_QUEUE_H_
