// Where things go: pure functions of what the caller has measured. No clock, no state, no randomness.
//
// Documents go to nodes by rendezvous hashing: each node's rank for a document is a hash of both, so that a node which
// leaves moves its own documents only, and a node which comes takes its share from each of the others.
//
// Requests go to the worker with the smallest estimated time to the first token:
//
//   queued work / measured rate  +  bytes that it lacks / measured bandwidth  +  the request's own work / measured rate
//
// Locality alone would be the wrong rule: the worker that holds a hot document's chunks would get every request for it,
// its queue would grow without end and the others would stand idle. Here chunks are worth the time that pulling them
// takes and no more, so that the second worker pulls a copy as soon as the first one's queue is longer than that, and
// is a place for the document from then on.
#ifndef EPIC_CORE_PLACEMENT_H_
#define EPIC_CORE_PLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace epic {

// Indices into `nodes`, first choice first: the order of XXH3-64 over tenant, document id and node name, highest first,
// ties by name. The order does not depend on how `nodes` is arranged. REQUIRES: names differ.
std::vector<size_t> RendezvousOrder(std::string_view tenant, std::string_view document_id,
                                    std::span<const std::string> nodes);

// Assumed of a worker that has measured nothing yet: slow enough that a measured worker of ordinary speed is preferred
// while it is idle, fast enough that a new worker gets its first request once the others have queues.
inline constexpr double kUnmeasuredTokensPerSecond = 50.0;
inline constexpr double kUnmeasuredPullBytesPerSecond = 100e6;

// A worker as the router knows it when it places one request. Values that are not finite or negative count as 0.
struct WorkerLoad {
  std::string id;
  // Rows that it has been given and has not yet run through the model, with the router's own placements since its last
  // report added: without them, requests that arrive between two reports would all see the same short queue.
  double queued_tokens = 0;
  double tokens_per_second = 0;      // rows it runs a second, measured; 0: not yet
  double pull_bytes_per_second = 0;  // at which it pulls blocks, measured; 0: not yet
  double resident_bytes = 0;         // of this request's chunks, in its own cache already
};

struct PlacementRequest {
  double chunk_bytes = 0;     // of the blocks of all its chunks, each counted once
  double link_tokens = 0;     // rows that the linker will run through the model: the recompute set and fresh tokens
  uint64_t request_hash = 0;  // decides between equal estimates; a hash of the request id
};

// One worker's estimate, taken apart so that a plan and a log line can say why.
struct WorkerEstimate {
  size_t worker_index = 0;
  double queue_seconds = 0;
  double pull_seconds = 0;
  double link_seconds = 0;
  double total_seconds() const { return queue_seconds + pull_seconds + link_seconds; }
};

// All workers, best first: the first is the choice, the others are where a retry goes. Equal estimates are ordered by a
// hash of request and worker id, so that idle equals share requests and the same request gets the same order.
std::vector<WorkerEstimate> RankWorkers(const PlacementRequest& request, std::span<const WorkerLoad> workers);

}  // namespace epic

#endif  // EPIC_CORE_PLACEMENT_H_
