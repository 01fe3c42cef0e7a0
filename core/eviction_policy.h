// Which resident blocks of a tier should go first. Pure, thread-compatible: the tier calls it under its own lock.
#ifndef EPIC_CORE_EVICTION_POLICY_H_
#define EPIC_CORE_EVICTION_POLICY_H_

#include <cstddef>
#include <functional>
#include <string_view>

#include "core/chunk_key.h"

namespace epic {

class EvictionPolicy {
 public:
  struct Block {
    ChunkKey key;
    size_t bytes = 0;
    double cost_us = 0;  // what it would cost to bring it back (recompile or reload)
  };
  virtual ~EvictionPolicy() = default;
  virtual std::string_view name() const = 0;
  virtual void OnInsert(const Block& block) = 0;                  // became resident
  virtual void OnAccess(const ChunkKey& key) = 0;                 // a hit on a resident block
  virtual void OnMiss(const ChunkKey& key) = 0;                   // asked for and not resident
  virtual void SetCost(const ChunkKey& key, double cost_us) = 0;  // a copy elsewhere came or went
  virtual void OnEvict(const ChunkKey& key) = 0;                  // left because the policy named it
  virtual void OnRemove(const ChunkKey& key) = 0;                 // left because it was deleted or damaged
  // Resident blocks in the order in which they should go, until `visit` says true (taken) or there are no more. `visit`
  // must not call the policy. Blocks that `visit` refuses stay where they are.
  virtual void VisitVictims(const std::function<bool(const ChunkKey&)>& visit) = 0;
  // Whether a block that is not resident is worth more than what it would displace.
  virtual bool Admits(const Block& candidate) = 0;
};

}  // namespace epic

#endif  // EPIC_CORE_EVICTION_POLICY_H_
