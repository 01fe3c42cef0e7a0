// Which neighbours to evict so that one run of the arena comes free. Pure.
//
// Evicting the least recently used blocks frees enough bytes, but not enough in one place: blocks have different sizes.
// This finds the cheapest place instead.
#ifndef EPIC_CORE_EVICTION_H_
#define EPIC_CORE_EVICTION_H_

#include <cstddef>
#include <optional>
#include <span>

namespace epic {

// A part of the arena that is in use. What lies between two of them is free.
struct UsedRange {
  size_t offset = 0;
  size_t bytes = 0;
  bool evictable = false;  // nobody holds or writes it
};

// Ranges [begin, end) of the argument.
struct EvictionWindow {
  size_t begin = 0;
  size_t end = 0;
  size_t evicted_bytes = 0;
};

// The neighbouring evictable ranges with the fewest bytes whose removal leaves a free run of at least `wanted_bytes`;
// the lowest of equals; nothing where what must stay leaves no such run. Never empty: REQUIRES that no free run is long
// enough now. O(n). REQUIRES: `ranges` ascending by offset, disjoint, within the capacity.
std::optional<EvictionWindow> FindEvictionWindow(std::span<const UsedRange> ranges, size_t capacity_bytes,
                                                 size_t wanted_bytes);

}  // namespace epic

#endif  // EPIC_CORE_EVICTION_H_
