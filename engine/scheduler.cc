#include "engine/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/limits.h"
#include "core/status_macros.h"
#include "engine/row_share.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Background compile jobs get one piece in so many steps while others want rows.
constexpr uint64_t kBackgroundInterval = 16;
// How long a piece may hold up the next token of those that decode: about the time in which a quick reader takes in a
// token, so that a stream that shares the processor with a long prompt still looks like one.
constexpr double kDecodeDelaySeconds = 0.05;
// Before the rate has been measured.
constexpr int32_t kPieceRowsBesideDecode = 64;
// Batches with fewer rows say nothing about the speed of prefill, and pieces are not made shorter than what is
// measured.
constexpr int64_t kRateRowsMin = 32;
// Rows of one of CacheBlend's own passes, whose share of the time would allow more: its activations take memory.
constexpr int32_t kOwnPassRowsMax = 1024;

}  // namespace

// Rows of one step, and whose they are.
struct Scheduler::Batch {
  struct Part {
    RequestPtr request;  // one of the two
    CompilePtr compile;
    int32_t row_begin = 0;
    int32_t row_count = 0;
  };
  std::vector<int32_t> token_ids;
  RowBatch rows;
  std::vector<Part> parts;
  RequestPtr own_pass;  // runs behind the batch, in the time of so many of the batch's rows
  int32_t own_pass_share = 0;

  void Add(RequestPtr request, CompilePtr compile, SequenceKv* kv, int32_t row_begin, int32_t count) {
    if (count == 0) return;
    rows.groups.push_back({kv, row_begin, count});
    parts.push_back({std::move(request), std::move(compile), row_begin, count});
  }
};

struct Scheduler::RequestHandle : Engine::Handle {
  RequestHandle(Scheduler* owner, RequestPtr ptr) : scheduler(owner), state(std::move(ptr)) {}
  void Cancel() override {
    state->cancelled.store(true);
    scheduler->Wake();
  }
  Scheduler* scheduler;
  RequestPtr state;
};

struct Scheduler::CompileHandle : Engine::Handle {
  CompileHandle(Scheduler* owner, CompilePtr ptr) : scheduler(owner), state(std::move(ptr)) {}
  void Cancel() override {
    state->cancelled.store(true);
    scheduler->Wake();
  }
  Scheduler* scheduler;
  CompilePtr state;
};

Scheduler::Scheduler(RequestEnvironment environment, const EngineOptions& options)
    : environment_(std::move(environment)),
      options_(options),
      row_cache_(options.prefix_cache_bytes, environment_.backend.kv_shape()),
      thread_([this] { Run(); }) {}

Scheduler::~Scheduler() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  thread_.join();
}

void Scheduler::Wake() {
  MutexLock lock(mutex_);
  cancel_seen_ = true;
  wake_.NotifyAll();
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> Scheduler::Submit(GenerationRequest request, const Recipe& recipe) {
  auto state =
      std::make_shared<RequestState>(environment_, std::move(request), recipe, std::chrono::steady_clock::now());
  if (state->reserved_bytes() > options_.private_kv_bytes) {
    return absl::ResourceExhaustedError(fmt::format(
        "the request needs {} bytes of private KV for its recomputed and generated tokens, the engine's budget "
        "private-kv-bytes is {}; ask for fewer output tokens, a linker that recomputes less, or raise the budget",
        state->reserved_bytes(), options_.private_kv_bytes));
  }
  MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the engine is shutting down");
  if (requests_held_ >= kSchedulerRequestsMax) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} requests are running or waiting, the limit is {}; try again later", requests_held_, kSchedulerRequestsMax));
  }
  ++requests_held_;
  submitted_rows_ += state->remaining_rows();
  submitted_requests_.push_back(state);
  wake_.NotifyAll();
  return std::make_shared<RequestHandle>(this, std::move(state));
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> Scheduler::Submit(CompileRequest request) {
  const Recipe recipe = request.recipe;
  auto state = std::make_shared<CompileState>(std::move(request), recipe);
  MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the engine is shutting down");
  if (compiles_held_ >= kCompileQueueMax) {
    return absl::ResourceExhaustedError(
        fmt::format("{} compile jobs are waiting, the limit is {}", compiles_held_, kCompileQueueMax));
  }
  ++compiles_held_;
  submitted_rows_ += state->compilation->remaining();
  submitted_compiles_.push_back(state);
  wake_.NotifyAll();
  return std::make_shared<CompileHandle>(this, std::move(state));
}

EngineLoad Scheduler::Load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.waiting_requests += static_cast<int64_t>(submitted_requests_.size());
  load.queued_tokens += submitted_rows_;
  return load;
}

void Scheduler::Run() {
  while (CollectSubmitted()) {
    EndCancelledAndLate();
    AdmitWaiting();
    Step();
    PublishLoad();
  }
  EndAll();
}

bool Scheduler::CollectSubmitted() {
  // Where nothing runs, whoever waits fits.
  const bool idle = running_.empty() && waiting_.empty() && urgent_compiles_.empty() && background_compiles_.empty();
  MutexLock lock(mutex_);
  while (idle && !stopping_ && !cancel_seen_ && submitted_requests_.empty() && submitted_compiles_.empty()) {
    wake_.Wait(mutex_);
  }
  cancel_seen_ = false;
  for (RequestPtr& request : submitted_requests_) waiting_.push_back(std::move(request));
  submitted_requests_.clear();
  for (CompilePtr& job : submitted_compiles_) {
    (job->request.urgent ? urgent_compiles_ : background_compiles_).push_back(std::move(job));
  }
  submitted_compiles_.clear();
  submitted_rows_ = 0;
  return !stopping_;
}

void Scheduler::EndCancelledAndLate() {
  const SteadyTime now = std::chrono::steady_clock::now();
  for (const std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    for (const RequestPtr& request : *requests) {
      if (request->cancelled.load()) {
        request->Finish(absl::CancelledError("the request was cancelled"), FinishReason::kStop);
      } else if (request->request().deadline <= now) {
        request->Finish(absl::DeadlineExceededError("the request's deadline passed before its answer was complete"),
                        FinishReason::kStop);
      }
    }
  }
  RetireEnded();
  for (const std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    std::vector<CompilePtr> cancelled;
    std::ranges::copy_if(*jobs, std::back_inserter(cancelled),
                         [](const CompilePtr& job) { return job->cancelled.load(); });
    for (const CompilePtr& job : cancelled) EndCompile(job, absl::CancelledError("the compile job was cancelled"));
  }
}

void Scheduler::RetireEnded() {
  std::vector<RequestPtr> ended;
  for (std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    const bool ran = requests == &running_;
    std::erase_if(*requests, [&](const RequestPtr& request) {
      if (request->stage() != RequestState::Stage::kDone) return false;
      if (ran) {
        reserved_bytes_ -= request->PublishRows(row_cache_, RowCache::LastPage::kShared);
        reserved_bytes_ -= request->reserved_bytes();
      }
      request->Release();
      ++totals_.requests_total;
      totals_.generated_tokens_total += request->completion_tokens();
      totals_.prefix_hit_tokens_total += request->prefix_hit_tokens();
      ended.push_back(request);
      return true;
    });
  }
  if (ended.empty()) return;
  {
    MutexLock lock(mutex_);
    requests_held_ -= ended.size();
  }
  PublishLoad();  // whoever is told of an end sees what it freed
  for (const RequestPtr& request : ended) request->Report();
}

void Scheduler::AdmitWaiting() {
  const SteadyTime now = std::chrono::steady_clock::now();
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(options_.running_requests_max)) {
    RequestState& oldest = *waiting_.front();
    RowCache::Match match = oldest.FindRows(row_cache_);
    const size_t shared_bytes = match.whole_pages() * row_cache_.page_bytes();
    if (reserved_bytes_ + oldest.reserved_bytes() - shared_bytes > options_.private_kv_bytes) return;
    oldest.Admit(std::move(match), now);
    reserved_bytes_ += oldest.reserved_bytes();
    totals_.private_kv_peak_bytes = std::max(totals_.private_kv_peak_bytes, reserved_bytes_);
    running_.splice(running_.end(), waiting_, waiting_.begin());
  }
}

void Scheduler::AddDecodeRows(Batch& batch) {
  for (const RequestPtr& request : running_) {
    if (request->stage() != RequestState::Stage::kDecoding) continue;
    SequenceKv* kv = nullptr;
    const int32_t begin = batch.rows.rows();
    const int32_t count = request->TakeRows(1, batch.token_ids, batch.rows.positions, &kv);
    batch.Add(request, nullptr, kv, begin, count);
  }
}

// One request a step; those that arrived later take every other turn.
Scheduler::RequestPtr Scheduler::NextOwnPass() const {
  std::vector<RequestPtr> candidates;
  std::ranges::copy_if(running_, std::back_inserter(candidates), &RequestState::NeedsOwnPass,
                       [](const RequestPtr& request) -> const RequestState& { return *request; });
  if (candidates.empty()) return nullptr;
  if (candidates.size() == 1 || step_ % 2 == 0) return candidates.front();
  return candidates[1 + step_ / 2 % (candidates.size() - 1)];
}

void Scheduler::AddLinkRows(Batch& batch, int32_t rows_max) {
  const RequestPtr own_pass = NextOwnPass();
  std::vector<RequestPtr> linking;
  std::vector<int64_t> wanted;
  for (const RequestPtr& request : running_) {
    if (request->NeedsOwnPass() && request != own_pass) continue;
    int64_t rows = request->remaining_rows_of_stage();
    if (request == own_pass) rows = (rows + request->OwnPassRowsPerRow() - 1) / request->OwnPassRowsPerRow();
    if (rows == 0) continue;
    linking.push_back(request);
    wanted.push_back(rows);
  }
  const std::vector<int32_t> shares = ShareRows(wanted, rows_max, step_);
  for (size_t i = 0; i < linking.size(); ++i) {
    if (shares[i] == 0) continue;
    if (linking[i] == own_pass) {
      batch.own_pass = own_pass;
      batch.own_pass_share = shares[i];
      continue;
    }
    SequenceKv* kv = nullptr;
    const int32_t begin = batch.rows.rows();
    const int32_t count = linking[i]->TakeRows(shares[i], batch.token_ids, batch.rows.positions, &kv);
    batch.Add(linking[i], nullptr, kv, begin, count);
    totals_.linked_rows_total += count;
  }
}

void Scheduler::AddCompileRows(Batch& batch, bool urgent, int32_t rows_max) {
  for (const CompilePtr& job : urgent ? urgent_compiles_ : background_compiles_) {
    if (rows_max <= 0) return;
    const int32_t begin = batch.rows.rows();
    const int32_t count = job->compilation->TakeRows(rows_max, batch.token_ids, batch.rows.positions);
    batch.Add(nullptr, job, &job->compilation->kv(), begin, count);
    rows_max -= count;
  }
}

int32_t Scheduler::PieceRows(bool decoding) const {
  if (!decoding) return options_.piece_tokens;
  const double rate = totals_.prefill_tokens_per_second;
  const double rows = rate == 0 ? kPieceRowsBesideDecode : std::min(rate * kDecodeDelaySeconds, 4096.0);
  return std::min(options_.piece_tokens, std::max(static_cast<int32_t>(kRateRowsMin), static_cast<int32_t>(rows)));
}

void Scheduler::Step() {
  ++step_;
  Batch batch;
  AddDecodeRows(batch);
  batch.rows.decode_rows = batch.rows.rows();
  const bool decoding = batch.rows.decode_rows > 0;
  const int32_t piece = PieceRows(decoding);
  // Somebody waits for an urgent job as well: it shares the piece with linking.
  const int32_t link_rows = urgent_compiles_.empty() ? piece : std::max(1, piece / 2);
  AddLinkRows(batch, link_rows);
  const auto left = [&] { return piece - batch.own_pass_share - (batch.rows.rows() - batch.rows.decode_rows); };
  const bool quiet = !decoding && left() == piece && urgent_compiles_.empty();
  AddCompileRows(batch, true, left());
  if (quiet || step_ % kBackgroundInterval == 0) AddCompileRows(batch, false, left());
  if (!batch.parts.empty()) RunBatch(batch);
  if (batch.own_pass != nullptr) RunOwnPass(batch.own_pass, batch.own_pass_share);
}

void Scheduler::MeasureRate(int64_t rows, SteadyTime begin, SteadyTime end) {
  const double seconds = std::chrono::duration<double>(end - begin).count();
  if (rows < kRateRowsMin || seconds <= 0) return;
  const double rate = static_cast<double>(rows) / seconds;
  double& smoothed = totals_.prefill_tokens_per_second;
  smoothed = smoothed == 0 ? rate : 0.9 * smoothed + 0.1 * rate;
}

void Scheduler::RunBatch(Batch& batch) {
  Backend& backend = environment_.backend;
  const size_t width = backend.config().width;
  const int32_t rows = batch.rows.rows();
  if (hidden_.size() < rows * width) hidden_.resize(rows * width);
  const SteadyTime begin = std::chrono::steady_clock::now();
  backend.Embed(batch.token_ids, hidden_.data());
  backend.RunLayers(batch.rows, 0, backend.config().layers, false, hidden_.data());
  const SteadyTime end = std::chrono::steady_clock::now();
  MeasureRate(rows, begin, end);

  std::vector<RequestPtr> with_logits;
  std::vector<RequestPtr> linked;
  std::vector<float> last_rows;
  for (const Batch::Part& part : batch.parts) {
    if (part.compile != nullptr) {
      ChunkCompilation& compilation = *part.compile->compilation;
      if (compilation.remaining() == 0) EndCompile(part.compile, compilation.WriteBlock(part.compile->request.block));
      continue;
    }
    const float* hidden = hidden_.data() + part.row_begin * width;
    const bool linking = part.request->stage() == RequestState::Stage::kLinking;
    if (!part.request->FinishRows(hidden, part.row_count, end)) continue;
    with_logits.push_back(part.request);
    if (linking) linked.push_back(part.request);
    const float* last = hidden + static_cast<size_t>(part.row_count - 1) * width;
    last_rows.insert(last_rows.end(), last, last + width);
  }
  AcceptLogits(with_logits, last_rows);
  for (const RequestPtr& request : linked) PublishLinked(request);
  RetireEnded();
}

// As soon as a prompt is linked, and its first token said, so that requests that run beside it profit.
void Scheduler::PublishLinked(const RequestPtr& request) {
  if (request->stage() == RequestState::Stage::kDone) return;  // RetireEnded publishes
  reserved_bytes_ -= request->PublishRows(row_cache_, RowCache::LastPage::kCopied);
}

void Scheduler::AcceptLogits(const std::vector<RequestPtr>& requests, const std::vector<float>& hidden) {
  if (requests.empty()) return;
  const size_t vocab = environment_.backend.config().vocab_size;
  logits_.resize(requests.size() * vocab);
  environment_.backend.Logits(static_cast<int32_t>(requests.size()), hidden.data(), logits_.data());
  const SteadyTime now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < requests.size(); ++i) requests[i]->AcceptLogits({logits_.data() + i * vocab, vocab}, now);
}

void Scheduler::RunOwnPass(const RequestPtr& request, int32_t rows_max) {
  int32_t rows = 0;
  SteadyTime finished;
  const int32_t most = std::max(rows_max, std::min(kOwnPassRowsMax, rows_max * request->OwnPassRowsPerRow()));
  const bool linked = request->RunOwnPass(most, &rows, &finished);
  totals_.linked_rows_total += rows;
  if (!linked) return;
  const float* last = request->last_hidden();
  AcceptLogits({request}, {last, last + environment_.backend.config().width});
  RetireEnded();
}

void Scheduler::EndCompile(const CompilePtr& job, absl::StatusOr<uint64_t> outcome) {
  if (outcome.ok()) {
    ++totals_.compiled_chunks_total;
    totals_.compiled_tokens_total += job->request.info.token_ids.size();
  }
  (job->request.urgent ? urgent_compiles_ : background_compiles_).remove(job);
  job->compilation.reset();
  {
    MutexLock lock(mutex_);
    --compiles_held_;
  }
  job->request.on_done(std::move(outcome));
  job->request.on_done = nullptr;  // what it holds may hold the handle
}

void Scheduler::PublishLoad() {
  EngineLoad load = totals_;
  load.running_requests = static_cast<int64_t>(running_.size());
  load.waiting_requests = static_cast<int64_t>(waiting_.size());
  for (const std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    for (const RequestPtr& request : *requests) load.queued_tokens += request->remaining_rows();
  }
  for (const std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    for (const CompilePtr& job : *jobs) load.queued_tokens += job->compilation->remaining();
  }
  load.private_kv_used_bytes = reserved_bytes_;
  load.private_kv_capacity_bytes = options_.private_kv_bytes;
  load.prefix_cache_used_bytes = row_cache_.used_bytes();
  load.prefix_cache_capacity_bytes = row_cache_.capacity_bytes();
  MutexLock lock(mutex_);
  load_ = load;
}

void Scheduler::EndAll() {
  const absl::Status status = absl::CancelledError("the engine is shutting down");
  for (const std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    for (const RequestPtr& request : *requests) request->Finish(status, FinishReason::kStop);
  }
  RetireEnded();
  for (std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    while (!jobs->empty()) EndCompile(CompilePtr(jobs->front()), status);
  }
  PublishLoad();
}

}  // namespace epic
