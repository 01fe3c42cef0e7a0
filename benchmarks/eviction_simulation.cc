#include "benchmarks/eviction_simulation.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "core/split_mix.h"
#include "core/status_macros.h"

namespace epic {
namespace {

constexpr size_t kNever = std::numeric_limits<size_t>::max();

uint32_t BlockOf(const ChunkKey& key) {
  uint32_t block = 0;
  std::memcpy(&block, key.bytes.data() + key.bytes.size() - sizeof(block), sizeof(block));
  return block;
}

// What both policies that see the future share: the time, and when each resident block is asked for next. They must be
// told of every request, in the stream's order.
class OfflinePolicy : public EvictionPolicy {
 public:
  explicit OfflinePolicy(const EvictionWorkload& workload) : next_(workload.requests.size()) {
    std::vector<size_t> last(workload.blocks.size(), kNever);
    for (size_t i = workload.requests.size(); i-- > 0;) {
      next_[i] = std::exchange(last[workload.requests[i]], i);
    }
  }
  void OnMiss(const ChunkKey&) override { ++asked_; }
  void SetCost(const ChunkKey&, double) override {}
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  bool Admits(const Block&) override { return true; }

 protected:
  void CountAccess() { ++asked_; }
  size_t now() const { return asked_; }
  // Of the block that was asked for last.
  size_t NextUse() const { return next_[asked_ - 1]; }

 private:
  std::vector<size_t> next_;  // by request: when its block is asked for again
  size_t asked_ = 0;
};

class BeladyPolicy : public OfflinePolicy {
 public:
  explicit BeladyPolicy(const EvictionWorkload& workload)
      : OfflinePolicy(workload), next_use_(workload.blocks.size(), kNever) {}
  std::string_view name() const override { return "belady"; }
  void OnInsert(const Block& block) override { Add(BlockOf(block.key)); }
  void OnAccess(const ChunkKey& key) override {
    CountAccess();
    OnRemove(key);
    Add(BlockOf(key));
  }
  void OnRemove(const ChunkKey& key) override {
    const uint32_t block = BlockOf(key);
    order_.erase({next_use_[block], block});
  }
  void VisitVictims(const Visitor& visit) override {
    for (auto entry = order_.rbegin(); entry != order_.rend(); ++entry) {
      if (visit(SimulatedKey(entry->second))) return;
    }
  }

 private:
  void Add(uint32_t block) {
    next_use_[block] = NextUse();
    order_.emplace(next_use_[block], block);
  }

  std::vector<size_t> next_use_;
  std::set<std::pair<size_t, uint32_t>> order_;  // by next use
};

class BeladyCostPolicy : public OfflinePolicy {
 public:
  explicit BeladyCostPolicy(const EvictionWorkload& workload)
      : OfflinePolicy(workload), workload_(workload), entries_(workload.blocks.size()) {}
  std::string_view name() const override { return "belady-cost"; }
  void OnInsert(const Block& block) override {
    const uint32_t number = BlockOf(block.key);
    entries_[number] = {.next_use = NextUse(), .place = resident_.size()};
    resident_.push_back(number);
  }
  void OnAccess(const ChunkKey& key) override {
    CountAccess();
    entries_[BlockOf(key)].next_use = NextUse();
  }
  void OnRemove(const ChunkKey& key) override {
    const size_t place = entries_[BlockOf(key)].place;
    resident_[place] = resident_.back();
    entries_[resident_[place]].place = place;
    resident_.pop_back();
  }
  void VisitVictims(const Visitor& visit) override {
    constexpr size_t kSamples = 64;
    const size_t samples = std::min(kSamples, resident_.size());
    std::vector<std::pair<double, uint32_t>> drawn;
    for (size_t i = 0; i < samples; ++i) {
      const uint32_t block = resident_[SplitMix(draws_++) % resident_.size()];
      drawn.emplace_back(Value(block), block);
    }
    std::sort(drawn.begin(), drawn.end());
    for (const auto& [value, block] : drawn) {
      if (visit(SimulatedKey(block))) return;
    }
  }

 private:
  struct Entry {
    size_t next_use = kNever;
    size_t place = 0;
  };
  double Value(uint32_t block) const {
    const SimulatedBlock& simulated = workload_.blocks[block];
    const double requests_until_use = static_cast<double>(entries_[block].next_use) - static_cast<double>(now()) + 1;
    return simulated.recompile_us / static_cast<double>(simulated.bytes) / requests_until_use;
  }

  const EvictionWorkload& workload_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> resident_;
  uint64_t draws_ = 0;
};

// One tier's blocks and what they take.
class Tier {
 public:
  Tier(std::unique_ptr<EvictionPolicy> policy, size_t capacity_bytes, const std::vector<SimulatedBlock>& blocks)
      : policy_(std::move(policy)), capacity_bytes_(capacity_bytes), blocks_(blocks), resident_(blocks.size()) {}

  EvictionPolicy& policy() { return *policy_; }
  bool Contains(uint32_t block) const { return resident_[block]; }
  // Tells the policy that the block is asked for. Whether it is there.
  bool Ask(uint32_t block) {
    if (!resident_[block]) {
      policy_->OnMiss(SimulatedKey(block));
      return false;
    }
    policy_->OnAccess(SimulatedKey(block));
    return true;
  }
  // Makes room and inserts; `on_evict(block)` for each block that goes. False, and nothing happens, where the block is
  // larger than the tier.
  template <typename OnEvict>
  bool Insert(uint32_t block, double cost_us, const OnEvict& on_evict) {
    const size_t bytes = blocks_[block].bytes;
    if (bytes > capacity_bytes_) return false;
    while (used_bytes_ + bytes > capacity_bytes_) {
      ChunkKey victim;
      policy_->VisitVictims([&](const ChunkKey& key) {
        victim = key;
        return true;
      });
      policy_->OnEvict(victim);
      const uint32_t evicted = BlockOf(victim);
      used_bytes_ -= blocks_[evicted].bytes;
      resident_[evicted] = false;
      on_evict(evicted);
    }
    policy_->OnInsert({.key = SimulatedKey(block), .bytes = bytes, .cost_us = cost_us});
    used_bytes_ += bytes;
    resident_[block] = true;
    return true;
  }

 private:
  const std::unique_ptr<EvictionPolicy> policy_;
  const size_t capacity_bytes_;
  const std::vector<SimulatedBlock>& blocks_;
  std::vector<bool> resident_;
  size_t used_bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakePolicy(const EvictionWorkload& workload, const std::string& name,
                                                           size_t capacity_bytes) {
  if (name == "belady") return std::make_unique<BeladyPolicy>(workload);
  if (name == "belady-cost") return std::make_unique<BeladyCostPolicy>(workload);
  return MakeEvictionPolicy(name, capacity_bytes);
}

// Calls `ask(block)`, which says what the request cost and whether it hit in memory, for every request, and adds up.
struct Answer {
  bool hit = false;
  bool disk_hit = false;
  double cost_us = 0;
};
template <typename Ask>
ReplayCounts Replay(const EvictionWorkload& workload, const Ask& ask) {
  ReplayCounts counts;
  uint64_t hits_before = 0;
  size_t batch_begin = workload.warm_up;
  for (size_t i = 0; i < workload.requests.size(); ++i) {
    const uint32_t number = workload.requests[i];
    const SimulatedBlock& block = workload.blocks[number];
    const Answer answer = ask(number);
    if (i < workload.warm_up) continue;
    ++counts.requests;
    counts.hits += answer.hit ? 1 : 0;
    counts.disk_hits += answer.disk_hit ? 1 : 0;
    counts.bytes_requested += static_cast<double>(block.bytes);
    counts.bytes_hit += answer.hit ? static_cast<double>(block.bytes) : 0;
    counts.cost_us_requested += block.recompile_us;
    counts.cost_us_paid += answer.cost_us;
    const size_t batch = counts.batch_hit_ratios.size();
    if (batch < workload.batch_ends.size() && i + 1 == workload.batch_ends[batch]) {
      counts.batch_hit_ratios.push_back(static_cast<double>(counts.hits - hits_before) /
                                        static_cast<double>(i + 1 - batch_begin));
      hits_before = counts.hits;
      batch_begin = i + 1;
    }
  }
  return counts;
}

}  // namespace

ChunkKey SimulatedKey(uint32_t block) {
  ChunkKey key;
  const uint64_t hash = SplitMix(block);
  std::memcpy(key.bytes.data(), &hash, sizeof(hash));
  std::memcpy(key.bytes.data() + key.bytes.size() - sizeof(block), &block, sizeof(block));
  return key;
}

std::vector<std::string> OfflinePolicyNames() { return {"belady", "belady-cost"}; }

absl::StatusOr<ReplayCounts> ReplayOneTier(const EvictionWorkload& workload, const std::string& policy,
                                           size_t capacity_bytes) {
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> made, MakePolicy(workload, policy, capacity_bytes));
  Tier memory(std::move(made), capacity_bytes, workload.blocks);
  return Replay(workload, [&](uint32_t block) -> Answer {
    if (memory.Ask(block)) return {.hit = true};
    const double cost_us = workload.blocks[block].recompile_us;
    memory.Insert(block, cost_us, [](uint32_t) {});
    return {.cost_us = cost_us};
  });
}

absl::StatusOr<ReplayCounts> ReplayTwoTiers(const EvictionWorkload& workload, const std::string& policy,
                                            size_t memory_bytes, size_t disk_bytes, Spill spill) {
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> memory_policy, MakeEvictionPolicy(policy, memory_bytes));
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> disk_policy, MakeEvictionPolicy(policy, disk_bytes));
  Tier memory(std::move(memory_policy), memory_bytes, workload.blocks);
  Tier disk(std::move(disk_policy), disk_bytes, workload.blocks);
  double written_bytes = 0;
  size_t requests = 0;
  const auto offer_to_disk = [&](uint32_t number) {
    const SimulatedBlock& block = workload.blocks[number];
    if (disk.Contains(number) ||
        !disk.policy().Admits({.key = SimulatedKey(number), .bytes = block.bytes, .cost_us = block.recompile_us})) {
      return;
    }
    const bool written = disk.Insert(number, block.recompile_us, [&](uint32_t evicted) {
      memory.policy().SetCost(SimulatedKey(evicted), workload.blocks[evicted].recompile_us);
    });
    if (!written) return;
    memory.policy().SetCost(SimulatedKey(number), block.reload_us);
    if (requests > workload.warm_up) written_bytes += static_cast<double>(block.bytes);
  };
  ReplayCounts counts = Replay(workload, [&](uint32_t number) -> Answer {
    ++requests;
    if (memory.Ask(number)) return {.hit = true};
    const SimulatedBlock& block = workload.blocks[number];
    const bool on_disk = disk.Ask(number);
    const double cost_us = on_disk ? block.reload_us : block.recompile_us;
    memory.Insert(number, cost_us, [&](uint32_t evicted) {
      if (spill == Spill::kWhenEvicted) offer_to_disk(evicted);
    });
    if (spill == Spill::kWhenCompiled && !on_disk) offer_to_disk(number);
    return {.disk_hit = on_disk, .cost_us = cost_us};
  });
  counts.disk_bytes_written = written_bytes;
  return counts;
}

}  // namespace epic
