#include "router/backend_client.h"

#include <map>
#include <utility>

#include "core/sync.h"
#include "epic/v1/cache.grpc.pb.h"
#include "epic/v1/document.grpc.pb.h"
#include "epic/v1/inference.grpc.pb.h"

namespace epic {
namespace {

// One unary call: METHOD(context, request, response) of a stub.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> Call(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                              const CallScope& scope, const Request& request,
                              const v1::RequestContext& request_context = {}) {
  Response response;
  const auto context = MakeClientContext(scope.deadline, request_context, scope.parent);
  const absl::Status status = FromGrpcStatus((stub->*method)(context.get(), request, &response));
  if (!status.ok()) return status;
  return response;
}

// Reads a stream to its end, or until `take` has enough.
template <typename Message, typename Take>
absl::Status ReadAll(grpc::ClientContext* context, grpc::ClientReader<Message>* reader, const Take& take) {
  Message message;
  bool wanted = true;
  while (wanted && reader->Read(&message)) wanted = take(&message);
  if (!wanted) context->TryCancel();
  // What was under way when it was cancelled has to be read before Finish.
  while (!wanted && reader->Read(&message)) {
  }
  const absl::Status status = FromGrpcStatus(reader->Finish());
  return wanted ? status : absl::CancelledError("the reader of the stream is gone");
}

class GrpcCacheNode final : public CacheNodeBackend {
 public:
  explicit GrpcCacheNode(std::shared_ptr<grpc::Channel> channel)
      : channel_(std::move(channel)),
        documents_(v1::DocumentService::NewStub(channel_)),
        cache_(v1::CacheService::NewStub(channel_)) {}

  absl::StatusOr<v1::CreateDocumentResponse> CreateDocument(const CallScope& scope,
                                                            const v1::CreateDocumentRequest& request) override {
    return Call<v1::CreateDocumentResponse>(documents_.get(), &Documents::CreateDocument, scope, request,
                                            request.context());
  }
  absl::StatusOr<v1::GetDocumentResponse> GetDocument(const CallScope& scope,
                                                      const v1::GetDocumentRequest& request) override {
    return Call<v1::GetDocumentResponse>(documents_.get(), &Documents::GetDocument, scope, request, request.context());
  }
  absl::StatusOr<v1::ListDocumentsResponse> ListDocuments(const CallScope& scope,
                                                          const v1::ListDocumentsRequest& request) override {
    return Call<v1::ListDocumentsResponse>(documents_.get(), &Documents::ListDocuments, scope, request,
                                           request.context());
  }
  absl::StatusOr<v1::DeleteDocumentResponse> DeleteDocument(const CallScope& scope,
                                                            const v1::DeleteDocumentRequest& request) override {
    return Call<v1::DeleteDocumentResponse>(documents_.get(), &Documents::DeleteDocument, scope, request,
                                            request.context());
  }
  absl::StatusOr<v1::ResolveDocumentsResponse> ResolveDocuments(const CallScope& scope,
                                                                const v1::ResolveDocumentsRequest& request) override {
    return Call<v1::ResolveDocumentsResponse>(documents_.get(), &Documents::ResolveDocuments, scope, request,
                                              request.context());
  }
  absl::Status WatchDocument(const CallScope& scope, const v1::WatchDocumentRequest& request,
                             const std::function<bool(const v1::WatchDocumentResponse&)>& on_state) override {
    const auto context = MakeClientContext(scope.deadline, request.context(), scope.parent);
    const auto reader = documents_->WatchDocument(context.get(), request);
    return ReadAll(context.get(), reader.get(), [&](v1::WatchDocumentResponse* state) { return on_state(*state); });
  }
  absl::StatusOr<v1::GetNodeStatusResponse> GetNodeStatus(const CallScope& scope) override {
    return Call<v1::GetNodeStatusResponse>(cache_.get(), &v1::CacheService::Stub::GetNodeStatus, scope,
                                           v1::GetNodeStatusRequest());
  }
  absl::Status CheckHealth(const CallScope& scope) override {
    return epic::CheckHealth(channel_.get(), "", scope.deadline);
  }

 private:
  using Documents = v1::DocumentService::Stub;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<Documents> documents_;
  const std::unique_ptr<v1::CacheService::Stub> cache_;
};

class GrpcWorker final : public WorkerBackend {
 public:
  explicit GrpcWorker(std::shared_ptr<grpc::Channel> channel)
      : channel_(std::move(channel)), inference_(v1::InferenceService::NewStub(channel_)) {}

  absl::Status Infer(const CallScope& scope, const v1::InferRequest& request,
                     const std::function<bool(v1::GenerateResponse*)>& on_message) override {
    const auto context = MakeClientContext(scope.deadline, request.context(), scope.parent);
    const auto reader = inference_->Infer(context.get(), request);
    return ReadAll(context.get(), reader.get(), on_message);
  }
  absl::StatusOr<v1::GetWorkerStatusResponse> GetWorkerStatus(const CallScope& scope,
                                                              const v1::GetWorkerStatusRequest& request) override {
    return Call<v1::GetWorkerStatusResponse>(inference_.get(), &v1::InferenceService::Stub::GetWorkerStatus, scope,
                                             request);
  }
  absl::Status CheckHealth(const CallScope& scope) override {
    return epic::CheckHealth(channel_.get(), "", scope.deadline);
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::InferenceService::Stub> inference_;
};

class GrpcBackends final : public Backends {
 public:
  explicit GrpcBackends(ChannelFactory channels) : channels_(std::move(channels)) {}

  std::shared_ptr<CacheNodeBackend> CacheNode(const std::string& address) override {
    MutexLock lock(mutex_);
    std::shared_ptr<CacheNodeBackend>& node = cache_nodes_[address];
    if (node == nullptr) node = std::make_shared<GrpcCacheNode>(channels_(address));
    return node;
  }
  std::shared_ptr<WorkerBackend> Worker(const std::string& address) override {
    MutexLock lock(mutex_);
    std::shared_ptr<WorkerBackend>& worker = workers_[address];
    if (worker == nullptr) worker = std::make_shared<GrpcWorker>(channels_(address));
    return worker;
  }

 private:
  const ChannelFactory channels_;
  Mutex mutex_;  // making a channel does not connect it: no I/O under the lock
  std::map<std::string, std::shared_ptr<CacheNodeBackend>> cache_nodes_ EPIC_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<WorkerBackend>> workers_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Backends> MakeGrpcBackends(ChannelFactory channels) {
  return std::make_unique<GrpcBackends>(std::move(channels));
}

}  // namespace epic
