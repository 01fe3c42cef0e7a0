#include "storage/disk_space.h"

#include <algorithm>

#include "core/eviction.h"

namespace epic {

template <typename Change>
void DiskSpace::Update(uint32_t number, Segment& segment, Change&& change) {
  by_largest_free_.erase({segment.allocator.Stats().largest_free_bytes, number});
  change();
  by_largest_free_.insert({segment.allocator.Stats().largest_free_bytes, number});
}

void DiskSpace::AddSegment(uint32_t segment, size_t bytes, std::span<const Owned> owned) {
  Segment& added =
      segments_.try_emplace(segment, Segment{OffsetAllocator(bytes, alignment_bytes_), bytes, {}}).first->second;
  // A new allocator has one free range and hands out its front: taking the gaps as well puts every range in its place.
  std::vector<size_t> gaps;
  size_t end = 0;
  for (const Owned& item : owned) {
    if (item.range.offset > end) gaps.push_back(added.allocator.Allocate(item.range.offset - end).value());
    static_cast<void>(added.allocator.Allocate(item.range.bytes).value());
    added.used.emplace(item.range.offset, std::pair(item.range.bytes, item.key));
    end = item.range.offset + item.range.bytes;
    used_bytes_ += item.range.bytes;
  }
  for (const size_t gap : gaps) added.allocator.Free(gap);
  by_largest_free_.insert({added.allocator.Stats().largest_free_bytes, segment});
  capacity_bytes_ += bytes;
  largest_segment_bytes_ = std::max(largest_segment_bytes_, bytes);
}

std::optional<DiskRange> DiskSpace::Allocate(size_t bytes, const ChunkKey& key) {
  const size_t rounded = (bytes + alignment_bytes_ - 1) / alignment_bytes_ * alignment_bytes_;
  const auto best = by_largest_free_.lower_bound({rounded, 0});
  if (best == by_largest_free_.end()) return std::nullopt;
  DiskRange range{.segment = best->second, .offset = 0, .bytes = rounded};
  Segment& segment = segments_.at(range.segment);
  Update(range.segment, segment, [&] { range.offset = segment.allocator.Allocate(rounded).value(); });
  segment.used.emplace(range.offset, std::pair(rounded, key));
  used_bytes_ += rounded;
  return range;
}

void DiskSpace::Free(const DiskRange& range) {
  Segment& segment = segments_.at(range.segment);
  Update(range.segment, segment, [&] { segment.allocator.Free(range.offset); });
  segment.used.erase(range.offset);
  used_bytes_ -= range.bytes;
}

std::vector<DiskSpace::Owned> DiskSpace::FindWindow(uint32_t segment, size_t bytes,
                                                    const std::function<bool(const Owned&)>& evictable) const {
  const Segment& searched = segments_.at(segment);
  std::vector<Owned> owned;
  std::vector<UsedRange> ranges;
  for (const auto& [offset, used] : searched.used) {
    owned.push_back({{segment, offset, used.first}, used.second});
    ranges.push_back({offset, used.first, evictable(owned.back())});
  }
  const std::optional<EvictionWindow> window = FindEvictionWindow(ranges, searched.bytes, bytes);
  if (!window) return {};
  return {owned.begin() + static_cast<std::ptrdiff_t>(window->begin),
          owned.begin() + static_cast<std::ptrdiff_t>(window->end)};
}

}  // namespace epic
