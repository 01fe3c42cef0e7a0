#include "inference_worker/fake_engine.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "fmt/format.h"
#include "xxhash.h"

namespace epic {
namespace {

using std::chrono::steady_clock;

class ByteTokenizer : public Tokenizer {
 public:
  absl::StatusOr<Encoding> EncodeText(std::string_view text) const override {
    Encoding encoding;
    for (size_t i = 0; i < text.size(); ++i) {
      encoding.ids.push_back(static_cast<unsigned char>(text[i]));
      encoding.byte_ends.push_back(i + 1);
    }
    return encoding;
  }
  absl::StatusOr<std::vector<int32_t>> EncodePieces(std::span<const TextPiece> pieces, bool) const override {
    std::vector<int32_t> ids;
    for (const TextPiece& piece : pieces) {
      for (const char byte : piece.text) ids.push_back(static_cast<unsigned char>(byte));
    }
    return ids;
  }
  std::string DecodeToken(int32_t id, bool) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  int32_t vocab_size() const override { return FakeEngine::kVocabSize; }
  bool IsControl(int32_t id) const override { return id >= 256; }
  std::optional<int32_t> TokenId(std::string_view) const override { return std::nullopt; }
  std::optional<int32_t> sequence_start_id() const override { return std::nullopt; }
  std::optional<int32_t> eos_id() const override { return kStopIds[0]; }
  std::span<const int32_t> stop_ids() const override { return kStopIds; }
  bool decode_strips_space() const override { return false; }

 private:
  static constexpr int32_t kStopIds[] = {256};
};

class AngleTemplate : public ChatTemplate {
 public:
  absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                   std::chrono::year_month_day) const override {
    std::vector<TemplateSpan> spans;
    for (size_t i = 0; i < messages.size(); ++i) {
      const std::string role(messages[i].role);
      if (role != "system" && role != "user" && role != "assistant") {
        return absl::InvalidArgumentError(fmt::format("role \"{}\" is unknown to the chat template", role));
      }
      spans.push_back({TemplateSpan::Kind::kTemplate, "<" + role + ">", -1, -1});
      for (size_t part = 0; part < messages[i].parts.size(); ++part) {
        if (messages[i].parts[part].is_opaque) {
          spans.push_back({TemplateSpan::Kind::kOpaque, "", static_cast<int>(i), static_cast<int>(part)});
        } else {
          spans.push_back({TemplateSpan::Kind::kText, std::string(messages[i].parts[part].text), -1, -1});
        }
      }
      spans.push_back({TemplateSpan::Kind::kTemplate, "</" + role + ">", -1, -1});
    }
    return spans;
  }
  std::string name() const override { return "angle"; }
  std::vector<std::string> stop_tokens() const override { return {}; }
  std::vector<std::string> control_tokens() const override { return {}; }
};

uint64_t Mix(uint64_t hash, const void* data, size_t bytes) { return XXH3_64bits_withSeed(data, bytes, hash); }

}  // namespace

struct FakeEngine::Job {
  std::optional<GenerationRequest> generation;
  std::optional<CompileRequest> compilation;
  std::atomic<bool> cancelled{false};
  bool started = false;
  uint64_t hash = 0;
  GenerationStats stats;

  steady_clock::time_point deadline() const {
    return generation.has_value() ? generation->deadline : steady_clock::time_point::max();
  }
  bool must_end() const { return cancelled.load() || steady_clock::now() >= deadline(); }
};

class FakeEngine::JobHandle : public Engine::Handle {
 public:
  JobHandle(FakeEngine* engine, std::shared_ptr<Job> job) : engine_(engine), job_(std::move(job)) {}
  void Cancel() override {
    MutexLock lock(engine_->mutex_);
    job_->cancelled.store(true);
    engine_->changed_.NotifyAll();
  }

 private:
  FakeEngine* const engine_;
  const std::shared_ptr<Job> job_;
};

FakeEngine::FakeEngine(FakeEngineOptions options)
    : options_(options),
      tokenizer_(std::make_unique<ByteTokenizer>()),
      chat_template_(std::make_unique<AngleTemplate>()) {
  config_.name = "fake";
  config_.architecture = "llama";
  config_.layers = options_.shape.layers;
  config_.kv_heads = options_.shape.kv_heads;
  config_.heads = options_.shape.kv_heads;
  config_.head_dim = options_.shape.head_dim;
  config_.vocab_size = kVocabSize;
  config_.context_length = options_.context_length;
  load_.prefill_tokens_per_second = 1000;
  scheduler_ = std::thread([this] { Run(); });
}

FakeEngine::~FakeEngine() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& job : jobs_) job->cancelled.store(true);
    changed_.NotifyAll();
  }
  scheduler_.join();
}

absl::StatusOr<const ChatTemplate*> FakeEngine::chat_template() const {
  if (options_.has_chat_template) return chat_template_.get();
  return absl::FailedPreconditionError("the fake model has no chat template; send a raw prompt");
}

absl::StatusOr<Recipe> FakeEngine::RecipeById(const std::string& id) const {
  if (id == "plain") return Recipe{"plain", {}};
  if (id == "sink4") return Recipe{"sink4", {1, 2, 3, 4}};
  return absl::InvalidArgumentError(fmt::format("recipe \"{}\" is unknown; there are \"plain\" and \"sink4\"", id));
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> FakeEngine::Generate(GenerationRequest request) {
  size_t tokens = 0;
  for (const PromptSegment& segment : request.prompt) {
    tokens += segment.token_ids.size();
    if (!segment.is_chunk || !request.linker.UsesChunks()) continue;
    if (segment.chunk == nullptr || segment.chunk->view().info().token_ids != segment.token_ids) {
      return absl::InvalidArgumentError("a chunk of the prompt has no KV, or another chunk's");
    }
  }
  if (tokens > static_cast<size_t>(options_.context_length)) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt has {} tokens; at most {}", tokens, options_.context_length));
  }
  {
    MutexLock lock(mutex_);
    LinkerUse& use = linkers_[request.linker.kind];
    ++use.generations;
    use.company_max = std::max(use.company_max, jobs_.size());
    use.last_prompt.clear();
    for (const PromptSegment& segment : request.prompt) {
      use.last_prompt.insert(use.last_prompt.end(), segment.token_ids.begin(), segment.token_ids.end());
    }
    if (!use.error.ok()) return use.error;
    last_cache_salt_ = request.reuses_rows ? std::optional(request.cache_salt) : std::nullopt;
  }
  auto job = std::make_shared<Job>();
  job->generation = std::move(request);
  return Add(std::move(job));
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> FakeEngine::Compile(CompileRequest request) {
  auto job = std::make_shared<Job>();
  {
    MutexLock lock(mutex_);
    ++compilations_;
    if (request.urgent) ++urgent_compilations_;
  }
  job->compilation = std::move(request);
  return Add(std::move(job));
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> FakeEngine::Add(std::shared_ptr<Job> job) {
  auto handle = std::make_shared<JobHandle>(this, job);
  MutexLock lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.NotifyAll();
  return handle;
}

bool FakeEngine::IsHeld(const Job& job) const {
  return held_ || (job.generation.has_value() && job.generation->linker.kind == held_linker_);
}

std::shared_ptr<FakeEngine::Job> FakeEngine::NextJob() {
  // Round robin over the jobs; while held, only those that must end.
  for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
    if (IsHeld(**it) && !(*it)->must_end()) continue;
    std::shared_ptr<Job> job = *it;
    jobs_.erase(it);
    jobs_.push_back(job);
    return job;
  }
  return nullptr;
}

void FakeEngine::Run() {
  while (true) {
    std::shared_ptr<Job> job;
    absl::Status compile_error;
    {
      MutexLock lock(mutex_);
      while ((job = NextJob()) == nullptr) {
        if (stopping_ && jobs_.empty()) return;
        steady_clock::time_point next = steady_clock::time_point::max();
        for (const auto& waiting : jobs_) next = std::min(next, waiting->deadline());
        if (next == steady_clock::time_point::max()) {
          changed_.Wait(mutex_);
        } else {
          changed_.WaitUntil(mutex_, next);
        }
      }
      compile_error = compile_error_;
    }
    if (!Step(job.get(), compile_error)) continue;
    MutexLock lock(mutex_);
    std::erase(jobs_, job);
    job.reset();
    changed_.NotifyAll();
  }
}

bool FakeEngine::Step(Job* job, const absl::Status& compile_error) {
  if (job->compilation.has_value()) {
    CompileRequest& compile = *job->compilation;
    if (job->cancelled.load()) {
      compile.on_done(absl::CancelledError("the compilation was cancelled"));
    } else if (!compile_error.ok()) {
      compile.on_done(compile_error);
    } else {
      compile.on_done(FillSyntheticBlock(compile.info, compile.block));
    }
    return true;
  }
  GenerationRequest& request = *job->generation;
  GenerationStats& stats = job->stats;
  if (job->must_end()) {
    request.prompt.clear();  // handles may outlive the job: its chunks are free once its end is known
    request.on_done(job->cancelled.load() ? absl::CancelledError("the request was cancelled")
                                          : absl::DeadlineExceededError("the request's deadline passed"),
                    FinishReason::kStop, stats);
    return true;
  }
  if (!job->started) {
    job->started = true;
    const std::string linker = request.linker.Name();
    job->hash = Mix(0, linker.data(), linker.size());
    for (const PromptSegment& segment : request.prompt) {
      const auto tokens = static_cast<int32_t>(segment.token_ids.size());
      job->hash = Mix(job->hash, segment.token_ids.data(), segment.token_ids.size() * sizeof(int32_t));
      int32_t recomputed = tokens;
      if (segment.is_chunk && request.linker.UsesChunks()) {
        const KvBlockView& view = segment.chunk->view();
        job->hash = Mix(job->hash, view.bytes().data(), view.bytes().size());
        recomputed =
            request.linker.kind == LinkerKind::kLegoLink ? std::min(tokens, request.linker.legolink_tokens) : 0;
      }
      stats.prompt_tokens += tokens;
      stats.cached_tokens += segment.is_chunk ? tokens : 0;
      stats.selected_tokens += recomputed;
      stats.recomputed_tokens += recomputed;
      stats.recomputed_per_segment.push_back(recomputed);
    }
    stats.queue_us = 1;
    stats.link_us = 2;
    stats.first_token_us = 3;
    if (request.first_token_candidates > 0) {
      std::vector<std::pair<int32_t, float>> candidates;
      {
        MutexLock lock(mutex_);
        candidates = linkers_[request.linker.kind].candidates;
      }
      request.on_first_token_candidates(std::move(candidates));
    }
  }
  const int32_t scored = static_cast<int32_t>(request.continuation.size());
  GeneratedToken token;
  if (scored > 0) {
    token.id = request.continuation[stats.completion_tokens];
  } else {
    const uint64_t value = Mix(job->hash, &stats.completion_tokens, sizeof(stats.completion_tokens));
    token.id = static_cast<int32_t>('a' + value % 26);
    token.text = std::string(1, static_cast<char>(token.id));
  }
  token.logprob = -0.5F;
  for (int32_t i = 0; i < std::min(request.top_logprobs, kVocabSize); ++i) token.top.emplace_back(i, -1.0F - i);
  if (request.on_token) request.on_token(token);
  ++stats.completion_tokens;
  const bool scored_all = scored > 0 && stats.completion_tokens == scored;
  const bool stopped = scored == 0 && !request.ignore_end_of_turn && stats.completion_tokens == options_.answer_tokens;
  const bool full = scored == 0 && stats.completion_tokens == request.max_output_tokens;
  if (!scored_all && !stopped && !full) return false;
  request.prompt.clear();
  {
    MutexLock lock(mutex_);
    ++load_.requests_total;
    load_.generated_tokens_total += stats.completion_tokens;
  }
  request.on_done(absl::OkStatus(),
                  scored_all ? FinishReason::kScored : (stopped ? FinishReason::kStop : FinishReason::kLength), stats);
  return true;
}

EngineLoad FakeEngine::Load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.running_requests = static_cast<int64_t>(jobs_.size());
  return load;
}

void FakeEngine::Hold() {
  MutexLock lock(mutex_);
  held_ = true;
}

void FakeEngine::Release() {
  MutexLock lock(mutex_);
  held_ = false;
  held_linker_.reset();
  changed_.NotifyAll();
}

void FakeEngine::HoldLinker(LinkerKind kind) {
  MutexLock lock(mutex_);
  held_linker_ = kind;
}

void FakeEngine::WaitForHeld(size_t count) {
  MutexLock lock(mutex_);
  while (true) {
    size_t held = 0;
    for (const auto& job : jobs_) held += IsHeld(*job) && !job->must_end() ? 1 : 0;
    if (held >= count) return;
    changed_.Wait(mutex_);
  }
}

void FakeEngine::SetFirstTokenCandidates(LinkerKind kind, std::vector<std::pair<int32_t, float>> candidates) {
  MutexLock lock(mutex_);
  linkers_[kind].candidates = std::move(candidates);
}

void FakeEngine::SetGenerateError(LinkerKind kind, absl::Status status) {
  MutexLock lock(mutex_);
  linkers_[kind].error = std::move(status);
}

void FakeEngine::WaitForJobs(size_t count) {
  MutexLock lock(mutex_);
  while (jobs_.size() < count) changed_.Wait(mutex_);
}

void FakeEngine::SetCompileError(absl::Status status) {
  MutexLock lock(mutex_);
  compile_error_ = std::move(status);
}

int64_t FakeEngine::compilations() const {
  MutexLock lock(mutex_);
  return compilations_;
}

int64_t FakeEngine::generations(LinkerKind kind) const {
  MutexLock lock(mutex_);
  const auto found = linkers_.find(kind);
  return found == linkers_.end() ? 0 : found->second.generations;
}

size_t FakeEngine::company_max(LinkerKind kind) const {
  MutexLock lock(mutex_);
  const auto found = linkers_.find(kind);
  return found == linkers_.end() ? 0 : found->second.company_max;
}

std::vector<int32_t> FakeEngine::last_prompt(LinkerKind kind) const {
  MutexLock lock(mutex_);
  const auto found = linkers_.find(kind);
  return found == linkers_.end() ? std::vector<int32_t>() : found->second.last_prompt;
}

std::optional<std::string> FakeEngine::last_cache_salt() const {
  MutexLock lock(mutex_);
  return last_cache_salt_;
}

int64_t FakeEngine::urgent_compilations() const {
  MutexLock lock(mutex_);
  return urgent_compilations_;
}

}  // namespace epic
