#include "inference_worker/worker_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "epic/v1/inference.grpc.pb.h"
#include "inference_worker/fake_engine.h"
#include "inference_worker/worker.h"
#include "transfer/fake_block_source.h"
#include "transfer/synthetic_blocks.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class WorkerServerTest : public testing::Test {
 protected:
  void SetUp() override { StartServer(0); }
  void StartServer(double shadow_share) {
    server_.reset();
    WorkerServerOptions options;
    options.worker.shadow_share = shadow_share;
    options.server.listen_address = "127.0.0.1:0";
    options.worker.cache.capacity_bytes = 4 << 20;
    options.worker.stream_bytes_max = 1 << 20;
    options.worker_id = "worker-7";
    options.allowed_linkers = {"legolink:16"};
    auto server = WorkerServer::Create(
        options, &engine_,
        [this](const std::string&) -> absl::StatusOr<std::shared_ptr<BlockSource>> {
          return std::shared_ptr<BlockSource>(&node_, [](BlockSource*) {});
        },
        metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = CreateNetworkChannel(server_->address());
    stub_ = v1::InferenceService::NewStub(channel_);
  }

  std::vector<int32_t> ChunkIds() const { return std::vector<int32_t>(40, 7); }
  v1::InferRequest Request() const {
    v1::InferRequest request;
    request.mutable_context()->set_request_id("r-1");
    request.set_chat(true);
    request.mutable_recipe()->set_id("plain");
    v1::InferMessage* message = request.add_messages();
    message->set_role("user");
    v1::InferChunk* chunk = message->add_segments()->mutable_chunk();
    chunk->set_document_id("manual");
    const KvBlockInfo info = SyntheticBlockInfo(kSmallSyntheticShape, Recipe{"plain", {}}, "default", ChunkIds());
    chunk->mutable_chunk()->set_key(std::string(info.key.AsBytes()));
    for (const int32_t id : ChunkIds()) chunk->mutable_chunk()->add_token_ids(id);
    chunk->mutable_chunk()->set_home("node-a:1");
    message->add_segments()->set_text("why?");
    request.set_explain(true);
    return request;
  }

  struct Answer {
    std::string text;
    v1::GenerateFinal final;
    int finals = 0;
    absl::Status status;
  };
  Answer Ask(const v1::InferRequest& request, grpc::ClientContext* context) {
    Answer answer;
    auto reader = stub_->Infer(context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      answer.text += response.text();
      if (response.has_final()) {
        answer.final = response.final();
        ++answer.finals;
      }
    }
    answer.status = FromGrpcStatus(reader->Finish());
    return answer;
  }
  Answer Ask(const v1::InferRequest& request) {
    grpc::ClientContext context;
    return Ask(request, &context);
  }
  // Waits until the worker has nothing in work.
  void WaitUntilIdle() {
    while (server_->worker()->Status().loading_requests > 0 || engine_.Load().running_requests > 0) {
      std::this_thread::yield();
    }
  }

  FakeEngine engine_;
  FakeBlockSource node_{{.address = "node-a:1"}};
  std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  std::unique_ptr<WorkerServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

TEST_F(WorkerServerTest, StreamsAnAnswerAndEndsWithItsFinal) {
  const Answer answer = Ask(Request());
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text.size(), 8U);
  EXPECT_EQ(answer.finals, 1);
  EXPECT_EQ(answer.final.worker_id(), "worker-7");
  EXPECT_EQ(answer.final.request_id(), "r-1");
  EXPECT_EQ(answer.final.linker(), "legolink:16");
  EXPECT_EQ(answer.final.linker_note(), "");
  ASSERT_EQ(answer.final.plan_size(), 1);
  EXPECT_EQ(answer.final.plan(0).source(), "compiled by worker");
  EXPECT_EQ(Ask(Request()).text, answer.text);
}

TEST_F(WorkerServerTest, ErrorsKeepTheirCodeAndSentence) {
  v1::InferRequest request = Request();
  request.set_linker("legolink:-1");
  Answer answer = Ask(request);
  EXPECT_TRUE(absl::IsInvalidArgument(answer.status)) << answer.status;
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("-1"));

  request = Request();
  request.mutable_messages(0)->mutable_segments(0)->mutable_chunk()->mutable_chunk()->set_key("short");
  EXPECT_TRUE(absl::IsInvalidArgument(Ask(request).status));

  request = Request();
  request.set_model_fingerprint("of another model");
  answer = Ask(request);
  EXPECT_TRUE(absl::IsFailedPrecondition(answer.status)) << answer.status;
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("another model"));
}

TEST_F(WorkerServerTest, CancellationReachesTheEngine) {
  engine_.Hold();
  grpc::ClientContext context;
  auto reader = stub_->Infer(&context, Request());
  engine_.WaitForJobs(1);
  context.TryCancel();
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  WaitUntilIdle();  // although the engine is held: the request was taken from it
}

TEST_F(WorkerServerTest, DeadlinesReachTheEngine) {
  engine_.Hold();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(Request(), &context).status));
  WaitUntilIdle();
}

TEST_F(WorkerServerTest, AClientThatStopsReadingIsCutOffAndOthersGoOn) {
  v1::InferRequest request = Request();
  request.mutable_sampling()->set_max_output_tokens(1'000'000);
  request.mutable_sampling()->set_ignore_end_of_turn(true);
  request.set_top_logprobs(FakeEngine::kVocabSize);
  grpc::ClientContext context;
  auto reader = stub_->Infer(&context, request);
  EXPECT_TRUE(Ask(Request()).status.ok());
  WaitUntilIdle();  // its request ends although nobody reads
  v1::GenerateResponse response;
  while (reader->Read(&response)) EXPECT_FALSE(response.has_final());
  const grpc::Status status = reader->Finish();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(metrics_->TextExposition(), HasSubstr("epic_worker_slow_clients_total 1"));
}

TEST_F(WorkerServerTest, ReportsLoadModelAndResidentChunks) {
  ASSERT_TRUE(Ask(Request()).status.ok());
  v1::GetWorkerStatusRequest request;
  request.add_chunk_keys(Request().messages(0).segments(0).chunk().chunk().key());
  request.add_chunk_keys(std::string(32, 'x'));
  v1::GetWorkerStatusResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->GetWorkerStatus(&context, request, &response).ok());
  }
  EXPECT_EQ(response.worker_id(), "worker-7");
  EXPECT_FALSE(response.version().empty());
  EXPECT_EQ(response.requests_total(), 1U);
  ASSERT_EQ(response.resident_size(), 2);
  EXPECT_TRUE(response.resident(0));
  EXPECT_FALSE(response.resident(1));
  EXPECT_GT(response.cache_used_bytes(), 0);

  request.add_chunk_keys("short");
  grpc::ClientContext context;
  EXPECT_EQ(stub_->GetWorkerStatus(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(WorkerServerTest, CountsWhatItDoes) {
  ASSERT_TRUE(Ask(Request()).status.ok());
  const std::string text = metrics_->TextExposition();
  for (const char* line :
       {"epic_worker_requests_total{code=\"OK\",linker=\"legolink\"} 1", "epic_worker_ttft_seconds_count",
        "epic_worker_tokens_total{kind=\"cached\"} 40", "epic_worker_tokens_total{kind=\"generated\"} 8",
        "epic_worker_chunks_total{source=\"compiled by worker\"} 1",
        "epic_worker_compile_fallbacks_total{cause=\"absent\"} 1", "epic_worker_cache_blocks 1"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(WorkerServerTest, TellsAndCountsItsShadowChecks) {
  metrics_ = std::make_shared<Metrics>();
  StartServer(1);
  engine_.SetFirstTokenCandidates(LinkerKind::kFull, {{8, -0.1F}});
  v1::GetWorkerStatusResponse response;
  for (int checks = 1; checks <= 12; ++checks) {
    const Answer answer = Ask(Request());
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    while (response.shadow_size() == 0 || response.shadow(0).checks() < checks) {
      grpc::ClientContext context;
      ASSERT_TRUE(stub_->GetWorkerStatus(&context, v1::GetWorkerStatusRequest(), &response).ok());
    }
  }
  EXPECT_EQ(response.shadow(0).linker(), "legolink:16");
  EXPECT_EQ(response.shadow(0).first_token_agreement(), 0);
  EXPECT_THAT(response.shadow(0).problem(), HasSubstr("0.0 %"));
  engine_.SetGenerateError(LinkerKind::kFull, absl::ResourceExhaustedError("too large"));
  ASSERT_TRUE(Ask(Request()).status.ok());
  // Shows in the metrics a moment after the status.
  const auto shows = [this](const std::string& line) {
    return metrics_->TextExposition().find(line) != std::string::npos;
  };
  for (const char* line :
       {"epic_worker_shadow_checks_total{linker=\"legolink\",result=\"disagree\"} 12",
        "epic_worker_shadow_kl_nats_count{linker=\"legolink\"} 12",
        "epic_worker_shadow_lost_total{reason=\"failed\"} 1", "epic_worker_shadow_waiting_checks 0"}) {
    while (!shows(line)) std::this_thread::yield();
  }
}

TEST_F(WorkerServerTest, AnswersHealthChecksAndEndsThemAtShutdown) {
  const auto soon = [] { return std::chrono::steady_clock::now() + std::chrono::seconds(10); };
  EXPECT_TRUE(CheckHealth(channel_.get(), "epic.v1.InferenceService", soon()).ok());
  server_->Shutdown(milliseconds(0));
  EXPECT_FALSE(CheckHealth(channel_.get(), "", std::chrono::steady_clock::now() + milliseconds(200)).ok());
}

TEST_F(WorkerServerTest, ShutdownEndsRunningRequestsAfterItsGrace) {
  engine_.Hold();
  grpc::ClientContext context;
  auto reader = stub_->Infer(&context, Request());
  engine_.WaitForJobs(1);
  server_->Shutdown(milliseconds(10));
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(WorkerServerTest, APortInUseIsNamed) {
  WorkerServerOptions options;
  options.server.listen_address = server_->address();
  const auto second = WorkerServer::Create(options, &engine_, NetworkBlockSources(CreateNetworkChannel), nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
}

TEST(WorkerOptionsDeclarationTest, EveryOptionCanBeSet) {
  WorkerServerOptions options;
  EngineOptions engine;
  ProcessOptions process;
  Config config("test", "A test.");
  DeclareEngineOptions(&engine, &config);
  DeclareWorkerServerOptions(&options, &config);
  DeclareProcessOptions(&process, &config);
  const auto outcome = config.Parse({"--model=m.gguf", "--worker-cache-bytes=64MiB", "--worker-id=w", "--threads=2",
                                     "--node-timeout=5s", "--client-buffer-bytes=2MiB", "--listen=127.0.0.1:0",
                                     "--linker-verdicts=v", "--allow-linkers=naive,legolink:2", "--shadow-share=0.5"},
                                    [](const std::string&) { return std::nullopt; });
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(engine.model_path, "m.gguf");
  EXPECT_EQ(engine.threads, 2);
  EXPECT_EQ(options.worker.cache.capacity_bytes, size_t{64} << 20);
  EXPECT_EQ(options.worker.stream_bytes_max, size_t{2} << 20);
  EXPECT_EQ(options.worker.nodes.node_timeout, std::chrono::seconds(5));
  EXPECT_EQ(options.worker_id, "w");
  EXPECT_EQ(options.verdicts, "v");
  EXPECT_EQ(options.worker.shadow_share, 0.5);
  EXPECT_EQ(options.allowed_linkers, (std::vector<std::string>{"naive", "legolink:2"}));
  EXPECT_TRUE(options.Validate().ok());
  options.allowed_linkers = {"naif"};
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("naif"));
}

}  // namespace
}  // namespace epic
