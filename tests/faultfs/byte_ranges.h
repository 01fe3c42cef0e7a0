// A set of bytes of a file, as ranges that neither touch nor overlap. Not thread-safe.
#ifndef EPIC_TESTS_FAULTFS_BYTE_RANGES_H_
#define EPIC_TESTS_FAULTFS_BYTE_RANGES_H_

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>

namespace epic::faultfs {

class ByteRanges {
 public:
  static constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

  // Adds [begin, end).
  void Add(int64_t begin, int64_t end) {
    if (begin >= end) return;
    auto next = ranges_.upper_bound(begin);
    if (next != ranges_.begin() && std::prev(next)->second >= begin) --next;
    while (next != ranges_.end() && next->first <= end) {
      begin = std::min(begin, next->first);
      end = std::max(end, next->second);
      next = ranges_.erase(next);
    }
    ranges_[begin] = end;
  }

  // Begin and end of each range, in order.
  const std::map<int64_t, int64_t>& ranges() const { return ranges_; }

 private:
  std::map<int64_t, int64_t> ranges_;
};

}  // namespace epic::faultfs

#endif  // EPIC_TESTS_FAULTFS_BYTE_RANGES_H_
