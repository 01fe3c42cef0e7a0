// Getting KV blocks from cache nodes: the interface between an inference worker and whatever moves the bytes.
//
// BlockSource is one cache node as a worker sees it. Locate leases a request's chunks in one call; a leased
// block is read in place where the transport can (same process), else pulled by (edition, layer range, byte range) into
// memory of the caller. Implementations: in process, gRPC stream, and for tests an in-memory fake and a decorator that
// injects faults. UCX and shared memory will come behind the same interface.
//
// Thread-safe. Every call has a deadline. A LocatedBlock releases its lease when it is destroyed.
#ifndef EPIC_TRANSFER_BLOCK_SOURCE_H_
#define EPIC_TRANSFER_BLOCK_SOURCE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"

namespace epic {

using Deadline = std::chrono::steady_clock::time_point;

struct LocateQuery {
  std::string tenant;  // "default" where empty: the chunk keys were made with its salt
  std::string request_id;
  std::string traceparent;
  std::string model_fingerprint_hex;
  Recipe recipe;  // of chunks without context
  struct Chunk {
    ChunkKey key;
    std::vector<int32_t> token_ids;
    std::vector<int32_t> context_token_ids = {};  // of its document, that it is compiled in sight of (RecipeBehind)
  };
  std::vector<Chunk> chunks;
  bool compile_missing = true;
};

enum class BlockOrigin { kAbsent, kHeld, kCompiled };

// Bytes [offset, offset + length) of a block; with layer_count > 0 relative to the layer groups that hold layers
// [first_layer, first_layer + layer_count). length 0: to the end of the block, or of those groups.
struct BlockRange {
  int32_t first_layer = 0;
  int32_t layer_count = 0;
  size_t offset = 0;
  size_t length = 0;
};

class LocatedBlock {
 public:
  virtual ~LocatedBlock() = default;
  BlockOrigin origin = BlockOrigin::kAbsent;
  uint64_t edition = 0;
  size_t block_bytes = 0;
  int64_t compile_us = 0;

  // The block in place, verified when it was published and valid while this object lives; nullptr where the transport
  // moves bytes.
  virtual const KvBlockView* InPlace() const { return nullptr; }
};

class BlockSource {
 public:
  virtual ~BlockSource() = default;
  // One entry a chunk, in order, never null; an absent chunk has origin kAbsent.
  virtual absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                            Deadline deadline) = 0;
  // Fills `out` with the range's bytes; out.size() must be its length. OUT_OF_RANGE, NOT_FOUND (lease gone),
  // FAILED_PRECONDITION (other edition), DEADLINE_EXCEEDED, UNAVAILABLE. Bytes are not verified here:
  // BlockStore::Publish does.
  virtual absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                            Deadline deadline) = 0;
  virtual std::string address() const = 0;
};

// What a cache node offers to transports on its side: the same words without a wire. The in-process source and the gRPC
// service both stand on it. Thread-safe.
class BlockProvider {
 public:
  virtual ~BlockProvider() = default;
  struct Located {
    BlockOrigin origin = BlockOrigin::kAbsent;
    std::shared_ptr<const KvBlockView> view;  // keeps the lease on the node's store; null where absent
    int64_t compile_us = 0;
  };
  virtual absl::StatusOr<std::vector<Located>> Locate(const LocateQuery& query, Deadline deadline) = 0;
};

// Byte range [begin, end) of the block that a BlockRange means. OUT_OF_RANGE names the block's limits.
struct ByteSpan {
  size_t begin = 0;
  size_t end = 0;
};
absl::StatusOr<ByteSpan> ResolveRange(const KvBlockView& block, const BlockRange& range);

}  // namespace epic

#endif  // EPIC_TRANSFER_BLOCK_SOURCE_H_
