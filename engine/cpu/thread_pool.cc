#include "engine/cpu/thread_pool.h"

#include <immintrin.h>

namespace epic {
namespace {

// How long a worker looks for the next loop before it sleeps: the gap between two loops of one forward pass is a few
// microseconds, waking a sleeper costs ten times that. Bounded, so that an idle engine takes no processor time.
constexpr int kSpinsBeforeSleep = 2000;

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_.store(true);
  }
  wake_.NotifyAll();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunTasks(int thread) {
  for (int64_t index = next_.fetch_add(1); index < count_; index = next_.fetch_add(1)) (*task_)(index, thread);
}

void ThreadPool::ParallelFor(int64_t count, const std::function<void(int64_t, int)>& task) {
  if (count <= 0) return;
  if (workers_.empty() || count == 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  count_ = count;
  task_ = &task;
  next_.store(0);
  busy_.store(static_cast<int>(workers_.size()));
  // Either this sees the worker that is about to sleep, or that worker sees the new generation: both the counter and
  // the generation are written before the other is read, in one order for all threads.
  generation_.fetch_add(1);
  if (sleepers_.load() > 0) {
    MutexLock lock(mutex_);
    wake_.NotifyAll();
  }
  RunTasks(0);
  // The others end within microseconds, unless the system has given their processor to somebody else: then give way
  // too.
  for (int spin = 0; busy_.load() != 0; ++spin) {
    if (spin < kSpinsBeforeSleep) {
      _mm_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::Work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpinsBeforeSleep && generation_.load() == seen && !stopping_.load(); ++spin) _mm_pause();
    if (generation_.load() == seen) {
      MutexLock lock(mutex_);
      sleepers_.fetch_add(1);
      while (generation_.load() == seen && !stopping_.load()) wake_.Wait(mutex_);
      sleepers_.fetch_sub(1);
    }
    if (stopping_.load()) return;
    seen = generation_.load();
    RunTasks(thread);
    busy_.fetch_sub(1);
  }
}

}  // namespace epic
