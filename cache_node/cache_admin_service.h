// What operators ask of a cache node, on gRPC: proto/epic/v1/cache_admin.proto says what each call does.
#ifndef EPIC_CACHE_NODE_CACHE_ADMIN_SERVICE_H_
#define EPIC_CACHE_NODE_CACHE_ADMIN_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "cache_node/cache_node.h"
#include "core/sync.h"
#include "epic/v1/cache_admin.grpc.pb.h"

namespace epic {

// Thread-safe.
class CacheAdminServiceImpl final : public v1::CacheAdminService::Service {
 public:
  // `node` must outlive the service.
  explicit CacheAdminServiceImpl(CacheNode* node) : node_(node) {}

  grpc::Status GetTiers(grpc::ServerContext* context, const v1::GetTiersRequest* request,
                        v1::GetTiersResponse* response) override;
  grpc::Status PinDocument(grpc::ServerContext* context, const v1::PinDocumentRequest* request,
                           v1::PinDocumentResponse* response) override;
  grpc::Status UnpinDocument(grpc::ServerContext* context, const v1::UnpinDocumentRequest* request,
                             v1::UnpinDocumentResponse* response) override;
  grpc::Status EvictBlocks(grpc::ServerContext* context, const v1::EvictBlocksRequest* request,
                           v1::EvictBlocksResponse* response) override;
  grpc::Status VerifyBlocks(grpc::ServerContext* context, const v1::VerifyBlocksRequest* request,
                            grpc::ServerWriter<v1::VerifyBlocksResponse>* writer) override;
  grpc::Status Compact(grpc::ServerContext* context, const v1::CompactRequest* request,
                       v1::CompactResponse* response) override;

  // Ends verifications that run, and refuses new ones.
  void Stop() { stopping_ = true; }

 private:
  absl::Status DoVerify(grpc::ServerContext* context, v1::Tier tier,
                        grpc::ServerWriter<v1::VerifyBlocksResponse>* writer);

  CacheNode* const node_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> verifying_{false};  // one at a time: it takes the disk's whole bandwidth
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_CACHE_ADMIN_SERVICE_H_
