// The cache node's configuration. Includes no gRPC.
#ifndef EPIC_CACHE_NODE_CACHE_NODE_OPTIONS_H_
#define EPIC_CACHE_NODE_CACHE_NODE_OPTIONS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_node/compiler.h"
#include "core/eviction_policy.h"
#include "server/config.h"
#include "server/server_options.h"

namespace epic {

inline constexpr char kNoLeaseSocket[] = "none";

// A number from 0 to 2^32 - 2; INVALID_ARGUMENT quotes what it was instead.
absl::StatusOr<uid_t> ParseUserId(const std::string& text);

struct CacheNodeServerOptions {
  GrpcServerOptions server{.listen_address = "127.0.0.1:7401"};
  // HOST:PORT under which workers reach this node. Empty: the listen address.
  std::string advertise_address;
  // Folder of what is durable; made where it is not there. One process at a time.
  std::string data_dir;
  // The second copy of the manifest; on another disk it outlives the first one's. Empty: beside the first.
  std::string manifest_copy_dir;
  // The host tier, a hard limit. At least one block of the longest chunk.
  size_t kv_capacity_bytes = size_t{2} << 30;
  // The disk tier, a hard limit; 0: none. It takes room as it needs it, and none of the last `disk_free_bytes_min`.
  size_t disk_capacity_bytes = size_t{8} << 30;
  std::string disk_dir;  // its folder; empty: "blocks" in the data directory
  // What stays free on the file systems of manifest and disk tier: below it registrations are refused and the disk tier
  // does not grow.
  size_t disk_free_bytes_min = size_t{64} << 20;
  // In which encoding the tiers keep blocks: "bf16", "fp16" or "int8".
  std::string kv_dtype = "bf16";
  std::string disk_kv_dtype = "bf16";
  std::string eviction_policy = EvictionPolicyNames().front();  // of both tiers
  size_t pinned_bytes_max = 0;                                  // 0: half of kv_capacity_bytes
  // The Unix socket by which readers on this host hold their leases. Empty: "leases.sock" in the data directory;
  // "none".
  std::string lease_socket;
  std::vector<std::string> lease_socket_uids;  // let in beside the node's own user
  bool reserved_huge_pages = false;
  bool lock_memory = false;
  // Tokens that a chunk is meant to have. In [16, 4096], and twice as many must fit the model's context.
  int32_t chunk_tokens = 512;
  // How documents are compiled whose registration does not say: "plain" or "document". Empty: as the verdicts recommend
  // (RecommendedRecipe, engine/linker_gate.h).
  std::string default_recipe;
  std::string verdicts;  // file or folder of linker verdicts; empty: none
  // Published blocks are read-only memory: a stray write ends the process. Costs a system call a block.
  bool protect_blocks = false;

  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
  // What only shows with the model.
  absl::Status ValidateFor(const ChunkCompiler& compiler) const;
};

// Those of the tiers: "kv-capacity-bytes", "disk-capacity-bytes", "disk-dir" and so on to "lock-memory".
void DeclareTierOptions(CacheNodeServerOptions* options, Config* config);
// Options "listen" and those of the server, "advertise", "data-dir", those of the tiers, "chunk-tokens",
// "default-recipe", "linker-verdicts", "protect-blocks".
void DeclareCacheNodeServerOptions(CacheNodeServerOptions* options, Config* config);
// "default-recipe" alone.
void DeclareDefaultRecipe(CacheNodeServerOptions* options, Config* config);

}  // namespace epic

#endif  // EPIC_CACHE_NODE_CACHE_NODE_OPTIONS_H_
