// Which range of which segment of the disk tier is whose. Pure bookkeeping, no I/O; thread-compatible.
//
// Every segment has an allocator of its own. A range comes from the segment whose largest free range is the smallest
// that suffices. Costs O(log n) but for FindWindow.
#ifndef EPIC_STORAGE_DISK_SPACE_H_
#define EPIC_STORAGE_DISK_SPACE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "core/chunk_key.h"
#include "core/offset_allocator.h"

namespace epic {

struct DiskRange {
  uint32_t segment = 0;
  size_t offset = 0;
  size_t bytes = 0;
  friend auto operator<=>(const DiskRange&, const DiskRange&) = default;  // NOLINT(modernize-use-nullptr)
};

class DiskSpace {
 public:
  struct Owned {
    DiskRange range;
    ChunkKey key;
  };

  // Offsets and lengths of ranges are multiples of `alignment_bytes`. REQUIRES: > 0.
  explicit DiskSpace(size_t alignment_bytes) : alignment_bytes_(alignment_bytes) {}

  // A segment of which `owned` is in use. REQUIRES: a new number; `owned` in it, aligned, ascending and disjoint.
  void AddSegment(uint32_t segment, size_t bytes, std::span<const Owned> owned = {});

  std::optional<DiskRange> Allocate(size_t bytes, const ChunkKey& key);
  // REQUIRES: from Allocate or AddSegment, and not freed since.
  void Free(const DiskRange& range);

  // The neighbours in this segment with the fewest bytes that must go so that `bytes` come free in one place (see
  // core/eviction.h); empty where what is not evictable leaves no such place. REQUIRES: Allocate(bytes) would find
  // none. O(n) in the ranges of the segment.
  std::vector<Owned> FindWindow(uint32_t segment, size_t bytes,
                                const std::function<bool(const Owned&)>& evictable) const;

  size_t capacity_bytes() const { return capacity_bytes_; }  // of all segments
  size_t used_bytes() const { return used_bytes_; }
  size_t largest_segment_bytes() const { return largest_segment_bytes_; }
  size_t largest_free_bytes() const { return by_largest_free_.empty() ? 0 : by_largest_free_.rbegin()->first; }

 private:
  struct Segment {
    OffsetAllocator allocator;
    size_t bytes = 0;
    std::map<size_t, std::pair<size_t, ChunkKey>> used;  // offset to (bytes, owner)
  };
  // Calls `change` and keeps by_largest_free_ true.
  template <typename Change>
  void Update(uint32_t number, Segment& segment, Change&& change);

  const size_t alignment_bytes_;
  size_t capacity_bytes_ = 0;
  size_t used_bytes_ = 0;
  size_t largest_segment_bytes_ = 0;
  std::map<uint32_t, Segment> segments_;
  std::set<std::pair<size_t, uint32_t>> by_largest_free_;  // (bytes, segment)
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_SPACE_H_
