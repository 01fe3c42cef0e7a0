// The router as a server: status, metrics, in-process channels, its port and its end.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "router/router_server_testing.h"

namespace epic {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(RouterServerTest, StatusAndModelsShowEveryMember) {
  ASSERT_TRUE(Create("d", "text").ok());
  v1::ListModelsResponse models;
  ASSERT_TRUE(generate_->ListModels(MakeClientContext(Soon()).get(), v1::ListModelsRequest(), &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "tiny");

  workers_[0].server()->Shutdown(std::chrono::milliseconds(0));
  nodes_[1].server()->SetServing(false);
  v1::GetStatusResponse status;
  ASSERT_TRUE(generate_->GetStatus(MakeClientContext(Soon()).get(), v1::GetStatusRequest(), &status).ok());
  EXPECT_FALSE(status.version().empty());
  std::map<std::string, std::string> health;
  for (const v1::NodeStatus& node : status.cache_nodes()) {
    health[node.address()] = node.health();
    EXPECT_EQ(node.capacity_bytes(), node.health() == "serving" ? 77 : 0);
  }
  for (const v1::WorkerStatus& worker : status.workers()) health[worker.address()] = worker.health();
  EXPECT_EQ(health[nodes_[0].server()->address()], "serving");
  EXPECT_EQ(health[nodes_[1].server()->address()], "reached, and not serving now");
  EXPECT_EQ(health[workers_[1].server()->address()], "serving");
  EXPECT_THAT(health[workers_[0].server()->address()], StartsWith("not reached"));
}

TEST_F(RouterServerTest, StatusTellsEachWorkersShadowChecks) {
  v1::ShadowFigures figures;
  figures.set_linker("legolink:16");
  figures.set_checks(40);
  figures.set_first_token_agreement(0.5);
  figures.set_mean_kl(0.25);
  figures.set_problem("the first token agrees too seldom");
  workers_[1].SetShadow({figures});
  v1::GetStatusResponse status;
  ASSERT_TRUE(generate_->GetStatus(MakeClientContext(Soon()).get(), v1::GetStatusRequest(), &status).ok());
  for (const v1::WorkerStatus& worker : status.workers()) {
    const bool checks = worker.address() == workers_[1].server()->address();
    ASSERT_EQ(worker.shadow_size(), checks ? 1 : 0);
    if (!checks) continue;
    EXPECT_EQ(worker.shadow(0).SerializeAsString(), figures.SerializeAsString());
  }
}

TEST_F(RouterServerTest, WhatHappensIsCounted) {
  ASSERT_TRUE(Create("d", "text").ok());
  EXPECT_TRUE(Generate(Ask({"d"})).status.ok());
  EXPECT_FALSE(Generate(Ask({"e"})).status.ok());
  v1::GenerateRequest request = Ask({});
  request.set_linker("nonsense");
  EXPECT_FALSE(Generate(request).status.ok());
  const std::string text = metrics_->TextExposition();
  EXPECT_THAT(text, HasSubstr("epic_router_requests_total{code=\"OK\",linker=\"legolink\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_router_requests_total{code=\"NOT_FOUND\",linker=\"legolink\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_router_requests_total{code=\"INVALID_ARGUMENT\",linker=\"invalid\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_router_document_calls_total{code=\"OK\",method=\"create\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_router_ttft_seconds_count{linker=\"legolink\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_router_running_requests 0"));
}

TEST_F(RouterServerTest, ShutdownEndsWhatRuns) {
  for (FakeWorker& worker : workers_) {
    worker.SetScript([&](grpc::ServerContext* context, const v1::InferRequest&, FakeWorker::Writer*) {
      gate_.Arrive();
      gate_.AwaitOpenOrCancelled(context);
      return grpc::Status::CANCELLED;
    });
  }
  std::future<Answer> answer = std::async(std::launch::async, [&] { return Generate(Ask({})); });
  gate_.AwaitArrivals(1);
  router_->Shutdown(std::chrono::milliseconds(10));
  EXPECT_FALSE(answer.get().status.ok());
}

TEST_F(RouterServerTest, TheSameThroughInProcessChannels) {
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels;
  RouterOptions options;
  options.server.listen_address = "127.0.0.1:0";
  options.cache_nodes = {"node:1"};
  options.workers = {"worker:1"};
  channels["node:1"] = nodes_[0].server()->InProcessChannel();
  channels["worker:1"] = workers_[0].server()->InProcessChannel();
  auto router = RouterServer::Create(
      options, [&](const std::string& address) { return channels.at(address); }, nullptr);
  ASSERT_TRUE(router.ok()) << router.status();
  channel_ = (*router)->InProcessChannel();
  documents_ = v1::DocumentService::NewStub(channel_);
  generate_ = v1::GenerateService::NewStub(channel_);
  ASSERT_TRUE(Create("d", "text").ok());
  const Answer answer = Generate(Ask({"d"}));
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.text, "ok");
  // Cancellation crosses both in-process hops.
  workers_[0].SetScript([&](grpc::ServerContext* context, const v1::InferRequest&, FakeWorker::Writer* writer) {
    writer->Write(FakeWorker::TokenMessage("first"));
    if (!gate_.AwaitOpenOrCancelled(context)) cancelled_.Arrive();
    return grpc::Status::CANCELLED;
  });
  const auto context = MakeClientContext(Soon());
  const auto reader = generate_->Generate(context.get(), Ask({}));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context->TryCancel();
  cancelled_.AwaitArrivals(1);
  EXPECT_FALSE(reader->Finish().ok());
  (*router)->Shutdown(std::chrono::milliseconds(0));
}

TEST_F(RouterServerTest, APortInUseIsOneSentence) {
  RouterOptions options;
  options.server.listen_address = router_->address();
  options.cache_nodes = {"n:1"};
  options.workers = {"w:1"};
  const auto second = RouterServer::Create(options, CreateNetworkChannel, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(router_->address()));
}

}  // namespace
}  // namespace epic
