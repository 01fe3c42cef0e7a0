// An engine without a model, for tests: deterministic, with gates and faults that tests control.
//
// Its blocks are the synthetic ones of transfer/synthetic_blocks.h, so that a chunk has the same bytes whoever compiled
// it. Its answers are a function of the prompt's token ids, the linker and, where the linker uses chunks, the very
// bytes of their KV: a wrong byte gives another answer. Its tokenizer has one token a byte, and its chat template
// writes
// "<role>", the content, and "</role>". Thread-safe; callbacks come from one scheduler thread, as the real engine's do.
#ifndef EPIC_INFERENCE_WORKER_FAKE_ENGINE_H_
#define EPIC_INFERENCE_WORKER_FAKE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/sync.h"
#include "engine/engine.h"
#include "transfer/synthetic_blocks.h"

namespace epic {

struct FakeEngineOptions {
  KvShape shape = kSmallSyntheticShape;
  int32_t context_length = 4096;
  int32_t answer_tokens = 8;  // then the answer ends by itself
  bool has_chat_template = true;
};

class FakeEngine : public Engine {
 public:
  static constexpr int32_t kVocabSize = 260;

  explicit FakeEngine(FakeEngineOptions options = {});
  ~FakeEngine() override;

  const ModelConfig& config() const override { return config_; }
  const std::string& fingerprint_hex() const override { return SyntheticFingerprint(); }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  absl::StatusOr<const ChatTemplate*> chat_template() const override;
  KvShape kv_shape() const override { return options_.shape; }
  size_t weight_bytes() const override { return 1; }
  absl::StatusOr<Recipe> RecipeById(const std::string& id) const override;
  absl::StatusOr<std::shared_ptr<Handle>> Generate(GenerationRequest request) override;
  absl::StatusOr<std::shared_ptr<Handle>> Compile(CompileRequest request) override;
  EngineLoad Load() const override;

  // While held, nothing runs; cancellations and deadlines still take effect.
  void Hold();
  void Release();
  // Requests for this linker do not run until Release; cancellations and deadlines still take effect.
  void HoldLinker(LinkerKind kind);
  // Waits until this many requests for the held linker are with the engine.
  void WaitForHeld(size_t count);
  // What requests for this linker are told as first_token_candidates from now on. At first every linker's are alike.
  void SetFirstTokenCandidates(LinkerKind kind, std::vector<std::pair<int32_t, float>> candidates);
  // Every request for this linker from now on is refused with it.
  void SetGenerateError(LinkerKind kind, absl::Status status);
  // Waits until this many requests and compile jobs together are with the engine.
  void WaitForJobs(size_t count);
  // Every compilation from now on ends with it; OK: they succeed again.
  void SetCompileError(absl::Status status);

  int64_t compilations() const;  // that were asked for
  int64_t urgent_compilations() const;
  // How many requests for this linker came, and the most that was with the engine when one did.
  int64_t generations(LinkerKind kind) const;
  size_t company_max(LinkerKind kind) const;
  // Token ids of the last prompt for this linker.
  std::vector<int32_t> last_prompt(LinkerKind kind) const;
  // Of the request that came last: its salt, or nothing where it must neither use nor leave rows.
  std::optional<std::string> last_cache_salt() const;

 private:
  struct Job;
  class JobHandle;

  absl::StatusOr<std::shared_ptr<Handle>> Add(std::shared_ptr<Job> job);
  void Run();
  // One token, one compilation, or the end. True when the job is done.
  bool Step(Job* job, const absl::Status& compile_error);
  std::shared_ptr<Job> NextJob() EPIC_REQUIRES(mutex_);

  const FakeEngineOptions options_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::shared_ptr<Job>> jobs_ EPIC_GUARDED_BY(mutex_);
  struct LinkerUse {
    int64_t generations = 0;
    size_t company_max = 0;
    std::vector<int32_t> last_prompt;
    std::vector<std::pair<int32_t, float>> candidates = {{'x', -0.5F}, {'y', -1.5F}, {'z', -2.5F}};
    absl::Status error;
  };
  bool IsHeld(const Job& job) const EPIC_REQUIRES(mutex_);

  bool held_ EPIC_GUARDED_BY(mutex_) = false;
  std::optional<LinkerKind> held_linker_ EPIC_GUARDED_BY(mutex_);
  std::map<LinkerKind, LinkerUse> linkers_ EPIC_GUARDED_BY(mutex_);
  bool stopping_ EPIC_GUARDED_BY(mutex_) = false;
  absl::Status compile_error_ EPIC_GUARDED_BY(mutex_);
  EngineLoad load_ EPIC_GUARDED_BY(mutex_);
  int64_t compilations_ EPIC_GUARDED_BY(mutex_) = 0;
  int64_t urgent_compilations_ EPIC_GUARDED_BY(mutex_) = 0;
  std::optional<std::string> last_cache_salt_ EPIC_GUARDED_BY(mutex_);
  std::thread scheduler_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_FAKE_ENGINE_H_
