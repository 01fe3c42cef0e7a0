// Hands out ranges of a space of a fixed size: offsets, never memory. Pure bookkeeping for an arena.
//
// Best fit, the lowest offset among equals; freed ranges join their free neighbours at once. Sizes are rounded up to
// the alignment and every range starts at a multiple of it. Allocate and Free cost O(log n) in the number of free
// ranges, statistics O(1). Thread-compatible.
#ifndef EPIC_CORE_OFFSET_ALLOCATOR_H_
#define EPIC_CORE_OFFSET_ALLOCATOR_H_

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace epic {

struct OffsetAllocatorStats {
  size_t capacity_bytes = 0;
  size_t used_bytes = 0;  // rounding included
  size_t allocations = 0;
  size_t free_ranges = 0;
  size_t largest_free_bytes = 0;

  size_t free_bytes() const { return capacity_bytes - used_bytes; }
  // The share of the free bytes that the largest free range does not hold: 0 where all of them lie together or none is
  // free, towards 1 the more they are scattered.
  double Fragmentation() const {
    return free_bytes() == 0 ? 0.0 : 1.0 - static_cast<double>(largest_free_bytes) / static_cast<double>(free_bytes());
  }
};

class OffsetAllocator {
 public:
  // A capacity that is no multiple of the alignment is rounded down. REQUIRES: alignment_bytes > 0.
  OffsetAllocator(size_t capacity_bytes, size_t alignment_bytes);

  // The offset of a range of at least `bytes`, or nothing where no free range is long enough. 0 bytes count as 1.
  [[nodiscard]] std::optional<size_t> Allocate(size_t bytes);
  // REQUIRES: `offset` came from Allocate and was not freed since. Aborts otherwise: a range that was freed twice would
  // be handed out twice.
  void Free(size_t offset);
  // What Allocate(bytes) would take: `bytes` rounded up. SIZE_MAX where rounding would overflow.
  size_t RoundedBytes(size_t bytes) const;

  OffsetAllocatorStats Stats() const;

 private:
  void InsertFree(size_t offset, size_t bytes);
  void EraseFree(std::map<size_t, size_t>::iterator range);

  size_t capacity_bytes_;
  size_t alignment_bytes_;
  size_t used_bytes_ = 0;
  std::map<size_t, size_t> free_by_offset_;              // offset to bytes
  std::set<std::pair<size_t, size_t>> free_by_bytes_;    // (bytes, offset)
  absl::flat_hash_map<size_t, size_t> allocated_bytes_;  // offset to bytes
};

}  // namespace epic

#endif  // EPIC_CORE_OFFSET_ALLOCATOR_H_
