// DocumentService and GenerateService as the router serves them: gRPC's side of document_router.h and
// generate_router.h.
//
// Each handler: completes and checks the request's context, turns the call's deadline and cancellation into a scope,
// forwards, counts, converts the status.
#ifndef EPIC_ROUTER_ROUTER_SERVICE_H_
#define EPIC_ROUTER_ROUTER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <string>

#include "epic/v1/document.grpc.pb.h"
#include "epic/v1/inference.grpc.pb.h"
#include "router/document_router.h"
#include "router/generate_router.h"
#include "router/router_metrics.h"

namespace epic {

class RouterDocumentService final : public v1::DocumentService::Service {
 public:
  // Both must outlive the service.
  RouterDocumentService(DocumentRouter* router, RouterMetrics* metrics) : router_(router), metrics_(metrics) {}

  grpc::Status CreateDocument(grpc::ServerContext* context, const v1::CreateDocumentRequest* request,
                              v1::CreateDocumentResponse* response) override;
  grpc::Status GetDocument(grpc::ServerContext* context, const v1::GetDocumentRequest* request,
                           v1::GetDocumentResponse* response) override;
  grpc::Status ListDocuments(grpc::ServerContext* context, const v1::ListDocumentsRequest* request,
                             v1::ListDocumentsResponse* response) override;
  grpc::Status DeleteDocument(grpc::ServerContext* context, const v1::DeleteDocumentRequest* request,
                              v1::DeleteDocumentResponse* response) override;
  grpc::Status WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest* request,
                             grpc::ServerWriter<v1::WatchDocumentResponse>* writer) override;
  // For the router's own use at the nodes; clients have no business with chunks.
  grpc::Status ResolveDocuments(grpc::ServerContext* context, const v1::ResolveDocumentsRequest* request,
                                v1::ResolveDocumentsResponse* response) override;

 private:
  DocumentRouter* const router_;
  RouterMetrics* const metrics_;
};

class RouterGenerateService final : public v1::GenerateService::Service {
 public:
  // All must outlive the service.
  RouterGenerateService(GenerateRouter* router, const Membership* membership, Backends* backends,
                        std::chrono::milliseconds status_timeout)
      : router_(router), membership_(membership), backends_(backends), status_timeout_(status_timeout) {}

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status ListModels(grpc::ServerContext* context, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;

 private:
  GenerateRouter* const router_;
  const Membership* const membership_;
  Backends* const backends_;
  const std::chrono::milliseconds status_timeout_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace epic

#endif  // EPIC_ROUTER_ROUTER_SERVICE_H_
