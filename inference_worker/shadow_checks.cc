#include "inference_worker/shadow_checks.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace epic {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kCheckBudget{kShadowCheckMsMax};
// An engine tells nobody when its compile jobs are done, so it is looked at again after this while a check waits.
constexpr std::chrono::milliseconds kEngineLookInterval{20};
// Any number does: clients see nothing of the draws.
constexpr uint64_t kSeed = 1;

std::vector<int32_t> TokenIds(const std::vector<PromptSegment>& prompt) {
  std::vector<int32_t> ids;
  for (const PromptSegment& segment : prompt) ids.insert(ids.end(), segment.token_ids.begin(), segment.token_ids.end());
  return ids;
}

std::vector<TokenProbability> Distribution(const std::vector<std::pair<int32_t, float>>& candidates) {
  std::vector<TokenProbability> distribution;
  distribution.reserve(candidates.size());
  for (const auto& [id, logprob] : candidates) distribution.push_back({id, logprob});
  return distribution;
}

}  // namespace

ShadowChecks::ShadowChecks(double share, Engine* engine, WorkerObserver* observer, const ShadowQueueLimits& limits)
    : enabled_(share > 0), engine_(engine), observer_(observer), selection_(share, kSeed), queue_(limits) {
  if (enabled_) thread_ = std::thread([this] { Loop(); });
}

ShadowChecks::~ShadowChecks() { Stop(); }

void ShadowChecks::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void ShadowChecks::MayFollow(const InferJob& job, GenerationRequest* request) {
  if (!enabled_ || !IsShadowCandidate(job, request->linker)) return;
  {
    MutexLock lock(mutex_);
    if (!selection_.Draw()) return;
  }
  // As its verdict is named: documents compiled as a whole are another matter than chunks compiled alone.
  Linker linker = request->linker;
  if (RecipesOf(job) == std::vector<std::string>{kDocumentRecipeId}) linker.recipe_id = kDocumentRecipeId;
  request->first_token_candidates = kComparedTokens;
  request->on_first_token_candidates = [this, linker = std::move(linker),
                                        ids = TokenIds(request->prompt)](const Candidates& linked) mutable {
    Offer({linker, std::move(ids), Distribution(linked), steady_clock::now() + kCheckBudget});
  };
}

void ShadowChecks::Offer(ShadowCheck check) {
  size_t dropped = 0;
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    dropped = queue_.Push(std::move(check));
    changed_.NotifyAll();
  }
  Lose(ShadowLoss::kQueueFull, dropped);
}

void ShadowChecks::RequestArrived() {
  MutexLock lock(mutex_);
  ++requests_;
  must_yield_ = true;
  changed_.NotifyAll();
}

void ShadowChecks::RequestEnded() {
  MutexLock lock(mutex_);
  if (--requests_ == 0) changed_.NotifyAll();
}

ShadowStatus ShadowChecks::Status() const {
  MutexLock lock(mutex_);
  return {window_.Figures(), queue_.size(), running_rows_};
}

void ShadowChecks::Loop() {
  while (true) {
    {
      MutexLock lock(mutex_);
      while (!stopping_ && (requests_ > 0 || queue_.size() == 0)) changed_.Wait(mutex_);
      if (stopping_) return;
    }
    const bool engine_is_idle = EngineIsIdle();
    std::optional<ShadowCheck> check;
    size_t expired = 0;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      if (!engine_is_idle) {
        changed_.WaitUntil(mutex_, steady_clock::now() + kEngineLookInterval);
        continue;
      }
      if (requests_ > 0) continue;
      check = queue_.Take(steady_clock::now(), &expired);
      must_yield_ = false;
      if (check.has_value()) running_rows_ = static_cast<int64_t>(check->token_ids.size());
    }
    Lose(ShadowLoss::kExpired, expired);
    if (check.has_value()) Run(*std::move(check));
  }
}

bool ShadowChecks::EngineIsIdle() const {
  const EngineLoad load = engine_->Load();
  return load.running_requests == 0 && load.waiting_requests == 0 && load.queued_tokens == 0;
}

void ShadowChecks::Run(ShadowCheck check) {
  Candidates full;
  const absl::Status status = AskFull(check, &full);
  if (status.ok()) return Compare(check, full);
  if (absl::IsDeadlineExceeded(status)) return Lose(ShadowLoss::kExpired, 1);
  bool waits_again = false;
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    waits_again = absl::IsCancelled(status) && queue_.PutBack(std::move(check));
  }
  if (!absl::IsCancelled(status)) return Lose(ShadowLoss::kFailed, 1);
  observer_->OnShadowInterrupted();
  if (!waits_again) Lose(ShadowLoss::kInterrupted, 1);
}

absl::Status ShadowChecks::AskFull(const ShadowCheck& check, Candidates* full) {
  GenerationRequest request;
  request.prompt.resize(1);
  request.prompt[0].token_ids = check.token_ids;
  request.linker.kind = LinkerKind::kFull;
  request.max_output_tokens = 1;
  request.reuses_rows = false;
  request.deadline = check.deadline;
  request.first_token_candidates = kComparedTokens;
  // Written before on_done, which hands it over by the mutex.
  request.on_first_token_candidates = [full](Candidates candidates) { *full = std::move(candidates); };
  request.on_done = [this](const absl::Status& status, FinishReason, const GenerationStats&) {
    MutexLock lock(mutex_);
    run_ended_ = true;
    run_status_ = status;
    changed_.NotifyAll();
  };
  {
    MutexLock lock(mutex_);
    run_ended_ = false;
  }
  absl::StatusOr<std::shared_ptr<Engine::Handle>> handle = engine_->Generate(std::move(request));
  bool ended = !handle.ok();
  for (bool cancelled = false; !ended;) {
    bool must_cancel = false;
    {
      MutexLock lock(mutex_);
      while (!run_ended_ && (cancelled || (!must_yield_ && !stopping_))) changed_.Wait(mutex_);
      ended = run_ended_;
      must_cancel = !ended;
    }
    if (must_cancel) (*handle)->Cancel();
    cancelled = must_cancel;
  }
  MutexLock lock(mutex_);
  running_rows_ = 0;
  return handle.ok() ? run_status_ : handle.status();
}

void ShadowChecks::Compare(const ShadowCheck& check, const Candidates& full_candidates) {
  const std::vector<TokenProbability> full = Distribution(full_candidates);
  const bool agrees = SameFirst(full, check.linked);
  const double kl = KlDivergence(full, check.linked);
  {
    MutexLock lock(mutex_);
    window_.Add(check.linker.Name(), agrees, kl);
  }
  observer_->OnShadowCheck(check.linker.kind, agrees, kl);
}

void ShadowChecks::Lose(ShadowLoss loss, size_t checks) {
  for (size_t i = 0; i < checks; ++i) observer_->OnShadowLost(loss);
}

}  // namespace epic
