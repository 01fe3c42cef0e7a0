#include "engine/private_kv.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace epic {

void KvPage::Free::operator()(uint16_t* p) const { std::free(p); }

size_t KvPage::Bytes(const KvShape& shape, int32_t layer_begin, int32_t layer_end) {
  return shape.MatrixBytes(kPageTokens) * 2 * static_cast<size_t>(layer_end - layer_begin);
}

KvPage::Memory KvPage::Allocate(size_t bytes) {
  void* memory = std::aligned_alloc(64, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return Memory(static_cast<uint16_t*>(memory));
}

KvPage::KvPage(const KvShape& shape, int32_t layer_begin, int32_t layer_end)
    : layer_begin_(layer_begin),
      matrix_(shape.MatrixBytes(kPageTokens) / sizeof(uint16_t)),
      bytes_(Bytes(shape, layer_begin, layer_end)),
      data_(Allocate(bytes_)) {
  // Rows that were not written yet are read, with weight 0, by the last tile: they must be finite.
  std::memset(data_.get(), 0, bytes_);
}

KvPage::KvPage(const KvPage& other)
    : layer_begin_(other.layer_begin_), matrix_(other.matrix_), bytes_(other.bytes_), data_(Allocate(bytes_)) {
  std::memcpy(data_.get(), other.data_.get(), bytes_);
}

void PrivateRows::Append(std::span<const int32_t> positions) {
  assert(std::is_sorted(positions.begin(), positions.end()));
  assert(positions.empty() || positions_.empty() || positions.front() > positions_.back());
  positions_.insert(positions_.end(), positions.begin(), positions.end());
  while (pages_.size() * kPageTokens < positions_.size()) {
    pages_.push_back(std::make_shared<KvPage>(shape_, layer_begin_, layer_end_));
  }
}

void PrivateRows::Adopt(std::vector<std::shared_ptr<KvPage>> pages, std::span<const int32_t> positions) {
  assert(positions_.empty() && pages_.empty());
  assert(pages.size() == (positions.size() + kPageTokens - 1) / kPageTokens);
  positions_.assign(positions.begin(), positions.end());
  pages_ = std::move(pages);
}

int32_t PrivateRows::CountUpTo(int32_t position) const {
  return static_cast<int32_t>(std::upper_bound(positions_.begin(), positions_.end(), position) - positions_.begin());
}

}  // namespace epic
