// Lets one operation at a time through for each document, without holding a mutex over I/O. Operations on different
// documents do not wait for each other. Thread-safe.
#ifndef EPIC_CACHE_NODE_NAME_GATE_H_
#define EPIC_CACHE_NODE_NAME_GATE_H_

#include <chrono>
#include <set>
#include <utility>

#include "absl/status/statusor.h"
#include "cache_node/document_table.h"
#include "core/sync.h"

namespace epic {

class NameGate {
 public:
  // The right to work on a document, until it is destroyed. Must not outlive the gate.
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), name_(std::move(other.name_)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave(name_);
    }

   private:
    friend class NameGate;
    Pass(NameGate* gate, DocumentName name) : gate_(gate), name_(std::move(name)) {}
    NameGate* gate_;
    DocumentName name_;
  };

  // Waits its turn. DEADLINE_EXCEEDED where that takes too long.
  absl::StatusOr<Pass> Enter(const DocumentName& name, std::chrono::steady_clock::time_point deadline)
      EPIC_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    bool in_time = true;
    while (busy_.contains(name) && in_time) in_time = left_.WaitUntil(mutex_, deadline);
    if (!busy_.insert(name).second) {
      return absl::DeadlineExceededError("the deadline passed while another call worked on document \"" + name.id +
                                         "\"");
    }
    return Pass(this, name);
  }

 private:
  void Leave(const DocumentName& name) EPIC_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    busy_.erase(name);
    left_.NotifyAll();
  }

  Mutex mutex_;
  CondVar left_;
  std::set<DocumentName> busy_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_NAME_GATE_H_
