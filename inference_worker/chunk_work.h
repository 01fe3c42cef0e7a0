// One distinct chunk of a request on its way to the engine: what the steps of a load (chunk_loader.h) hand to each
// other.
#ifndef EPIC_INFERENCE_WORKER_CHUNK_WORK_H_
#define EPIC_INFERENCE_WORKER_CHUNK_WORK_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/kv_block.h"
#include "engine/kv.h"
#include "inference_worker/infer_job.h"
#include "inference_worker/worker_observer.h"
#include "transfer/block_source.h"

namespace epic {

struct ChunkLoadRequest {
  std::string tenant;
  std::string request_id;
  std::string traceparent;
  Recipe recipe;                        // of the chunks without context
  std::vector<const JobChunk*> chunks;  // in the prompt's order; the same one may come twice
  Deadline deadline;
  const std::atomic<bool>* cancelled = nullptr;  // REQUIRES: set, outlives the load
};

struct LoadedChunk {
  ChunkKvPtr kv;
  ChunkSource source = ChunkSource::kNotUsed;
  std::string reason;  // a clause for people: "read in place", "node a:1 does not hold it"
};

struct ChunkWork {
  const JobChunk* chunk = nullptr;
  Recipe recipe;
  KvBlockInfo info;        // what its block must say
  size_t block_bytes = 0;  // and how long it is in the engine's dtype

  std::shared_ptr<BlockSource> source;    // of its home, once located
  std::unique_ptr<LocatedBlock> located;  // not yet read
  std::optional<LoadedChunk> loaded;

  // Why its home did not give it: then the worker compiles it.
  std::optional<FallbackCause> cause;
  std::string reason;

  bool wants_node() const { return !loaded.has_value() && !cause.has_value(); }
  void GiveUpOnNode(FallbackCause why, std::string words) {
    located.reset();
    cause = why;
    reason = std::move(words);
  }
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_CHUNK_WORK_H_
