#include "inference_worker/worker_metrics.h"

#include <functional>
#include <string>
#include <utility>

namespace epic {
namespace {

// A kind without its number: label values come from a small fixed set.
std::string KindName(LinkerKind kind) {
  switch (kind) {
    case LinkerKind::kFull:
      return "full";
    case LinkerKind::kPrefix:
      return "prefix";
    case LinkerKind::kNaive:
      return "naive";
    case LinkerKind::kNaiveLast:
      return "naive-last";
    case LinkerKind::kCacheBlend:
      return "cacheblend";
    case LinkerKind::kLegoLink:
      return "legolink";
    case LinkerKind::kRandom:
      return "random";
  }
  return "unknown";
}

std::string CauseName(FallbackCause cause) {
  switch (cause) {
    case FallbackCause::kNoHome:
      return "no home";
    case FallbackCause::kAbsent:
      return "absent";
    case FallbackCause::kUnreachable:
      return "unreachable";
    case FallbackCause::kSlow:
      return "slow";
    case FallbackCause::kCorrupt:
      return "corrupt";
  }
  return "unknown";
}

std::string LossName(ShadowLoss loss) {
  switch (loss) {
    case ShadowLoss::kQueueFull:
      return "queue full";
    case ShadowLoss::kExpired:
      return "expired";
    case ShadowLoss::kInterrupted:
      return "interrupted";
    case ShadowLoss::kFailed:
      return "failed";
  }
  return "unknown";
}

}  // namespace

WorkerMetrics::WorkerMetrics(std::shared_ptr<Metrics> metrics)
    : metrics_(metrics != nullptr ? std::move(metrics) : std::make_shared<Metrics>()) {}

void WorkerMetrics::OnRequest(LinkerKind linker, absl::StatusCode code) {
  metrics_
      ->Counter("epic_worker_requests_total", "Requests that ended, by linker and status code.",
                {{"linker", KindName(linker)}, {"code", absl::StatusCodeToString(code)}})
      .Increment();
}

void WorkerMetrics::OnFirstToken(LinkerKind linker, int64_t ttft_us) {
  metrics_
      ->LatencyHistogram("epic_worker_ttft_seconds", "Time from arrival at the router to the first token.",
                         {{"linker", KindName(linker)}})
      .Observe(static_cast<double>(ttft_us) / 1e6);
}

void WorkerMetrics::OnUsage(const GenerationStats& stats) {
  const auto count = [this](const char* kind, double tokens) {
    metrics_
        ->Counter("epic_worker_tokens_total",
                  "Tokens of requests: of prompts, of those in cached chunks, run through the model again, kept from "
                  "earlier requests, generated.",
                  {{"kind", kind}})
        .Increment(tokens);
  };
  count("prompt", stats.prompt_tokens);
  count("cached", stats.cached_tokens);
  count("recomputed", stats.recomputed_tokens);
  count("kept", stats.prefix_hit_tokens);
  count("generated", stats.completion_tokens);
}

void WorkerMetrics::OnBytesPulled(int64_t bytes) {
  metrics_->Counter("epic_worker_pulled_bytes_total", "Bytes of KV that were moved from cache nodes.")
      .Increment(static_cast<double>(bytes));
}

void WorkerMetrics::OnChunk(ChunkSource source) {
  metrics_
      ->Counter("epic_worker_chunks_total", "Chunks that requests used, by where their KV came from.",
                {{"source", ChunkSourceName(source)}})
      .Increment();
}

void WorkerMetrics::OnCompileFallback(FallbackCause cause) {
  metrics_
      ->Counter("epic_worker_compile_fallbacks_total",
                "Chunks that the worker compiled because no cache node gave them.", {{"cause", CauseName(cause)}})
      .Increment();
}

void WorkerMetrics::OnStreamOverflow() {
  metrics_->Counter("epic_worker_slow_clients_total", "Requests that were ended because their client did not read.")
      .Increment();
}

void WorkerMetrics::OnShadowCheck(LinkerKind linker, bool first_token_agrees, double kl) {
  metrics_
      ->Counter("epic_worker_shadow_checks_total",
                "First tokens of linked answers that full recompute said again, by linker and result.",
                {{"linker", KindName(linker)}, {"result", first_token_agrees ? "agree" : "disagree"}})
      .Increment();
  metrics_
      ->Histogram("epic_worker_shadow_kl_nats",
                  "KL divergence of linked answers' first-token distribution from full recompute's, in nats.",
                  {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10},  // on both sides of a verdict's 0.1
                  {{"linker", KindName(linker)}})
      .Observe(kl);
}

void WorkerMetrics::OnShadowInterrupted() {
  metrics_->Counter("epic_worker_shadow_interruptions_total", "Shadow checks that a request cancelled while they ran.")
      .Increment();
}

void WorkerMetrics::OnShadowLost(ShadowLoss loss) {
  metrics_
      ->Counter("epic_worker_shadow_lost_total", "Shadow checks that were given up, by reason.",
                {{"reason", LossName(loss)}})
      .Increment();
}

std::vector<Metrics::Registration> WorkerMetrics::Watch(const Worker* worker) {
  std::vector<Metrics::Registration> registrations;
  using Read = std::function<double(const WorkerStatus&)>;
  const auto gauge = [&](const char* name, const char* help, Read read) {
    registrations.push_back(
        metrics_->GaugeCallback(name, help, {}, [worker, read = std::move(read)] { return read(worker->Status()); }));
  };
  const auto counter = [&](const char* name, const char* help, Read read) {
    registrations.push_back(
        metrics_->CounterCallback(name, help, {}, [worker, read = std::move(read)] { return read(worker->Status()); }));
  };
  gauge("epic_worker_cache_used_bytes", "Bytes of the worker's chunk cache that are taken.",
        [](const WorkerStatus& status) { return static_cast<double>(status.cache.used_bytes); });
  gauge("epic_worker_cache_capacity_bytes", "Size of the worker's chunk cache.",
        [](const WorkerStatus& status) { return static_cast<double>(status.cache.capacity_bytes); });
  gauge("epic_worker_cache_blocks", "Chunks in the worker's cache.",
        [](const WorkerStatus& status) { return static_cast<double>(status.cache.blocks); });
  gauge("epic_worker_cache_leases", "Uses of the worker's cached chunks that running requests hold.",
        [](const WorkerStatus& status) { return static_cast<double>(status.cache.leases); });
  gauge("epic_worker_heap_bytes", "Bytes of chunks that the cache had no room for.",
        [](const WorkerStatus& status) { return static_cast<double>(status.heap_bytes); });
  counter("epic_worker_cache_hits_total", "Chunks that were found in the worker's cache.",
          [](const WorkerStatus& status) { return static_cast<double>(status.cache.hits_total); });
  counter("epic_worker_cache_misses_total", "Chunks that were not found in the worker's cache.",
          [](const WorkerStatus& status) { return static_cast<double>(status.cache.misses_total); });
  counter("epic_worker_cache_evictions_total", "Chunks that made room in the worker's cache.",
          [](const WorkerStatus& status) { return static_cast<double>(status.cache.evictions_total); });
  gauge("epic_worker_running_requests", "Requests in the engine's batch.",
        [](const WorkerStatus& status) { return static_cast<double>(status.engine.running_requests); });
  gauge("epic_worker_waiting_requests", "Requests that are queued, or whose chunks are on their way.",
        [](const WorkerStatus& status) {
          return static_cast<double>(status.engine.waiting_requests + status.loading_requests);
        });
  gauge("epic_worker_queued_tokens", "Rows that accepted requests still have to run through the model.",
        [](const WorkerStatus& status) {
          return static_cast<double>(status.engine.queued_tokens + status.loading_rows);
        });
  gauge("epic_worker_shadow_waiting_checks", "Shadow checks that wait until the worker is idle.",
        [](const WorkerStatus& status) { return static_cast<double>(status.shadow_waiting_checks); });
  return registrations;
}

}  // namespace epic
