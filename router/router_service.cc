#include "router/router_service.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "core/limits.h"
#include "core/status_macros.h"
#include "router/status_report.h"
#include "server/grpc_server.h"
#include "server/server_options.h"

namespace epic {
namespace {

constexpr std::chrono::milliseconds kControlBudget{kControlDeadlineMsDefault};
constexpr std::chrono::milliseconds kGenerateBudget{kGenerateDeadlineMsDefault};

absl::StatusOr<CallScope> ScopeOf(const grpc::ServerContext& context, std::chrono::milliseconds default_budget) {
  EPIC_ASSIGN_OR_RETURN(const auto deadline, CallDeadline(context, default_budget));
  return CallScope{deadline, &context};
}

// A document call that has one answer: `forward(scope, request)`.
template <typename Request, typename Response, typename Forward>
absl::Status Forwarded(grpc::ServerContext* context, const Request& request, Response* response,
                       const Forward& forward) {
  EPIC_ASSIGN_OR_RETURN(const CallScope scope, ScopeOf(*context, kControlBudget));
  Request completed = request;
  EPIC_RETURN_IF_ERROR(CompleteRequestContext(*context, completed.mutable_context()));
  EPIC_ASSIGN_OR_RETURN(*response, forward(scope, std::move(completed)));
  return absl::OkStatus();
}

}  // namespace

grpc::Status RouterDocumentService::CreateDocument(grpc::ServerContext* context,
                                                   const v1::CreateDocumentRequest* request,
                                                   v1::CreateDocumentResponse* response) {
  const absl::Status status =
      Forwarded(context, *request, response, [&](const CallScope& scope, v1::CreateDocumentRequest completed) {
        return router_->Create(scope, std::move(completed));
      });
  metrics_->CountDocumentCall("create", status);
  return ToGrpcStatus(status);
}

grpc::Status RouterDocumentService::GetDocument(grpc::ServerContext* context, const v1::GetDocumentRequest* request,
                                                v1::GetDocumentResponse* response) {
  const absl::Status status = Forwarded(
      context, *request, response,
      [&](const CallScope& scope, const v1::GetDocumentRequest& completed) { return router_->Get(scope, completed); });
  metrics_->CountDocumentCall("get", status);
  return ToGrpcStatus(status);
}

grpc::Status RouterDocumentService::ListDocuments(grpc::ServerContext* context, const v1::ListDocumentsRequest* request,
                                                  v1::ListDocumentsResponse* response) {
  const absl::Status status =
      Forwarded(context, *request, response, [&](const CallScope& scope, const v1::ListDocumentsRequest& completed) {
        return router_->List(scope, completed);
      });
  metrics_->CountDocumentCall("list", status);
  return ToGrpcStatus(status);
}

grpc::Status RouterDocumentService::DeleteDocument(grpc::ServerContext* context,
                                                   const v1::DeleteDocumentRequest* request,
                                                   v1::DeleteDocumentResponse* response) {
  const absl::Status status =
      Forwarded(context, *request, response, [&](const CallScope& scope, const v1::DeleteDocumentRequest& completed) {
        return router_->Delete(scope, completed);
      });
  metrics_->CountDocumentCall("delete", status);
  return ToGrpcStatus(status);
}

grpc::Status RouterDocumentService::WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest* request,
                                                  grpc::ServerWriter<v1::WatchDocumentResponse>* writer) {
  const auto watch = [&]() -> absl::Status {
    // As long as an answer may take: compilation is the same work.
    EPIC_ASSIGN_OR_RETURN(const CallScope scope, ScopeOf(*context, kGenerateBudget));
    v1::WatchDocumentRequest completed = *request;
    EPIC_RETURN_IF_ERROR(CompleteRequestContext(*context, completed.mutable_context()));
    return router_->Watch(scope, completed,
                          [&](const v1::WatchDocumentResponse& state) { return writer->Write(state); });
  };
  const absl::Status status = watch();
  metrics_->CountDocumentCall("watch", status);
  return ToGrpcStatus(status);
}

grpc::Status RouterDocumentService::ResolveDocuments(grpc::ServerContext*, const v1::ResolveDocumentsRequest*,
                                                     v1::ResolveDocumentsResponse*) {
  return ToGrpcStatus(absl::UnimplementedError(
      "the router resolves documents for the requests that it places; ask a cache node to see a document's chunks"));
}

grpc::Status RouterGenerateService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                             grpc::ServerWriter<v1::GenerateResponse>* writer) {
  const auto arrival = std::chrono::steady_clock::now();
  v1::GenerateRequest completed = *request;
  const auto generate = [&]() -> absl::Status {
    EPIC_ASSIGN_OR_RETURN(const CallScope scope, ScopeOf(*context, kGenerateBudget));
    EPIC_RETURN_IF_ERROR(CompleteRequestContext(*context, completed.mutable_context()));
    return router_->Generate(scope, completed, arrival,
                             [&](const v1::GenerateResponse& message) { return writer->Write(message); });
  };
  const absl::Status status = generate();
  if (!status.ok()) {
    spdlog::info("request {}: {} {}", completed.context().request_id(), absl::StatusCodeToString(status.code()),
                 std::string(status.message()));
  }
  return ToGrpcStatus(status);
}

grpc::Status RouterGenerateService::ListModels(grpc::ServerContext* context, const v1::ListModelsRequest*,
                                               v1::ListModelsResponse* response) {
  const auto list = [&]() -> absl::Status {
    EPIC_ASSIGN_OR_RETURN(const CallScope scope, ScopeOf(*context, kControlBudget));
    EPIC_ASSIGN_OR_RETURN(*response, router_->ListModels(scope));
    return absl::OkStatus();
  };
  return ToGrpcStatus(list());
}

grpc::Status RouterGenerateService::GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                                              v1::GetStatusResponse* response) {
  const absl::StatusOr<CallScope> scope = ScopeOf(*context, kControlBudget);
  if (!scope.ok()) return ToGrpcStatus(scope.status());
  *response = MakeStatusReport(*scope, *membership_, backends_, status_timeout_);
  response->set_version(EpicVersion());
  response->set_uptime_ms(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start_).count());
  return grpc::Status::OK;
}

}  // namespace epic
