// What the router asks of cache nodes and workers, without the wire. backend_client.h is the wire.
//
// All methods are thread-safe and block until the answer, the scope's deadline or its cancellation. UNAVAILABLE means
// that the other side was not reached, or was lost.
#ifndef EPIC_ROUTER_BACKENDS_H_
#define EPIC_ROUTER_BACKENDS_H_

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "epic/v1/cache.pb.h"
#include "epic/v1/document.pb.h"
#include "epic/v1/inference.pb.h"

namespace grpc {
class ServerContext;
}

namespace epic {

// On whose behalf a call is made: until when, and which incoming call's cancellation ends it.
struct CallScope {
  std::chrono::steady_clock::time_point deadline;
  // Must outlive the call. Null: nothing but the deadline ends it.
  const grpc::ServerContext* parent = nullptr;

  // The same scope with an earlier end, for calls that must not take all the time there is.
  CallScope Within(std::chrono::steady_clock::duration limit) const {
    return CallScope{std::min(deadline, std::chrono::steady_clock::now() + limit), parent};
  }
};

class CacheNodeBackend {
 public:
  virtual ~CacheNodeBackend() = default;
  virtual absl::StatusOr<v1::CreateDocumentResponse> CreateDocument(const CallScope& scope,
                                                                    const v1::CreateDocumentRequest& request) = 0;
  virtual absl::StatusOr<v1::GetDocumentResponse> GetDocument(const CallScope& scope,
                                                              const v1::GetDocumentRequest& request) = 0;
  virtual absl::StatusOr<v1::ListDocumentsResponse> ListDocuments(const CallScope& scope,
                                                                  const v1::ListDocumentsRequest& request) = 0;
  virtual absl::StatusOr<v1::DeleteDocumentResponse> DeleteDocument(const CallScope& scope,
                                                                    const v1::DeleteDocumentRequest& request) = 0;
  virtual absl::StatusOr<v1::ResolveDocumentsResponse> ResolveDocuments(const CallScope& scope,
                                                                        const v1::ResolveDocumentsRequest& request) = 0;
  // Calls `on_state` for each message, from this thread, until it returns false (the answer is then CANCELLED).
  virtual absl::Status WatchDocument(const CallScope& scope, const v1::WatchDocumentRequest& request,
                                     const std::function<bool(const v1::WatchDocumentResponse&)>& on_state) = 0;
  virtual absl::StatusOr<v1::GetNodeStatusResponse> GetNodeStatus(const CallScope& scope) = 0;
  // By the standard health service.
  virtual absl::Status CheckHealth(const CallScope& scope) = 0;
};

class WorkerBackend {
 public:
  virtual ~WorkerBackend() = default;
  // Calls `on_message` for each message, from this thread, until it returns false (the answer is then CANCELLED). The
  // next message is read after it returned, so that a slow reader slows the worker's stream.
  virtual absl::Status Infer(const CallScope& scope, const v1::InferRequest& request,
                             const std::function<bool(v1::GenerateResponse*)>& on_message) = 0;
  virtual absl::StatusOr<v1::GetWorkerStatusResponse> GetWorkerStatus(const CallScope& scope,
                                                                      const v1::GetWorkerStatusRequest& request) = 0;
  virtual absl::Status CheckHealth(const CallScope& scope) = 0;
};

// Finds a member by its address. Never answers null. Thread-safe.
class Backends {
 public:
  virtual ~Backends() = default;
  virtual std::shared_ptr<CacheNodeBackend> CacheNode(const std::string& address) = 0;
  virtual std::shared_ptr<WorkerBackend> Worker(const std::string& address) = 0;
};

}  // namespace epic

#endif  // EPIC_ROUTER_BACKENDS_H_
