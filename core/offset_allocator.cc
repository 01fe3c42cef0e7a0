#include "core/offset_allocator.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>

namespace epic {

OffsetAllocator::OffsetAllocator(size_t capacity_bytes, size_t alignment_bytes)
    : capacity_bytes_(capacity_bytes / alignment_bytes * alignment_bytes), alignment_bytes_(alignment_bytes) {
  if (capacity_bytes_ > 0) InsertFree(0, capacity_bytes_);
}

size_t OffsetAllocator::RoundedBytes(size_t bytes) const {
  bytes = std::max<size_t>(bytes, 1);
  if (bytes > SIZE_MAX - alignment_bytes_) return SIZE_MAX;
  return (bytes + alignment_bytes_ - 1) / alignment_bytes_ * alignment_bytes_;
}

std::optional<size_t> OffsetAllocator::Allocate(size_t bytes) {
  const size_t rounded = RoundedBytes(bytes);
  const auto best = free_by_bytes_.lower_bound({rounded, 0});
  if (best == free_by_bytes_.end()) return std::nullopt;
  const auto [range_bytes, offset] = *best;
  EraseFree(free_by_offset_.find(offset));
  if (range_bytes > rounded) InsertFree(offset + rounded, range_bytes - rounded);
  allocated_bytes_.emplace(offset, rounded);
  used_bytes_ += rounded;
  return offset;
}

void OffsetAllocator::Free(size_t offset) {
  const auto allocated = allocated_bytes_.find(offset);
  if (allocated == allocated_bytes_.end()) std::abort();
  size_t begin = offset;
  size_t bytes = allocated->second;
  used_bytes_ -= bytes;
  allocated_bytes_.erase(allocated);

  const auto next = free_by_offset_.upper_bound(offset);
  if (next != free_by_offset_.begin()) {
    if (const auto previous = std::prev(next); previous->first + previous->second == begin) {
      begin = previous->first;
      bytes += previous->second;
      EraseFree(previous);
    }
  }
  if (next != free_by_offset_.end() && begin + bytes == next->first) {
    bytes += next->second;
    EraseFree(next);
  }
  InsertFree(begin, bytes);
}

OffsetAllocatorStats OffsetAllocator::Stats() const {
  OffsetAllocatorStats stats;
  stats.capacity_bytes = capacity_bytes_;
  stats.used_bytes = used_bytes_;
  stats.allocations = allocated_bytes_.size();
  stats.free_ranges = free_by_offset_.size();
  stats.largest_free_bytes = free_by_bytes_.empty() ? 0 : free_by_bytes_.rbegin()->first;
  return stats;
}

void OffsetAllocator::InsertFree(size_t offset, size_t bytes) {
  free_by_offset_.emplace(offset, bytes);
  free_by_bytes_.emplace(bytes, offset);
}

void OffsetAllocator::EraseFree(std::map<size_t, size_t>::iterator range) {
  free_by_bytes_.erase({range->second, range->first});
  free_by_offset_.erase(range);
}

}  // namespace epic
