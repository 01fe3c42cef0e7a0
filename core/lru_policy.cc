#include "core/lru_policy.h"

namespace epic {

void LruPolicy::OnInsert(const Block& block) {
  if (resident_.contains(block.key)) return OnAccess(block.key);
  order_.push_front(block.key);
  resident_.emplace(block.key, order_.begin());
}

void LruPolicy::OnAccess(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found != resident_.end()) order_.splice(order_.begin(), order_, found->second);
}

void LruPolicy::OnRemove(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  order_.erase(found->second);
  resident_.erase(found);
}

void LruPolicy::VisitVictims(const Visitor& visit) {
  for (auto block = order_.rbegin(); block != order_.rend(); ++block) {
    if (visit(*block)) return;
  }
}

}  // namespace epic
