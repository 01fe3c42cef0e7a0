// The disk tier: sealed KV blocks in preallocated segment files of one folder, found by chunk key.
//
//   LOCK              held while the folder is open
//   FORMAT            the format version
//   segment-NNNNNN    preallocated; blocks lie at multiples of 4096 bytes, freed ranges are written again in place, so
//                     that a block is written to the disk once
//   index/            RocksDB: chunk key to range, edition, header checksum, cost (storage/disk_index.h)
//
// A block's bytes are written first, then its index entry, so that everything whose Write returned is found after kill
// -9. Nothing is synced, because KV can be compiled again: after power loss an entry may point at old or foreign bytes.
// Therefore a read proves key, edition and every checksum before it succeeds, and an entry that fails is dropped and
// counted. Damage never keeps the tier from starting: what it touches is forgotten.
//
// The hard limit: segments and the share that is kept for the index (at most an eighth, see DiskTierStats) together
// never take more than the capacity. Where the file system has no more to give, the tier stays as large as it is.
//
// Thread-safe. Locks are never held over I/O. A range that is being read is not written again before the read ends.
#ifndef EPIC_STORAGE_DISK_TIER_H_
#define EPIC_STORAGE_DISK_TIER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/eviction_policy.h"
#include "core/kv_block.h"
#include "storage/block_tier.h"
#include "storage/segment_file.h"

namespace epic {

struct DiskTierOptions {
  std::string folder;         // made where it is not there; belongs to the tier alone
  size_t capacity_bytes = 0;  // of the folder in all; at least 1 MiB
  // Of a new segment; one for a larger block is as large as the block. Up to the capacity, at least 1 MiB.
  size_t segment_bytes = size_t{256} << 20;
  // Stays free on the file system: the tier does not grow into it.
  size_t free_bytes_min = size_t{64} << 20;
  bool direct_io = true;  // where the file system takes it

  absl::Status Validate() const;  // INVALID_ARGUMENT names every field that is wrong
};

struct DiskTierStats : BlockTierStats {
  size_t index_bytes_max = 0;  // of the capacity, kept for the index
  size_t segment_bytes = 0;    // of all segments: on the disk, used or not
  bool direct_io = false;
  uint64_t dropped_at_start_total = 0;  // entries that could not be right: no such range, overlapping, cut off
  uint64_t index_resets_total = 0;      // damaged indexes thrown away whole: 0 or 1
};

class DiskTier final : public BlockTier {
 public:
  // Adopts what the folder holds. FAILED_PRECONDITION: another process, or this one, has it open, or a newer version of
  // EPIC wrote it; INVALID_ARGUMENT; RESOURCE_EXHAUSTED, PERMISSION_DENIED, UNAVAILABLE: the system does not let it.
  // `policy` is told of every block that the folder holds, in the order in which they were written.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(const DiskTierOptions& options,
                                                        std::unique_ptr<EvictionPolicy> policy);
  // REQUIRES: no call is in progress.
  ~DiskTier() override;

  // Called for each block that leaves, after it left, without a lock held: evicted, dropped, or found damaged. By then
  // another thread may have written the key again. Set once before use by several threads, as the next.
  void SetRemovalObserver(std::function<void(const ChunkKey&)> observer) override;
  // Blocks for which this is false are not evicted. Called under the tier's lock: it must be quick and not call the
  // tier.
  void SetEvictionFilter(std::function<bool(const ChunkKey&)> may_evict) override;

  // Writes a sealed block that the caller has verified, and evicts what must go for it, in the policy's order, and
  // where what then is free lies scattered, the cheapest neighbours. Fastest where the block's memory begins at a
  // multiple of 4096 bytes. True: written; false: it is there already. Waits for another thread that is writing or
  // dropping the same key. RESOURCE_EXHAUSTED: no room, because of what is being read or may not be evicted, because
  // the policy does not admit the block, or because the disk is full: the message says which, with the sizes;
  // UNAVAILABLE: the disk fails. Nothing is left of a block that was not written.
  absl::StatusOr<bool> Write(const KvBlockView& block, double recompile_cost_us) override;

  // No I/O, and no touch for eviction.
  std::optional<Entry> Find(const ChunkKey& key) const override;
  // Tells the policy that this block was wanted and is not here.
  void NoteMiss(const ChunkKey& key) override;

  // Reads the block into the first Entry::block_bytes of `padded_out` and verifies all of it: header, key, edition,
  // every checksum. On any error `padded_out` is unspecified. NOT_FOUND; INVALID_ARGUMENT for memory of another size;
  // DATA_LOSS: not the bytes that were written, UNAVAILABLE: the disk fails: the entry was dropped, compile the chunk
  // again. REQUIRES: memory at a multiple of 4096 bytes, DiskPaddedBytes(Entry::block_bytes) long.
  absl::Status Read(const ChunkKey& key, std::span<std::byte> padded_out) override;

  // Makes the block unfindable, now and after a restart; its range comes free when its readers are done. Waits for a
  // thread that is writing it. No-op where it is not there.
  void Drop(const ChunkKey& key) override;

  // Calls `visit` for each block that is there at the beginning, without a lock held.
  void ForEach(const std::function<void(const ChunkKey&, const Entry&)>& visit) const override;

  // Reads and verifies every block, dropping what is not sound, one at a time and without a touch for eviction. Calls
  // `progress` after each; CANCELLED where it returns false.
  absl::StatusOr<VerifyProgress> VerifyAll(const std::function<bool(const VerifyProgress&)>& progress) override;
  // Also while it is used.
  absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact() override;

  DiskTierStats Stats() const;
  BlockTierStats TierStats() const override { return Stats(); }

 private:
  struct Impl;
  explicit DiskTier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_TIER_H_
