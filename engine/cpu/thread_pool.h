// The one pool of compute threads of an engine. The caller's thread takes part; there are no nested or concurrent
// loops.
#ifndef EPIC_ENGINE_CPU_THREAD_POOL_H_
#define EPIC_ENGINE_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "core/sync.h"

namespace epic {

class ThreadPool {
 public:
  // REQUIRES: threads >= 1; threads - 1 are started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(index, thread) for every index in [0, count) and returns when all have returned. `thread` is in
  // [0, threads()), so that a task can use that thread's scratch memory. Called by one thread at a time.
  void ParallelFor(int64_t count, const std::function<void(int64_t index, int thread)>& task);

 private:
  void Work(int thread);
  void RunTasks(int thread);

  std::vector<std::thread> workers_;
  std::atomic<uint64_t> generation_{0};  // goes up with every loop; workers wait for it to change
  std::atomic<int64_t> next_{0};
  std::atomic<int> sleepers_{0};  // workers that wait for wake_, or are about to
  std::atomic<int> busy_{0};      // workers that have not finished the present loop
  int64_t count_ = 0;             // written before generation_ goes up, read after
  const std::function<void(int64_t, int)>* task_ = nullptr;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar wake_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_THREAD_POOL_H_
