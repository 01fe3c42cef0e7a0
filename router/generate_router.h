// The router's half of GenerateService: resolve, place, stream, and go to another worker where the first one is lost
// before its first token.
//
// A request's context is complete when it comes (tenant and request id present). Thread-safe; each call runs on its
// caller's thread and ends with its scope.
#ifndef EPIC_ROUTER_GENERATE_ROUTER_H_
#define EPIC_ROUTER_GENERATE_ROUTER_H_

#include <chrono>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/document_router.h"
#include "router/router_metrics.h"
#include "router/router_options.h"
#include "router/worker_pool.h"

namespace epic {

class GenerateRouter {
 public:
  // All must outlive the router.
  GenerateRouter(const RouterOptions& options, DocumentRouter* documents, WorkerPool* workers, Backends* backends,
                 RouterMetrics* metrics)
      : options_(options), documents_(documents), workers_(workers), backends_(backends), metrics_(metrics) {}

  // `write` gets each message and returns false when the client is gone; the call then ends with CANCELLED. `arrival`
  // is when the request reached this process. Errors: those of the contract; UNAVAILABLE where no worker could be
  // reached, or the one that had begun to answer was lost.
  absl::Status Generate(const CallScope& scope, const v1::GenerateRequest& request,
                        std::chrono::steady_clock::time_point arrival,
                        const std::function<bool(const v1::GenerateResponse&)>& write);

  // UNAVAILABLE where no worker answers.
  absl::StatusOr<v1::ListModelsResponse> ListModels(const CallScope& scope);

 private:
  struct Run;
  absl::Status RunRequest(const CallScope& scope, Run* run);
  absl::StatusOr<std::vector<WorkerView>> CandidatesFor(const CallScope& scope, const std::string& model);
  absl::StatusOr<v1::ResolveDocumentsResponse> Resolve(const CallScope& scope, const Run& run,
                                                       const v1::ModelInfo& model);
  absl::Status TryWorker(const CallScope& scope, const std::string& address, WorkerPool::Placement* placement,
                         const v1::ModelInfo& model, const v1::InferRequest& request, Run* run);

  const RouterOptions options_;
  DocumentRouter* const documents_;
  WorkerPool* const workers_;
  Backends* const backends_;
  RouterMetrics* const metrics_;
};

// The workers that run `model` (a name or fingerprint; empty: `default_model`, or the only one there is), which are all
// of one fingerprint. NOT_FOUND names the models there are; INVALID_ARGUMENT where there are several and none was
// named.
absl::StatusOr<std::vector<WorkerView>> WorkersOfModel(const std::string& model, const std::string& default_model,
                                                       const std::vector<WorkerView>& workers);

}  // namespace epic

#endif  // EPIC_ROUTER_GENERATE_ROUTER_H_
