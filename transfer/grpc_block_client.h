// The portable transport: a cache node's blocks over gRPC streams.
#ifndef EPIC_TRANSFER_GRPC_BLOCK_CLIENT_H_
#define EPIC_TRANSFER_GRPC_BLOCK_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/limits.h"
#include "core/sync.h"
#include "epic/v1/cache.grpc.pb.h"
#include "transfer/block_source.h"
#include "transfer/lease_session.h"

namespace epic {

// Located blocks hold a lease on the node by its id. Leases end in the background when blocks are destroyed, several in
// one call; a release that does not get through is not repeated, because a lease that nobody reads ends by itself.
// Blocks may outlive the client. Thread-safe.
class GrpcBlockClient : public BlockSource {
 public:
  struct Options {
    // How long the node keeps a lease that is neither read nor released.
    std::chrono::milliseconds lease{kLeaseMsDefault};
    // Deadline of a release.
    std::chrono::milliseconds release_budget{2'000};
  };
  // `channel` leads to the node at `address`.
  GrpcBlockClient(const std::shared_ptr<grpc::Channel>& channel, std::string address)
      : GrpcBlockClient(channel, std::move(address), Options{}) {}
  GrpcBlockClient(const std::shared_ptr<grpc::Channel>& channel, std::string address, const Options& options);
  ~GrpcBlockClient() override;

  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override;
  // What arrived before an error may have been written to `out`.
  absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                    Deadline deadline) override;
  std::string address() const override { return address_; }

 private:
  class Releaser;
  class LeasedBlock;

  // The session to name in the next call; null where there is none.
  std::shared_ptr<LeaseSession> Session() EPIC_EXCLUDES(mutex_);
  // Connects where an answer says that there is a socket, once for each instance of the node.
  void NoteSocket(const std::string& path, uint64_t instance_id) EPIC_EXCLUDES(mutex_);

  const std::string address_;
  const Options options_;
  const std::shared_ptr<v1::CacheService::Stub> stub_;
  const std::shared_ptr<Releaser> releaser_;
  Mutex mutex_;
  uint64_t tried_instance_id_ EPIC_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<LeaseSession> session_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_TRANSFER_GRPC_BLOCK_CLIENT_H_
