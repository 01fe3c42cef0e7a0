// The layouts that bench-disk-layouts compares, behind one interface: a fixed number of values, found by number.
//
// One thread. Every call ends the program with a message where the system fails: a benchmark has nothing to recover.
#ifndef EPIC_BENCHMARKS_DISK_LAYOUTS_H_
#define EPIC_BENCHMARKS_DISK_LAYOUTS_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/kv_block.h"

namespace epic {

class DiskLayout {
 public:
  virtual ~DiskLayout() = default;
  virtual void Put(const KvBlockView& block, size_t number) = 0;
  // Takes the value away and writes it again, as eviction and spill do.
  virtual void Replace(const KvBlockView& block, size_t number) = 0;
  // Into memory at a multiple of 4096 bytes, rounded up to it. False where the layout no longer has the value.
  virtual bool Get(const KvBlockView& block, size_t number, std::span<std::byte> out) = 0;
  // All that was put is on the disk, and nothing goes on in the background.
  virtual void Finish() = 0;
  // By the layout's own counters; 0 where it has none.
  virtual uint64_t written_bytes() const { return 0; }
};

struct DiskLayoutKind {
  std::string name;
  // REQUIRES: an empty folder. `values` of up to `value_bytes` each will be put.
  std::function<std::unique_ptr<DiskLayout>(const std::string& folder, size_t values, size_t value_bytes)> open;
  bool verifies = true;  // a value's checksums are to be verified after Get; false: plain files, or done by Get
};

// Plain files first: direct, then buffered.
std::vector<DiskLayoutKind> DiskLayoutKinds();

}  // namespace epic

#endif  // EPIC_BENCHMARKS_DISK_LAYOUTS_H_
