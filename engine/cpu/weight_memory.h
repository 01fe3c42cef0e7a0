// Where the weights of one model lie: one mapping of a known size, on huge pages where the system gives them.
//
// Decoding reads every weight once a token, in order; with pages of 4 KiB a core spends a quarter of that time on
// address translation (docs/performance.md). Most matrices of a small model are below the size of a huge page, so they
// share one mapping. Memory is taken once and given back with the whole. Not thread-safe; what was taken is.
#ifndef EPIC_ENGINE_CPU_WEIGHT_MEMORY_H_
#define EPIC_ENGINE_CPU_WEIGHT_MEMORY_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace epic {

inline constexpr size_t kWeightAlignmentBytes = 64;

class WeightMemory {
 public:
  // RESOURCE_EXHAUSTED where the system refuses the mapping. Pages are given when they are written.
  static absl::StatusOr<std::unique_ptr<WeightMemory>> Create(size_t bytes);
  ~WeightMemory();
  WeightMemory(const WeightMemory&) = delete;
  WeightMemory& operator=(const WeightMemory&) = delete;

  // The next `bytes` bytes, zero, aligned; nullptr where fewer are left.
  std::byte* Take(size_t bytes);

 private:
  WeightMemory(std::byte* begin, size_t bytes) : begin_(begin), bytes_(bytes) {}

  std::byte* begin_;
  size_t bytes_;
  size_t taken_ = 0;
};

// `count` zero elements in a WeightMemory, which must outlive them; on the heap where none is given or it is full.
template <typename T>
class WeightArray {
 public:
  WeightArray() = default;
  WeightArray(size_t count, WeightMemory* memory) : size_(count) {
    if (memory != nullptr) data_ = reinterpret_cast<T*>(memory->Take(count * sizeof(T)));
    if (data_ != nullptr) return;
    own_ = std::make_unique<T[]>(count);
    data_ = own_.get();
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  std::unique_ptr<T[]> own_;
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_WEIGHT_MEMORY_H_
