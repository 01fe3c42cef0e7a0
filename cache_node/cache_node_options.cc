#include "cache_node/cache_node_options.h"

#include <charconv>
#include <system_error>

#include "core/identifiers.h"
#include "core/kv_block.h"
#include "core/kv_encoding.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "storage/block_store.h"

namespace epic {
namespace {

constexpr int32_t kChunkTokensMin = 16;
constexpr int32_t kChunkTokensMax = 4096;
constexpr size_t kCapacityBytesMin = 1 << 20;
constexpr size_t kDiskCapacityBytesMin = 16 << 20;

// An address that one listens on but nobody can call.
bool IsWildcard(const std::string& address) {
  return address.rfind("0.0.0.0:", 0) == 0 || address.rfind("[::]:", 0) == 0;
}

}  // namespace

absl::StatusOr<uid_t> ParseUserId(const std::string& text) {
  uid_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value != static_cast<uid_t>(-1)) return value;
  return absl::InvalidArgumentError(
      fmt::format("lease-socket-uids has {}, expected user ids, which are numbers", QuoteForMessage(text)));
}

absl::Status CacheNodeServerOptions::Validate() const {
  std::string problems;
  const auto note = [&problems](const absl::Status& status) {
    if (!status.ok()) problems += (problems.empty() ? "" : "; ") + std::string(status.message());
  };
  note(ValidateHostPort("listen", server.listen_address));
  if (!advertise_address.empty()) {
    note(ValidateHostPort("advertise", advertise_address));
  } else if (IsWildcard(server.listen_address)) {
    note(absl::InvalidArgumentError(
        fmt::format("advertise is empty while listen is {}: say under which HOST:PORT workers reach this node",
                    server.listen_address)));
  }
  if (data_dir.empty()) note(absl::InvalidArgumentError("data-dir is empty, expected a folder"));
  note(BlockStoreOptions{.capacity_bytes = kv_capacity_bytes,
                         .protect_published = protect_blocks,
                         .eviction_policy = eviction_policy,
                         .arena = {.reserved_huge_pages = reserved_huge_pages, .lock_memory = lock_memory}}
           .Validate());
  if (disk_capacity_bytes > 0 && disk_capacity_bytes < kDiskCapacityBytesMin) {
    note(absl::InvalidArgumentError(fmt::format("disk-capacity-bytes is {}, expected 0 (no disk tier) or at least {}",
                                                disk_capacity_bytes, kDiskCapacityBytesMin)));
  }
  const auto note_dtype = [&note](const char* option, const std::string& name) {
    const absl::Status status = ParseKvDtype(name).status();
    if (!status.ok()) {
      note(absl::InvalidArgumentError(fmt::format("{}: {}", option, std::string(status.message()))));
    }
  };
  note_dtype("kv-dtype", kv_dtype);
  note_dtype("disk-kv-dtype", disk_kv_dtype);
  for (const std::string& uid : lease_socket_uids) note(ParseUserId(uid).status());
  if (pinned_bytes_max > kv_capacity_bytes) {
    note(absl::InvalidArgumentError(
        fmt::format("pinned-bytes-max is {}, expected at most kv-capacity-bytes, which is {}", pinned_bytes_max,
                    kv_capacity_bytes)));
  }
  if (chunk_tokens < kChunkTokensMin || chunk_tokens > kChunkTokensMax) {
    note(absl::InvalidArgumentError(
        fmt::format("chunk-tokens is {}, expected {} to {}", chunk_tokens, kChunkTokensMin, kChunkTokensMax)));
  }
  if (!default_recipe.empty() && default_recipe != kPlainRecipeId && default_recipe != kDocumentRecipeId) {
    note(absl::InvalidArgumentError(fmt::format("default-recipe is {}, expected {}, {} or nothing", default_recipe,
                                                kPlainRecipeId, kDocumentRecipeId)));
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

absl::Status CacheNodeServerOptions::ValidateFor(const ChunkCompiler& compiler) const {
  const int32_t longest_tokens = 2 * chunk_tokens;
  if (longest_tokens >= compiler.context_length()) {
    return absl::InvalidArgumentError(
        fmt::format("chunk-tokens is {}: a chunk may have twice as many, and the model's context has {}", chunk_tokens,
                    compiler.context_length()));
  }
  KvShape shape = compiler.kv_shape();
  shape.dtype = ParseKvDtype(kv_dtype).value_or(shape.dtype);
  const size_t block_bytes = KvBlockBytes(shape, longest_tokens);
  if (block_bytes > kv_capacity_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("kv-capacity-bytes is {}: one block of {} tokens of this model takes {}", kv_capacity_bytes,
                    longest_tokens, block_bytes));
  }
  return absl::OkStatus();
}

void DeclareDefaultRecipe(CacheNodeServerOptions* options, Config* config) {
  config->AddString("default-recipe", &options->default_recipe,
                    "How documents are compiled whose registration does not say: plain, each chunk alone, or document, "
                    "each chunk in sight of those before it. Empty: document, but plain where the verdicts bear only "
                    "that.");
}

void DeclareTierOptions(CacheNodeServerOptions* options, Config* config) {
  config->AddBytes("kv-capacity-bytes", &options->kv_capacity_bytes, {.min = kCapacityBytesMin},
                   "Memory for keys and values of compiled chunks, a hard limit.");
  config->AddBytes("disk-capacity-bytes", &options->disk_capacity_bytes, {},
                   "Disk for keys and values that memory has no room for, and that a restart finds again; a hard "
                   "limit. 0: none.");
  config->AddString("disk-dir", &options->disk_dir, "Folder of the disk tier. Empty: blocks, in the data folder.");
  config->AddString("manifest-copy-dir", &options->manifest_copy_dir,
                    "Folder of the second copy of what is registered, best on another disk. Empty: manifest-copy, in "
                    "the data folder.");
  config->AddBytes("disk-free-bytes-min", &options->disk_free_bytes_min, {},
                   "What stays free on the disks: below it new documents are refused and the disk tier does not grow.");
  config->AddString("kv-dtype", &options->kv_dtype,
                    "How memory keeps keys and values: bf16, fp16, or int8, which takes about half the room.");
  config->AddString("disk-kv-dtype", &options->disk_kv_dtype, "How disk keeps them: bf16, fp16 or int8.");
  config->AddString("eviction-policy", &options->eviction_policy,
                    fmt::format("What leaves memory and disk first: {}.", fmt::join(EvictionPolicyNames(), ", ")));
  config->AddBytes("pinned-bytes-max", &options->pinned_bytes_max, {},
                   "Memory that pinned documents may take. 0: half of kv-capacity-bytes.");
  config->AddString("lease-socket", &options->lease_socket,
                    "Unix socket by which workers on this host hold their leases for as long as they live. Empty: "
                    "leases.sock, in the data folder; none.");
  config->AddStringList("lease-socket-uids", &options->lease_socket_uids,
                        "User ids that may connect to the lease socket, beside the node's own.");
  config->AddBool("reserved-huge-pages", &options->reserved_huge_pages,
                  "Take the memory from the huge pages that vm.nr_hugepages set aside.");
  config->AddBool("lock-memory", &options->lock_memory, "Keep the memory from being swapped out.");
}

void DeclareCacheNodeServerOptions(CacheNodeServerOptions* options, Config* config) {
  DeclareGrpcServerOptions(&options->server, config);
  config->AddString("advertise", &options->advertise_address,
                    "HOST:PORT under which workers reach this node. Empty: the listen address.");
  config->AddString("data-dir", &options->data_dir,
                    "Folder of the documents. Made where it is not there; one process at a time.");
  DeclareTierOptions(options, config);
  config->AddInt32("chunk-tokens", &options->chunk_tokens, {.min = kChunkTokensMin, .max = kChunkTokensMax},
                   "Tokens that a chunk is meant to have. Counts for documents that are cut from now on.");
  DeclareDefaultRecipe(options, config);
  config->AddString(
      "linker-verdicts", &options->verdicts,
      "File, or folder of files, that epic eval gate wrote; they decide the default recipe. Empty: none.");
  config->AddBool("protect-blocks", &options->protect_blocks,
                  "Make compiled blocks read-only memory, so that a stray write ends the process.");
}

}  // namespace epic
