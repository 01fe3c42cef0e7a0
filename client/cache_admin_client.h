// What an operator asks of one cache node, over the contract of epic/v1/cache_admin.proto. Shows none of gRPC.
//
// Thread-safe. Every call has a deadline. Nothing is tried again by itself: an operator wants to know that a node does
// not answer. Errors carry the node's own code and sentence; where no node answers, one that says what to do.
#ifndef EPIC_CLIENT_CACHE_ADMIN_CLIENT_H_
#define EPIC_CLIENT_CACHE_ADMIN_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "epic/v1/cache_admin.pb.h"

namespace epic::client {

struct CacheAdminOptions {
  std::string node = "127.0.0.1:7401";                 // HOST:PORT of a cache node
  std::string tenant;                                  // whose documents; empty: "default"
  std::chrono::milliseconds control_timeout{10'000};   // for what does not read or rewrite everything
  std::chrono::milliseconds long_timeout{86'400'000};  // VerifyBlocks, Compact
};

class CacheAdminClient {
 public:
  // INVALID_ARGUMENT for an address that is not HOST:PORT. Does not connect yet.
  static absl::StatusOr<std::unique_ptr<CacheAdminClient>> Connect(const CacheAdminOptions& options);
  virtual ~CacheAdminClient() = default;

  virtual absl::StatusOr<v1::GetTiersResponse> GetTiers() = 0;
  // NOT_FOUND, RESOURCE_EXHAUSTED: see the contract, as for what follows.
  virtual absl::StatusOr<v1::PinDocumentResponse> PinDocument(const std::string& id) = 0;
  virtual absl::StatusOr<v1::UnpinDocumentResponse> UnpinDocument(const std::string& id) = 0;
  // Empty `ids`: every block of the node, of all tenants.
  virtual absl::StatusOr<v1::EvictBlocksResponse> EvictBlocks(const std::vector<std::string>& ids, v1::Tier tier) = 0;
  // Calls `progress` (may be null) with each message, and returns the totals with the faults of all messages. DATA_LOSS
  // where the node ended without having sent totals.
  virtual absl::StatusOr<v1::VerifyBlocksResponse> VerifyBlocks(
      v1::Tier tier, const std::function<void(const v1::VerifyBlocksResponse&)>& progress) = 0;
  virtual absl::StatusOr<v1::CompactResponse> Compact() = 0;
};

}  // namespace epic::client

#endif  // EPIC_CLIENT_CACHE_ADMIN_CLIENT_H_
