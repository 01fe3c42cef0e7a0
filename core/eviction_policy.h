// Which block should leave a tier next, and whether a block is worth writing to it.
//
// A policy is told what happens in a tier and answers in which order the resident blocks should go. It holds keys and
// sizes only: the tier owns the bytes, the accounting and the decision. Sizes differ between blocks, so every share and
// limit inside a policy is counted in bytes.
//
// Pure (no clock, no I/O) and thread-compatible: the tier calls it under its own lock. Each call is O(log n) of the
// resident blocks at most, amortised; VisitVictims is that for every block that it visits. OnAccess does not allocate.
// Calls with keys that the policy does not hold are no-ops, except that OnMiss may remember them.
//
// Policies: "cost-aware" (core/cost_aware_policy.h), "tinylfu" (core/tiny_lfu_policy.h), "s3-fifo"
// (core/s3_fifo_policy.h), "lru" (core/lru_policy.h). docs/decisions/0012 has the comparison that chose the default.
#ifndef EPIC_CORE_EVICTION_POLICY_H_
#define EPIC_CORE_EVICTION_POLICY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/chunk_key.h"

namespace epic {

class EvictionPolicy {
 public:
  struct Block {
    ChunkKey key;
    size_t bytes = 0;
    double cost_us = 0;  // what it would cost to bring the block back: to recompile it, or to reload a copy of it
  };
  // Whether the block is taken; must not call the policy.
  using Visitor = std::function<bool(const ChunkKey&)>;

  virtual ~EvictionPolicy() = default;
  virtual std::string_view name() const = 0;

  // The block became resident. A key that is resident already takes the new size and cost.
  virtual void OnInsert(const Block& block) = 0;
  // A hit on a resident block.
  virtual void OnAccess(const ChunkKey& key) = 0;
  // The key was asked for and is not resident: counts for the likelihood of its use.
  virtual void OnMiss(const ChunkKey& key) = 0;
  // A copy on disk makes a block cheap to bring back; its loss makes the block dear again.
  virtual void SetCost(const ChunkKey& key, double cost_us) = 0;
  // The block left because the policy named it.
  virtual void OnEvict(const ChunkKey& key) = 0;
  // The block left for another reason: deleted, damaged.
  virtual void OnRemove(const ChunkKey& key) = 0;

  // Visits resident blocks in the order in which they should go, each at most once, until `visit` says true (taken) or
  // there are no more. What was taken is still resident for the policy until OnEvict. Blocks that `visit` refuses
  // (leased, pinned) stay where they are.
  virtual void VisitVictims(const Visitor& visit) = 0;
  // Whether a block that is not resident is worth more than what it would displace now. For tiers where writing costs
  // something; policies without such a notion say always. O(log n) for every block that it would displace.
  virtual bool Admits(const Block& candidate) = 0;
};

// A policy for a tier of `capacity_bytes`. INVALID_ARGUMENT names the policies that there are.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(const std::string& name, size_t capacity_bytes);

// The default first.
std::vector<std::string> EvictionPolicyNames();

}  // namespace epic

#endif  // EPIC_CORE_EVICTION_POLICY_H_
