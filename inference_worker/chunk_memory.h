// Where a worker keeps the chunks that it uses: its own bounded cache, and the heap where the cache has no room.
//
// A chunk is written into a Buffer by a transfer or a compilation, then finished: checked against what was asked for,
// byte for byte by its checksums, and published in the cache. A chunk that the cache cannot take (leases hold it all,
// or it is larger than the cache) lives on the heap for the requests that use it and is forgotten with them; the bytes
// on the heap have a limit of their own. While it is used, every request that asks for it gets the same bytes: requests
// over the same documents hold them once, and attention can read them once for all of a batch.
//
// The engine reads one dtype. A block that a node keeps in another one is decoded into a block of the engine's, which
// is what is kept; its own bytes are let go of.
//
// Thread-safe. ChunkKv objects may outlive this one: they keep the cache alive.
#ifndef EPIC_INFERENCE_WORKER_CHUNK_MEMORY_H_
#define EPIC_INFERENCE_WORKER_CHUNK_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kv_block.h"
#include "core/sync.h"
#include "engine/kv.h"
#include "storage/block_store.h"

namespace epic {

class ChunkMemory {
 public:
  // `heap_bytes_max` bounds the blocks outside the cache, of all requests together.
  ChunkMemory(std::shared_ptr<BlockStore> cache, size_t heap_bytes_max);

  // Zero-filled memory of one block, aligned to kBlockAlignmentBytes. Freed where it is not finished. Movable.
  class Buffer {
   public:
    std::span<std::byte> bytes() const;

   private:
    friend class ChunkMemory;
    struct Heap;
    std::optional<BlockStore::Reservation> reservation_;
    std::shared_ptr<Heap> heap_;
  };

  // RESOURCE_EXHAUSTED names both limits where neither the cache nor the heap has room.
  absl::StatusOr<Buffer> Reserve(size_t bytes);

  // Makes a written block usable, decoded where its dtype is not that of `expected`. DATA_LOSS, naming what differs,
  // where it is not whole, is not what `expected` says, or is not `edition` (where given); else the errors of Decode.
  absl::StatusOr<ChunkKvPtr> Finish(Buffer buffer, const KvBlockInfo& expected, std::optional<uint64_t> edition);

  // The chunk of `block`, which has another dtype than `expected`, in a block of our own that has it. Reads `block`'s
  // bytes once, verified, and keeps none of them. DATA_LOSS as Finish, or as EncodeKvBlock; RESOURCE_EXHAUSTED as
  // Reserve.
  absl::StatusOr<ChunkKvPtr> Decode(const KvBlockView& block, const KvBlockInfo& expected);

  // The chunk from the cache, or from the heap while somebody uses it, or null. A block of the same key with other
  // content is dropped.
  ChunkKvPtr Find(const KvBlockInfo& expected);

  BlockStoreStats CacheStats() const { return cache_->Stats(); }
  bool Holds(const ChunkKey& key) const { return cache_->Contains(key); }
  size_t heap_bytes() const { return heap_bytes_->load(); }

 private:
  const std::shared_ptr<BlockStore> cache_;
  const size_t heap_bytes_max_;
  const std::shared_ptr<std::atomic<size_t>> heap_bytes_;  // shared with buffers that outlive this object

  ChunkKvPtr FindOnHeap(const KvBlockInfo& expected) EPIC_EXCLUDES(mutex_);

  Mutex mutex_;
  absl::flat_hash_map<ChunkKey, std::weak_ptr<const ChunkKv>> on_heap_ EPIC_GUARDED_BY(mutex_);
};

// DATA_LOSS naming the field where `seen` is not the chunk that `expected` describes. The dtype may differ: it is how a
// chunk is kept, not which one it is.
absl::Status CheckSameChunk(const KvBlockInfo& seen, const KvBlockInfo& expected);

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_CHUNK_MEMORY_H_
