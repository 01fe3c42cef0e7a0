#include "engine/private_kv.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

namespace epic {

void KvPage::Free::operator()(uint16_t* p) const { std::free(p); }

size_t KvPage::Bytes(const KvShape& shape, int32_t layer_begin, int32_t layer_end) {
  return shape.MatrixBytes(kPageTokens) * 2 * static_cast<size_t>(layer_end - layer_begin);
}

KvPage::KvPage(const KvShape& shape, int32_t layer_begin, int32_t layer_end)
    : layer_begin_(layer_begin), matrix_(shape.MatrixBytes(kPageTokens) / sizeof(uint16_t)) {
  const size_t bytes = Bytes(shape, layer_begin, layer_end);
  void* memory = std::aligned_alloc(64, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  // Rows that were not written yet are read, with weight 0, by the last tile: they must be finite.
  std::memset(memory, 0, bytes);
  data_.reset(static_cast<uint16_t*>(memory));
}

void PrivateRows::Append(std::span<const int32_t> positions) {
  assert(std::is_sorted(positions.begin(), positions.end()));
  assert(positions.empty() || positions_.empty() || positions.front() > positions_.back());
  positions_.insert(positions_.end(), positions.begin(), positions.end());
  while (pages_.size() * kPageTokens < positions_.size()) {
    pages_.push_back(std::make_shared<KvPage>(shape_, layer_begin_, layer_end_));
  }
}

void PrivateRows::AdoptPrefix(std::vector<std::shared_ptr<KvPage>> pages) {
  assert(positions_.empty());
  positions_.resize(pages.size() * kPageTokens);
  std::iota(positions_.begin(), positions_.end(), 0);
  pages_ = std::move(pages);
}

int32_t PrivateRows::CountUpTo(int32_t position) const {
  return static_cast<int32_t>(std::upper_bound(positions_.begin(), positions_.end(), position) - positions_.begin());
}

}  // namespace epic
