// One lock a name: writers of the same document wait for each other, writers of different ones do not.
//
// Unlike a Mutex it may be held over I/O: whoever waits, waits for a change of the very thing that it wants to change.
// Thread-safe. Not recursive.
#ifndef EPIC_STORAGE_KEYED_MUTEX_H_
#define EPIC_STORAGE_KEYED_MUTEX_H_

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "core/sync.h"

namespace epic {

class KeyedMutex {
 public:
  // Holds the name until it is destroyed.
  class Lock {
   public:
    Lock(KeyedMutex& mutex, std::string name) : mutex_(mutex), name_(std::move(name)) { mutex_.Acquire(name_); }
    ~Lock() { mutex_.Release(name_); }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    KeyedMutex& mutex_;
    const std::string name_;
  };

 private:
  void Acquire(const std::string& name) {
    const MutexLock lock(mutex_);
    while (!held_.insert(name).second) released_.Wait(mutex_);
  }
  void Release(const std::string& name) {
    {
      const MutexLock lock(mutex_);
      held_.erase(name);
    }
    released_.NotifyAll();
  }

  Mutex mutex_;  // protects which names are held
  CondVar released_;
  absl::flat_hash_set<std::string> held_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_STORAGE_KEYED_MUTEX_H_
