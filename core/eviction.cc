#include "core/eviction.h"

namespace epic {

std::optional<EvictionWindow> FindEvictionWindow(std::span<const UsedRange> ranges, size_t capacity_bytes,
                                                 size_t wanted_bytes) {
  std::optional<EvictionWindow> best;
  EvictionWindow window;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!ranges[i].evictable) {
      window = {.begin = i + 1, .end = i + 1, .evicted_bytes = 0};
      continue;
    }
    window.end = i + 1;
    window.evicted_bytes += ranges[i].bytes;
    const size_t run_end = i + 1 < ranges.size() ? ranges[i + 1].offset : capacity_bytes;
    // The window's front leaves as long as the run stays long enough without it.
    while (window.begin < window.end) {
      const size_t run_begin = window.begin == 0 ? 0 : ranges[window.begin - 1].offset + ranges[window.begin - 1].bytes;
      if (run_end - run_begin < wanted_bytes) break;
      if (!best || window.evicted_bytes < best->evicted_bytes) best = window;
      window.evicted_bytes -= ranges[window.begin].bytes;
      ++window.begin;
    }
  }
  return best;
}

}  // namespace epic
