// Brings the KV of a prompt's chunks to the engine, from wherever it can be had.
//
// In this order: the worker's own cache; the chunk's home node (node_reader.h); compilation by this worker's engine,
// alone and by its recipe. So a chunk that is missing, slow or corrupt costs time and never changes an answer.
// Concurrent requests for the same chunk wait for the first one's load; where that fails, the next one tries itself.
//
// Thread-safe. Load blocks; it returns soon after its deadline or, after `cancelled` was set and Wake called, soon
// after that (a call to a node that is under way ends by its own deadline first).
#ifndef EPIC_INFERENCE_WORKER_CHUNK_LOADER_H_
#define EPIC_INFERENCE_WORKER_CHUNK_LOADER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/sync.h"
#include "engine/engine.h"
#include "inference_worker/chunk_memory.h"
#include "inference_worker/chunk_work.h"
#include "inference_worker/node_reader.h"
#include "inference_worker/worker_observer.h"

namespace epic {

struct ChunkLoadResult {
  std::vector<LoadedChunk> chunks;  // as asked for
  int64_t lookup_us = 0;
  int64_t load_us = 0;     // reading from nodes, and waiting for what other requests bring
  int64_t compile_us = 0;  // by nodes and by this worker, while this request waited
  int64_t bytes_pulled = 0;
};

class ChunkLoader {
 public:
  // The pointers must outlive the loader.
  ChunkLoader(Engine* engine, NodeReader* nodes, ChunkMemory* memory, WorkerObserver* observer);

  // INVALID_ARGUMENT (two contents under one key), CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (no memory, or the
  // engine's queue is full), or the engine's error about a chunk that it cannot compile.
  absl::StatusOr<ChunkLoadResult> Load(const ChunkLoadRequest& request);

  // Makes every waiting Load look at its `cancelled` again.
  void Wake() EPIC_EXCLUDES(mutex_);

 private:
  // One chunk that one request is bringing and others may wait for.
  struct Flight {
    bool done = false;
    std::optional<LoadedChunk> loaded;  // set where it arrived
  };
  struct Item {
    ChunkWork work;
    std::shared_ptr<Flight> flight;
    bool leads = false;
  };
  struct Compilation;

  absl::StatusOr<std::vector<Item>> MakeItems(const ChunkLoadRequest& request,
                                              std::vector<size_t>* item_of_chunk) const;
  // Takes the lead for each chunk that is not here and that nobody brings.
  void Join(std::vector<Item>* items) EPIC_EXCLUDES(mutex_);
  absl::Status BringLed(const ChunkLoadRequest& request, std::vector<Item>* items, ChunkLoadResult* result);
  // Ends the flights that this request leads: arrived or not.
  void LandLed(std::vector<Item>* items) EPIC_EXCLUDES(mutex_);
  absl::Status FollowOthers(const ChunkLoadRequest& request, std::vector<Item>* items) EPIC_EXCLUDES(mutex_);

  absl::Status CompileAll(const ChunkLoadRequest& request, std::span<ChunkWork* const> work) EPIC_EXCLUDES(mutex_);
  absl::Status StartCompilation(ChunkWork* work, std::vector<std::unique_ptr<Compilation>>* started);
  // Waits for all, cancelling them first where the request ends.
  absl::Status AwaitCompilations(const ChunkLoadRequest& request, std::span<const std::unique_ptr<Compilation>> started)
      EPIC_EXCLUDES(mutex_);

  Engine* const engine_;
  NodeReader* const nodes_;
  ChunkMemory* const memory_;
  WorkerObserver* const observer_;

  Mutex mutex_;
  CondVar changed_;  // a flight or a compilation ended, or Wake
  absl::flat_hash_map<ChunkKey, std::shared_ptr<Flight>> flights_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_CHUNK_LOADER_H_
