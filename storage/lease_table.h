// Leases of readers in other processes: a name for a block's lease that can be sent, and that ends by itself.
//
// The node grants a lease when a reader locates a block; every read names it. How it ends depends on the reader. One on
// another host: by its release, or after it has been silent for its time to live, which every read renews. One on this
// host holds a session (a socket that stays open, cache_node/lease_socket.h): by its release or with the session, and
// never by the clock, because the reader may be slow and reading. Either way a dead reader's blocks come free. Ids are
// random 64-bit numbers: whoever was not given one cannot guess one, and so cannot read.
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
#include "absl/container/flat_hash_set.h"
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

  // Sessions. A lease granted in one has no time to live. Ending one ends its leases; returns how many. Ending one that
  // is not open does nothing. FAILED_PRECONDITION where the session of a grant is not open.
  void OpenSession(uint64_t session);
  size_t EndSession(uint64_t session);
  [[nodiscard]] absl::StatusOr<uint64_t> GrantInSession(BlockStore::Lease lease, uint64_t session);

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
  size_t session_count() const;

 private:
  struct Record {
    std::shared_ptr<const BlockStore::Lease> lease;
    Duration ttl{};
    TimePoint expires{};   // of a lease outside of sessions
    uint64_t session = 0;  // 0: none
    bool IsOver(TimePoint now) const { return session == 0 && now >= expires; }
  };
  absl::StatusOr<uint64_t> Enter(Record&& record) EPIC_REQUIRES(mutex_);

  const size_t leases_max_;
  mutable Mutex mutex_;
  std::function<uint64_t()> random_ EPIC_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, Record> records_ EPIC_GUARDED_BY(mutex_);
  // The leases of each open session.
  absl::flat_hash_map<uint64_t, absl::flat_hash_set<uint64_t>> sessions_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_STORAGE_LEASE_TABLE_H_
