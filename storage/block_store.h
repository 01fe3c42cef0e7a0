// The host tier: sealed KV blocks in one memfd arena, found by chunk key, read under leases.
//
// The arena is one mapping of a fixed size with an offset allocator: the hard limit in bytes of the tier, blocks and
// padding included. A block goes through three states: reserved (being written by one caller, invisible), published
// (immutable, visible, evictable), gone. Eviction takes the least recently used published blocks that nobody
// holds a lease on. With `protect_published` every published block is made read-only with mprotect, so that a stray
// write faults.
//
// Thread-safe. A lease is an RAII handle that keeps an edition's bytes in place; it must not outlive the store.
#ifndef EPIC_STORAGE_BLOCK_STORE_H_
#define EPIC_STORAGE_BLOCK_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"

namespace epic {

struct BlockStoreOptions {
  size_t capacity_bytes = size_t{2} << 30;
  bool protect_published = false;

  absl::Status Validate() const;
};

struct BlockStoreStats {
  size_t capacity_bytes = 0;
  size_t used_bytes = 0;
  size_t blocks = 0;
  size_t leases = 0;  // handles alive now
  uint64_t hits_total = 0;
  uint64_t misses_total = 0;
  uint64_t published_total = 0;
  uint64_t evictions_total = 0;
};

class BlockStore {
 public:
  // Holds one edition's bytes in place. Movable; empty after a move. Copy with Share().
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&&) noexcept;
    Lease& operator=(Lease&&) noexcept;
    ~Lease();
    explicit operator bool() const { return entry_ != nullptr; }
    const KvBlockView& view() const;  // REQUIRES: *this
    uint64_t edition() const { return view().edition(); }
    Lease Share() const;  // a second handle on the same edition
    void Reset();

   private:
    friend class BlockStore;
    struct Entry;
    BlockStore* store_ = nullptr;
    Entry* entry_ = nullptr;
  };

  // A reserved block: zero-filled memory that one caller writes, then publishes or drops (its destructor frees it).
  class Reservation {
   public:
    Reservation(Reservation&&) noexcept;
    Reservation& operator=(Reservation&&) noexcept;
    ~Reservation();
    std::span<std::byte> bytes() const { return bytes_; }

   private:
    friend class BlockStore;
    Reservation() = default;
    BlockStore* store_ = nullptr;
    size_t offset_ = 0;
    std::span<std::byte> bytes_;
  };

  // RESOURCE_EXHAUSTED where the memory cannot be mapped.
  static absl::StatusOr<std::unique_ptr<BlockStore>> Create(const BlockStoreOptions& options);
  // REQUIRES: no lease and no reservation is alive.
  ~BlockStore();

  // Reserves room, evicting where needed: the least recently used, and where what is free then lies scattered, the
  // cheapest neighbours. RESOURCE_EXHAUSTED names both sizes where a block is larger than the tier, or where leases
  // hold too much of it.
  absl::StatusOr<Reservation> Reserve(size_t bytes);
  // Makes a sealed block visible under its own key and returns a lease on it. Verifies the payload's checksums
  // first (DATA_LOSS). Where the key is there already, the reservation is dropped and the older edition's lease
  // returned.
  absl::StatusOr<Lease> Publish(Reservation reservation);

  // A lease on the block of this key, and a touch for eviction; NOT_FOUND (counted as a miss) where it is not held.
  // Compares token ids when `expected_tokens` is not empty: a mismatch is DATA_LOSS and drops the block.
  absl::StatusOr<Lease> Acquire(const ChunkKey& key, std::span<const int32_t> expected_tokens = {});
  bool Contains(const ChunkKey& key) const;  // neither a touch nor a count
  // Makes the block unfindable now and frees it when its last lease ends. No-op where it is not held.
  void Drop(const ChunkKey& key);

  // Calls `observer(key)` after each eviction or drop, without a lock held. Set once before use by several threads. By
  // the time of the call another thread may have published the key again: an observer that keeps state asks Contains.
  void SetRemovalObserver(std::function<void(const ChunkKey&)> observer);

  BlockStoreStats Stats() const;
  int memfd() const;  // for sharing with other processes of the host, later

 private:
  struct Impl;
  explicit BlockStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The lease's view, for those who need no more; it keeps the lease. REQUIRES: the lease is not empty.
std::shared_ptr<const KvBlockView> SharedView(BlockStore::Lease lease);

}  // namespace epic

#endif  // EPIC_STORAGE_BLOCK_STORE_H_
