#include "core/eviction_policy.h"

#include "absl/status/status.h"
#include "core/cost_aware_policy.h"
#include "core/lru_policy.h"
#include "core/s3_fifo_policy.h"
#include "core/tiny_lfu_policy.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic {

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(const std::string& name, size_t capacity_bytes) {
  if (name == "cost-aware") return std::make_unique<CostAwarePolicy>(capacity_bytes);
  if (name == "tinylfu") return std::make_unique<TinyLfuPolicy>(capacity_bytes);
  if (name == "s3-fifo") return std::make_unique<S3FifoPolicy>(capacity_bytes);
  if (name == "lru") return std::make_unique<LruPolicy>();
  return absl::InvalidArgumentError(
      fmt::format("there is no eviction policy '{}'; choose one of: {}", name, fmt::join(EvictionPolicyNames(), ", ")));
}

std::vector<std::string> EvictionPolicyNames() { return {"cost-aware", "tinylfu", "s3-fifo", "lru"}; }

}  // namespace epic
