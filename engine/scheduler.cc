#include "engine/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Background compile jobs get one piece in so many steps while others want rows.
constexpr uint64_t kBackgroundInterval = 16;
// Rows of a piece while sequences decode: a longer piece would hold up their next token.
constexpr int32_t kPieceRowsBesideDecode = 64;
// Batches with fewer rows say nothing about the speed of prefill.
constexpr int64_t kRateRowsMin = 32;

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
      prefix_cache_(options.prefix_cache_bytes,
                    KvPage::Bytes(environment_.backend.kv_shape(), 0, environment_.backend.kv_shape().layers)),
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
  submitted_rows_ += state->compilation.remaining();
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
    DropEnded();
    AdmitWaiting();
    Step();
    PublishLoad();
  }
  EndAll();
  PublishLoad();
}

bool Scheduler::CollectSubmitted() {
  const bool idle = running_.empty() && urgent_compiles_.empty() && background_compiles_.empty();
  SteadyTime next_deadline = SteadyTime::max();
  for (const RequestPtr& request : waiting_) next_deadline = std::min(next_deadline, request->request().deadline);
  MutexLock lock(mutex_);
  while (idle && !stopping_ && !cancel_seen_ && submitted_requests_.empty() && submitted_compiles_.empty()) {
    if (next_deadline == SteadyTime::max()) {
      wake_.Wait(mutex_);
    } else if (!wake_.WaitUntil(mutex_, next_deadline)) {
      break;
    }
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

void Scheduler::Retire(const RequestPtr& request) {
  if (request->reserved_bytes() > 0) request->PublishPrefix(prefix_cache_);
  ++totals_.requests_total;
  totals_.generated_tokens_total += request->completion_tokens();
  totals_.prefix_hit_tokens_total += request->prefix_hit_tokens();
  MutexLock lock(mutex_);
  --requests_held_;
}

void Scheduler::DropEnded() {
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto end_if_due = [&](const RequestPtr& request) {
    if (request->cancelled.load()) {
      request->Finish(absl::CancelledError("the request was cancelled"), FinishReason::kStop);
    } else if (request->request().deadline <= now) {
      request->Finish(absl::DeadlineExceededError("the request's deadline passed before its answer was complete"),
                      FinishReason::kStop);
    }
    return request->stage() == RequestState::Stage::kDone;
  };
  std::erase_if(waiting_, [&](const RequestPtr& request) {
    if (!end_if_due(request)) return false;
    Retire(request);
    return true;
  });
  std::erase_if(running_, [&](const RequestPtr& request) {
    if (!end_if_due(request)) return false;
    Retire(request);
    reserved_bytes_ -= request->reserved_bytes();
    return true;
  });
  for (std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    std::erase_if(*jobs, [&](const CompilePtr& job) {
      if (!job->cancelled.load()) return false;
      job->request.on_done(absl::CancelledError("the compile job was cancelled"));
      MutexLock lock(mutex_);
      --compiles_held_;
      return true;
    });
  }
}

void Scheduler::AdmitWaiting() {
  const SteadyTime now = std::chrono::steady_clock::now();
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(options_.running_requests_max) &&
         reserved_bytes_ + waiting_.front()->reserved_bytes() <= options_.private_kv_bytes) {
    reserved_bytes_ += waiting_.front()->reserved_bytes();
    waiting_.front()->Admit(prefix_cache_, now);
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
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

void Scheduler::AddLinkRows(Batch& batch, int32_t rows_max) {
  for (const RequestPtr& request : running_) {
    if (rows_max == 0) return;
    if (request->stage() == RequestState::Stage::kDecoding || request->NeedsOwnPass()) continue;
    SequenceKv* kv = nullptr;
    const int32_t begin = batch.rows.rows();
    const int32_t count = request->TakeRows(rows_max, batch.token_ids, batch.rows.positions, &kv);
    batch.Add(request, nullptr, kv, begin, count);
    rows_max -= count;
    totals_.linked_rows_total += count;
  }
}

void Scheduler::AddCompileRows(Batch& batch, bool urgent, int32_t rows_max) {
  for (const CompilePtr& job : urgent ? urgent_compiles_ : background_compiles_) {
    if (rows_max == 0) return;
    const int32_t begin = batch.rows.rows();
    const int32_t count = job->compilation.TakeRows(rows_max, batch.token_ids, batch.rows.positions);
    batch.Add(nullptr, job, &job->compilation.kv(), begin, count);
    rows_max -= count;
  }
}

void Scheduler::Step() {
  ++step_;
  Batch batch;
  AddDecodeRows(batch);
  const bool decoding = !batch.parts.empty();
  const int32_t piece = decoding ? std::min(options_.piece_tokens, kPieceRowsBesideDecode) : options_.piece_tokens;
  const bool linking = std::ranges::any_of(
      running_, [](const RequestPtr& request) { return request->stage() != RequestState::Stage::kDecoding; });
  // Somebody waits for an urgent job as well: it shares the piece with linking.
  const int32_t link_rows = urgent_compiles_.empty() ? piece : std::max(1, piece / 2);
  const int32_t before = batch.rows.rows();
  AddLinkRows(batch, link_rows);
  AddCompileRows(batch, true, piece - (batch.rows.rows() - before));
  const bool quiet = !decoding && !linking && urgent_compiles_.empty();
  if (quiet || step_ % kBackgroundInterval == 0) {
    AddCompileRows(batch, false, std::max(0, piece - (batch.rows.rows() - before)));
  }
  if (!batch.parts.empty()) RunBatch(batch);
  RunOwnPasses(piece);
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
  std::vector<float> last_rows;
  for (const Batch::Part& part : batch.parts) {
    if (part.compile != nullptr) {
      if (part.compile->compilation.remaining() == 0) FinishCompile(part.compile);
      continue;
    }
    const float* hidden = hidden_.data() + part.row_begin * width;
    if (!part.request->FinishRows(hidden, part.row_count, end)) continue;
    with_logits.push_back(part.request);
    const float* last = hidden + static_cast<size_t>(part.row_count - 1) * width;
    last_rows.insert(last_rows.end(), last, last + width);
  }
  AcceptLogits(with_logits, last_rows);
}

void Scheduler::AcceptLogits(const std::vector<RequestPtr>& requests, const std::vector<float>& hidden) {
  if (requests.empty()) return;
  const size_t vocab = environment_.backend.config().vocab_size;
  logits_.resize(requests.size() * vocab);
  environment_.backend.Logits(static_cast<int32_t>(requests.size()), hidden.data(), logits_.data());
  const SteadyTime now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < requests.size(); ++i) requests[i]->AcceptLogits({logits_.data() + i * vocab, vocab}, now);
}

void Scheduler::RunOwnPasses(int32_t rows_max) {
  // In order of arrival, one request a step: another piece follows after the next decode step.
  for (const RequestPtr& request : running_) {
    if (request->stage() == RequestState::Stage::kDone || !request->NeedsOwnPass()) continue;
    int32_t rows = 0;
    SteadyTime finished;
    const bool linked = request->RunOwnPass(rows_max, &rows, &finished);
    totals_.linked_rows_total += rows;
    if (linked) {
      const float* last = request->last_hidden();
      AcceptLogits({request}, {last, last + environment_.backend.config().width});
    }
    return;
  }
}

void Scheduler::FinishCompile(const CompilePtr& job) {
  absl::StatusOr<uint64_t> edition = job->compilation.WriteBlock(job->request.block);
  if (edition.ok()) {
    ++totals_.compiled_chunks_total;
    totals_.compiled_tokens_total += job->request.info.token_ids.size();
  }
  (job->request.urgent ? urgent_compiles_ : background_compiles_).remove(job);
  job->request.on_done(std::move(edition));
  MutexLock lock(mutex_);
  --compiles_held_;
}

void Scheduler::PublishLoad() {
  EngineLoad load = totals_;
  load.running_requests = static_cast<int64_t>(running_.size());
  load.waiting_requests = static_cast<int64_t>(waiting_.size());
  for (const std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    for (const RequestPtr& request : *requests) load.queued_tokens += request->remaining_rows();
  }
  for (const std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    for (const CompilePtr& job : *jobs) load.queued_tokens += job->compilation.remaining();
  }
  load.private_kv_used_bytes = reserved_bytes_;
  load.private_kv_capacity_bytes = options_.private_kv_bytes;
  MutexLock lock(mutex_);
  load_ = load;
}

void Scheduler::EndAll() {
  const absl::Status status = absl::CancelledError("the engine is shutting down");
  for (std::list<RequestPtr>* requests : {&running_, &waiting_}) {
    for (const RequestPtr& request : *requests) {
      request->Finish(status, FinishReason::kStop);
      Retire(request);
    }
    requests->clear();
  }
  reserved_bytes_ = 0;
  for (std::list<CompilePtr>* jobs : {&urgent_compiles_, &background_compiles_}) {
    for (const CompilePtr& job : *jobs) job->request.on_done(status);
    jobs->clear();
  }
}

}  // namespace epic
