#include "core/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/byte_codec.h"
#include "xxhash.h"

namespace epic {
namespace {

double Sane(double value) { return std::isfinite(value) && value > 0 ? value : 0.0; }

double RateOr(double measured, double assumed) { return Sane(measured) > 0 ? measured : assumed; }

}  // namespace

std::vector<size_t> RendezvousOrder(std::string_view tenant, std::string_view document_id,
                                    std::span<const std::string> nodes) {
  std::vector<uint64_t> ranks;
  ranks.reserve(nodes.size());
  for (const std::string& node : nodes) {
    ByteWriter writer;
    writer.PutString(tenant);
    writer.PutString(document_id);
    writer.PutString(node);
    ranks.push_back(XXH3_64bits(writer.bytes().data(), writer.size()));
  }
  std::vector<size_t> order(nodes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return ranks[a] != ranks[b] ? ranks[a] > ranks[b] : nodes[a] < nodes[b]; });
  return order;
}

std::vector<WorkerEstimate> RankWorkers(const PlacementRequest& request, std::span<const WorkerLoad> workers) {
  struct Candidate {
    WorkerEstimate estimate;
    double total_seconds;
    uint64_t tie_rank;
  };
  std::vector<Candidate> candidates;
  candidates.reserve(workers.size());
  for (size_t i = 0; i < workers.size(); ++i) {
    const WorkerLoad& worker = workers[i];
    const double rate = RateOr(worker.tokens_per_second, kUnmeasuredTokensPerSecond);
    const double bandwidth = RateOr(worker.pull_bytes_per_second, kUnmeasuredPullBytesPerSecond);
    WorkerEstimate estimate;
    estimate.worker_index = i;
    estimate.queue_seconds = Sane(worker.queued_tokens) / rate;
    estimate.pull_seconds = Sane(Sane(request.chunk_bytes) - Sane(worker.resident_bytes)) / bandwidth;
    estimate.link_seconds = Sane(request.link_tokens) / rate;
    candidates.push_back({estimate, estimate.total_seconds(),
                          XXH3_64bits_withSeed(worker.id.data(), worker.id.size(), request.request_hash)});
  }
  std::sort(candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
    if (a.total_seconds != b.total_seconds) return a.total_seconds < b.total_seconds;
    if (a.tie_rank != b.tie_rank) return a.tie_rank > b.tie_rank;
    return workers[a.estimate.worker_index].id < workers[b.estimate.worker_index].id;
  });
  std::vector<WorkerEstimate> ranked;
  ranked.reserve(candidates.size());
  for (const Candidate& candidate : candidates) ranked.push_back(candidate.estimate);
  return ranked;
}

}  // namespace epic
