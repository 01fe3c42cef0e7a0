// Asks cache nodes for chunks and reads them: one Locate a home, homes in parallel, blocks in place where the transport
// can and the node keeps them in the engine's dtype. A block in another dtype is decoded (chunk_memory.h).
//
// Nothing here fails a request. A chunk that its home did not give has its cause and reason set, and is for the worker
// to compile. A failed or corrupt pull is tried once more, under a new lease. Thread-safe.
#ifndef EPIC_INFERENCE_WORKER_NODE_READER_H_
#define EPIC_INFERENCE_WORKER_NODE_READER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inference_worker/block_sources.h"
#include "inference_worker/chunk_memory.h"
#include "inference_worker/chunk_work.h"

namespace epic {

struct NodeReaderOptions {
  // What one call to a node may take before the worker goes on without it. A request near its deadline waits for at
  // most half of what is left, so that there is time to compile instead.
  std::chrono::milliseconds node_timeout{30'000};
  int32_t homes_in_parallel_max = 8;
};

class NodeReader {
 public:
  // The pointers must outlive the reader.
  NodeReader(const NodeReaderOptions& options, std::string model_fingerprint_hex, BlockSources* sources,
             ChunkMemory* memory, WorkerObserver* observer);

  // Leases every chunk of `work` at its home. Returns the part of the time that nodes spent on compiling, in
  // microseconds: of the slowest node.
  int64_t Locate(const ChunkLoadRequest& request, std::span<ChunkWork* const> work);
  // Reads what was located. Returns the bytes that were moved.
  int64_t Read(const ChunkLoadRequest& request, std::span<ChunkWork* const> work);

  // Smoothed over the last pulls; 0 before the first one.
  double bytes_per_second() const { return bytes_per_second_.load(); }

 private:
  using Home = std::vector<ChunkWork*>;  // chunks of one home

  int64_t LocateAtHome(const ChunkLoadRequest& request, const Home& home);
  int64_t ReadOne(const ChunkLoadRequest& request, ChunkWork* work);
  absl::StatusOr<ChunkKvPtr> UseInPlace(ChunkWork* work);
  absl::StatusOr<ChunkKvPtr> Pull(const ChunkLoadRequest& request, ChunkWork* work, int64_t* bytes_moved);
  LocateQuery QueryFor(const ChunkLoadRequest& request) const;
  Deadline NodeDeadline(Deadline request_deadline) const;
  void ForEachHome(std::span<ChunkWork* const> work, const std::function<void(const Home&)>& visit) const;
  void RecordPull(size_t bytes, std::chrono::steady_clock::duration elapsed);

  const NodeReaderOptions options_;
  const std::string model_fingerprint_hex_;
  BlockSources* const sources_;
  ChunkMemory* const memory_;
  WorkerObserver* const observer_;
  std::atomic<double> bytes_per_second_{0};
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_NODE_READER_H_
