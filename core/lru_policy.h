// The least recently used block goes first. The plainest policy: what the others are compared with.
//
// About 120 bytes of state for each resident block.
#ifndef EPIC_CORE_LRU_POLICY_H_
#define EPIC_CORE_LRU_POLICY_H_

#include <list>

#include "absl/container/flat_hash_map.h"
#include "core/eviction_policy.h"

namespace epic {

class LruPolicy : public EvictionPolicy {
 public:
  std::string_view name() const override { return "lru"; }
  void OnInsert(const Block& block) override;
  void OnAccess(const ChunkKey& key) override;
  void OnMiss(const ChunkKey&) override {}
  void SetCost(const ChunkKey&, double) override {}
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  void OnRemove(const ChunkKey& key) override;
  void VisitVictims(const Visitor& visit) override;
  bool Admits(const Block&) override { return true; }

 private:
  std::list<ChunkKey> order_;  // the most recently used first
  absl::flat_hash_map<ChunkKey, std::list<ChunkKey>::iterator> resident_;
};

}  // namespace epic

#endif  // EPIC_CORE_LRU_POLICY_H_
