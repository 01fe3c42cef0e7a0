// In-process cache nodes and workers for the router's tests: real gRPC services with scripted behaviour.
#ifndef EPIC_ROUTER_FAKE_MEMBERS_SERVICE_H_
#define EPIC_ROUTER_FAKE_MEMBERS_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/sync.h"
#include "epic/v1/cache.grpc.pb.h"
#include "epic/v1/document.grpc.pb.h"
#include "epic/v1/inference.grpc.pb.h"
#include "server/grpc_server.h"

namespace epic {

// Keeps documents in memory. One chunk per ten bytes of text, one token a byte, block_bytes 1,000,000 a chunk.
class FakeCacheNode final : public v1::DocumentService::Service, public v1::CacheService::Service {
 public:
  FakeCacheNode();

  grpc::Status CreateDocument(grpc::ServerContext* context, const v1::CreateDocumentRequest* request,
                              v1::CreateDocumentResponse* response) override;
  grpc::Status GetDocument(grpc::ServerContext* context, const v1::GetDocumentRequest* request,
                           v1::GetDocumentResponse* response) override;
  grpc::Status ListDocuments(grpc::ServerContext* context, const v1::ListDocumentsRequest* request,
                             v1::ListDocumentsResponse* response) override;
  grpc::Status DeleteDocument(grpc::ServerContext* context, const v1::DeleteDocumentRequest* request,
                              v1::DeleteDocumentResponse* response) override;
  // COMPILING, then, once FinishCompilation was called, READY. Ends with its client.
  grpc::Status WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest* request,
                             grpc::ServerWriter<v1::WatchDocumentResponse>* writer) override;
  grpc::Status ResolveDocuments(grpc::ServerContext* context, const v1::ResolveDocumentsRequest* request,
                                v1::ResolveDocumentsResponse* response) override;
  grpc::Status GetNodeStatus(grpc::ServerContext* context, const v1::GetNodeStatusRequest* request,
                             v1::GetNodeStatusResponse* response) override;

  GrpcServer* server() { return server_.get(); }
  size_t document_count();
  void FinishCompilation();
  // Blocks until that many watches were ended by their client.
  void AwaitCancelledWatches(int count);

 private:
  using Name = std::pair<std::string, std::string>;  // tenant, id
  Mutex mutex_;
  CondVar changed_;
  std::map<Name, std::string> texts_ EPIC_GUARDED_BY(mutex_);
  bool compiled_ EPIC_GUARDED_BY(mutex_) = false;
  int cancelled_watches_ EPIC_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<GrpcServer> server_;
};

// Answers with a script. Without one: one token "ok", then the final message.
class FakeWorker final : public v1::InferenceService::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  using Script = std::function<grpc::Status(grpc::ServerContext*, const v1::InferRequest&, Writer*)>;

  FakeWorker();

  grpc::Status Infer(grpc::ServerContext* context, const v1::InferRequest* request, Writer* writer) override;
  grpc::Status GetWorkerStatus(grpc::ServerContext* context, const v1::GetWorkerStatusRequest* request,
                               v1::GetWorkerStatusResponse* response) override;

  GrpcServer* server() { return server_.get(); }
  void SetScript(Script script);
  void HoldAllChunks();
  // What it says of linkers; at first that legolink:16 passes.
  void SetVerdicts(std::vector<v1::LinkerVerdict> verdicts);
  // What it says of its shadow checks; at first that it made none.
  void SetShadow(std::vector<v1::ShadowFigures> shadow);
  std::vector<v1::InferRequest> requests();

  static v1::GenerateResponse TokenMessage(const std::string& text);
  static v1::GenerateResponse FinalMessage();

 private:
  Mutex mutex_;
  Script script_ EPIC_GUARDED_BY(mutex_);
  bool holds_all_ EPIC_GUARDED_BY(mutex_) = false;
  std::vector<v1::LinkerVerdict> verdicts_ EPIC_GUARDED_BY(mutex_);
  std::vector<v1::ShadowFigures> shadow_ EPIC_GUARDED_BY(mutex_);
  std::vector<v1::InferRequest> requests_ EPIC_GUARDED_BY(mutex_);
  std::unique_ptr<GrpcServer> server_;
};

}  // namespace epic

#endif  // EPIC_ROUTER_FAKE_MEMBERS_SERVICE_H_
