// What `epic cache` prints, as JSON and as tables. Pure.
#ifndef EPIC_CLIENT_CACHE_OUTPUT_H_
#define EPIC_CLIENT_CACHE_OUTPUT_H_

#include <string>
#include <vector>

#include "client/offline_verify.h"
#include "epic/v1/cache_admin.pb.h"
#include "nlohmann/json.hpp"

namespace epic::client {

// "host", "disk", or "all" for TIER_UNSPECIFIED.
std::string TierName(v1::Tier tier);

// Everything that the message holds, under the contract's names.
nlohmann::json ToJson(const v1::GetTiersResponse& tiers);
nlohmann::json ToJson(const v1::EvictBlocksResponse& evicted);
// Faults as objects with "key" and "fault".
nlohmann::json ToJson(const v1::VerifyBlocksResponse& verified);
nlohmann::json ToJson(const v1::CompactResponse& compacted);
nlohmann::json ToJson(const std::vector<OfflinePart>& parts);

// A line about the node, a table with a column a tier, and one of pinned documents where there are any. `node` is its
// address.
std::string TiersText(const std::string& node, const v1::GetTiersResponse& tiers);
// A row a fault, and a line for those that are not listed. Empty where no block is bad.
std::string FaultTable(const v1::VerifyBlocksResponse& verified);
// A row a part of the data directory, and below it one a fault where there are any.
std::string OfflineText(const std::vector<OfflinePart>& parts);

}  // namespace epic::client

#endif  // EPIC_CLIENT_CACHE_OUTPUT_H_
