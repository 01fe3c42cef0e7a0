// The block goes first that is worth least a byte: (cost to bring it back) x (likelihood of use) / bytes.
//
// The value is GreedyDual-Size-Frequency's (Cherkasova, HP Labs report HPL-98-69R1, 1998; Cao and Irani's
// GreedyDual-Size, USITS 1997, with frequency). Two things differ. The likelihood of use comes from
// core/frequency_sketch.h, which counts a key's uses also while it is not resident. And ageing is the decay of these
// counts, as in LRFU (Lee et al., IEEE Transactions on Computers 50(12), 2001), in place of an inflation value: what is
// not used for a half-life is worth half. All values decay alike, so their order changes only with a use or a cost, and
// a heap holds it.
//
// A block that was never asked for when it becomes resident (a document registered just now) counts as used once.
//
// About 145 bytes of state for each resident block, the sketch included.
#ifndef EPIC_CORE_COST_AWARE_POLICY_H_
#define EPIC_CORE_COST_AWARE_POLICY_H_

#include <utility>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "core/eviction_policy.h"
#include "core/frequency_sketch.h"

namespace epic {

class CostAwarePolicy : public EvictionPolicy {
 public:
  explicit CostAwarePolicy(size_t capacity_bytes);

  std::string_view name() const override { return "cost-aware"; }
  void OnInsert(const Block& block) override;
  void OnAccess(const ChunkKey& key) override;
  void OnMiss(const ChunkKey& key) override;
  void SetCost(const ChunkKey& key, double cost_us) override;
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  void OnRemove(const ChunkKey& key) override;
  void VisitVictims(const Visitor& visit) override;
  // Compares the candidate's value with the sum of the values of the blocks that would go for it.
  bool Admits(const Block& candidate) override;

 private:
  struct Entry {
    size_t bytes = 0;
    double log_uses = 0;  // ConfirmedUses at its last use
    double log_cost = 0;  // log2 of the cost in microseconds
    double log_value_per_byte = 0;
    size_t heap_place = 0;
  };
  using Node = std::pair<const ChunkKey, Entry>;  // stays where it is in memory while it is resident

  // Of a key with these LogUses that is used now: the same with a smaller weight for that latest use.
  double ConfirmedUses(double log_uses) const;
  void Revalue(Node& node);
  // Moves the node at this place up or down until the heap's order holds again.
  void Sift(size_t place);
  void Place(size_t place, Node* node);
  // Calls `visit` with resident nodes, the least value first, until it says true.
  template <typename NodeVisitor>
  void VisitInOrder(const NodeVisitor& visit);

  const size_t capacity_bytes_;
  size_t resident_bytes_ = 0;
  absl::node_hash_map<ChunkKey, Entry> resident_;
  std::vector<Node*> heap_;       // binary, the least value per byte at the front
  std::vector<size_t> frontier_;  // of VisitInOrder: a heap of places whose parents were visited
  FrequencySketch sketch_;
};

}  // namespace epic

#endif  // EPIC_CORE_COST_AWARE_POLICY_H_
