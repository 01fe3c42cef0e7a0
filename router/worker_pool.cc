#include "router/worker_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/limits.h"
#include "router/parallel.h"

namespace epic {
namespace {

// Why the first of `ranked` was chosen, in words that metrics can count.
std::string ReasonOf(const std::vector<WorkerEstimate>& ranked) {
  if (ranked.size() == 1) return "only worker";
  const WorkerEstimate& chosen = ranked[0];
  bool is_shortest_queue = true;
  bool is_nearest = true;
  bool others_are_equal = true;
  for (const WorkerEstimate& other : ranked) {
    is_shortest_queue &= chosen.queue_seconds <= other.queue_seconds;
    is_nearest &= chosen.pull_seconds <= other.pull_seconds;
    others_are_equal &= chosen.pull_seconds == other.pull_seconds;
  }
  if (is_shortest_queue && is_nearest && others_are_equal) return chosen.queue_seconds == 0 ? "idle" : "shortest queue";
  if (is_nearest) return "nearest chunks";
  return is_shortest_queue ? "shortest queue" : "balance";
}

double ResidentBytes(const ExpandedPrompt& prompt, const v1::GetWorkerStatusResponse& status) {
  double bytes = 0;
  const size_t count = std::min<size_t>(prompt.distinct_chunks.size(), static_cast<size_t>(status.resident_size()));
  for (size_t i = 0; i < count; ++i) {
    if (status.resident(static_cast<int>(i))) bytes += static_cast<double>(prompt.distinct_chunks[i].block_bytes());
  }
  return bytes;
}

}  // namespace

void WorkerPool::Placement::Seen() {
  if (entry_ != 0) pool_->Forget(std::exchange(entry_, 0));
}

WorkerPool::Known WorkerPool::Ask(const CallScope& scope, const std::string& address,
                                  const v1::GetWorkerStatusRequest& request) {
  Known known;
  known.view.address = address;
  known.view.asked = clock_();
  auto status = backends_->Worker(address)->GetWorkerStatus(scope.Within(options_.status_timeout), request);
  known.healthy = status.ok();
  if (status.ok()) {
    known.view.status = *std::move(status);
    known.time = known.view.asked;
  } else {
    known.problem = std::string(status.status().message());
    known.time = clock_();
  }
  return known;
}

WorkersSeen WorkerPool::Look(const CallScope& scope) {
  const auto members = membership_->Current();
  const size_t count = members->workers.size();
  std::vector<Known> current(count);
  std::vector<size_t> stale;
  std::vector<size_t> failed;  // a moment ago
  {
    const auto now = clock_();
    MutexLock lock(mutex_);
    for (size_t i = 0; i < count; ++i) {
      const auto found = known_.find(members->workers[i]);
      if (found == known_.end()) {
        stale.push_back(i);
        continue;
      }
      current[i] = found->second;
      const auto age = now - current[i].time;
      if (current[i].healthy) {
        if (age > options_.status_age_max) stale.push_back(i);
      } else {
        (age > options_.failure_memory ? stale : failed).push_back(i);
      }
    }
  }
  const auto ask = [&](const std::vector<size_t>& workers) {
    RunInParallel(workers.size(), [&](size_t k) {
      current[workers[k]] = Ask(scope, members->workers[workers[k]], v1::GetWorkerStatusRequest());
    });
    MutexLock lock(mutex_);
    for (const size_t i : workers) known_[members->workers[i]] = current[i];
  };
  ask(stale);
  // With nobody to go on with, those that failed a moment ago are asked after all.
  if (std::none_of(current.begin(), current.end(), [](const Known& known) { return known.healthy; })) ask(failed);

  WorkersSeen seen;
  for (size_t i = 0; i < count; ++i) {
    if (current[i].healthy) {
      seen.healthy.push_back(std::move(current[i].view));
    } else {
      seen.problems.push_back(fmt::format("{}: {}", members->workers[i], current[i].problem));
    }
  }
  return seen;
}

void WorkerPool::AskForChunks(const CallScope& scope, const std::vector<v1::ResolvedChunk>& chunks,
                              std::vector<WorkerView>* workers) {
  v1::GetWorkerStatusRequest request;
  for (size_t i = 0; i < std::min(chunks.size(), kLocateChunksMax); ++i) request.add_chunk_keys(chunks[i].key());
  std::vector<Known> answers(workers->size());
  RunInParallel(workers->size(), [&](size_t i) { answers[i] = Ask(scope, (*workers)[i].address, request); });
  MutexLock lock(mutex_);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].healthy) {
      (*workers)[i] = answers[i].view;
      // Others may use the report; which chunks it was asked about is this request's own.
      answers[i].view.status.clear_resident();
    } else {
      (*workers)[i].status.clear_resident();
    }
    known_[(*workers)[i].address] = std::move(answers[i]);
  }
}

std::unique_ptr<WorkerPool::Placement> WorkerPool::Place(const std::string& request_id, const ExpandedPrompt& prompt,
                                                         const std::vector<WorkerView>& candidates) {
  const PlacementRequest request{.chunk_bytes = prompt.chunk_bytes,
                                 .link_tokens = prompt.link_tokens,
                                 .request_hash = std::hash<std::string>()(request_id)};
  std::vector<WorkerLoad> loads;
  MutexLock lock(mutex_);
  for (const WorkerView& worker : candidates) {
    loads.push_back({.id = worker.address,
                     .queued_tokens = static_cast<double>(worker.status.queued_tokens()) +
                                      ledger_.TokensUnseen(worker.address, worker.asked),
                     .tokens_per_second = worker.status.prefill_tokens_per_second(),
                     .pull_bytes_per_second = worker.status.pull_bytes_per_second(),
                     .resident_bytes = ResidentBytes(prompt, worker.status)});
  }
  const std::vector<WorkerEstimate> ranked = RankWorkers(request, loads);
  const std::string& address = candidates[ranked[0].worker_index].address;
  const uint64_t entry = ledger_.Add(address, prompt.link_tokens, clock_());
  return std::make_unique<Placement>(this, address, ReasonOf(ranked), entry);
}

void WorkerPool::NoteFailure(const std::string& address, const std::string& problem) {
  Known known;
  known.problem = problem;
  known.time = clock_();
  MutexLock lock(mutex_);
  known_[address] = std::move(known);
}

void WorkerPool::Forget(uint64_t entry) {
  MutexLock lock(mutex_);
  ledger_.Remove(entry);
}

}  // namespace epic
