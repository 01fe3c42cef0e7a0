#include "router/status_report.h"

#include <string>
#include <vector>

#include "router/parallel.h"

namespace epic {
namespace {

// "serving", or why not.
std::string HealthText(const absl::Status& health, const absl::Status& report) {
  if (!health.ok()) return std::string(health.message());
  return report.ok() ? "serving" : "does not report: " + std::string(report.message());
}

void ReportNode(const CallScope& scope, CacheNodeBackend* node, v1::NodeStatus* out) {
  const absl::Status health = node->CheckHealth(scope);
  absl::StatusOr<v1::GetNodeStatusResponse> report = absl::UnavailableError("not asked");
  if (health.ok()) report = node->GetNodeStatus(scope);
  out->set_health(HealthText(health, report.status()));
  if (!report.ok()) return;
  out->set_document_count(report->document_count());
  out->set_block_count(report->block_count());
  out->set_used_bytes(report->used_bytes());
  out->set_capacity_bytes(report->capacity_bytes());
  out->set_lease_count(report->lease_count());
  out->set_compile_queue_length(report->compile_queue_length());
  *out->mutable_model() = report->model();
  out->set_hits_total(report->hits_total());
  out->set_misses_total(report->misses_total());
  out->set_evictions_total(report->evictions_total());
}

void ReportWorker(const CallScope& scope, WorkerBackend* worker, v1::WorkerStatus* out) {
  const absl::Status health = worker->CheckHealth(scope);
  absl::StatusOr<v1::GetWorkerStatusResponse> report = absl::UnavailableError("not asked");
  if (health.ok()) report = worker->GetWorkerStatus(scope, v1::GetWorkerStatusRequest());
  out->set_health(HealthText(health, report.status()));
  if (!report.ok()) return;
  out->set_worker_id(report->worker_id());
  out->set_running_requests(report->running_requests());
  out->set_waiting_requests(report->waiting_requests());
  out->set_queued_tokens(report->queued_tokens());
  out->set_prefill_tokens_per_second(report->prefill_tokens_per_second());
  out->set_cache_used_bytes(report->cache_used_bytes());
  out->set_cache_capacity_bytes(report->cache_capacity_bytes());
  *out->mutable_model() = report->model();
  *out->mutable_shadow() = report->shadow();
}

}  // namespace

v1::GetStatusResponse MakeStatusReport(const CallScope& scope, const Membership& membership, Backends* backends,
                                       std::chrono::milliseconds timeout) {
  const auto members = membership.Current();
  const size_t node_count = members->cache_nodes.size();
  v1::GetStatusResponse response;
  for (const std::string& address : members->cache_nodes) response.add_cache_nodes()->set_address(address);
  for (const std::string& address : members->workers) response.add_workers()->set_address(address);
  RunInParallel(node_count + members->workers.size(), [&](size_t i) {
    const CallScope limited = scope.Within(timeout);
    if (i < node_count) {
      v1::NodeStatus* out = response.mutable_cache_nodes(static_cast<int>(i));
      ReportNode(limited, backends->CacheNode(out->address()).get(), out);
    } else {
      v1::WorkerStatus* out = response.mutable_workers(static_cast<int>(i - node_count));
      ReportWorker(limited, backends->Worker(out->address()).get(), out);
    }
  });
  return response;
}

}  // namespace epic
