#include "core/tiny_lfu_policy.h"

#include <iterator>

#include "core/key_hash.h"

namespace epic {
namespace {

// Tuned on the simulation's first seed (docs/decisions/0012); the paper has 1 % and 80 %.
constexpr double kWindowShare = 0.01;
constexpr double kProtectedShareOfMain = 0.9;
constexpr double kHalfLifeUsesPerBlock = 8;

size_t Share(double share, size_t bytes) { return static_cast<size_t>(share * static_cast<double>(bytes)); }

}  // namespace

TinyLfuPolicy::TinyLfuPolicy(size_t capacity_bytes)
    : capacity_bytes_(capacity_bytes),
      window_bytes_max_(Share(kWindowShare, capacity_bytes)),
      main_bytes_max_(capacity_bytes - window_bytes_max_),
      protected_bytes_max_(Share(kProtectedShareOfMain, main_bytes_max_)),
      sketch_(kHalfLifeUsesPerBlock) {}

void TinyLfuPolicy::OnInsert(const Block& block) {
  if (const auto found = resident_.find(block.key); found != resident_.end()) {
    Entry& entry = *found->second;
    bytes_[entry.segment] += block.bytes - entry.bytes;
    entry.bytes = block.bytes;
    return;
  }
  Order& window = orders_[kWindow];
  window.push_front({.key = block.key, .bytes = block.bytes, .segment = kWindow});
  bytes_[kWindow] += block.bytes;
  resident_.emplace(block.key, window.begin());
  sketch_.Reserve(resident_.size());
  // While the main part has room, what the window cannot keep enters it without a contest.
  while (bytes_[kWindow] > window_bytes_max_) {
    const auto oldest = std::prev(window.end());
    if (bytes_[kProbation] + bytes_[kProtected] + oldest->bytes > main_bytes_max_) break;
    Move(oldest, kProbation);
  }
}

void TinyLfuPolicy::OnAccess(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  sketch_.Record(KeyHash(key));
  const Order::iterator entry = found->second;
  if (entry->segment == kWindow) return Move(entry, kWindow);
  Move(entry, kProtected);
  while (bytes_[kProtected] > protected_bytes_max_) Move(std::prev(orders_[kProtected].end()), kProbation);
}

void TinyLfuPolicy::OnMiss(const ChunkKey& key) { sketch_.Record(KeyHash(key)); }

void TinyLfuPolicy::OnRemove(const ChunkKey& key) {
  const auto found = resident_.find(key);
  if (found == resident_.end()) return;
  const Order::iterator entry = found->second;
  bytes_[entry->segment] -= entry->bytes;
  orders_[entry->segment].erase(entry);
  resident_.erase(found);
}

void TinyLfuPolicy::VisitVictims(const Visitor& visit) {
  // Everything from these places on was visited and refused.
  std::array<Order::iterator, kSegments> ends = {orders_[kWindow].end(), orders_[kProbation].end(),
                                                 orders_[kProtected].end()};
  const auto left = [&](Segment segment) { return ends[segment] != orders_[segment].begin(); };
  while (true) {
    const bool main_left = left(kProbation) || left(kProtected);
    if (!left(kWindow) && !main_left) return;
    const Segment main = left(kProbation) ? kProbation : kProtected;
    // Room is made for a block that will enter the window: the contest is due where it would not fit there, taking its
    // size to be that of the window's oldest.
    const bool contest =
        left(kWindow) && main_left && bytes_[kWindow] + std::prev(ends[kWindow])->bytes > window_bytes_max_;
    const bool window_wins = contest && LogUses(std::prev(ends[kWindow])->key) > LogUses(std::prev(ends[main])->key);
    const Segment loser = !main_left || (contest && !window_wins) ? kWindow : main;
    const Order::iterator victim = std::prev(ends[loser]);
    if (visit(victim->key)) {
      if (window_wins) Move(std::prev(ends[kWindow]), kProbation);
      return;
    }
    ends[loser] = victim;
  }
}

bool TinyLfuPolicy::Admits(const Block& candidate) {
  if (bytes_[kWindow] + bytes_[kProbation] + bytes_[kProtected] + candidate.bytes <= capacity_bytes_) return true;
  const Order& main = orders_[kProbation].empty() ? orders_[kProtected] : orders_[kProbation];
  return main.empty() || LogUses(candidate.key) > LogUses(main.back().key);
}

void TinyLfuPolicy::Move(Order::iterator entry, Segment segment) {
  bytes_[entry->segment] -= entry->bytes;
  bytes_[segment] += entry->bytes;
  orders_[segment].splice(orders_[segment].begin(), orders_[entry->segment], entry);
  entry->segment = segment;
}

double TinyLfuPolicy::LogUses(const ChunkKey& key) const { return sketch_.LogUses(KeyHash(key)); }

}  // namespace epic
