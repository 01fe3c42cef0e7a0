#include "inference_worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "inference_worker/worker_harness.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

class WorkerTest : public WorkerHarness {
 protected:
  void SetUp() override { StartWorker(SmallOptions()); }
};

TEST_F(WorkerTest, PullsChunksOnceAndServesThemFromItsCacheAfterwards) {
  for (const int number : {1, 2, 3}) PutAtNode(number);
  const Answer first = Ask(Question({1, 2, 3}));
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_EQ(first.text, ExpectedText({1, 2, 3}));
  EXPECT_EQ(first.final.linker, "legolink:16");
  EXPECT_EQ(first.final.finish_reason, FinishReason::kStop);
  EXPECT_EQ(node_->locate_calls(), 1) << "one Locate a request and home";
  EXPECT_GT(first.final.timing.bytes_pulled, 0);
  EXPECT_EQ(first.final.timing.bytes_pulled, node_->bytes_read());
  EXPECT_EQ(observer_.bytes_pulled(), node_->bytes_read());
  EXPECT_EQ(observer_.chunks(ChunkSource::kHeldByNode), 3);
  EXPECT_TRUE(worker_->Holds(Info(1).key));
  EXPECT_GT(worker_->Status().pull_bytes_per_second, 0);

  const Answer second = Ask(Question({1, 2, 3}));
  EXPECT_EQ(second.text, first.text);
  EXPECT_EQ(node_->locate_calls(), 1);
  EXPECT_EQ(second.final.timing.bytes_pulled, 0);
  EXPECT_EQ(observer_.chunks(ChunkSource::kWorkerCache), 3);
  EXPECT_EQ(engine_.compilations(), 0);
  EXPECT_EQ(observer_.requests(absl::StatusCode::kOk), 2);
  EXPECT_EQ(observer_.first_tokens(), 2);
}

TEST_F(WorkerTest, PlansNameEachChunksPlaceAndSource) {
  PutAtNode(1);
  PutAtNode(2);
  ASSERT_TRUE(Ask(Question({2})).status.ok());
  const Answer answer = Ask(Question({1, 2, 1}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const std::vector<ChunkPlanEntry>& plan = answer.final.plan;
  ASSERT_EQ(plan.size(), 3U);
  const int32_t start = std::string("<user>").size();
  for (size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].offset, start + static_cast<int32_t>(i) * 40);
    EXPECT_EQ(plan[i].token_count, 40);
    EXPECT_EQ(plan[i].recomputed_tokens, 16);
  }
  EXPECT_EQ(plan[0].document_id, "document-1");
  EXPECT_EQ(plan[0].source, ChunkSource::kHeldByNode);
  EXPECT_THAT(plan[0].reason, HasSubstr(kHome));
  EXPECT_EQ(plan[1].source, ChunkSource::kWorkerCache);
  EXPECT_EQ(plan[2].source, ChunkSource::kHeldByNode);
  EXPECT_EQ(plan[0].key, plan[2].key);
  EXPECT_EQ(answer.final.stats.cached_tokens, 120);
}

// A chunk that was compiled in sight of others has its own key, recipe and first position, at the node and in the
// engine.
TEST_F(WorkerTest, ChunksThatSawOthersAreFetchedAndCompiledWithTheirContext) {
  const Recipe recipe = RecipeBehind(plain_, ChunkTokens(1));
  const KvBlockInfo info = SyntheticBlockInfo(engine_.kv_shape(), recipe, "default", ChunkTokens(2));
  const auto ask = [&](const std::string& home) {
    InferJob job = Question({1, 2}, home);
    JobChunk& second = job.messages.back().parts[1].chunk;
    second.context_token_ids = ChunkTokens(1);
    second.key = info.key;
    return Ask(std::move(job));
  };
  PutAtNode(1);
  ASSERT_TRUE(node_->Put(MakeSyntheticBlock(info)).ok());
  const Answer fetched = ask(kHome);
  ASSERT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.final.plan[1].source, ChunkSource::kHeldByNode);
  EXPECT_EQ(fetched.final.plan[1].key, info.key);

  StartWorker(SmallOptions());
  const Answer compiled = ask("");
  ASSERT_TRUE(compiled.status.ok()) << compiled.status;
  EXPECT_EQ(compiled.final.plan[1].source, ChunkSource::kCompiledByWorker);
}

TEST_F(WorkerTest, WithoutExplainThereIsNoPlan) {
  InferJob job = Question({1}, "");
  job.explain = false;
  EXPECT_TRUE(Ask(job).final.plan.empty());
}

TEST_F(WorkerTest, LinkersThatRunEveryTokenFetchNothing) {
  for (const char* linker : {"full", "prefix"}) {
    InferJob job = Question({1, 2});
    job.linker = linker;
    const Answer answer = Ask(job);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.final.linker, linker);
    ASSERT_EQ(answer.final.plan.size(), 2U);
    EXPECT_EQ(answer.final.plan[0].source, ChunkSource::kNotUsed);
    EXPECT_EQ(answer.final.plan[0].recomputed_tokens, 40);
    EXPECT_EQ(answer.final.stats.cached_tokens, 80) << "its tokens still lie in documents";
  }
  EXPECT_EQ(node_->locate_calls(), 0);
  EXPECT_EQ(engine_.compilations(), 0);
}

TEST_F(WorkerTest, UsesBlocksInPlaceWithoutMovingThem) {
  StartNode(true);
  PutAtNode(1);
  PutAtNode(2);
  const Answer answer = Ask(Question({1, 2}));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1, 2}));
  EXPECT_EQ(node_->read_calls(), 0);
  EXPECT_EQ(worker_->Status().cache.blocks, 0U) << "nothing is copied";
  EXPECT_THAT(answer.final.plan[0].reason, HasSubstr("in place"));
}

TEST_F(WorkerTest, HoldsTheNodesLeaseWhileTheRequestRuns) {
  StartNode(true);
  PutAtNode(1);
  engine_.Hold();
  auto call = worker_->Infer(Question({1}));
  engine_.WaitForJobs(1);
  EXPECT_EQ(node_->leases(), 1);
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(call.get()).status.ok());
  EXPECT_EQ(node_->leases(), 0);
}

TEST_F(WorkerTest, RawPromptsAreTakenAsTheyAre) {
  InferJob job;
  job.chat = false;
  job.recipe = plain_;
  job.explain = true;
  JobPart ids;
  ids.kind = JobPart::Kind::kTokens;
  ids.token_ids = {5, 6, 7};
  job.messages.push_back({"", {ids, ChunkPart(1, ""), TextPart("ab")}});
  const Answer answer = Ask(job);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.final.stats.prompt_tokens, 45);
  EXPECT_EQ(answer.final.plan[0].offset, 3);
}

TEST_F(WorkerTest, ScoresAGivenContinuation) {
  InferJob job = Question({1}, "");
  job.continuation = {10, 11, 12};
  job.top_logprobs = 2;
  const Answer answer = Ask(job);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.final.finish_reason, FinishReason::kScored);
  ASSERT_EQ(answer.tokens.size(), 3U);
  EXPECT_EQ(answer.tokens[1].id, 11);
  EXPECT_EQ(answer.tokens[1].top.size(), 2U);
}

TEST_F(WorkerTest, TimingCoversTheRouterAndAddsUp) {
  InferJob job = Question({1}, "");
  job.router_lookup_us = 1000;
  job.router_elapsed_us = 5000;
  const Answer answer = Ask(job);
  const JobTiming& timing = answer.final.timing;
  EXPECT_GE(timing.lookup_us, 1000);
  EXPECT_GE(timing.ttft_us, 5000);
  EXPECT_GE(timing.total_us, timing.ttft_us);
  EXPECT_GT(timing.compile_us, 0) << "nobody had the chunk";
  EXPECT_GE(timing.queue_us, 1);
  EXPECT_EQ(timing.link_us, 2);
  EXPECT_EQ(timing.first_token_us, 3);
  EXPECT_LE(timing.lookup_us - 1000 + timing.load_us + timing.compile_us, timing.total_us - 5000);
}

struct Refusal {
  std::string name;
  std::function<void(InferJob*)> spoil;
  absl::StatusCode code;
  std::string words;
};

TEST_F(WorkerTest, RefusesWhatCanNeverRunAndSaysWhy) {
  const std::vector<Refusal> refusals = {
      {"deadline", [](InferJob* job) { job->deadline = steady_clock::now(); }, absl::StatusCode::kDeadlineExceeded,
       "deadline"},
      {"linker", [](InferJob* job) { job->linker = "legolonk:16"; }, absl::StatusCode::kInvalidArgument, "legolonk"},
      {"negative k", [](InferJob* job) { job->linker = "legolink:-1"; }, absl::StatusCode::kInvalidArgument, "-1"},
      {"no messages", [](InferJob* job) { job->messages.clear(); }, absl::StatusCode::kInvalidArgument, "empty"},
      {"role", [](InferJob* job) { job->messages[0].role = "wizard"; }, absl::StatusCode::kInvalidArgument, "wizard"},
      {"model", [](InferJob* job) { job->model_fingerprint_hex = std::string(64, 'b'); },
       absl::StatusCode::kFailedPrecondition, "bbbb"},
      {"recipe", [](InferJob* job) { job->linker = "legolink:0"; }, absl::StatusCode::kFailedPrecondition, "sink4"},
      {"context", [](InferJob* job) { job->messages[0].parts.back().text = std::string(5000, 'x'); },
       absl::StatusCode::kInvalidArgument, "4096"},
      {"output", [](InferJob* job) { job->max_output_tokens = 0; }, absl::StatusCode::kInvalidArgument,
       "max_output_tokens"},
      {"temperature", [](InferJob* job) { job->sampling.temperature = -1; }, absl::StatusCode::kInvalidArgument,
       "temperature"},
      {"stop", [](InferJob* job) { job->stop_strings.assign(17, "x"); }, absl::StatusCode::kInvalidArgument, "16"},
      {"empty stop", [](InferJob* job) { job->stop_strings = {""}; }, absl::StatusCode::kInvalidArgument, "stop"},
      {"scores", [](InferJob* job) { job->continuation.assign(4096, 1), job->top_logprobs = 1 << 20; },
       absl::StatusCode::kInvalidArgument, "top_logprobs"},
      {"token id", [](InferJob* job) { job->messages[0].parts[0].chunk.token_ids[3] = 99'999; },
       absl::StatusCode::kInvalidArgument, "99999"},
      {"request id", [](InferJob* job) { job->request_id = std::string(129, 'r'); }, absl::StatusCode::kInvalidArgument,
       "128"},
      {"one key, two contents",
       [this](InferJob* job) {
         job->messages[0].parts.push_back(ChunkPart(2, ""));
         job->messages[0].parts.back().chunk.key = job->messages[0].parts[0].chunk.key;
       },
       absl::StatusCode::kInvalidArgument, "two different"},
  };
  for (const Refusal& refusal : refusals) {
    InferJob job = Question({1}, "");
    refusal.spoil(&job);
    const Answer answer = Ask(job);
    EXPECT_EQ(answer.status.code(), refusal.code) << refusal.name << ": " << answer.status;
    EXPECT_THAT(std::string(answer.status.message()), HasSubstr(refusal.words)) << refusal.name;
    EXPECT_TRUE(answer.tokens.empty()) << refusal.name;
  }
  EXPECT_EQ(engine_.compilations(), 0) << "nothing was run for them";
}

TEST(WorkerChatTest, AChatForAModelWithoutATemplateIsRefusedAndARawPromptRuns) {
  FakeEngine engine({.has_chat_template = false});
  CountingObserver observer;
  auto worker = Worker::Create(
      WorkerOptions{}, &engine, [](const std::string&) { return absl::UnavailableError("no nodes"); }, &observer);
  ASSERT_TRUE(worker.ok()) << worker.status();
  InferJob job;
  job.messages.push_back({"user", {TextPart("hello")}});
  EXPECT_TRUE(absl::IsFailedPrecondition(ReadAnswer((*worker)->Infer(job).get()).status));
  job.chat = false;
  const Answer answer = ReadAnswer((*worker)->Infer(job).get());
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.final.stats.prompt_tokens, 5) << "the text alone";
}

TEST_F(WorkerTest, CancelsInTheEngine) {
  engine_.Hold();
  auto call = worker_->Infer(Question({}));
  engine_.WaitForJobs(1);
  call->Cancel();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(call.get()).status));
  call->Cancel();  // after the end: nothing
  EXPECT_EQ(observer_.requests(absl::StatusCode::kCancelled), 1);
}

TEST_F(WorkerTest, CancelsWhileItsChunksAreCompiled) {
  engine_.Hold();
  auto call = worker_->Infer(Question({1, 2}, ""));
  engine_.WaitForJobs(2);
  call->Cancel();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(call.get()).status));
}

TEST_F(WorkerTest, DeadlinesEndWaitingForTheEngine) {
  engine_.Hold();
  InferJob job = Question({});
  job.deadline = steady_clock::now() + milliseconds(20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(job).status));
}

TEST_F(WorkerTest, DeadlinesEndWaitingForACompilation) {
  engine_.Hold();
  InferJob job = Question({1}, "");
  job.deadline = steady_clock::now() + milliseconds(20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(job).status));
}

TEST_F(WorkerTest, AClientThatDoesNotReadIsCutOff) {
  WorkerOptions options = SmallOptions();
  options.stream_bytes_max = 1 << 20;
  StartWorker(options);
  InferJob job = Question({});
  job.max_output_tokens = 1'000'000;
  job.ignore_end_of_turn = true;
  job.top_logprobs = FakeEngine::kVocabSize;  // about 2 KiB a token
  auto silent = worker_->Infer(job);
  const Answer other = Ask(Question({1}, ""));
  EXPECT_TRUE(other.status.ok()) << "others go on: " << other.status;
  // Nothing was read of the first: its buffer fills up and it ends by itself.
  StreamBatch batch = silent->stream().Next();
  while (!silent->stream().overflowed() && !batch.ended) std::this_thread::yield();
  while (!batch.ended) batch = silent->stream().Next();
  EXPECT_TRUE(absl::IsResourceExhausted(batch.status)) << batch.status;
  EXPECT_THAT(std::string(batch.status.message()), HasSubstr("did not read"));
  EXPECT_EQ(observer_.overflows(), 1);
}

TEST_F(WorkerTest, RowsAreKeptForTheSameTenantOnly) {
  StartWorker(SmallOptions());
  InferJob job = Question({1}, "");
  job.tenant = "somebody";
  EXPECT_TRUE(Ask(job).status.ok());
  EXPECT_EQ(engine_.last_cache_salt(), "somebody");
  job.afresh = true;
  EXPECT_TRUE(Ask(job).status.ok());
  EXPECT_EQ(engine_.last_cache_salt(), std::nullopt);
}

TEST_F(WorkerTest, RefusesMoreRequestsThanItsLimit) {
  WorkerOptions options = SmallOptions();
  options.requests_max = 2;
  StartWorker(options);
  engine_.Hold();
  auto first = worker_->Infer(Question({}));
  auto second = worker_->Infer(Question({}));
  EXPECT_TRUE(absl::IsResourceExhausted(Ask(Question({})).status));
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(first.get()).status.ok());
  EXPECT_TRUE(ReadAnswer(second.get()).status.ok());
}

TEST_F(WorkerTest, RequestsInTheQueueAreCountedCancelledAndExpire) {
  WorkerOptions options = SmallOptions();
  options.loading_threads = 1;
  StartWorker(options);
  engine_.Hold();
  auto loading = worker_->Infer(Question({1}, ""));  // keeps the only loading thread busy
  engine_.WaitForJobs(1);
  InferJob job = Question({2, 3}, "");
  auto waiting = worker_->Infer(job);
  EXPECT_EQ(worker_->Status().loading_requests, 2);
  EXPECT_EQ(worker_->Status().loading_rows, (16 + 1) + (2 * 16 + 1));
  waiting->Cancel();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(waiting.get()).status));
  job.deadline = steady_clock::now() + milliseconds(20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(job).status));
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(loading.get()).status.ok());
}

TEST_F(WorkerTest, DestructionEndsEveryStream) {
  engine_.Hold();
  auto in_engine = worker_->Infer(Question({}));
  auto loading = worker_->Infer(Question({1}, ""));
  engine_.WaitForJobs(2);
  worker_.reset();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(in_engine.get()).status));
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(loading.get()).status));
}

TEST_F(WorkerTest, ConcurrentRequestsBringAChunkOnce) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 6;
  const std::vector<std::vector<int>> questions = {{1, 2, 3}, {3, 2, 1}, {2, 4, 1}, {4}, {5, 1}, {3, 3, 3}};
  std::vector<std::string> expected;
  for (const auto& chunks : questions) expected.push_back(ExpectedText(chunks));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const size_t which = (t + round) % questions.size();
        const Answer answer = Ask(Question(questions[which], ""));
        EXPECT_TRUE(answer.status.ok()) << answer.status;
        EXPECT_EQ(answer.text, expected[which]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine_.compilations(), 5) << "five distinct chunks, each compiled once";
  EXPECT_EQ(engine_.urgent_compilations(), 5);
}

TEST_F(WorkerTest, AFollowerTakesOverWhereTheFirstIsCancelled) {
  PutAtNode(1);
  faulty_->SetFaults({.hold_locates = true});
  auto first = worker_->Infer(Question({1}));
  faulty_->WaitForHeldCalls(1);
  auto second = worker_->Infer(Question({1}));
  first->Cancel();
  faulty_->SetFaults({});
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(first.get()).status));
  const Answer answer = ReadAnswer(second.get());
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, ExpectedText({1}));
}

TEST(WorkerOptionsTest, NamesEveryProblemAtOnce) {
  WorkerOptions options;
  options.loading_threads = 0;
  options.requests_max = 100'000;
  options.stream_bytes_max = 5;
  options.shadow_share = 1.5;
  const absl::Status status = options.Validate();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  for (const char* field : {"loading_threads", "requests_max", "stream_bytes_max", "shadow_share"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }
  EXPECT_TRUE(WorkerOptions{}.Validate().ok());
}

}  // namespace
}  // namespace epic
