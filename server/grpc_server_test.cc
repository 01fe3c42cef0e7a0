#include "server/grpc_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/limits.h"
#include "core/sync.h"
#include "epic/v1/document.grpc.pb.h"
#include "server/grpc_client.h"

namespace epic {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Clock = std::chrono::steady_clock;

Clock::time_point Soon() { return Clock::now() + std::chrono::seconds(30); }

// Answers GetDocument with what CompleteRequestContext and CallDeadline made of the call; WatchDocument runs until
// cancelled.
class ProbeService final : public v1::DocumentService::Service {
 public:
  grpc::Status GetDocument(grpc::ServerContext* context, const v1::GetDocumentRequest* request,
                           v1::GetDocumentResponse* response) override {
    const auto deadline = CallDeadline(*context, std::chrono::milliseconds(kControlDeadlineMsDefault));
    if (!deadline.ok()) return ToGrpcStatus(deadline.status());
    v1::RequestContext completed = request->context();
    if (const absl::Status status = CompleteRequestContext(*context, &completed); !status.ok())
      return ToGrpcStatus(status);
    response->mutable_document()->set_tenant(completed.tenant());
    response->mutable_document()->set_id(completed.request_id());
    response->mutable_document()->set_state_reason(completed.traceparent());
    response->set_text(std::string(static_cast<size_t>(request->context().tracestate().size()), 't'));
    return grpc::Status::OK;
  }

  grpc::Status WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest*,
                             grpc::ServerWriter<v1::WatchDocumentResponse>* writer) override {
    writer->Write(v1::WatchDocumentResponse());
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
  }
};

class GrpcServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = GrpcServer::Start({.listen_address = "127.0.0.1:0"}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  ProbeService service_;
  std::unique_ptr<GrpcServer> server_;
};

TEST_F(GrpcServerTest, AChosenPortIsReachable) {
  EXPECT_GT(server_->port(), 0);
  EXPECT_EQ(server_->address(), "127.0.0.1:" + std::to_string(server_->port()));
  const auto channel = CreateNetworkChannel(server_->address());
  EXPECT_TRUE(CheckHealth(channel.get(), "", Soon()).ok());
  EXPECT_TRUE(CheckHealth(channel.get(), "epic.v1.DocumentService", Soon()).ok());
  EXPECT_EQ(CheckHealth(channel.get(), "epic.v1.Nothing", Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, APortInUseIsOneSentence) {
  ProbeService other;
  const auto second = GrpcServer::Start({.listen_address = server_->address()}, {&other});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              StartsWith("cannot listen on " + server_->address() + ": the port is in use"));
}

TEST_F(GrpcServerTest, AnAddressWithoutPortIsRefused) {
  for (const std::string address : {"", "localhost", ":80", "h:", "h:99999", "h:-1", "h:x"}) {
    ProbeService other;
    EXPECT_EQ(GrpcServer::Start({.listen_address = address}, {&other}).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST_F(GrpcServerTest, HealthFollowsSetServing) {
  const auto channel = server_->InProcessChannel();
  server_->SetServing(false);
  const absl::Status status = CheckHealth(channel.get(), "", Soon());
  EXPECT_EQ(status.message(), "reached, and not serving now");
  server_->SetServing(true);
  EXPECT_TRUE(CheckHealth(channel.get(), "", Soon()).ok());
}

TEST_F(GrpcServerTest, HealthSaysWhenNobodyAnswers) {
  const std::string address = server_->address();
  server_->Shutdown(std::chrono::milliseconds(0));
  const auto channel = CreateNetworkChannel(address);
  EXPECT_THAT(std::string(CheckHealth(channel.get(), "", Soon()).message()), HasSubstr("not reached"));
}

TEST_F(GrpcServerTest, RequestContextIsCompletedAndChecked) {
  const auto stub = v1::DocumentService::NewStub(server_->InProcessChannel());
  v1::GetDocumentRequest request;
  v1::GetDocumentResponse response;
  v1::RequestContext trace;
  trace.set_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  ASSERT_TRUE(stub->GetDocument(MakeClientContext(Soon(), trace).get(), request, &response).ok());
  EXPECT_EQ(response.document().tenant(), "default");
  EXPECT_THAT(response.document().id(), StartsWith("req-"));
  EXPECT_EQ(response.document().state_reason(), trace.traceparent());
  const std::string first_id = response.document().id();
  ASSERT_TRUE(stub->GetDocument(MakeClientContext(Soon()).get(), request, &response).ok());
  EXPECT_NE(response.document().id(), first_id);

  request.mutable_context()->set_tenant("acme");
  request.mutable_context()->set_request_id("mine");
  ASSERT_TRUE(stub->GetDocument(MakeClientContext(Soon()).get(), request, &response).ok());
  EXPECT_EQ(response.document().tenant(), "acme");
  EXPECT_EQ(response.document().id(), "mine");

  request.mutable_context()->set_tenant(std::string(kTenantBytesMax + 1, 'a'));
  absl::Status status = FromGrpcStatus(stub->GetDocument(MakeClientContext(Soon()).get(), request, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("context.tenant"));
  request.mutable_context()->set_tenant("acme");
  request.mutable_context()->set_traceparent(std::string(600, 'x'));
  status = FromGrpcStatus(stub->GetDocument(MakeClientContext(Soon()).get(), request, &response));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the limit of each is 512"));
}

TEST_F(GrpcServerTest, MessagesBeyondTheLimitAreRefused) {
  const auto stub = v1::DocumentService::NewStub(server_->InProcessChannel());
  v1::GetDocumentRequest request;
  request.set_document_id(std::string(kGrpcMessageBytesMax + 1, 'x'));
  v1::GetDocumentResponse response;
  EXPECT_EQ(stub->GetDocument(MakeClientContext(Soon()).get(), request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcServerTest, ShutdownCancelsWhatDoesNotEnd) {
  const auto channel = CreateNetworkChannel(server_->address());
  const auto stub = v1::DocumentService::NewStub(channel);
  const auto context = MakeClientContext(Soon());
  const auto reader = stub->WatchDocument(context.get(), v1::WatchDocumentRequest());
  v1::WatchDocumentResponse response;
  ASSERT_TRUE(reader->Read(&response));
  server_->Shutdown(std::chrono::milliseconds(1));
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_FALSE(reader->Finish().ok());
  server_->Shutdown(std::chrono::milliseconds(1));  // a second call does nothing
}

TEST(SteadyDeadlineTest, PastDefaultAndFar) {
  const auto wall = std::chrono::system_clock::now();
  const auto steady = Clock::now();
  const std::chrono::milliseconds budget(10'000);
  EXPECT_EQ(*SteadyDeadline(std::chrono::system_clock::time_point::max(), wall, steady, budget), steady + budget);
  EXPECT_EQ(*SteadyDeadline(wall + std::chrono::seconds(3), wall, steady, budget), steady + std::chrono::seconds(3));
  EXPECT_EQ(*SteadyDeadline(wall + std::chrono::hours(24 * 365 * 200), wall, steady, budget),
            steady + std::chrono::hours(24 * 365));
  const auto past = SteadyDeadline(wall - std::chrono::milliseconds(5), wall, steady, budget);
  EXPECT_EQ(past.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(past.status().message()), HasSubstr("passed 5 ms before"));
  EXPECT_EQ(SteadyDeadline(wall, wall, steady, budget).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(StatusConversionTest, EveryCodeAndItsMessageSurvive) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "message");
    const grpc::Status converted = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(converted.error_code()), code);
    EXPECT_EQ(FromGrpcStatus(converted), status);
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

}  // namespace
}  // namespace epic
