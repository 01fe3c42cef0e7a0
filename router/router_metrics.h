// What the router counts. Thread-safe.
#ifndef EPIC_ROUTER_ROUTER_METRICS_H_
#define EPIC_ROUTER_ROUTER_METRICS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/metrics.h"

namespace epic {

class RouterMetrics {
 public:
  // Null: counts into metrics that nobody sees.
  explicit RouterMetrics(std::shared_ptr<Metrics> metrics);

  // epic_router_requests_total{linker,code}. `linker_kind` is a kind without its number, or "invalid".
  void CountRequest(const std::string& linker_kind, const absl::Status& status);
  // epic_router_ttft_seconds{linker}
  void ObserveTtft(const std::string& linker_kind, double seconds);
  // epic_router_retries_total{code}: a worker gave up before its first token and another got the request.
  void CountRetry(const absl::Status& status);
  // epic_router_placements_total{reason}
  void CountPlacement(const std::string& reason);
  // epic_router_document_calls_total{method,code}
  void CountDocumentCall(const std::string& method, const absl::Status& status);
  // epic_router_running_requests
  void ChangeRunning(int delta);

 private:
  const std::shared_ptr<Metrics> metrics_;
};

}  // namespace epic

#endif  // EPIC_ROUTER_ROUTER_METRICS_H_
