// For tests and benchmarks only: an eviction policy that needs no words, and blocks whose bytes follow from a number.
#ifndef EPIC_STORAGE_DISK_TIER_TESTING_H_
#define EPIC_STORAGE_DISK_TIER_TESTING_H_

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string_view>

#include "core/eviction_policy.h"
#include "core/kv_block_testing.h"

namespace epic {

// The least recently used first; admits everything unless told otherwise.
class TestLruPolicy final : public EvictionPolicy {
 public:
  std::string_view name() const override { return "test-lru"; }
  void OnInsert(const Block& block) override {
    OnRemove(block.key);
    order_.push_back(block.key);
    where_[block.key] = std::prev(order_.end());
  }
  void OnAccess(const ChunkKey& key) override {
    if (const auto found = where_.find(key); found != where_.end()) order_.splice(order_.end(), order_, found->second);
  }
  void OnMiss(const ChunkKey& /*key*/) override { ++misses; }
  void SetCost(const ChunkKey& /*key*/, double /*cost_us*/) override {}
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  void OnRemove(const ChunkKey& key) override {
    if (const auto found = where_.find(key); found != where_.end()) {
      order_.erase(found->second);
      where_.erase(found);
    }
  }
  void VisitVictims(const std::function<bool(const ChunkKey&)>& visit) override {
    for (const ChunkKey& key : order_) {
      if (visit(key)) return;
    }
  }
  bool Admits(const Block& /*candidate*/) override { return admits; }

  bool admits = true;
  int misses = 0;

 private:
  std::list<ChunkKey> order_;
  std::map<ChunkKey, std::list<ChunkKey>::iterator> where_;
};

// A sealed block; equal numbers and sizes make equal bytes. About 128 * `layers` bytes a token, 32 tokens at least.
class TestBlock {
 public:
  explicit TestBlock(int number, int layers = 2, int tokens = 32, uint16_t first_bits = 1)
      : info_(MakeTestBlockInfo({.layers = layers, .kv_heads = 1, .head_dim = 32}, TokenIds(number, tokens))),
        memory_(KvBlockBytes(info_)) {
    KvBlockWriter writer = KvBlockWriter::Create(info_, memory_.span()).value();
    writer.Keys(0)[0] = first_bits;
    writer.Keys(layers - 1)[1] = static_cast<uint16_t>(number);
    writer.Seal();
  }
  KvBlockView view() const { return KvBlockView::Parse(memory_.span()).value(); }
  const ChunkKey& key() const { return info_.key; }
  std::span<const std::byte> bytes() const { return memory_.span(); }

 private:
  static std::vector<int32_t> TokenIds(int number, int tokens) {
    std::vector<int32_t> ids(static_cast<size_t>(tokens), 7);
    ids[0] = number;
    return ids;
  }
  KvBlockInfo info_;
  PageAlignedBytes memory_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_TIER_TESTING_H_
