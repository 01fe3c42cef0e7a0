// A cache node's documents on gRPC: proto/epic/v1/document.proto says what each call does.
#ifndef EPIC_CACHE_NODE_DOCUMENT_SERVICE_H_
#define EPIC_CACHE_NODE_DOCUMENT_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>

#include "cache_node/cache_node.h"
#include "core/sync.h"
#include "epic/v1/document.grpc.pb.h"

namespace epic {

// Thread-safe.
class DocumentServiceImpl final : public v1::DocumentService::Service {
 public:
  // `node` must outlive the service.
  explicit DocumentServiceImpl(CacheNode* node) : node_(node) {}

  // The address under which workers reach this node: the home of its chunks. Resolving is UNAVAILABLE before it is set,
  // because a server learns its port only when it listens.
  void SetHome(const std::string& address) EPIC_EXCLUDES(mutex_);
  // Ends watches with UNAVAILABLE, now and from now on, so that a shutdown does not wait for them.
  void StopWatches();

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
  grpc::Status ResolveDocuments(grpc::ServerContext* context, const v1::ResolveDocumentsRequest* request,
                                v1::ResolveDocumentsResponse* response) override;

 private:
  absl::Status DoCreate(grpc::ServerContext* context, const v1::CreateDocumentRequest& request,
                        v1::CreateDocumentResponse* response);
  absl::Status DoGet(grpc::ServerContext* context, const v1::GetDocumentRequest& request,
                     v1::GetDocumentResponse* response);
  absl::Status DoList(grpc::ServerContext* context, const v1::ListDocumentsRequest& request,
                      v1::ListDocumentsResponse* response);
  absl::Status DoDelete(grpc::ServerContext* context, const v1::DeleteDocumentRequest& request);
  absl::Status DoWatch(grpc::ServerContext* context, const v1::WatchDocumentRequest& request,
                       grpc::ServerWriter<v1::WatchDocumentResponse>* writer);
  absl::Status DoResolve(grpc::ServerContext* context, const v1::ResolveDocumentsRequest& request,
                         v1::ResolveDocumentsResponse* response);
  v1::Document Describe(const DocumentInfo& info) const;

  CacheNode* const node_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> watches_{0};
  Mutex mutex_;
  std::string home_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_DOCUMENT_SERVICE_H_
