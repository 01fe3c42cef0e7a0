#include "router/router_metrics.h"

#include <utility>

namespace epic {

RouterMetrics::RouterMetrics(std::shared_ptr<Metrics> metrics)
    : metrics_(metrics != nullptr ? std::move(metrics) : std::make_shared<Metrics>()) {}

void RouterMetrics::CountRequest(const std::string& linker_kind, const absl::Status& status) {
  metrics_
      ->Counter("epic_router_requests_total", "Generate calls that ended, by linker and status code.",
                {{"linker", linker_kind}, {"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void RouterMetrics::ObserveTtft(const std::string& linker_kind, double seconds) {
  metrics_
      ->LatencyHistogram("epic_router_ttft_seconds", "From a request's arrival at the router to its first token.",
                         {{"linker", linker_kind}})
      .Observe(seconds);
}

void RouterMetrics::CountRetry(const absl::Status& status) {
  metrics_
      ->Counter("epic_router_retries_total",
                "Requests given to another worker before their first token, by the code that the "
                "first one ended with.",
                {{"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void RouterMetrics::CountPlacement(const std::string& reason) {
  metrics_->Counter("epic_router_placements_total", "Choices of a worker, by reason.", {{"reason", reason}})
      .Increment();
}

void RouterMetrics::CountDocumentCall(const std::string& method, const absl::Status& status) {
  metrics_
      ->Counter("epic_router_document_calls_total", "Document calls that ended, by method and status code.",
                {{"method", method}, {"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void RouterMetrics::ChangeRunning(int delta) {
  metrics_->Gauge("epic_router_running_requests", "Generate calls that run now.").Increment(delta);
}

}  // namespace epic
