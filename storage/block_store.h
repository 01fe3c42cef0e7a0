// The host tier: sealed KV blocks in one memfd arena, found by chunk key, read under leases.
//
// The arena is one mapping of a fixed size with an offset allocator: the hard limit in bytes of the tier, blocks and
// padding included. A block goes through three states: reserved (being written by one caller, invisible), published
// (immutable, visible, evictable), gone. What makes room is chosen by an eviction policy (core/eviction_policy.h) among
// the published blocks that are neither pinned nor under a lease. With `protect_published` every published block is
// made read-only with mprotect, so that a stray write faults.
//
// Beside its bytes in the arena a block costs a few hundred bytes of bookkeeping: what its header says is read again by
// each lease. Thread-safe. A lease is an RAII handle that keeps an edition's bytes in place; it must not outlive the
// store.
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
#include "core/eviction_policy.h"
#include "core/kv_block.h"
#include "storage/host_arena.h"

namespace epic {

struct BlockStoreOptions {
  size_t capacity_bytes = size_t{2} << 30;
  bool protect_published = false;
  std::string eviction_policy = EvictionPolicyNames().front();
  HostArenaOptions arena = {};

  absl::Status Validate() const;
};

struct BlockStoreStats {
  size_t capacity_bytes = 0;
  size_t used_bytes = 0;
  size_t blocks = 0;
  size_t leases = 0;  // handles alive now
  size_t leased_bytes = 0;
  size_t pinned_blocks = 0;  // of those that are held
  size_t pinned_bytes = 0;
  size_t largest_free_bytes = 0;
  size_t free_ranges = 0;
  uint64_t hits_total = 0;
  uint64_t misses_total = 0;
  uint64_t published_total = 0;
  uint64_t evictions_total = 0;            // for any of the next three reasons
  uint64_t evictions_for_room_total = 0;   // the policy named them
  uint64_t evictions_for_run_total = 0;    // neighbours, because what was free lay scattered
  uint64_t evictions_requested_total = 0;  // an operator asked for it
  uint64_t deletions_total = 0;            // nothing refers to them any more
  uint64_t damaged_total = 0;              // bytes or tokens were not what they should be

  size_t free_bytes() const { return capacity_bytes - used_bytes; }
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
    double recompile_cost_us() const;  // as it was published with. REQUIRES: *this
    Lease Share() const;               // a second handle on the same edition
    void Reset();

   private:
    friend class BlockStore;
    struct Entry;
    BlockStore* store_ = nullptr;
    Entry* entry_ = nullptr;
    std::shared_ptr<const KvBlockView> view_;
  };

  // A reserved block: zero-filled memory that one caller writes, then publishes or drops (its destructor frees it).
  class Reservation {
   public:
    Reservation(Reservation&&) noexcept;
    Reservation& operator=(Reservation&&) noexcept;
    ~Reservation();
    std::span<std::byte> bytes() const { return bytes_; }
    // The same with the rest of its last memory page, which is its own too: what direct I/O can read into.
    std::span<std::byte> padded_bytes() const;

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

  // Reserves room, evicting where needed: what the policy names, and where what is free then lies scattered, the
  // cheapest neighbours. RESOURCE_EXHAUSTED names both sizes where a block is larger than the tier, or where leases and
  // pins hold too much of it.
  absl::StatusOr<Reservation> Reserve(size_t bytes);
  // Makes a sealed block visible under its own key and returns a lease on it. Verifies the payload's checksums
  // first (DATA_LOSS). Where the key is there already, the reservation is dropped and the older edition's lease
  // returned. `recompile_cost_us`: what it would take to compile the block again; the
  // policy weighs it until SetCost says otherwise.
  absl::StatusOr<Lease> Publish(Reservation reservation, double recompile_cost_us = 0);

  // A lease on the block of this key, and a touch for eviction; NOT_FOUND (counted as a miss) where it is not held.
  // Compares token ids when `expected_tokens` is not empty: a mismatch is DATA_LOSS and drops the block.
  absl::StatusOr<Lease> Acquire(const ChunkKey& key, std::span<const int32_t> expected_tokens = {});
  // The same without a touch or a count, for whoever copies or checks blocks. An empty lease where it is not held.
  absl::StatusOr<Lease> Peek(const ChunkKey& key);
  bool Contains(const ChunkKey& key) const;  // neither a touch nor a count
  std::vector<ChunkKey> Keys() const;        // of everything that is published
  // What it would take now to bring the block back; nothing: to compile it. No-op where it is not held.
  void SetCost(const ChunkKey& key, std::optional<double> cost_us);

  // Why a block leaves without making room for another.
  enum class DropReason { kDeleted, kDamaged };
  // Makes the block unfindable now and frees it when its last lease ends. No-op where it is not held.
  void Drop(const ChunkKey& key, DropReason reason = DropReason::kDeleted);
  // Evicts one block on request. False where it is not held, pinned, or under a lease.
  bool Evict(const ChunkKey& key);

  // A pinned key's block is never evicted, whether it is held now or comes later. Pins are counted; each Pin needs an
  // Unpin. The store sets no limit: whoever pins does.
  void Pin(const ChunkKey& key);
  void Unpin(const ChunkKey& key);

  // Calls `observer(key)` after each eviction or drop, without a lock held. Set once before use by several threads. By
  // the time of the call another thread may have published the key again: an observer that keeps state asks Contains.
  void SetRemovalObserver(std::function<void(const ChunkKey&)> observer);

  BlockStoreStats Stats() const;
  const std::string& eviction_policy() const;
  int memfd() const;  // for sharing with other processes of the host, later

 private:
  struct Impl;
  explicit BlockStore(std::unique_ptr<Impl> impl);
  // An empty lease where the key is not held. DATA_LOSS where its header does not hold: then it was dropped.
  absl::StatusOr<Lease> LeaseOf(const ChunkKey& key, bool is_request);
  std::unique_ptr<Impl> impl_;
};

// The lease's view, for those who need no more; it keeps the lease. REQUIRES: the lease is not empty.
std::shared_ptr<const KvBlockView> SharedView(BlockStore::Lease lease);

}  // namespace epic

#endif  // EPIC_STORAGE_BLOCK_STORE_H_
