// The tiers of a cache node as one store: host memory, and a disk tier below it where there is one.
//
// Memory is what requests read. A block that is published there is copied to disk in the background (its demotion), so
// that eviction from memory is instant and a node that died comes back warm; a block that is on disk only is loaded by
// Load (its promotion). Both queues are bounded and worked off by a few I/O threads, loads first. Nothing of this is
// ever in the way of a hit in memory.
//
// What a block in memory would cost to bring back follows from where its copies are: the measured time of a load where
// it is on disk, the time that compiling it took where it is not. That is what the eviction policy of the host tier
// weighs.
//
// A tier may keep blocks in an encoding of its own (KvDtype): blocks are re-encoded on their way in, with their own
// checksums. Thread-safe.
#ifndef EPIC_STORAGE_TIERED_STORE_H_
#define EPIC_STORAGE_TIERED_STORE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kv_block.h"
#include "core/sync.h"
#include "storage/block_store.h"
#include "storage/block_tier.h"

namespace epic {

struct TieredStoreOptions {
  KvDtype host_dtype = KvDtype::kBf16;
  KvDtype disk_dtype = KvDtype::kBf16;
  int io_threads = 2;
  size_t loads_waiting_max = 1024;
  // Keys of blocks that wait to be copied to disk; beyond it a block stays without a copy until it is published again.
  size_t writes_waiting_max = 65536;
};

struct TieredStoreStats {
  size_t loads_waiting = 0;   // and under way
  size_t writes_waiting = 0;  // and under way
  uint64_t loads_total = 0;   // blocks that came up from disk
  uint64_t load_failures_total = 0;
  uint64_t writes_total = 0;           // blocks that were copied to disk
  uint64_t writes_skipped_total = 0;   // left memory before their turn, or the queue was full
  uint64_t writes_declined_total = 0;  // the disk tier had no room for them
  uint64_t write_failures_total = 0;
  double load_us_per_megabyte = 0;  // measured, what the cost of a load is estimated by
};

class TieredStore {
 public:
  using Clock = std::chrono::steady_clock;

  // `disk` may be null: then memory is the only tier.
  TieredStore(const TieredStoreOptions& options, std::unique_ptr<BlockStore> host, std::unique_ptr<BlockTier> disk);
  // Stops first. REQUIRES: no lease on the host tier is alive.
  ~TieredStore();

  BlockStore& host() { return *host_; }
  const BlockStore& host() const { return *host_; }
  BlockTier* disk() const { return disk_.get(); }
  const TieredStoreOptions& options() const { return options_; }

  // Of which blocks copies are kept on disk: those that somebody may ask for again. Asked before and after each copy,
  // from I/O threads. Set once before use; without it every block is copied.
  void SetDiskFilter(std::function<bool(const ChunkKey&)> keeps) { keeps_ = std::move(keeps); }
  // Called with the seconds that each load and each copy took. Set once before use.
  void SetLatencyObservers(std::function<void(double)> load, std::function<void(double)> write) {
    observe_load_ = std::move(load);
    observe_write_ = std::move(write);
  }

  // As it is described, in the encoding that the host tier keeps it in.
  KvBlockInfo HostInfo(KvBlockInfo info) const;
  bool OnDisk(const ChunkKey& key) const { return disk_ != nullptr && disk_->Find(key).has_value(); }
  bool Holds(const ChunkKey& key) const { return host_->Contains(key) || OnDisk(key); }

  // BlockStore::Publish, and a copy to disk in the background where there is none. `compile_us`: what compiling it
  // took; of no importance where it came from disk.
  absl::StatusOr<BlockStore::Lease> Publish(BlockStore::Reservation reservation, double compile_us);

  // Fills `reservation` with the block of `info` (as HostInfo) from disk, then calls `on_done` with its edition, once,
  // from an I/O thread; the reservation must stay in place until then. NOT_FOUND, DATA_LOSS, UNAVAILABLE: the disk does
  // not have it, or not any more. An error here means that on_done is not called: RESOURCE_EXHAUSTED, too many wait.
  absl::Status Load(const KvBlockInfo& info, std::span<std::byte> padded_block,
                    std::function<void(absl::StatusOr<uint64_t>)> on_done) EPIC_EXCLUDES(mutex_);

  // The block of `info`, in the encoding that `info` asks for, from whichever tier has it; in place where it can be,
  // else in memory of its own, outside of the host tier. Neither a touch nor a count. NOT_FOUND, DATA_LOSS,
  // UNAVAILABLE.
  absl::StatusOr<std::shared_ptr<const KvBlockView>> View(const KvBlockInfo& info);

  // Forgets a block in every tier.
  void Drop(const ChunkKey& key, BlockStore::DropReason reason = BlockStore::DropReason::kDeleted);

  // Verifies every block in memory, as BlockTier::VerifyAll does for its own.
  absl::StatusOr<VerifyProgress> VerifyHost(const std::function<bool(const VerifyProgress&)>& progress);

  // Copies what is in memory, is to be kept, and has no copy. Before a shutdown.
  void QueueMissingCopies() EPIC_EXCLUDES(mutex_);
  // Whether so much of memory waits to be copied that more would be evicted before its turn: who compiles in advance
  // should wait.
  bool CopiesAreBehind() const EPIC_EXCLUDES(mutex_);
  // Copies under way: each keeps its block in place for as long as the disk takes.
  size_t copies_running() const EPIC_EXCLUDES(mutex_);
  // Waits until no copy waits or is under way. False where the deadline came first.
  bool WaitForWrites(Clock::time_point deadline) EPIC_EXCLUDES(mutex_);
  // Finishes what is under way and gives up the rest: loads that wait get UNAVAILABLE.
  void Stop() EPIC_EXCLUDES(mutex_);

  TieredStoreStats Stats() const EPIC_EXCLUDES(mutex_);

 private:
  struct PendingLoad {
    KvBlockInfo info;
    std::span<std::byte> padded_block;
    std::function<void(absl::StatusOr<uint64_t>)> on_done;
  };
  struct PendingWrite {
    ChunkKey key;
    size_t bytes = 0;  // in memory
  };
  enum class WriteOutcome { kWritten, kSkipped, kDeclined, kFailed };

  void Run();
  void QueueWrite(const ChunkKey& key, size_t bytes) EPIC_EXCLUDES(mutex_);
  absl::StatusOr<uint64_t> LoadNow(const PendingLoad& load) EPIC_EXCLUDES(mutex_);
  WriteOutcome WriteNow(const ChunkKey& key) EPIC_EXCLUDES(mutex_);
  double LoadCostUs(size_t bytes) const EPIC_EXCLUDES(mutex_);
  bool Keeps(const ChunkKey& key) const { return !keeps_ || keeps_(key); }

  const TieredStoreOptions options_;
  const std::unique_ptr<BlockStore> host_;
  const std::unique_ptr<BlockTier> disk_;
  std::function<bool(const ChunkKey&)> keeps_;
  std::function<void(double)> observe_load_;
  std::function<void(double)> observe_write_;

  mutable Mutex mutex_;
  CondVar work_;
  CondVar idle_;
  std::deque<PendingLoad> loads_ EPIC_GUARDED_BY(mutex_);
  std::deque<PendingWrite> writes_ EPIC_GUARDED_BY(mutex_);
  size_t write_bytes_ EPIC_GUARDED_BY(mutex_) = 0;                      // of those that wait or are under way
  absl::flat_hash_set<ChunkKey> writes_known_ EPIC_GUARDED_BY(mutex_);  // that wait
  size_t loads_running_ EPIC_GUARDED_BY(mutex_) = 0;
  size_t writes_running_ EPIC_GUARDED_BY(mutex_) = 0;
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;
  TieredStoreStats stats_ EPIC_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // last: they use all the others
};

// EncodeKvBlock, but a block with values beyond the range of fp16 is kept as bf16, which takes the same room: readers
// take a block in whatever encoding it has.
absl::Status EncodeOrKeep(const KvBlockView& source, KvDtype target, std::span<std::byte> out);

}  // namespace epic

#endif  // EPIC_STORAGE_TIERED_STORE_H_
