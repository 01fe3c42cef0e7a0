// Leases of readers in other processes: a name for a block's lease that can be sent, and that ends by itself.
//
// The node grants a lease when a reader locates a block; every read names it and renews it; it ends when the reader
// releases it or has been silent for its time to live, so that a dead reader's blocks come free. Ids are random 64-bit
// numbers: whoever was not given one cannot guess one, and so cannot read.
//
// Time and randomness are arguments. Thread-safe; no block lease ends under the table's lock. The table, and whatever
// Find returned, must not outlive the block store.
#ifndef EPIC_STORAGE_LEASE_TABLE_H_
#define EPIC_STORAGE_LEASE_TABLE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/sync.h"
#include "storage/block_store.h"

namespace epic {

// 64 bits of the operating system's randomness. Aborts where it has none. Thread-safe.
uint64_t SystemRandom64();

class LeaseTable {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // `random` gives ids; it is called under the table's lock. Give SystemRandom64 outside of tests.
  LeaseTable(size_t leases_max, std::function<uint64_t()> random);

  // A new id, never 0, for `lease`, which ends `ttl` after `now` or after its last Find. RESOURCE_EXHAUSTED where the
  // table is full. REQUIRES: `lease` holds a block.
  [[nodiscard]] absl::StatusOr<uint64_t> Grant(BlockStore::Lease lease, TimePoint now, Duration ttl);

  // The block under this lease, which is renewed. The result keeps the bytes in place as long as it lives, even if the
  // lease ends meanwhile. NOT_FOUND where there is no such lease or its time is over: whether the sweep has been there
  // makes no difference to the answer's code. FAILED_PRECONDITION naming both where the lease is on another edition.
  [[nodiscard]] absl::StatusOr<std::shared_ptr<const BlockStore::Lease>> Find(uint64_t id, uint64_t edition,
                                                                              TimePoint now);

  // False where there is no such lease (any more).
  bool Release(uint64_t id);

  // Ends every lease whose time is over; returns how many. O(leases). Call it every few seconds.
  size_t Sweep(TimePoint now);

  size_t size() const;

 private:
  struct Record {
    std::shared_ptr<const BlockStore::Lease> lease;
    Duration ttl;
    TimePoint expires;
  };

  const size_t leases_max_;
  mutable Mutex mutex_;
  std::function<uint64_t()> random_ EPIC_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, Record> records_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_STORAGE_LEASE_TABLE_H_
