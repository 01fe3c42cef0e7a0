#include "client/cache_admin_client.h"

#include <grpcpp/grpcpp.h>

#include <random>
#include <utility>

#include "core/status_macros.h"
#include "epic/v1/cache_admin.grpc.pb.h"
#include "fmt/format.h"
#include "server/grpc_client.h"
#include "server/server_options.h"

namespace epic::client {
namespace {

using std::chrono::milliseconds;

class GrpcCacheAdminClient : public CacheAdminClient {
 public:
  explicit GrpcCacheAdminClient(const CacheAdminOptions& options)
      : options_(options),
        channel_(CreateNetworkChannel(options.node)),
        stub_(v1::CacheAdminService::NewStub(channel_)) {}

  absl::StatusOr<v1::GetTiersResponse> GetTiers() override {
    v1::GetTiersResponse response;
    const auto context = NewCall(options_.control_timeout);
    EPIC_RETURN_IF_ERROR(
        Explain(stub_->GetTiers(context.get(), v1::GetTiersRequest(), &response), options_.control_timeout));
    return response;
  }

  absl::StatusOr<v1::PinDocumentResponse> PinDocument(const std::string& id) override {
    v1::PinDocumentRequest request;
    *request.mutable_context() = NewRequestContext();
    request.set_document_id(id);
    v1::PinDocumentResponse response;
    const auto context = NewCall(options_.control_timeout);
    EPIC_RETURN_IF_ERROR(Explain(stub_->PinDocument(context.get(), request, &response), options_.control_timeout));
    return response;
  }

  absl::StatusOr<v1::UnpinDocumentResponse> UnpinDocument(const std::string& id) override {
    v1::UnpinDocumentRequest request;
    *request.mutable_context() = NewRequestContext();
    request.set_document_id(id);
    v1::UnpinDocumentResponse response;
    const auto context = NewCall(options_.control_timeout);
    EPIC_RETURN_IF_ERROR(Explain(stub_->UnpinDocument(context.get(), request, &response), options_.control_timeout));
    return response;
  }

  absl::StatusOr<v1::EvictBlocksResponse> EvictBlocks(const std::vector<std::string>& ids, v1::Tier tier) override {
    v1::EvictBlocksRequest request;
    *request.mutable_context() = NewRequestContext();
    request.mutable_document_ids()->Add(ids.begin(), ids.end());
    request.set_tier(tier);
    v1::EvictBlocksResponse response;
    const auto context = NewCall(options_.control_timeout);
    EPIC_RETURN_IF_ERROR(Explain(stub_->EvictBlocks(context.get(), request, &response), options_.control_timeout));
    return response;
  }

  absl::StatusOr<v1::VerifyBlocksResponse> VerifyBlocks(
      v1::Tier tier, const std::function<void(const v1::VerifyBlocksResponse&)>& progress) override {
    v1::VerifyBlocksRequest request;
    request.set_tier(tier);
    const auto context = NewCall(options_.long_timeout);
    const auto reader = stub_->VerifyBlocks(context.get(), request);
    v1::VerifyBlocksResponse totals, message;
    google::protobuf::RepeatedPtrField<std::string> faults;
    bool has_totals = false;
    while (reader->Read(&message)) {
      has_totals = true;
      if (progress) progress(message);
      faults.MergeFrom(message.faults());
      totals.Swap(&message);
    }
    EPIC_RETURN_IF_ERROR(Explain(reader->Finish(), options_.long_timeout));
    if (!has_totals) {
      return absl::DataLossError(
          fmt::format("the cache node at {} ended the verification without a result: look at its log", options_.node));
    }
    totals.mutable_faults()->Swap(&faults);
    return totals;
  }

  absl::StatusOr<v1::CompactResponse> Compact() override {
    v1::CompactResponse response;
    const auto context = NewCall(options_.long_timeout);
    EPIC_RETURN_IF_ERROR(
        Explain(stub_->Compact(context.get(), v1::CompactRequest(), &response), options_.long_timeout));
    return response;
  }

 private:
  static std::unique_ptr<grpc::ClientContext> NewCall(milliseconds timeout) {
    return MakeClientContext(std::chrono::steady_clock::now() + timeout);
  }

  v1::RequestContext NewRequestContext() const {
    static thread_local std::mt19937_64 generator{std::random_device{}()};
    v1::RequestContext context;
    context.set_tenant(options_.tenant);
    context.set_request_id(fmt::format("client-{:016x}", generator()));
    return context;
  }

  // The node's own sentence, or one that says what to do where no cache node answered.
  absl::Status Explain(const grpc::Status& status, milliseconds timeout) const {
    absl::Status converted = FromGrpcStatus(status);
    const bool is_connected = channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
    if (converted.code() == absl::StatusCode::kUnimplemented) {
      return absl::UnimplementedError(
          fmt::format("{} is no cache node, or one of an older version (`epic status` shows the cache nodes' "
                      "addresses; --node takes one)",
                      options_.node));
    }
    if (converted.code() == absl::StatusCode::kDeadlineExceeded) {
      return absl::DeadlineExceededError(fmt::format("the cache node at {} did not answer within {} ms: {}",
                                                     options_.node, timeout.count(), std::string(converted.message())));
    }
    if (converted.code() != absl::StatusCode::kUnavailable || is_connected) return converted;
    return absl::UnavailableError(
        fmt::format("no answer from {}: {} (is a cache node there? `epic status` shows the cache nodes' addresses; "
                    "--node takes one)",
                    options_.node, std::string(converted.message())));
  }

  const CacheAdminOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CacheAdminService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CacheAdminClient>> CacheAdminClient::Connect(const CacheAdminOptions& options) {
  EPIC_RETURN_IF_ERROR(ValidateHostPort("node", options.node));
  return std::make_unique<GrpcCacheAdminClient>(options);
}

}  // namespace epic::client
