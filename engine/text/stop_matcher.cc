#include <algorithm>
#include <utility>

#include "engine/text/sampler.h"

namespace epic {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  if (stop_index_ >= 0) return {"", true, stop_index_};
  held_ += text;
  size_t stop_end = std::string::npos;
  size_t stop_begin = std::string::npos;
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (stops_[i].empty()) continue;
    const size_t begin = held_.find(stops_[i]);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stops_[i].size();
    if (end < stop_end || (end == stop_end && begin < stop_begin)) {
      stop_end = end;
      stop_begin = begin;
      stop_index_ = static_cast<int>(i);
    }
  }
  if (stop_index_ >= 0) {
    held_.resize(stop_begin);
    return {std::exchange(held_, {}), true, stop_index_};
  }
  // What may be shown ends where the longest beginning of a stop string starts.
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) longest = length;
    }
  }
  std::string shown = held_.substr(0, held_.size() - longest);
  held_.erase(0, shown.size());
  return {std::move(shown), false, -1};
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace epic
