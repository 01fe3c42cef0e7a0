#include "inference_worker/shadow_queue.h"

#include <utility>

namespace epic {

size_t ShadowQueue::Push(ShadowCheck check) {
  if (check.bytes() > limits_.bytes_max || limits_.checks_max == 0) return 1;
  bytes_ += check.bytes();
  checks_.push_back(std::move(check));
  size_t dropped = 0;
  for (; checks_.size() > limits_.checks_max || bytes_ > limits_.bytes_max; ++dropped) PopOldest();
  return dropped;
}

std::optional<ShadowCheck> ShadowQueue::Take(std::chrono::steady_clock::time_point now, size_t* expired) {
  while (!checks_.empty()) {
    ShadowCheck oldest = PopOldest();
    if (oldest.deadline > now) return oldest;
    ++*expired;
  }
  return std::nullopt;
}

bool ShadowQueue::PutBack(ShadowCheck check) {
  ++check.interruptions;
  if (check.interruptions >= limits_.starts_max) return false;
  if (checks_.size() >= limits_.checks_max || bytes_ + check.bytes() > limits_.bytes_max) return false;
  bytes_ += check.bytes();
  checks_.push_front(std::move(check));
  return true;
}

ShadowCheck ShadowQueue::PopOldest() {
  ShadowCheck oldest = std::move(checks_.front());
  checks_.pop_front();
  bytes_ -= oldest.bytes();
  return oldest;
}

}  // namespace epic
