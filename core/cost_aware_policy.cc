#include "core/cost_aware_policy.h"

#include <algorithm>
#include <cmath>

#include "core/key_hash.h"

namespace epic {
namespace {

// Tuned on the simulation's first seed (docs/decisions/0012).
constexpr double kHalfLifeUsesPerBlock = 16;
// One use says little of the next one: most keys are used once. The latest use therefore counts a tenth until the next
// one confirms it, as LRU-2 looks at the use before the latest (O'Neil, O'Neil, Weikum, SIGMOD 1993).
constexpr double kLatestUseWeight = 0.1;
constexpr double kCostUsMin = 1;

double LogCost(double cost_us) { return std::log2(std::max(cost_us, kCostUsMin)); }
double LogBytes(size_t bytes) { return std::log2(static_cast<double>(std::max<size_t>(bytes, 1))); }

}  // namespace

CostAwarePolicy::CostAwarePolicy(size_t capacity_bytes)
    : capacity_bytes_(capacity_bytes), sketch_(kHalfLifeUsesPerBlock) {}

void CostAwarePolicy::OnInsert(const Block& block) {
  const auto [found, inserted] = resident_.try_emplace(block.key);
  Entry& entry = found->second;
  resident_bytes_ += block.bytes - entry.bytes;
  entry.bytes = block.bytes;
  entry.log_cost = LogCost(block.cost_us);
  if (inserted) {
    sketch_.Reserve(resident_.size());
    const uint64_t hash = KeyHash(block.key);
    const double log_uses = sketch_.LogUses(hash);
    entry.log_uses = ConfirmedUses(std::isinf(log_uses) ? sketch_.Record(hash) : std::max(log_uses, sketch_.now()));
    entry.heap_place = heap_.size();
    heap_.push_back(&*found);
  }
  Revalue(*found);
}

void CostAwarePolicy::OnAccess(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  found->second.log_uses = ConfirmedUses(sketch_.Record(KeyHash(key)));
  Revalue(*found);
}

void CostAwarePolicy::OnMiss(const ChunkKey& key) { sketch_.Record(KeyHash(key)); }

void CostAwarePolicy::SetCost(const ChunkKey& key, double cost_us) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  found->second.log_cost = LogCost(cost_us);
  Revalue(*found);
}

void CostAwarePolicy::OnRemove(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  const size_t place = found->second.heap_place;
  Node* const last = heap_.back();
  heap_.pop_back();
  if (last != &*found) {
    Place(place, last);
    Sift(place);
  }
  resident_bytes_ -= found->second.bytes;
  resident_.erase(found);
}

void CostAwarePolicy::VisitVictims(const Visitor& visit) {
  VisitInOrder([&](const Node& node) { return visit(node.first); });
}

bool CostAwarePolicy::Admits(const Block& candidate) {
  const size_t free_bytes = capacity_bytes_ - std::min(capacity_bytes_, resident_bytes_);
  if (candidate.bytes <= free_bytes) return true;
  // The latest use counts in full here: a block that is refused has no copy and so stays dear in the tier above.
  const double log_uses = std::max(sketch_.LogUses(KeyHash(candidate.key)), sketch_.now());
  const double candidate_value = std::exp2(log_uses - sketch_.now() + LogCost(candidate.cost_us));
  size_t freed_bytes = free_bytes;
  double displaced_value = 0;
  VisitInOrder([&](const Node& node) {
    const Entry& entry = node.second;
    displaced_value += std::exp2(entry.log_uses - sketch_.now() + entry.log_cost);
    freed_bytes += entry.bytes;
    return freed_bytes >= candidate.bytes || displaced_value >= candidate_value;
  });
  return candidate_value > displaced_value;
}

double CostAwarePolicy::ConfirmedUses(double log_uses) const {
  return log_uses + std::log2(1 - (1 - kLatestUseWeight) * std::exp2(sketch_.now() - log_uses));
}

void CostAwarePolicy::Revalue(Node& node) {
  Entry& entry = node.second;
  entry.log_value_per_byte = entry.log_uses + entry.log_cost - LogBytes(entry.bytes);
  Sift(entry.heap_place);
}

void CostAwarePolicy::Sift(size_t place) {
  Node* const node = heap_[place];
  const double value = node->second.log_value_per_byte;
  for (; place > 0; place = (place - 1) / 2) {
    Node* const parent = heap_[(place - 1) / 2];
    if (parent->second.log_value_per_byte <= value) break;
    Place(place, parent);
  }
  for (size_t child = 2 * place + 1; child < heap_.size(); child = 2 * place + 1) {
    if (child + 1 < heap_.size() &&
        heap_[child + 1]->second.log_value_per_byte < heap_[child]->second.log_value_per_byte) {
      ++child;
    }
    if (heap_[child]->second.log_value_per_byte >= value) break;
    Place(place, heap_[child]);
    place = child;
  }
  Place(place, node);
}

void CostAwarePolicy::Place(size_t place, Node* node) {
  heap_[place] = node;
  node->second.heap_place = place;
}

template <typename NodeVisitor>
void CostAwarePolicy::VisitInOrder(const NodeVisitor& visit) {
  const auto later = [&](size_t a, size_t b) {
    return heap_[a]->second.log_value_per_byte > heap_[b]->second.log_value_per_byte;
  };
  frontier_.clear();
  if (!heap_.empty()) frontier_.push_back(0);
  while (!frontier_.empty()) {
    std::pop_heap(frontier_.begin(), frontier_.end(), later);
    const size_t place = frontier_.back();
    frontier_.pop_back();
    if (visit(*heap_[place])) return;
    for (size_t child = 2 * place + 1; child <= 2 * place + 2 && child < heap_.size(); ++child) {
      frontier_.push_back(child);
      std::push_heap(frontier_.begin(), frontier_.end(), later);
    }
  }
}

}  // namespace epic
