#include "core/s3_fifo_policy.h"

#include <algorithm>

#include "core/key_hash.h"

namespace epic {
namespace {

// Tuned on the simulation's first seed (docs/decisions/0012); the paper has 10 % and 2 uses.
constexpr double kSmallShare = 0.01;
constexpr uint8_t kUsesMax = 3;
constexpr uint8_t kUsesForMain = 1;

}  // namespace

S3FifoPolicy::S3FifoPolicy(size_t capacity_bytes)
    : small_bytes_target_(static_cast<size_t>(kSmallShare * static_cast<double>(capacity_bytes))),
      ghost_bytes_max_(capacity_bytes - small_bytes_target_) {}

void S3FifoPolicy::OnInsert(const Block& block) {
  if (const auto found = resident_.find(block.key); found != resident_.end()) {
    Entry& entry = *found->second;
    if (!entry.in_main) small_bytes_ += block.bytes - entry.bytes;
    entry.bytes = block.bytes;
    return OnAccess(block.key);
  }
  const bool returns = ghost_number_.erase(KeyHash(block.key)) > 0;
  Queue& queue = returns ? main_ : small_;
  queue.push_front({.key = block.key, .bytes = block.bytes, .uses = 0, .in_main = returns});
  if (!returns) small_bytes_ += block.bytes;
  resident_.emplace(block.key, queue.begin());
}

void S3FifoPolicy::OnAccess(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  uint8_t& uses = found->second->uses;
  uses = std::min<uint8_t>(uses + 1, kUsesMax);
}

void S3FifoPolicy::OnEvict(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  if (!found->second->in_main) RememberGhost(*found->second);
  OnRemove(key);
}

void S3FifoPolicy::OnRemove(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  const Queue::iterator entry = found->second;
  if (!entry->in_main) small_bytes_ -= entry->bytes;
  (entry->in_main ? main_ : small_).erase(entry);
  resident_.erase(found);
}

void S3FifoPolicy::VisitVictims(const Visitor& visit) {
  // Everything from `small_end` and `main_end` on was visited and refused.
  auto small_end = small_.end();
  auto main_end = main_.end();
  while (true) {
    const bool small_left = small_end != small_.begin();
    const bool main_left = main_end != main_.begin();
    if (!small_left && !main_left) return;
    if (small_left && (!main_left || small_bytes_ >= small_bytes_target_)) {
      const auto oldest = std::prev(small_end);
      if (oldest->uses >= kUsesForMain) {
        MoveToMain(oldest);
        continue;
      }
      if (visit(oldest->key)) return;
      small_end = oldest;
    } else {
      const auto oldest = std::prev(main_end);
      if (oldest->uses > 0) {
        --oldest->uses;
        main_.splice(main_.begin(), main_, oldest);
        continue;
      }
      if (visit(oldest->key)) return;
      main_end = oldest;
    }
  }
}

void S3FifoPolicy::MoveToMain(Queue::iterator entry) {
  small_bytes_ -= entry->bytes;
  entry->uses = 0;
  entry->in_main = true;
  main_.splice(main_.begin(), small_, entry);
}

void S3FifoPolicy::RememberGhost(const Entry& entry) {
  const uint64_t hash = KeyHash(entry.key);
  ghost_queue_.push_back({.hash = hash, .number = ++ghosts_total_, .bytes = entry.bytes});
  ghost_number_[hash] = ghosts_total_;
  ghost_bytes_ += entry.bytes;
  while (ghost_bytes_ > ghost_bytes_max_) {
    const Ghost& oldest = ghost_queue_.front();
    ghost_bytes_ -= oldest.bytes;
    const auto found = ghost_number_.find(oldest.hash);
    if (found != ghost_number_.end() && found->second == oldest.number) ghost_number_.erase(found);
    ghost_queue_.pop_front();
  }
}

}  // namespace epic
