// What the engine's tests share: an engine over the tiny model, chunks in read-only memory, requests whose events are
// collected.
#ifndef EPIC_ENGINE_ENGINE_FIXTURE_FOR_TEST_H_
#define EPIC_ENGINE_ENGINE_FIXTURE_FOR_TEST_H_

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/sync.h"
#include "engine/engine.h"
#include "tests/engine_harness.h"

namespace epic {

struct Outcome {
  absl::Status status = absl::UnknownError("not done");
  FinishReason reason = FinishReason::kStop;
  GenerationStats stats;
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::string text;
};

// Collects a request's events; Wait returns once on_done was called.
class Collector {
 public:
  void Attach(GenerationRequest& request) {
    request.on_token = [this](const GeneratedToken& token) {
      MutexLock lock(mutex_);
      if (token.id != GeneratedToken::kNoToken) {
        outcome_.ids.push_back(token.id);
        outcome_.logprobs.push_back(token.logprob);
      }
      outcome_.text += token.text;
      condition_.NotifyAll();
    };
    request.on_done = [this](const absl::Status& status, FinishReason reason, const GenerationStats& stats) {
      MutexLock lock(mutex_);
      outcome_.status = status;
      outcome_.reason = reason;
      outcome_.stats = stats;
      ++done_count_;
      condition_.NotifyAll();
    };
  }
  Outcome Wait() {
    MutexLock lock(mutex_);
    while (done_count_ == 0) condition_.Wait(mutex_);
    return outcome_;
  }
  void WaitForTokens(size_t count) {
    MutexLock lock(mutex_);
    while (outcome_.ids.size() < count && done_count_ == 0) condition_.Wait(mutex_);
  }
  int done_count() {
    MutexLock lock(mutex_);
    return done_count_;
  }

 private:
  Mutex mutex_;
  CondVar condition_;
  Outcome outcome_ EPIC_GUARDED_BY(mutex_);
  int done_count_ EPIC_GUARDED_BY(mutex_) = 0;
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void Start(EngineOptions options) {
    engine_.reset();
    options.model_path = epic::testing::SourcePath("tests/golden/tiny/tiny.gguf");
    options.threads = options.threads == 0 ? 2 : options.threads;
    auto engine = Engine::Create(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  std::vector<int32_t> Tokens(int count, uint32_t seed) {
    std::mt19937 generator(seed);
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids) id = std::uniform_int_distribution<int32_t>(3, engine_->config().vocab_size - 1)(generator);
    return ids;
  }

  // Compiles a chunk through the engine into memory that is then made read-only.
  ChunkKvPtr Compile(const std::vector<int32_t>& tokens, const std::string& recipe_id = "plain") {
    CompileRequest request;
    request.recipe = *engine_->RecipeById(recipe_id);
    request.info.shape = engine_->kv_shape();
    request.info.model_fingerprint_hex = engine_->fingerprint_hex();
    request.info.token_ids = tokens;
    request.info.recipe_id = recipe_id;
    request.info.first_position = request.recipe.first_position();
    const size_t bytes = KvBlockBytes(request.info);
    std::shared_ptr<std::byte> memory(
        static_cast<std::byte*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
        [bytes](std::byte* p) { munmap(p, bytes); });
    request.block = {memory.get(), bytes};
    std::promise<absl::StatusOr<uint64_t>> done;
    request.on_done = [&done](absl::StatusOr<uint64_t> edition) { done.set_value(std::move(edition)); };
    auto handle = engine_->Compile(std::move(request));
    EXPECT_TRUE(handle.ok()) << handle.status();
    const auto edition = done.get_future().get();
    EXPECT_TRUE(edition.ok()) << edition.status();
    EXPECT_EQ(mprotect(memory.get(), bytes, PROT_READ), 0);
    auto view = KvBlockView::Parse({memory.get(), bytes});
    EXPECT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->edition(), *edition);
    EXPECT_TRUE(view->VerifyPayload().ok());
    return std::make_shared<ChunkKv>(*std::move(view), memory);
  }

  GenerationRequest Request(const std::string& linker, int variant = 0, int output_tokens = 12) {
    GenerationRequest request;
    request.linker = *Linker::Parse(linker);
    for (const int count : {9, -60, -33 - variant, 4, -90, 14 + variant}) {
      const std::vector<int32_t> ids = Tokens(std::abs(count), static_cast<uint32_t>(std::abs(count)));
      const bool is_chunk = count < 0;
      request.prompt.push_back(
          {ids, is_chunk,
           is_chunk && request.linker.UsesChunks() ? Compile(ids, request.linker.BaseRecipeId()) : nullptr});
    }
    request.max_output_tokens = output_tokens;
    request.ignore_end_of_turn = true;
    request.logprobs = true;
    return request;
  }

  Outcome Run(GenerationRequest request) {
    Collector collector;
    collector.Attach(request);
    auto handle = engine_->Generate(std::move(request));
    if (!handle.ok()) return {handle.status(), {}, {}, {}, {}, {}};
    return collector.Wait();
  }

  std::unique_ptr<Engine> engine_;
};

inline constexpr const char* kAllLinkers[] = {"full",       "prefix",     "naive",       "naive-last", "cacheblend:15",
                                              "legolink:0", "legolink:1", "legolink:16", "random:15"};

}  // namespace epic

#endif  // EPIC_ENGINE_ENGINE_FIXTURE_FOR_TEST_H_
