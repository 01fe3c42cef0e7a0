// What the worker's tests share: a worker over a fake engine and one fake cache node, and short ways to ask and to
// listen.
#ifndef EPIC_INFERENCE_WORKER_WORKER_HARNESS_H_
#define EPIC_INFERENCE_WORKER_WORKER_HARNESS_H_

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/sync.h"
#include "inference_worker/fake_engine.h"
#include "inference_worker/worker.h"
#include "transfer/fake_block_source.h"
#include "transfer/faulty_block_source.h"
#include "transfer/synthetic_blocks.h"

namespace epic {

class CountingObserver : public WorkerObserver {
 public:
  struct ShadowOutcome {
    LinkerKind linker;
    bool first_token_agrees;
    double kl;
  };

  void OnRequest(LinkerKind, absl::StatusCode code) override {
    MutexLock lock(mutex_);
    ++requests_[code];
  }
  void OnFirstToken(LinkerKind, int64_t ttft_us) override {
    if (ttft_us >= 0) ++first_tokens_;
  }
  void OnBytesPulled(int64_t bytes) override { bytes_pulled_ += bytes; }
  void OnChunk(ChunkSource source) override {
    MutexLock lock(mutex_);
    ++chunks_[source];
  }
  void OnCompileFallback(FallbackCause cause) override {
    MutexLock lock(mutex_);
    ++fallbacks_[cause];
  }
  void OnStreamOverflow() override { ++overflows_; }
  void OnShadowCheck(LinkerKind linker, bool first_token_agrees, double kl) override {
    MutexLock lock(mutex_);
    shadow_checks_.push_back({linker, first_token_agrees, kl});
    changed_.NotifyAll();
  }
  void OnShadowInterrupted() override {
    MutexLock lock(mutex_);
    ++shadow_interruptions_;
    changed_.NotifyAll();
  }
  void OnShadowLost(ShadowLoss loss) override {
    MutexLock lock(mutex_);
    ++shadow_losses_[loss];
    changed_.NotifyAll();
  }

  int requests(absl::StatusCode code) {
    MutexLock lock(mutex_);
    return requests_[code];
  }
  int chunks(ChunkSource source) {
    MutexLock lock(mutex_);
    return chunks_[source];
  }
  std::map<FallbackCause, int> fallbacks() {
    MutexLock lock(mutex_);
    return fallbacks_;
  }
  // Each waits until there are this many, and returns them all.
  std::vector<ShadowOutcome> WaitForShadowChecks(size_t count) {
    MutexLock lock(mutex_);
    while (shadow_checks_.size() < count) changed_.Wait(mutex_);
    return shadow_checks_;
  }
  int WaitForShadowInterruptions(int count) {
    MutexLock lock(mutex_);
    while (shadow_interruptions_ < count) changed_.Wait(mutex_);
    return shadow_interruptions_;
  }
  int WaitForShadowLosses(ShadowLoss loss, int count) {
    MutexLock lock(mutex_);
    while (shadow_losses_[loss] < count) changed_.Wait(mutex_);
    return shadow_losses_[loss];
  }
  size_t shadow_checks() {
    MutexLock lock(mutex_);
    return shadow_checks_.size();
  }
  std::map<ShadowLoss, int> shadow_losses() {
    MutexLock lock(mutex_);
    return shadow_losses_;
  }
  int first_tokens() const { return first_tokens_.load(); }
  int64_t bytes_pulled() const { return bytes_pulled_.load(); }
  int overflows() const { return overflows_.load(); }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<ShadowOutcome> shadow_checks_ EPIC_GUARDED_BY(mutex_);
  int shadow_interruptions_ EPIC_GUARDED_BY(mutex_) = 0;
  std::map<ShadowLoss, int> shadow_losses_ EPIC_GUARDED_BY(mutex_);
  std::map<absl::StatusCode, int> requests_ EPIC_GUARDED_BY(mutex_);
  std::map<ChunkSource, int> chunks_ EPIC_GUARDED_BY(mutex_);
  std::map<FallbackCause, int> fallbacks_ EPIC_GUARDED_BY(mutex_);
  std::atomic<int> first_tokens_{0};
  std::atomic<int64_t> bytes_pulled_{0};
  std::atomic<int> overflows_{0};
};

// All of an answer.
struct Answer {
  absl::Status status;
  std::string text;
  std::vector<GeneratedToken> tokens;
  JobFinal final;
};

inline Answer ReadAnswer(InferCall* call) {
  Answer answer;
  while (true) {
    StreamBatch batch = call->stream().Next();
    for (GeneratedToken& token : batch.tokens) {
      answer.text += token.text;
      answer.tokens.push_back(std::move(token));
    }
    if (!batch.ended) continue;
    answer.status = std::move(batch.status);
    answer.final = std::move(batch.final);
    return answer;
  }
}

// Token ids that name their chunk by its number.
inline std::vector<int32_t> ChunkTokens(int number, int count = 40) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((number * 31 + i * 7) % 256);
  return ids;
}

inline JobPart TextPart(const std::string& text) {
  JobPart part;
  part.text = text;
  return part;
}

class WorkerHarness : public testing::Test {
 protected:
  static constexpr char kHome[] = "node-a:1";

  explicit WorkerHarness(FakeEngineOptions options = {})
      : engine_options_(options), engine_(options), plain_(*engine_.RecipeById("plain")) {
    StartNode(false);
  }

  void StartNode(bool in_place) {
    node_ = std::make_unique<FakeBlockSource>(FakeBlockSource::Options{kHome, in_place});
    faulty_ = std::make_shared<FaultyBlockSource>(node_.get());
    in_place_ = in_place;
  }
  void StartWorker(const WorkerOptions& options) {
    auto worker = Worker::Create(
        options, &engine_, [this](const std::string& home) { return SourceFor(home); }, &observer_);
    ASSERT_TRUE(worker.ok()) << worker.status();
    worker_ = *std::move(worker);
  }
  virtual absl::StatusOr<std::shared_ptr<BlockSource>> SourceFor(const std::string& home) {
    if (home != kHome) return absl::UnavailableError("no such node: " + home);
    if (in_place_) return std::shared_ptr<BlockSource>(node_.get(), [](BlockSource*) {});
    return faulty_;
  }
  static WorkerOptions SmallOptions() {
    WorkerOptions options;
    options.cache.capacity_bytes = 16 << 20;
    options.loading_threads = 4;
    options.shadow_share = 0;
    options.gate = *LinkerGate::Create({}, {kAllLinkers});
    return options;
  }

  void TearDown() override {
    if (worker_ != nullptr) {
      // Every request of a test has been read to its end: nothing may hold a chunk any more.
      EXPECT_EQ(worker_->Status().cache.leases, 0U);
      EXPECT_EQ(worker_->Status().heap_bytes, 0U);
      EXPECT_EQ(worker_->Status().loading_requests, 0);
      EXPECT_EQ(worker_->Status().loading_rows, 0);
    }
    EXPECT_EQ(node_->leases(), 0);
    worker_.reset();
  }

  KvBlockInfo Info(int number) const {
    return SyntheticBlockInfo(engine_.kv_shape(), plain_, "default", ChunkTokens(number));
  }
  void PutAtNode(int number) { ASSERT_TRUE(node_->Put(MakeSyntheticBlock(Info(number))).ok()); }

  JobPart ChunkPart(int number, const std::string& home = kHome) const {
    JobPart part;
    part.kind = JobPart::Kind::kChunk;
    part.chunk.key = Info(number).key;
    part.chunk.token_ids = ChunkTokens(number);
    part.chunk.home = home;
    part.chunk.document_id = "document-" + std::to_string(number);
    part.chunk.chunk_index = number;
    return part;
  }
  // One user message: these chunks, then the question.
  InferJob Question(const std::vector<int>& chunks, const std::string& home = kHome) const {
    InferJob job;
    job.recipe = plain_;
    job.explain = true;
    job.messages.push_back({"user", {}});
    for (const int number : chunks) job.messages.back().parts.push_back(ChunkPart(number, home));
    job.messages.back().parts.push_back(TextPart("who?"));
    return job;
  }
  Answer Ask(InferJob job) { return ReadAnswer(worker_->Infer(std::move(job)).get()); }
  // What the answer must be, whatever happens to the nodes: from an engine and a worker of its own that compile all.
  std::string ExpectedText(const std::vector<int>& chunks) {
    FakeEngine engine(engine_options_);
    CountingObserver observer;
    auto worker = Worker::Create(
        SmallOptions(), &engine, [](const std::string&) { return absl::UnavailableError("no nodes"); }, &observer);
    EXPECT_TRUE(worker.ok()) << worker.status();
    return ReadAnswer((*worker)->Infer(Question(chunks, "")).get()).text;
  }

  const FakeEngineOptions engine_options_;
  FakeEngine engine_;
  const Recipe plain_;
  CountingObserver observer_;
  std::unique_ptr<FakeBlockSource> node_;
  std::shared_ptr<FaultyBlockSource> faulty_;
  bool in_place_ = false;
  std::unique_ptr<Worker> worker_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_HARNESS_H_
