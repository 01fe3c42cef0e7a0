// The one mutex type of EPIC, with the annotations that clang's -Wthread-safety checks.
//
// It stands on std::mutex because the thread sanitizer cannot see into Abseil's, which Debian ships uninstrumented.
// A mutex protects one named thing; every shared member says which with EPIC_GUARDED_BY. No lock is held over I/O.
#ifndef EPIC_CORE_SYNC_H_
#define EPIC_CORE_SYNC_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define EPIC_ATTRIBUTE(x) __attribute__((x))
#else
#define EPIC_ATTRIBUTE(x)
#endif
#define EPIC_CAPABILITY(x) EPIC_ATTRIBUTE(capability(x))
#define EPIC_SCOPED_CAPABILITY EPIC_ATTRIBUTE(scoped_lockable)
#define EPIC_GUARDED_BY(x) EPIC_ATTRIBUTE(guarded_by(x))
#define EPIC_REQUIRES(...) EPIC_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EPIC_ACQUIRE(...) EPIC_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define EPIC_RELEASE(...) EPIC_ATTRIBUTE(release_capability(__VA_ARGS__))
#define EPIC_EXCLUDES(...) EPIC_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define EPIC_NO_THREAD_SAFETY_ANALYSIS EPIC_ATTRIBUTE(no_thread_safety_analysis)

namespace epic {

class EPIC_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() EPIC_ACQUIRE() { mutex_.lock(); }
  void Unlock() EPIC_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class EPIC_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) EPIC_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() EPIC_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// A condition variable for `Mutex`. Wait in a loop over the condition; wake-ups can be spurious.
class CondVar {
 public:
  void Wait(Mutex& mutex) EPIC_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Returns false when `deadline` passed first.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline) EPIC_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool signalled = condition_.wait_until(lock, deadline) == std::cv_status::no_timeout;
    lock.release();
    return signalled;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace epic

#endif  // EPIC_CORE_SYNC_H_
