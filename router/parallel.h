// Asking several members at the same time with blocking calls.
#ifndef EPIC_ROUTER_PARALLEL_H_
#define EPIC_ROUTER_PARALLEL_H_

#include <cstddef>
#include <functional>

namespace epic {

// Threads of one RunInParallel, the calling one included: enough to hide round trips, few enough to start for a
// request.
inline constexpr size_t kParallelCallsMax = 16;

// Calls work(0) ... work(count - 1), each once, up to kParallelCallsMax at a time, and returns when all have returned.
// The calling thread takes its share, so that one item starts no thread. `work` must not throw.
void RunInParallel(size_t count, const std::function<void(size_t index)>& work);

}  // namespace epic

#endif  // EPIC_ROUTER_PARALLEL_H_
