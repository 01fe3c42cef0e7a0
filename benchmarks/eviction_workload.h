// Streams of requests for KV blocks, as documents that are linked into prompts make them: what the simulation of
// eviction replays. Pure, and the same everywhere for the same seed.
//
// A catalogue of documents with 1 to 20 chunks each. A fifth of the documents is cut into chunks of 128 tokens, three
// fifths of 512 and a fifth of 1,024, with a last chunk of 64 tokens or more. Half of the documents are compiled as a
// whole (recipe `document`) and always asked for as a whole; the others are passages (recipe `plain`), of which a
// request wants 1 to 4 neighbours, rather near the beginning. A request wants 1 to 4 documents (each further one with
// probability 1/2), drawn by Zipf's law from an order of the documents that is the seed's.
//
//   bytes      23,040 a token (SmolLM2-135M as bf16), padded to 32 tokens, and 4,096 for the header
//   recompile  1 ms a token x (1 + keys that it sees / 3,070): what two CPU cores measure (docs/performance.md)
//   reload     1 ms and 400 MB/s: RocksDB's blobs read cold
#ifndef EPIC_BENCHMARKS_EVICTION_WORKLOAD_H_
#define EPIC_BENCHMARKS_EVICTION_WORKLOAD_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {

struct SimulatedBlock {
  size_t bytes = 0;
  double recompile_us = 0;
  double reload_us = 0;
};

struct EvictionWorkload {
  std::string name;
  std::vector<SimulatedBlock> blocks;
  std::vector<uint32_t> requests;  // blocks by number, in the order in which they are asked for
  size_t warm_up = 0;              // requests that are replayed and not counted
  std::vector<size_t> batch_ends;  // where batches of queries end in `requests`; empty where there are none

  // Bytes of the blocks that are asked for more than once.
  size_t WorkingSetBytes() const;
};

struct WorkloadSize {
  size_t documents = 1500;
  size_t requests = 12'000;
};

// Zipf's law with this exponent, for ever.
EvictionWorkload ZipfWorkload(double exponent, const WorkloadSize& size, uint64_t seed);
// Exponent 0.9; every hundredth of the stream one document in fifty changes places with another one.
EvictionWorkload DriftWorkload(const WorkloadSize& size, uint64_t seed);
// Exponent 0.9; three requests in ten are for a document that is asked for once only.
EvictionWorkload ScanWorkload(const WorkloadSize& size, uint64_t seed);
// Ten batches of the same size.requests / 20 queries (exponent 0.7), each shuffled anew, behind a pass over all
// documents as their registration makes it. All is counted behind that pass.
EvictionWorkload BatchWorkload(const WorkloadSize& size, uint64_t seed);

struct Arrival {
  double time_ms = 0;
  size_t input_tokens = 0;
};
// JSON lines with "timestamp" (ms) and "input_length" (tokens). INVALID_ARGUMENT names the line that is not that;
// NOT_FOUND where the file cannot be read.
absl::StatusOr<std::vector<Arrival>> ReadArrivals(const std::string& path);
// Requests arrive and are as long as `arrivals` say (documents until their tokens reach the input's length). Which
// documents, the trace does not tell; here: exponent 0.9, each minute one document in a hundred changes places with
// another one, and one document in ten is asked for once only.
EvictionWorkload TraceWorkload(std::span<const Arrival> arrivals, size_t documents, uint64_t seed);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_EVICTION_WORKLOAD_H_
