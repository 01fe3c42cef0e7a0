// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1):
// a small queue that most blocks pass through once, a main queue for those that were used in it, and a ghost queue that
// remembers the keys that the small queue let go: who comes back from there goes to the main queue at once. Counted in
// bytes where the paper counts objects.
//
// About 180 bytes of state for each resident block, its share of the ghosts included: their blocks were together as
// large as the main queue's.
#ifndef EPIC_CORE_S3_FIFO_POLICY_H_
#define EPIC_CORE_S3_FIFO_POLICY_H_

#include <cstdint>
#include <deque>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "core/eviction_policy.h"

namespace epic {

class S3FifoPolicy : public EvictionPolicy {
 public:
  explicit S3FifoPolicy(size_t capacity_bytes);

  std::string_view name() const override { return "s3-fifo"; }
  void OnInsert(const Block& block) override;
  void OnAccess(const ChunkKey& key) override;
  void OnMiss(const ChunkKey&) override {}
  void SetCost(const ChunkKey&, double) override {}
  void OnEvict(const ChunkKey& key) override;
  void OnRemove(const ChunkKey& key) override;
  void VisitVictims(const Visitor& visit) override;
  bool Admits(const Block&) override { return true; }

 private:
  struct Entry {
    ChunkKey key;
    size_t bytes = 0;
    uint8_t uses = 0;  // since it joined its queue, at most kUsesMax
    bool in_main = false;
  };
  using Queue = std::list<Entry>;  // the newest first
  struct Ghost {
    uint64_t hash = 0;
    uint64_t number = 0;  // of its eviction: a key that left twice has an older place that counts no more
    size_t bytes = 0;
  };

  void MoveToMain(Queue::iterator entry);
  void RememberGhost(const Entry& entry);

  const size_t small_bytes_target_;
  const size_t ghost_bytes_max_;
  Queue small_;
  Queue main_;
  size_t small_bytes_ = 0;
  absl::flat_hash_map<ChunkKey, Queue::iterator> resident_;
  std::deque<Ghost> ghost_queue_;                         // the newest last
  absl::flat_hash_map<uint64_t, uint64_t> ghost_number_;  // by hash of the key
  size_t ghost_bytes_ = 0;
  uint64_t ghosts_total_ = 0;
};

}  // namespace epic

#endif  // EPIC_CORE_S3_FIFO_POLICY_H_
