// A cache node's data plane on gRPC: proto/epic/v1/cache.proto says what each call does.
#ifndef EPIC_CACHE_NODE_CACHE_SERVICE_H_
#define EPIC_CACHE_NODE_CACHE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "cache_node/cache_node.h"
#include "core/sync.h"
#include "epic/v1/cache.grpc.pb.h"
#include "storage/lease_table.h"

namespace epic {

// Grants leases by id over the node's own. Somebody must call Tick every second or so: it ends leases whose readers are
// silent, and calls whose clients neither read nor gave a deadline. Thread-safe.
class CacheServiceImpl final : public v1::CacheService::Service {
 public:
  // `node` must outlive the service.
  CacheServiceImpl(CacheNode* node, v1::ModelInfo model);
  // Where readers on this host open sessions, as told in every answer. Set once before use.
  void SetLeaseSocket(std::string path) { lease_socket_ = std::move(path); }
  uint64_t instance_id() const { return instance_id_; }
  LeaseTable& leases() { return leases_; }

  grpc::Status Locate(grpc::ServerContext* context, const v1::LocateRequest* request,
                      v1::LocateResponse* response) override;
  grpc::Status ReadBlock(grpc::ServerContext* context, const v1::ReadBlockRequest* request,
                         grpc::ServerWriter<v1::ReadBlockResponse>* writer) override;
  grpc::Status Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* response) override;
  grpc::Status GetNodeStatus(grpc::ServerContext* context, const v1::GetNodeStatusRequest* request,
                             v1::GetNodeStatusResponse* response) override;

  void Tick(std::chrono::steady_clock::time_point now) EPIC_EXCLUDES(mutex_);

 private:
  class ActiveRead;

  absl::Status DoLocate(grpc::ServerContext* context, const v1::LocateRequest& request, v1::LocateResponse* response);
  absl::Status DoReadBlock(grpc::ServerContext* context, const v1::ReadBlockRequest& request,
                           grpc::ServerWriter<v1::ReadBlockResponse>* writer);

  CacheNode* const node_;
  const v1::ModelInfo model_;
  const std::chrono::steady_clock::time_point started_at_ = std::chrono::steady_clock::now();
  const uint64_t instance_id_ = SystemRandom64() | 1;  // never 0
  std::string lease_socket_;
  LeaseTable leases_;
  Mutex mutex_;
  std::map<grpc::ServerContext*, std::chrono::steady_clock::time_point> reads_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_CACHE_SERVICE_H_
