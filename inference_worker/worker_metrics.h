// What a worker counts, for Prometheus:
//
//   epic_worker_requests_total{linker,code}        requests that ended
//   epic_worker_ttft_seconds{linker}               from arrival at the router to the first token
//   epic_worker_tokens_total{kind}                 prompt, cached, recomputed, kept, generated
//   epic_worker_pulled_bytes_total                 KV that was moved from cache nodes
//   epic_worker_chunks_total{source}               chunks that requests used, by where they came from
//   epic_worker_compile_fallbacks_total{cause}     chunks that the worker compiled because no node gave them
//   epic_worker_slow_clients_total                 requests that were ended because their client did not read
//   epic_worker_shadow_checks_total{linker,result} linked first tokens that full recompute said again: agree, disagree
//   epic_worker_shadow_kl_nats{linker}             KL divergence of the linked distribution from full recompute's
//   epic_worker_shadow_interruptions_total         checks that a request cancelled while they ran
//   epic_worker_shadow_lost_total{reason}          checks that were given up
//   epic_worker_shadow_waiting_checks              checks that wait until the worker is idle
//   epic_worker_cache_used_bytes, _capacity_bytes, _blocks, _leases, _hits_total, _misses_total, _evictions_total
//   epic_worker_running_requests, _waiting_requests, _queued_tokens
//
// Thread-safe.
#ifndef EPIC_INFERENCE_WORKER_WORKER_METRICS_H_
#define EPIC_INFERENCE_WORKER_WORKER_METRICS_H_

#include <memory>
#include <vector>

#include "inference_worker/worker.h"
#include "inference_worker/worker_observer.h"
#include "server/metrics.h"

namespace epic {

class WorkerMetrics : public WorkerObserver {
 public:
  // Null: counts into metrics that nobody sees.
  explicit WorkerMetrics(std::shared_ptr<Metrics> metrics);

  void OnRequest(LinkerKind linker, absl::StatusCode code) override;
  void OnFirstToken(LinkerKind linker, int64_t ttft_us) override;
  void OnUsage(const GenerationStats& stats) override;
  void OnBytesPulled(int64_t bytes) override;
  void OnChunk(ChunkSource source) override;
  void OnCompileFallback(FallbackCause cause) override;
  void OnStreamOverflow() override;
  void OnShadowCheck(LinkerKind linker, bool first_token_agrees, double kl) override;
  void OnShadowInterrupted() override;
  void OnShadowLost(ShadowLoss loss) override;

  // Shows what `worker` itself counts, until the registrations are destroyed: before the worker.
  std::vector<Metrics::Registration> Watch(const Worker* worker);

 private:
  const std::shared_ptr<Metrics> metrics_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_METRICS_H_
