#include "inference_worker/worker.h"

#include <algorithm>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

using std::chrono::steady_clock;

int64_t MicrosecondsBetween(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
}

// Rows that a request will ask of the engine, before it is tokenized: what routers place by.
int64_t EstimateRows(const InferJob& job, const Linker& linker) {
  constexpr size_t kTextBytesPerToken = 4;
  int64_t rows = 0;
  for (const JobMessage& message : job.messages) {
    for (const JobPart& part : message.parts) {
      rows += static_cast<int64_t>(part.text.size() / kTextBytesPerToken + part.token_ids.size());
      const auto tokens = static_cast<int64_t>(part.chunk.token_ids.size());
      if (!linker.UsesChunks()) rows += tokens;
      if (linker.kind == LinkerKind::kLegoLink) rows += std::min<int64_t>(tokens, linker.legolink_tokens);
      if (linker.kind == LinkerKind::kCacheBlend || linker.kind == LinkerKind::kRandom) {
        rows += static_cast<int64_t>(static_cast<double>(tokens) * linker.percent / 100);
      }
    }
  }
  return rows;
}

JobTiming MakeTiming(const InferJob& job, int64_t waited_us, const ChunkLoadResult& load, const GenerationStats& stats,
                     int64_t ttft_us) {
  JobTiming timing;
  timing.queue_us = waited_us + stats.queue_us;
  timing.lookup_us = job.router_lookup_us + load.lookup_us;
  timing.load_us = load.load_us;
  timing.compile_us = load.compile_us + stats.compile_us;
  timing.link_us = stats.link_us;
  timing.first_token_us = stats.first_token_us;
  timing.total_us = job.router_elapsed_us + MicrosecondsBetween(job.arrival, steady_clock::now());
  timing.ttft_us = ttft_us >= 0 ? ttft_us : timing.total_us;
  timing.bytes_pulled = load.bytes_pulled;
  return timing;
}

}  // namespace

absl::Status WorkerOptions::Validate() const {
  std::string problems;
  const auto note = [&problems](const std::string& problem) { problems += (problems.empty() ? "" : "; ") + problem; };
  if (const absl::Status status = cache.Validate(); !status.ok()) note(std::string(status.message()));
  if (stream_bytes_max < (size_t{1} << 20))
    note(fmt::format("stream_bytes_max is {}; at least 1048576", stream_bytes_max));
  if (loading_threads < 1 || loading_threads > 256) {
    note(fmt::format("loading_threads is {}; it must be between 1 and 256", loading_threads));
  }
  if (requests_max < 1 || requests_max > static_cast<int32_t>(kSchedulerRequestsMax)) {
    note(fmt::format("requests_max is {}; it must be between 1 and {}", requests_max, kSchedulerRequestsMax));
  }
  if (!(shadow_share >= 0 && shadow_share <= 1)) {
    note(fmt::format("shadow_share is {}; it must be between 0 and 1", shadow_share));
  }
  if (nodes.homes_in_parallel_max < 1) {
    note(fmt::format("homes_in_parallel_max is {}; it must be at least 1", nodes.homes_in_parallel_max));
  }
  if (nodes.node_timeout.count() < 1) {
    note(fmt::format("node_timeout is {} ms; it must be at least 1 ms", nodes.node_timeout.count()));
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const WorkerOptions& options, Engine* engine,
                                                       BlockSourceFactory sources, WorkerObserver* observer) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<BlockStore> cache, BlockStore::Create(options.cache));
  std::unique_ptr<Worker> worker(new Worker(options, engine, std::move(cache), std::move(sources), observer));
  for (int32_t i = 0; i < options.loading_threads; ++i) {
    worker->threads_.emplace_back([raw = worker.get()] { raw->LoadingLoop(); });
  }
  worker->threads_.emplace_back([raw = worker.get()] { raw->JanitorLoop(); });
  return worker;
}

Worker::Worker(const WorkerOptions& options, Engine* engine, std::shared_ptr<BlockStore> cache,
               BlockSourceFactory sources, WorkerObserver* observer)
    : options_(options),
      engine_(engine),
      observer_(observer),
      sources_(std::move(sources)),
      memory_(std::move(cache), options.heap_bytes_max),
      nodes_(options.nodes, engine->fingerprint_hex(), &sources_, &memory_, observer),
      loader_(engine, &nodes_, &memory_, observer),
      shadow_(options.shadow_share, engine, observer) {}

Worker::~Worker() {
  shadow_.Stop();
  std::set<CallPtr> active;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    active = active_;
  }
  for (const CallPtr& call : active) call->Cancel();
  active.clear();
  {
    MutexLock lock(mutex_);
    while (!active_.empty()) idle_.Wait(mutex_);
    work_.NotifyAll();
    janitor_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<InferCall> Worker::Infer(InferJob job, std::function<void()> on_ready) {
  CallPtr call(new InferCall(this, std::move(job), options_.stream_bytes_max, std::move(on_ready)));
  const absl::Status admitted = Admit(call);
  if (!admitted.ok()) {
    observer_->OnRequest(call->linker_.kind, admitted.code());
    call->stream_.Close(admitted, JobFinal{});
  }
  return call;
}

absl::Status Worker::Admit(const CallPtr& call) {
  {
    // A call that is refused here has ended for Cancel.
    MutexLock lock(call->mutex_);
    call->finished_ = true;
  }
  EPIC_RETURN_IF_ERROR(ValidateJob(call->job_, static_cast<int64_t>(options_.stream_bytes_max)));
  EPIC_ASSIGN_OR_RETURN(LinkerChoice choice, options_.gate.Choose(call->job_.linker, RecipesOf(call->job_)));
  call->linker_ = choice.linker;
  call->linker_note_ = std::move(choice.note);
  call->estimated_rows_ = EstimateRows(call->job_, call->linker_);
  {
    MutexLock lock(call->mutex_);
    call->finished_ = false;
  }
  shadow_.RequestArrived();  // before anything can end it
  absl::Status queued = Enqueue(call);
  if (!queued.ok()) shadow_.RequestEnded();
  return queued;
}

absl::Status Worker::Enqueue(const CallPtr& call) {
  MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the worker is stopping; ask another one");
  if (active_.size() >= static_cast<size_t>(options_.requests_max)) {
    return absl::ResourceExhaustedError(
        fmt::format("the worker has {} requests in work, which is its limit; retry later", active_.size()));
  }
  ++requests_total_;
  active_.insert(call);
  loading_.insert(call);
  loading_rows_ += call->estimated_rows_;
  queued_.push_back(call);
  work_.NotifyOne();
  if (call->job_.deadline != steady_clock::time_point::max()) janitor_.NotifyOne();
  return absl::OkStatus();
}

void Worker::LoadingLoop() {
  while (true) {
    CallPtr call;
    {
      MutexLock lock(mutex_);
      while (queued_.empty() && !stopping_) work_.Wait(mutex_);
      if (queued_.empty()) return;
      call = std::move(queued_.front());
      queued_.pop_front();
    }
    call->waited_us_ = MicrosecondsBetween(call->job_.arrival, steady_clock::now());
    if (absl::Status status = Start(call); !status.ok()) Finish(call, std::move(status), JobFinal{});
  }
}

void Worker::JanitorLoop() {
  while (true) {
    std::vector<CallPtr> expired;
    CallPtr overflowed;
    {
      MutexLock lock(mutex_);
      steady_clock::time_point next = steady_clock::time_point::max();
      expired = TakeExpired(&next);
      while (expired.empty() && overflowed_.empty()) {
        if (stopping_ && active_.empty()) return;
        if (next == steady_clock::time_point::max()) {
          janitor_.Wait(mutex_);
        } else {
          janitor_.WaitUntil(mutex_, next);
        }
        next = steady_clock::time_point::max();
        expired = TakeExpired(&next);
      }
      if (!overflowed_.empty()) {
        overflowed = std::move(overflowed_.front());
        overflowed_.pop_front();
      }
    }
    if (overflowed != nullptr) {
      observer_->OnStreamOverflow();
      overflowed->Cancel();
    }
    for (const CallPtr& call : expired) {
      Finish(call, absl::DeadlineExceededError("the request's deadline passed while it waited to be started"),
             JobFinal{});
    }
  }
}

std::vector<Worker::CallPtr> Worker::TakeExpired(steady_clock::time_point* next_deadline) {
  const steady_clock::time_point now = steady_clock::now();
  std::vector<CallPtr> expired;
  std::erase_if(queued_, [&](const CallPtr& call) {
    if (call->job_.deadline > now) {
      *next_deadline = std::min(*next_deadline, call->job_.deadline);
      return false;
    }
    expired.push_back(call);
    return true;
  });
  return expired;
}

absl::Status Worker::CheckModel(const InferJob& job, const Linker& linker) const {
  if (!job.model_fingerprint_hex.empty() && job.model_fingerprint_hex != engine_->fingerprint_hex()) {
    return absl::FailedPreconditionError(fmt::format("the request is for model {}; this worker runs {} ({})",
                                                     job.model_fingerprint_hex, engine_->fingerprint_hex(),
                                                     engine_->config().name));
  }
  bool has_chunks = false;
  for (const JobMessage& message : job.messages) {
    for (const JobPart& part : message.parts) has_chunks = has_chunks || part.kind == JobPart::Kind::kChunk;
  }
  // full and prefix run the chunks' tokens themselves: any recipe's chunks name the same tokens.
  if (!has_chunks || !linker.UsesChunks()) return absl::OkStatus();
  EPIC_ASSIGN_OR_RETURN(const Recipe recipe, engine_->RecipeById(linker.BaseRecipeId()));
  if (!(job.recipe == recipe)) {
    return absl::FailedPreconditionError(fmt::format(
        "linker {} links chunks of recipe \"{}\" behind {} tokens; the request's chunks are of recipe \"{}\" "
        "behind {} tokens; resolve the documents for this linker and model",
        linker.Name(), recipe.id, recipe.prefix_tokens.size(), job.recipe.id, job.recipe.prefix_tokens.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PromptSegment>> Worker::BuildPrompt(const CallPtr& call) const {
  const InferJob& job = call->job_;
  std::vector<PromptMessage> messages;
  for (const JobMessage& message : job.messages) {
    PromptMessage& built = messages.emplace_back();
    built.role = message.role;
    for (const JobPart& part : message.parts) {
      PromptPart& target = built.parts.emplace_back();
      switch (part.kind) {
        case JobPart::Kind::kText:
          target.kind = PromptPart::Kind::kText;
          target.text = part.text;
          break;
        case JobPart::Kind::kTokens:
          target.kind = PromptPart::Kind::kTokens;
          target.token_ids = part.token_ids;
          break;
        case JobPart::Kind::kChunk:
          target.kind = PromptPart::Kind::kChunk;
          target.token_ids = part.chunk.token_ids;
          target.context_token_ids = part.chunk.context_token_ids;
          break;
      }
    }
  }
  if (!job.chat) return BuildRawPrompt(engine_->tokenizer(), messages.front().parts);
  EPIC_ASSIGN_OR_RETURN(const ChatTemplate* chat_template, engine_->chat_template());
  return BuildChatPrompt(engine_->tokenizer(), *chat_template, messages);
}

absl::Status Worker::Start(const CallPtr& call) {
  const InferJob& job = call->job_;
  if (call->cancelled_.load()) return absl::CancelledError("the request was cancelled before it was started");
  EPIC_RETURN_IF_ERROR(CheckModel(job, call->linker_));
  EPIC_ASSIGN_OR_RETURN(std::vector<PromptSegment> prompt, BuildPrompt(call));
  size_t tokens = 0;
  for (const PromptSegment& segment : prompt) tokens += segment.token_ids.size();
  // Said before anything is fetched for a prompt that cannot run.
  if (tokens > static_cast<size_t>(engine_->config().context_length)) {
    return absl::InvalidArgumentError(fmt::format("the prompt has {} tokens; model {} holds at most {}", tokens,
                                                  engine_->config().name, engine_->config().context_length));
  }
  EPIC_RETURN_IF_ERROR(LoadChunks(call, &prompt));

  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.linker = call->linker_;
  request.sampling = job.sampling;
  request.max_output_tokens = job.max_output_tokens;
  request.stop_strings = job.stop_strings;
  request.ignore_end_of_turn = job.ignore_end_of_turn;
  request.continues_text = !job.chat;
  request.continuation = job.continuation;
  request.top_logprobs = job.top_logprobs;
  request.logprobs = job.logprobs;
  request.cache_salt = job.tenant;  // one tenant never learns from its own timing what another asked
  request.reuses_rows = !job.afresh;
  request.deadline = job.deadline;
  request.on_token = [this, call](const GeneratedToken& token) { OnToken(call, token); };
  request.on_done = [this, call](const absl::Status& status, FinishReason reason, const GenerationStats& stats) {
    OnDone(call, status, reason, stats);
  };
  shadow_.MayFollow(job, &request);
  // The engine counts the request from here on, so that Status shows it once.
  LeaveLoading(call);
  EPIC_ASSIGN_OR_RETURN(std::shared_ptr<Engine::Handle> handle, engine_->Generate(std::move(request)));
  {
    MutexLock lock(call->mutex_);
    if (!call->finished_) call->handle_ = handle;
  }
  if (call->cancelled_.load()) handle->Cancel();  // a cancellation that came before the handle was there
  return absl::OkStatus();
}

absl::Status Worker::LoadChunks(const CallPtr& call, std::vector<PromptSegment>* prompt) {
  const InferJob& job = call->job_;
  ChunkLoadRequest request;
  for (const JobMessage& message : job.messages) {
    for (const JobPart& part : message.parts) {
      if (part.kind == JobPart::Kind::kChunk) request.chunks.push_back(&part.chunk);
    }
  }
  int32_t offset = 0;
  for (size_t i = 0; i < prompt->size(); ++i) {
    const PromptSegment& segment = (*prompt)[i];
    if (segment.is_chunk && call->plan_.size() < request.chunks.size()) {
      const JobChunk& chunk = *request.chunks[call->plan_.size()];
      ChunkPlanEntry entry;
      entry.document_id = chunk.document_id;
      entry.chunk_index = chunk.chunk_index;
      entry.token_count = static_cast<int32_t>(segment.token_ids.size());
      entry.offset = offset;
      entry.reason = call->linker_.kind == LinkerKind::kPrefix
                         ? "linker prefix reuses beginnings of earlier prompts, not chunks"
                         : "linker full runs every token again";
      entry.key = chunk.key;
      call->plan_.push_back(std::move(entry));
      call->chunk_segments_.push_back(i);
    }
    offset += static_cast<int32_t>(segment.token_ids.size());
  }
  if (call->plan_.size() != request.chunks.size()) {
    return absl::InternalError(fmt::format("the chat template laid out {} of the prompt's {} chunks",
                                           call->plan_.size(), request.chunks.size()));
  }
  if (!call->linker_.UsesChunks() || request.chunks.empty()) return absl::OkStatus();

  request.tenant = job.tenant;
  request.request_id = job.request_id;
  request.traceparent = job.traceparent;
  request.recipe = job.recipe;
  request.deadline = job.deadline;
  request.cancelled = &call->cancelled_;
  EPIC_ASSIGN_OR_RETURN(call->load_, loader_.Load(request));
  for (size_t i = 0; i < call->plan_.size(); ++i) {
    LoadedChunk& loaded = call->load_.chunks[i];
    (*prompt)[call->chunk_segments_[i]].chunk = std::move(loaded.kv);
    call->plan_[i].source = loaded.source;
    call->plan_[i].reason = std::move(loaded.reason);
  }
  return absl::OkStatus();
}

void Worker::LeaveLoading(const CallPtr& call) {
  MutexLock lock(mutex_);
  if (loading_.erase(call) > 0) loading_rows_ -= call->estimated_rows_;
}

void Worker::OnToken(const CallPtr& call, const GeneratedToken& token) {
  if (call->ttft_us_ < 0) {
    call->ttft_us_ = call->job_.router_elapsed_us + MicrosecondsBetween(call->job_.arrival, steady_clock::now());
    observer_->OnFirstToken(call->linker_.kind, call->ttft_us_);
  }
  const bool was_overflowed = call->stream_.overflowed();
  if (call->stream_.Push(token) || was_overflowed) return;
  // Cancelling calls into the engine, which its own thread must not do.
  MutexLock lock(mutex_);
  overflowed_.push_back(call);
  janitor_.NotifyOne();
}

void Worker::OnDone(const CallPtr& call, const absl::Status& status, FinishReason reason,
                    const GenerationStats& stats) {
  JobFinal final;
  if (status.ok()) {
    final.finish_reason = reason;
    final.stats = stats;
    final.timing = MakeTiming(call->job_, call->waited_us_, call->load_, stats, call->ttft_us_);
    final.linker = call->linker_.Name();
    final.linker_note = std::move(call->linker_note_);
    if (call->job_.explain) {
      for (size_t i = 0; i < call->plan_.size(); ++i) {
        const size_t segment = call->chunk_segments_[i];
        if (segment < stats.recomputed_per_segment.size()) {
          call->plan_[i].recomputed_tokens = stats.recomputed_per_segment[segment];
        }
      }
      final.plan = std::move(call->plan_);
    }
  }
  observer_->OnUsage(stats);
  Finish(call, status, std::move(final));
}

bool Worker::Unqueue(const CallPtr& call) {
  MutexLock lock(mutex_);
  const auto found = std::find(queued_.begin(), queued_.end(), call);
  if (found == queued_.end()) return false;
  queued_.erase(found);
  return true;
}

void Worker::Finish(const CallPtr& call, absl::Status status, JobFinal final) {
  if (call->stream_.overflowed()) {
    status = absl::ResourceExhaustedError(
        fmt::format("the client did not read: more than {} bytes of its answer were waiting, so the request was ended",
                    options_.stream_bytes_max));
  }
  {
    MutexLock lock(call->mutex_);
    call->finished_ = true;
    call->handle_.reset();
  }
  observer_->OnRequest(call->linker_.kind, status.code());
  LeaveLoading(call);  // before its reader can know of the end and look
  shadow_.RequestEnded();
  call->stream_.Close(std::move(status), std::move(final));
  MutexLock lock(mutex_);
  std::erase(overflowed_, call);
  active_.erase(call);
  if (active_.empty()) {
    idle_.NotifyAll();
    janitor_.NotifyAll();
  }
}

WorkerStatus Worker::Status() const {
  WorkerStatus status;
  status.engine = engine_->Load();
  ShadowStatus shadow = shadow_.Status();
  if (shadow.running_rows > 0) {
    // It runs where there is no request, and the next one ends it: nothing that anybody waits for. Some of its rows may
    // have run already, so this hides as many rows of a compile job that came meanwhile.
    int64_t& requests =
        status.engine.running_requests > 0 ? status.engine.running_requests : status.engine.waiting_requests;
    requests = std::max<int64_t>(0, requests - 1);
    status.engine.queued_tokens = std::max<int64_t>(0, status.engine.queued_tokens - shadow.running_rows);
  }
  status.shadow = std::move(shadow.figures);
  status.shadow_waiting_checks = shadow.waiting_checks;
  status.cache = memory_.CacheStats();
  status.heap_bytes = memory_.heap_bytes();
  status.pull_bytes_per_second = nodes_.bytes_per_second();
  status.uptime_ms = MicrosecondsBetween(started_, steady_clock::now()) / 1000;
  MutexLock lock(mutex_);
  status.loading_requests = static_cast<int64_t>(loading_.size());
  status.loading_rows = loading_rows_;
  status.requests_total = requests_total_;
  return status;
}

void InferCall::Cancel() {
  std::shared_ptr<Engine::Handle> handle;
  {
    MutexLock lock(mutex_);
    if (finished_) return;
    cancelled_.store(true);
    handle = handle_;
  }
  const std::shared_ptr<InferCall> self = shared_from_this();
  if (handle != nullptr) {
    handle->Cancel();
  } else if (worker_->Unqueue(self)) {
    worker_->Finish(self, absl::CancelledError("the request was cancelled before it was started"), JobFinal{});
  } else {
    worker_->loader_.Wake();
  }
}

}  // namespace epic
