#include "cache_node/compile_queue.h"

#include <algorithm>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"
#include "storage/scratch_block.h"

namespace epic {

using std::chrono::steady_clock;

// A chunk in flight. What stands under "shared" is guarded by the queue's mutex; the rest belongs to the queue's thread
// until `done` is set, and to nobody but readers afterwards.
struct CompileQueue::Entry {
  explicit Entry(CompileJob compile_job) : job(std::move(compile_job)) {}
  const CompileJob job;

  std::optional<BlockStore::Reservation> reservation;
  std::shared_ptr<ScratchBlock> scratch;  // what the compiler writes, where the host tier keeps another encoding
  steady_clock::time_point submitted_at{};
  int attempts = 0;
  bool was_held = false;
  int64_t compile_us = 0;

  // shared
  bool loads = false;      // from disk, until that failed
  bool load_only = false;  // nobody wants it compiled
  bool urgent = false;
  bool submitted_urgent = false;
  bool running = false;
  bool counts_as_background = false;
  bool found_no_room = false;
  uint64_t completions_seen = 0;  // when it found no room
  steady_clock::time_point looks_again_at = steady_clock::time_point::max();
  int tickets = 0;
  std::shared_ptr<ChunkCompiler::Job> handle;
  bool done = false;
  absl::StatusOr<BlockStore::Lease> result = absl::UnavailableError("not compiled yet");
};

struct CompileQueue::Step {
  enum class Kind { kStop, kStart, kFinish, kAbandon, kAskForBackground } kind = Kind::kStop;
  EntryPointer entry;
  absl::StatusOr<uint64_t> edition = 0;
  absl::Status reason;
};

CompileQueue::CompileQueue(const CompileQueueOptions& options, ChunkCompiler* compiler, TieredStore* store,
                           CompileObserver* observer)
    : options_(options), compiler_(compiler), store_(store), observer_(observer), thread_([this] { Run(); }) {}

CompileQueue::~CompileQueue() { Stop(); }

CompileQueue::Ticket::~Ticket() {
  if (queue_ != nullptr) queue_->Release(entry_);
}

void CompileQueue::Release(const EntryPointer& entry) {
  // Let go after the lock. Not left to the entry's end: the compiler's callback may keep the entry for longer.
  absl::StatusOr<BlockStore::Lease> dropped = absl::UnavailableError("released");
  MutexLock lock(mutex_);
  --entry->tickets;
  if (entry->tickets == 0 && entry->done) std::swap(dropped, entry->result);
  work_.NotifyOne();
}

absl::StatusOr<CompileQueue::Ticket> CompileQueue::Request(CompileJob job) {
  std::shared_ptr<ChunkCompiler::Job> to_cancel;
  EntryPointer entry;
  const bool on_disk = store_->OnDisk(job.info.key);
  const bool load_only = job.load_only;
  {
    MutexLock lock(mutex_);
    if (stopping_) return absl::UnavailableError("the cache node is shutting down");
    EntryPointer& known = entries_[job.info.key];
    if (known == nullptr) {
      if (urgent_.size() + to_load_.size() >= options_.waiting_max) {
        entries_.erase(job.info.key);
        return absl::ResourceExhaustedError(fmt::format(
            "{} chunks wait to be compiled or loaded already, the limit; try again later", options_.waiting_max));
      }
      known = std::make_shared<Entry>(std::move(job));
      known->loads = on_disk;
      known->load_only = known->job.load_only;
      (on_disk ? to_load_ : urgent_).push_back(known);
      work_.NotifyOne();
    } else if (!known->urgent) {
      if (known->counts_as_background) --background_running_;
      known->counts_as_background = false;
      if (known->running) {
        to_cancel = known->handle;
      } else {
        background_.erase(std::find(background_.begin(), background_.end(), known));
        urgent_.push_back(known);
        work_.NotifyOne();
      }
    }
    known->load_only = known->load_only && load_only;
    known->urgent = true;
    ++known->tickets;
    entry = known;
  }
  if (to_cancel != nullptr) to_cancel->Cancel();
  return Ticket(this, std::move(entry));
}

absl::StatusOr<CompileQueue::Compiled> CompileQueue::Wait(const Ticket& ticket, steady_clock::time_point deadline) {
  const Entry& entry = *ticket.entry_;
  MutexLock lock(mutex_);
  bool in_time = true;
  while (!entry.done && in_time) in_time = finished_.WaitUntil(mutex_, deadline);
  if (!entry.done) {
    return absl::DeadlineExceededError(
        fmt::format("chunk {} was not compiled before the deadline", entry.job.info.key.Hex()));
  }
  if (!entry.result.ok()) return entry.result.status();
  return Compiled{.lease = entry.result->Share(), .was_held = entry.was_held, .compile_us = entry.compile_us};
}

void CompileQueue::Wake() {
  MutexLock lock(mutex_);
  may_have_background_ = true;
  work_.NotifyOne();
}

void CompileQueue::Stop() {
  std::vector<std::shared_ptr<ChunkCompiler::Job>> handles;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    urgent_.insert(urgent_.end(), background_.begin(), background_.end());
    urgent_.insert(urgent_.end(), to_load_.begin(), to_load_.end());
    background_.clear();
    to_load_.clear();
    for (const auto& [key, entry] : entries_) {
      if (entry->handle != nullptr) handles.push_back(entry->handle);
    }
    work_.NotifyOne();
  }
  for (const std::shared_ptr<ChunkCompiler::Job>& handle : handles) handle->Cancel();
  if (thread_.joinable()) thread_.join();
}

CompileQueueStats CompileQueue::Stats() const {
  MutexLock lock(mutex_);
  CompileQueueStats stats = stats_;
  stats.waiting = urgent_.size();
  stats.running = static_cast<size_t>(running_);
  stats.loading = static_cast<size_t>(loading_) + to_load_.size();
  return stats;
}

void CompileQueue::Run() {
  while (true) {
    Step step = NextStep();
    switch (step.kind) {
      case Step::Kind::kStop:
        return;
      case Step::Kind::kStart:
        Start(step.entry);
        break;
      case Step::Kind::kFinish:
        Finish(step.entry, step.edition);
        break;
      case Step::Kind::kAbandon:
        Complete(step.entry, step.reason);
        break;
      case Step::Kind::kAskForBackground:
        AskForBackground();
        break;
    }
  }
}

CompileQueue::Step CompileQueue::NextStep() {
  MutexLock lock(mutex_);
  while (true) {
    Step step;
    if (!done_.empty()) {
      step.kind = Step::Kind::kFinish;
      step.entry = std::move(done_.front().first);
      step.edition = std::move(done_.front().second);
      done_.pop_front();
      return step;
    }
    if (stopping_ && urgent_.empty() && running_ == 0 && loading_ == 0) return step;
    look_again_at_ = steady_clock::time_point::max();
    if (TakeLoad(&step) || TakeUrgent(&step) || TakeBackground(&step)) return step;
    const bool takes_background = !stopping_ && may_have_background_ && urgent_.empty() && to_load_.empty() &&
                                  running_ < options_.running_max &&
                                  background_running_ < options_.background_running_max;
    if (!takes_background && look_again_at_ != steady_clock::time_point::max()) {
      work_.WaitUntil(mutex_, look_again_at_);
    } else if (!takes_background) {
      work_.Wait(mutex_);
    } else if (steady_clock::now() < background_after_) {
      work_.WaitUntil(mutex_, background_after_);
    } else {
      // Unset before the question is asked, so that a Wake during it is not lost.
      may_have_background_ = false;
      step.kind = Step::Kind::kAskForBackground;
      return step;
    }
  }
}

bool CompileQueue::MustWait(const Entry& entry) const {
  if (entry.job.context.empty()) return false;
  const auto before = entries_.find(entry.job.context.back().key);
  return before != entries_.end() && (before->second->urgent || !entry.urgent);
}

void CompileQueue::SetRunning(Entry& entry, bool running) {
  if (entry.running == running) return;
  entry.running = running;
  (entry.loads ? loading_ : running_) += running ? 1 : -1;
}

bool CompileQueue::WaitsForRoom(const Entry& entry) {
  if (!entry.found_no_room || entry.completions_seen != completions_) return false;
  if (entry.looks_again_at <= steady_clock::now()) return false;
  if (entry.looks_again_at == steady_clock::time_point::max() && running_ + loading_ == 0) return false;
  look_again_at_ = std::min(look_again_at_, entry.looks_again_at);
  return true;
}

bool CompileQueue::TakeLoad(Step* step) {
  if (to_load_.empty()) return false;
  const EntryPointer entry = to_load_.front();
  if (entry->urgent && entry->tickets == 0) {
    step->kind = Step::Kind::kAbandon;
    step->reason = absl::CancelledError("nobody waits for the chunk any more");
  } else {
    if (loading_ >= options_.loading_max || WaitsForRoom(*entry)) return false;
    step->kind = Step::Kind::kStart;
    SetRunning(*entry, true);
  }
  step->entry = entry;
  to_load_.pop_front();
  return true;
}

bool CompileQueue::TakeUrgent(Step* step) {
  auto next = urgent_.begin();
  while (next != urgent_.end() && !stopping_ && (*next)->tickets > 0 && MustWait(**next)) ++next;
  if (next == urgent_.end()) return false;
  const EntryPointer entry = *next;
  if (stopping_ || entry->tickets == 0) {
    step->kind = Step::Kind::kAbandon;
    step->reason = stopping_ ? absl::UnavailableError("the cache node is shutting down")
                             : absl::CancelledError("nobody waits for the chunk any more");
  } else {
    // What found no room tries again when something that ran has finished, and may have left room.
    if (running_ >= options_.running_max || WaitsForRoom(*entry)) return false;
    step->kind = Step::Kind::kStart;
    SetRunning(*entry, true);
  }
  step->entry = entry;
  urgent_.erase(next);
  return true;
}

bool CompileQueue::TakeBackground(Step* step) {
  if (!urgent_.empty() || running_ >= options_.running_max) return false;
  auto next = background_.begin();
  while (next != background_.end() && MustWait(**next)) ++next;
  if (next == background_.end()) return false;
  step->kind = Step::Kind::kStart;
  step->entry = *next;
  SetRunning(*step->entry, true);
  background_.erase(next);
  return true;
}

void CompileQueue::AskForBackground() {
  if (store_->CopiesAreBehind()) {
    MutexLock lock(mutex_);
    may_have_background_ = true;
    background_after_ = steady_clock::now() + options_.retry_delay;
    return;
  }
  std::optional<CompileJob> job = observer_->NextBackgroundJob();
  if (!job.has_value()) return;
  EntryPointer entry;
  const bool on_disk = store_->OnDisk(job->info.key);
  {
    MutexLock lock(mutex_);
    may_have_background_ = true;
    EntryPointer& known = entries_[job->info.key];
    // In flight for a request already: its end will be reported all the same.
    if (known != nullptr) return;
    known = std::make_shared<Entry>(*std::move(job));
    known->counts_as_background = true;
    known->loads = on_disk;
    ++background_running_;
    if (!on_disk && MustWait(*known)) {
      background_.push_back(known);
      return;
    }
    SetRunning(*known, true);
    entry = known;
  }
  Start(entry);
}

void CompileQueue::Start(const EntryPointer& entry) {
  const KvBlockInfo& info = entry->job.info;
  if (store_->host().Contains(info.key)) {
    absl::StatusOr<BlockStore::Lease> held = store_->host().Acquire(info.key, info.token_ids);
    if (held.ok()) {
      entry->was_held = true;
      Complete(entry, std::move(held));
      return;
    }
  }
  const bool was_copying = store_->copies_running() > 0;
  absl::StatusOr<BlockStore::Reservation> reservation = store_->host().Reserve(KvBlockBytes(store_->HostInfo(info)));
  if (!reservation.ok()) {
    OnNoRoom(entry, reservation.status(), was_copying || store_->copies_running() > 0);
    return;
  }
  entry->reservation.emplace(*std::move(reservation));
  bool loads = false;
  bool load_only = false;
  {
    MutexLock lock(mutex_);
    loads = entry->loads;
    load_only = entry->load_only;
  }
  if (loads) {
    SubmitLoad(entry);
    return;
  }
  if (load_only) {
    entry->reservation.reset();
    Complete(entry, absl::NotFoundError(fmt::format("no tier holds chunk {}", info.key.Hex())));
    return;
  }
  if (store_->disk() != nullptr) store_->disk()->NoteMiss(info.key);
  Submit(entry);
}

void CompileQueue::SubmitLoad(const EntryPointer& entry) {
  const absl::Status submitted = store_->Load(store_->HostInfo(entry->job.info), entry->reservation->padded_bytes(),
                                              [this, entry](absl::StatusOr<uint64_t> edition) {
                                                MutexLock lock(mutex_);
                                                done_.emplace_back(entry, std::move(edition));
                                                work_.NotifyOne();
                                              });
  if (!submitted.ok()) FallBack(entry);
}

void CompileQueue::FallBack(const EntryPointer& entry) {
  entry->reservation.reset();
  MutexLock lock(mutex_);
  ++stats_.load_fallbacks_total;
  SetRunning(*entry, false);
  entry->loads = false;
  if (entry->urgent || stopping_) {
    urgent_.push_front(entry);
  } else {
    background_.push_back(entry);
  }
}

// The blocks that are held from the beginning of the context on, in memory or on disk: behind a gap, those that follow
// would be of no use to the rows that run for it.
std::vector<std::shared_ptr<const KvBlockView>> CompileQueue::HeldContext(const CompileJob& job) {
  std::vector<std::shared_ptr<const KvBlockView>> held;
  for (const ContextChunk& chunk : job.context) {
    KvBlockInfo info = job.info;
    info.key = chunk.key;
    info.token_ids = chunk.token_ids;
    absl::StatusOr<std::shared_ptr<const KvBlockView>> view = store_->View(info);
    if (!view.ok() || (*view)->info().token_ids != chunk.token_ids) break;
    held.push_back(*std::move(view));
  }
  return held;
}

void CompileQueue::Submit(const EntryPointer& entry) {
  ChunkCompiler::Request request;
  request.info = entry->job.info;
  request.recipe = entry->job.recipe;
  request.context = HeldContext(entry->job);
  const KvBlockInfo& info = entry->job.info;
  if (store_->HostInfo(info).shape.dtype != info.shape.dtype) {
    entry->scratch = std::make_shared<ScratchBlock>(KvBlockBytes(info));
  }
  request.block = entry->scratch != nullptr ? entry->scratch->bytes() : entry->reservation->bytes();
  {
    MutexLock lock(mutex_);
    entry->submitted_urgent = entry->urgent;
    request.urgent = entry->urgent;
  }
  request.on_done = [this, entry](absl::StatusOr<uint64_t> edition) {
    MutexLock lock(mutex_);
    done_.emplace_back(entry, std::move(edition));
    work_.NotifyOne();
  };
  ++entry->attempts;
  entry->submitted_at = steady_clock::now();
  absl::StatusOr<std::shared_ptr<ChunkCompiler::Job>> handle = compiler_->Compile(std::move(request));
  if (!handle.ok()) {
    entry->reservation.reset();
    Complete(entry, handle.status());
    return;
  }
  bool cancel = false;
  {
    MutexLock lock(mutex_);
    entry->handle = *handle;
    // It became urgent, or the queue was stopped, before there was a handle to cancel.
    cancel = stopping_ || entry->urgent != entry->submitted_urgent;
  }
  if (cancel) (*handle)->Cancel();
}

void CompileQueue::OnNoRoom(const EntryPointer& entry, const absl::Status& status, bool is_copying) {
  const size_t block_bytes = KvBlockBytes(store_->HostInfo(entry->job.info));
  const size_t capacity_bytes = store_->host().Stats().capacity_bytes;
  if (status.code() == absl::StatusCode::kResourceExhausted && block_bytes > capacity_bytes) {
    Complete(entry, absl::FailedPreconditionError(
                        fmt::format("a block of {} tokens takes {} bytes, more than the whole tier of {} bytes; raise "
                                    "kv-capacity-bytes or lower chunk-tokens",
                                    entry->job.info.token_ids.size(), block_bytes, capacity_bytes)));
    return;
  }
  {
    MutexLock lock(mutex_);
    if (absl::IsResourceExhausted(status) && entry->urgent && !stopping_ && (running_ + loading_ > 1 || is_copying)) {
      entry->found_no_room = true;
      entry->completions_seen = completions_;
      entry->looks_again_at = is_copying ? steady_clock::now() + options_.copy_delay : steady_clock::time_point::max();
      SetRunning(*entry, false);
      (entry->loads ? to_load_ : urgent_).push_front(entry);
      return;
    }
  }
  Complete(entry, status);
}

void CompileQueue::Finish(const EntryPointer& entry, const absl::StatusOr<uint64_t>& edition) {
  bool became_urgent = false;
  bool stopping = false;
  bool loaded = false;
  {
    MutexLock lock(mutex_);
    loaded = entry->loads;
    entry->handle = nullptr;
    became_urgent = entry->urgent && !entry->submitted_urgent;
    stopping = stopping_;
  }
  if (!edition.ok()) {
    entry->reservation.reset();
    entry->scratch.reset();
    if (stopping) {
      Complete(entry, absl::UnavailableError("the cache node is shutting down"));
    } else if (loaded) {
      spdlog::warn("chunk {} could not be read from disk and is compiled again: {}", entry->job.info.key.Hex(),
                   std::string(edition.status().message()));
      FallBack(entry);
    } else if (became_urgent && edition.status().code() == absl::StatusCode::kCancelled) {
      Start(entry);
    } else {
      Complete(entry, edition.status());
    }
    return;
  }
  if (loaded) {
    entry->was_held = true;
  } else {
    const auto compile_time = steady_clock::now() - entry->submitted_at;
    entry->compile_us = std::chrono::duration_cast<std::chrono::microseconds>(compile_time).count();
  }
  absl::StatusOr<BlockStore::Lease> lease = Publish(entry);
  const bool damaged = lease.status().code() == absl::StatusCode::kDataLoss;
  {
    MutexLock lock(mutex_);
    if (lease.ok() && !loaded) {
      ++stats_.compiled_chunks_total;
      stats_.compiled_tokens_total += entry->job.info.token_ids.size();
    } else if (damaged) {
      ++stats_.damaged_total;
    }
  }
  if (damaged && loaded && !stopping) {
    FallBack(entry);
    return;
  }
  if (damaged && entry->attempts < options_.attempts_max && !stopping) {
    spdlog::warn("chunk {} was damaged before it was published and is compiled again: {}", entry->job.info.key.Hex(),
                 std::string(lease.status().message()));
    Start(entry);
    return;
  }
  Complete(entry, std::move(lease));
}

absl::StatusOr<BlockStore::Lease> CompileQueue::Publish(const EntryPointer& entry) {
  const std::shared_ptr<ScratchBlock> compiled = std::move(entry->scratch);
  BlockStore::Reservation reservation = *std::move(entry->reservation);
  entry->reservation.reset();
  if (compiled != nullptr) {
    EPIC_ASSIGN_OR_RETURN(const KvBlockView view, KvBlockView::Parse(compiled->bytes()));
    EPIC_RETURN_IF_ERROR(view.VerifyPayload());
    EPIC_RETURN_IF_ERROR(EncodeOrKeep(view, store_->HostInfo(entry->job.info).shape.dtype, reservation.bytes()));
  }
  return store_->Publish(std::move(reservation), static_cast<double>(entry->compile_us));
}

void CompileQueue::Complete(const EntryPointer& entry, absl::StatusOr<BlockStore::Lease> result) {
  const absl::Status status = result.status();
  bool requested = false;
  {
    MutexLock lock(mutex_);
    requested = entry->urgent;
    if (status.code() == absl::StatusCode::kResourceExhausted) {
      background_after_ = steady_clock::now() + options_.retry_delay;
      if (!requested) ++stats_.postponed_total;
    } else if (!status.ok() && status.code() != absl::StatusCode::kCancelled &&
               status.code() != absl::StatusCode::kUnavailable && status.code() != absl::StatusCode::kNotFound) {
      ++stats_.failures_total;
    }
  }
  // Before the waiting are told, so that what they see of the document agrees with what they got.
  observer_->OnCompileFinished(entry->job, status, requested);
  MutexLock lock(mutex_);
  entries_.erase(entry->job.info.key);
  SetRunning(*entry, false);
  if (entry->counts_as_background) --background_running_;
  ++completions_;
  // The observer may have put the chunk back to be compiled.
  if (!status.ok()) may_have_background_ = true;
  entry->done = true;
  if (!status.ok() || entry->tickets > 0) entry->result = std::move(result);
  finished_.NotifyAll();
}

}  // namespace epic
