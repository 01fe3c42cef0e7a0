#include "router/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace epic {

void RunInParallel(size_t count, const std::function<void(size_t index)>& work) {
  std::atomic<size_t> next{0};
  const auto take_turns = [&] {
    for (size_t index = next++; index < count; index = next++) work(index);
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(count, kParallelCallsMax); ++i) helpers.emplace_back(take_turns);
  take_turns();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace epic
