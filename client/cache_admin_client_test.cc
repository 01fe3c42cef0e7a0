#include "client/cache_admin_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "epic/v1/cache_admin.grpc.pb.h"
#include "server/grpc_server.h"

namespace epic::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// Answers with what it was asked, so that a test sees that everything crossed the wire.
class FakeAdminService final : public v1::CacheAdminService::Service {
 public:
  grpc::Status GetTiers(grpc::ServerContext* context, const v1::GetTiersRequest*,
                        v1::GetTiersResponse* response) override {
    if (hangs_) {
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
    }
    response->set_document_count(7);
    return grpc::Status::OK;
  }
  grpc::Status PinDocument(grpc::ServerContext*, const v1::PinDocumentRequest* request,
                           v1::PinDocumentResponse* response) override {
    if (request->document_id() == "absent") {
      return grpc::Status(grpc::StatusCode::NOT_FOUND,
                          "tenant " + request->context().tenant() + " has no such document");
    }
    if (request->document_id() == "disk fails") return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the disk fails");
    response->set_bytes(static_cast<int64_t>(request->document_id().size()));
    return grpc::Status::OK;
  }
  grpc::Status UnpinDocument(grpc::ServerContext*, const v1::UnpinDocumentRequest* request,
                             v1::UnpinDocumentResponse* response) override {
    response->set_was_pinned(request->document_id() == "pinned" && request->context().tenant() == "acme");
    return grpc::Status::OK;
  }
  grpc::Status EvictBlocks(grpc::ServerContext*, const v1::EvictBlocksRequest* request,
                           v1::EvictBlocksResponse* response) override {
    response->set_evicted_host_blocks(request->document_ids_size());
    response->set_evicted_disk_blocks(request->tier());
    response->set_kept_blocks(request->context().tenant() == "acme" ? 1 : 0);
    return grpc::Status::OK;
  }
  grpc::Status VerifyBlocks(grpc::ServerContext*, const v1::VerifyBlocksRequest* request,
                            grpc::ServerWriter<v1::VerifyBlocksResponse>* writer) override {
    if (request->tier() == v1::TIER_HOST) return grpc::Status::OK;
    v1::VerifyBlocksResponse message;
    message.set_total_blocks(2);
    message.set_verified_blocks(1);
    message.set_bad_blocks(1);
    message.add_faults("aa: first");
    writer->Write(message);
    message.set_verified_blocks(2);
    message.set_bad_blocks(2);
    message.set_faults(0, "bb: second");
    writer->Write(message);
    message.clear_faults();
    writer->Write(message);
    return grpc::Status::OK;
  }
  grpc::Status Compact(grpc::ServerContext*, const v1::CompactRequest*, v1::CompactResponse* response) override {
    response->set_bytes_before(10);
    response->set_bytes_after(4);
    return grpc::Status::OK;
  }

  void Hang() { hangs_ = true; }

 private:
  std::atomic<bool> hangs_ = false;
};

CacheAdminOptions At(const std::string& address) {
  CacheAdminOptions options;
  options.node = address;
  return options;
}

// A server that is no cache node.
class OtherService final : public v1::CacheAdminService::Service {};

class CacheAdminClientTest : public testing::Test {
 protected:
  void SetUp() override {
    server_ = GrpcServer::Start({.listen_address = "127.0.0.1:0"}, {&service_}).value();
    client_ = CacheAdminClient::Connect({.node = server_->address(), .tenant = "acme"}).value();
  }

  FakeAdminService service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<CacheAdminClient> client_;
};

TEST_F(CacheAdminClientTest, CarriesTenantIdsAndTier) {
  EXPECT_EQ(client_->GetTiers()->document_count(), 7);
  EXPECT_EQ(client_->PinDocument("four")->bytes(), 4);
  EXPECT_TRUE(client_->UnpinDocument("pinned")->was_pinned());
  EXPECT_FALSE(client_->UnpinDocument("other")->was_pinned());
  const auto evicted = client_->EvictBlocks({"a", "b", "c"}, v1::TIER_DISK);
  ASSERT_TRUE(evicted.ok()) << evicted.status();
  EXPECT_EQ(evicted->evicted_host_blocks(), 3);
  EXPECT_EQ(evicted->evicted_disk_blocks(), v1::TIER_DISK);
  EXPECT_EQ(evicted->kept_blocks(), 1);
  EXPECT_EQ(client_->Compact()->bytes_after(), 4);
}

TEST_F(CacheAdminClientTest, AVerificationReportsEachMessageAndKeepsEveryFault) {
  std::vector<int64_t> steps;
  const auto verified = client_->VerifyBlocks(
      v1::TIER_UNSPECIFIED, [&](const v1::VerifyBlocksResponse& so_far) { steps.push_back(so_far.verified_blocks()); });
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_THAT(steps, ElementsAre(1, 2, 2));
  EXPECT_EQ(verified->bad_blocks(), 2);
  EXPECT_THAT(verified->faults(), ElementsAre("aa: first", "bb: second"));
  EXPECT_TRUE(client_->VerifyBlocks(v1::TIER_DISK, nullptr).ok());
}

TEST_F(CacheAdminClientTest, AVerificationWithoutTotalsIsNoSuccess) {
  const absl::Status status = client_->VerifyBlocks(v1::TIER_HOST, nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("without a result"));
}

TEST_F(CacheAdminClientTest, TheNodesOwnSentenceIsKept) {
  const absl::Status absent = client_->PinDocument("absent").status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(absent.message(), "tenant acme has no such document");
  const absl::Status unavailable = client_->PinDocument("disk fails").status();
  EXPECT_EQ(unavailable.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unavailable.message(), "the disk fails");
}

TEST_F(CacheAdminClientTest, WhereNoNodeAnswersTheSentenceSaysWhatToDo) {
  server_->Shutdown(std::chrono::milliseconds(0));
  const absl::Status status = client_->GetTiers().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), StartsWith("no answer from " + server_->address() + ": "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("`epic status` shows the cache nodes' addresses"));
}

TEST_F(CacheAdminClientTest, ANodeThatHangsIsGivenUp) {
  service_.Hang();
  CacheAdminOptions options = At(server_->address());
  options.control_timeout = std::chrono::milliseconds(1);
  const auto client = CacheAdminClient::Connect(options).value();
  const absl::Status status = client->GetTiers().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did not answer within 1 ms"));
}

TEST(CacheAdminClientOfAnotherServerTest, SaysThatItIsNoCacheNode) {
  OtherService service;
  const auto server = GrpcServer::Start({.listen_address = "127.0.0.1:0"}, {&service}).value();
  const auto client = CacheAdminClient::Connect(At(server->address())).value();
  const absl::Status status = client->Compact().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), StartsWith(server->address() + " is no cache node"));
}

TEST(CacheAdminClientConnectTest, RefusesWhatIsNoAddress) {
  const absl::Status status = CacheAdminClient::Connect(At("localhost")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("node"));
}

}  // namespace
}  // namespace epic::client
