// Replays a stream of requests against tiers that a policy keeps within their size. Pure.
//
// A block that is asked for and not there is brought in at once, whatever must go for it: that is what a memory tier
// does, where a block is needed in place. A disk tier asks its policy whether the block is worth writing.
#ifndef EPIC_BENCHMARKS_EVICTION_SIMULATION_H_
#define EPIC_BENCHMARKS_EVICTION_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmarks/eviction_workload.h"
#include "core/eviction_policy.h"

namespace epic {

// Of the requests behind the warm-up.
struct ReplayCounts {
  uint64_t requests = 0;
  uint64_t hits = 0;  // in memory
  double bytes_requested = 0;
  double bytes_hit = 0;
  double cost_us_requested = 0;  // what all requests would cost without a cache: each recompiled
  double cost_us_paid = 0;       // what the misses cost
  uint64_t disk_hits = 0;
  double disk_bytes_written = 0;
  std::vector<double> batch_hit_ratios;  // where the workload has batches

  double HitRatio() const { return static_cast<double>(hits) / static_cast<double>(requests); }
  double ByteHitRatio() const { return bytes_hit / bytes_requested; }
  double CostRatio() const { return cost_us_paid / cost_us_requested; }
};

// The names that ReplayOneTier knows beside EvictionPolicyNames(), which see the future. "belady": furthest next use
// goes first (Belady, IBM Systems Journal 5(2), 1966); no policy of a tier that must take every block hits more often
// where all blocks have one size. "belady-cost": the least cost / (bytes x requests until the next use) of 64 blocks
// drawn by lot goes first; a heuristic, not a bound.
std::vector<std::string> OfflinePolicyNames();

// One tier; a miss costs the block's recompile_us. INVALID_ARGUMENT for an unknown policy.
absl::StatusOr<ReplayCounts> ReplayOneTier(const EvictionWorkload& workload, const std::string& policy,
                                           size_t capacity_bytes);

// When a block that was compiled is offered to the disk tier.
enum class Spill { kWhenCompiled, kWhenEvicted };

// Memory before disk, the same policy for both. A block on disk costs reload_us, its copy there stays; any other costs
// recompile_us. The memory tier's policy is told of copies on disk as they come and go. INVALID_ARGUMENT for a policy
// that is not in EvictionPolicyNames().
absl::StatusOr<ReplayCounts> ReplayTwoTiers(const EvictionWorkload& workload, const std::string& policy,
                                            size_t memory_bytes, size_t disk_bytes, Spill spill);

// The key of a workload's block, by which the policies know it.
ChunkKey SimulatedKey(uint32_t block);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_EVICTION_SIMULATION_H_
