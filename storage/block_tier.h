// A tier beside the host tier, as the tiered store sees it: whole blocks go in and come out by copying. The disk tier
// is one; GPU memory will be another.
//
// Thread-safe; calls may take as long as the copy takes, and no caller holds a lock over them.
#ifndef EPIC_STORAGE_BLOCK_TIER_H_
#define EPIC_STORAGE_BLOCK_TIER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"

namespace epic {

struct BlockTierStats {
  size_t capacity_bytes = 0;
  size_t used_bytes = 0;  // of blocks, padding included
  size_t blocks = 0;
  uint64_t reads_total = 0;  // that succeeded
  uint64_t read_bytes_total = 0;
  uint64_t writes_total = 0;
  uint64_t written_bytes_total = 0;
  uint64_t evictions_total = 0;
  uint64_t deletions_total = 0;          // dropped because nothing refers to them any more, or on request
  uint64_t checksum_failures_total = 0;  // blocks dropped: not the bytes that were written
  uint64_t read_errors_total = 0;        // blocks dropped: the device did not give them
  uint64_t write_errors_total = 0;
  uint64_t no_space_total = 0;  // times the device had no room to grow into, or to write
};

struct VerifyProgress {
  size_t blocks_total = 0;
  size_t blocks_done = 0;
  uint64_t bytes_done = 0;
  std::vector<std::string> faults;  // of the blocks that were bad, and were dropped
};

class BlockTier {
 public:
  virtual ~BlockTier() = default;

  struct Entry {
    size_t block_bytes = 0;
    uint64_t edition = 0;
    double recompile_cost_us = 0;  // as it was given with the block
  };
  virtual std::optional<Entry> Find(const ChunkKey& key) const = 0;
  // Takes in a sealed, verified block; what makes room for it is the tier's own choice. False: held already, or not
  // worth the room. RESOURCE_EXHAUSTED: no room can be made now. UNAVAILABLE: it could not be written.
  virtual absl::StatusOr<bool> Write(const KvBlockView& block, double recompile_cost_us) = 0;
  // Copies a block into `padded_out`: block_bytes and what is left of the last page of kBlockAlignmentBytes, aligned to
  // that. Everything is verified: header, key, edition, every checksum. NOT_FOUND. DATA_LOSS and UNAVAILABLE: the entry
  // was bad, or could not be read, and was dropped. On any error the bytes are to be thrown away.
  virtual absl::Status Read(const ChunkKey& key, std::span<std::byte> padded_out) = 0;
  // Tells the tier that this block was wanted and nobody had it: it may be worth more room when it comes.
  virtual void NoteMiss(const ChunkKey& key) = 0;
  // No-op where it is not held.
  virtual void Drop(const ChunkKey& key) = 0;
  // Of each block that is there at the beginning, without a lock held.
  virtual void ForEach(const std::function<void(const ChunkKey&, const Entry&)>& visit) const = 0;
  // Called for each block that left, for whatever reason, without a lock held. Set once before use by several threads.
  virtual void SetRemovalObserver(std::function<void(const ChunkKey&)> observer) = 0;
  // Blocks for which this is false are not evicted. Called under the tier's lock: it must be quick and not call the
  // tier. Set once before use by several threads.
  virtual void SetEvictionFilter(std::function<bool(const ChunkKey&)> may_evict) = 0;
  virtual BlockTierStats TierStats() const = 0;
  // Reads and verifies every block, dropping what is not sound, without a touch for eviction. Calls `progress` after
  // each; CANCELLED where it returns false.
  virtual absl::StatusOr<VerifyProgress> VerifyAll(const std::function<bool(const VerifyProgress&)>& progress) = 0;
  // Gives back what deleted index entries still take. Returns the bytes of the index before and after.
  virtual absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact() = 0;
};

}  // namespace epic

#endif  // EPIC_STORAGE_BLOCK_TIER_H_
