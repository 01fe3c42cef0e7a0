// The workers as the router sees them, and the choice among them.
//
// A worker's report about its load is used again for a short time; a worker that did not answer is left alone for a
// while unless there is no other. Placement is core/placement.h's: estimated time to the first token, from queued work,
// bytes to pull and link cost. Thread-safe; no lock is held while a worker is asked.
#ifndef EPIC_ROUTER_WORKER_POOL_H_
#define EPIC_ROUTER_WORKER_POOL_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/membership.h"
#include "core/placement.h"
#include "core/sync.h"
#include "router/backends.h"
#include "router/dispatch_ledger.h"
#include "router/prompt_expansion.h"

namespace epic {

struct WorkerPoolOptions {
  std::chrono::milliseconds status_age_max{100};
  std::chrono::milliseconds status_timeout{5'000};
  // How long a worker that did not answer is not asked again.
  std::chrono::milliseconds failure_memory{1'000};
};

// A worker that answered.
struct WorkerView {
  std::string address;
  v1::GetWorkerStatusResponse status;
  std::chrono::steady_clock::time_point asked;
};

struct WorkersSeen {
  std::vector<WorkerView> healthy;    // in the order of addresses
  std::vector<std::string> problems;  // "ADDRESS: why", of the others
};

class WorkerPool {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  // `membership` and `backends` must outlive the pool.
  WorkerPool(const Membership* membership, Backends* backends, const WorkerPoolOptions& options,
             Clock clock = std::chrono::steady_clock::now)
      : membership_(membership), backends_(backends), options_(options), clock_(std::move(clock)) {}

  // Everybody's report, from memory where it is young enough.
  WorkersSeen Look(const CallScope& scope) EPIC_EXCLUDES(mutex_);
  // Asks `workers` for fresh reports that also say which of `chunks` they hold. One that does not answer keeps its old
  // report and holds nothing.
  void AskForChunks(const CallScope& scope, const std::vector<v1::ResolvedChunk>& chunks,
                    std::vector<WorkerView>* workers) EPIC_EXCLUDES(mutex_);

  // One request's claim on a worker; counts as its work until destroyed or Seen.
  class Placement {
   public:
    Placement(WorkerPool* pool, std::string address, std::string reason, uint64_t entry)
        : address_(std::move(address)), reason_(std::move(reason)), pool_(pool), entry_(entry) {}
    ~Placement() { Seen(); }
    Placement(const Placement&) = delete;
    Placement& operator=(const Placement&) = delete;

    const std::string& address() const { return address_; }
    // One of "only worker", "idle", "nearest chunks", "shortest queue", "balance".
    const std::string& reason() const { return reason_; }
    // The work is done, or shows in the worker's reports.
    void Seen();

   private:
    const std::string address_;
    const std::string reason_;
    WorkerPool* const pool_;
    uint64_t entry_;
  };
  // Chooses and claims in one step, so that requests at the same moment see each other. REQUIRES: `candidates` has one
  // or more.
  std::unique_ptr<Placement> Place(const std::string& request_id, const ExpandedPrompt& prompt,
                                   const std::vector<WorkerView>& candidates) EPIC_EXCLUDES(mutex_);

  // The worker was lost: it is asked anew, and not before the others.
  void NoteFailure(const std::string& address, const std::string& problem) EPIC_EXCLUDES(mutex_);

 private:
  struct Known {
    bool healthy = false;
    std::string problem;
    WorkerView view;
    std::chrono::steady_clock::time_point time;  // of the answer that was asked for, or of the failure
  };
  Known Ask(const CallScope& scope, const std::string& address, const v1::GetWorkerStatusRequest& request);
  void Forget(uint64_t entry) EPIC_EXCLUDES(mutex_);

  const Membership* const membership_;
  Backends* const backends_;
  const WorkerPoolOptions options_;
  const Clock clock_;
  Mutex mutex_;
  std::map<std::string, Known> known_ EPIC_GUARDED_BY(mutex_);
  DispatchLedger ledger_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_ROUTER_WORKER_POOL_H_
