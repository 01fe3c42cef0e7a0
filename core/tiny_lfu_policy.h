// W-TinyLFU (Einziger, Friedman, Manes: "TinyLFU: a highly efficient cache admission policy", ACM Transactions on
// Storage 13(4), 2017): new blocks enter a small window in order of last use; what the window cannot keep enters the
// main part only where it was asked for more often lately than the block that it would displace. The main part is a
// segmented LRU (Karedla, Love, Wherry, 1994): probation, and a protected segment for blocks that were used in
// probation. Counted in bytes; frequencies are those of core/frequency_sketch.h, whose counts decay steadily where the
// paper halves them.
//
// About 180 bytes of state for each resident block, the sketch included.
#ifndef EPIC_CORE_TINY_LFU_POLICY_H_
#define EPIC_CORE_TINY_LFU_POLICY_H_

#include <array>
#include <cstdint>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "core/eviction_policy.h"
#include "core/frequency_sketch.h"

namespace epic {

class TinyLfuPolicy : public EvictionPolicy {
 public:
  explicit TinyLfuPolicy(size_t capacity_bytes);

  std::string_view name() const override { return "tinylfu"; }
  void OnInsert(const Block& block) override;
  void OnAccess(const ChunkKey& key) override;
  void OnMiss(const ChunkKey& key) override;
  void SetCost(const ChunkKey&, double) override {}
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  void OnRemove(const ChunkKey& key) override;
  void VisitVictims(const Visitor& visit) override;
  bool Admits(const Block& candidate) override;

 private:
  enum Segment : uint8_t { kWindow, kProbation, kProtected, kSegments };
  struct Entry {
    ChunkKey key;
    size_t bytes = 0;
    Segment segment = kWindow;
  };
  using Order = std::list<Entry>;  // the most recently used first

  void Move(Order::iterator entry, Segment segment);
  double LogUses(const ChunkKey& key) const;

  const size_t capacity_bytes_;
  const size_t window_bytes_max_;
  const size_t main_bytes_max_;
  const size_t protected_bytes_max_;
  std::array<Order, kSegments> orders_;
  std::array<size_t, kSegments> bytes_{};
  absl::flat_hash_map<ChunkKey, Order::iterator> resident_;
  FrequencySketch sketch_;
};

}  // namespace epic

#endif  // EPIC_CORE_TINY_LFU_POLICY_H_
