#include "cache_node/cache_node_options.h"

#include "core/kv_block.h"
#include "fmt/format.h"
#include "storage/block_store.h"

namespace epic {
namespace {

constexpr int32_t kChunkTokensMin = 16;
constexpr int32_t kChunkTokensMax = 4096;
constexpr size_t kCapacityBytesMin = 1 << 20;

// An address that one listens on but nobody can call.
bool IsWildcard(const std::string& address) {
  return address.rfind("0.0.0.0:", 0) == 0 || address.rfind("[::]:", 0) == 0;
}

}  // namespace

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
  note(BlockStoreOptions{.capacity_bytes = kv_capacity_bytes}.Validate());
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
  const size_t block_bytes = KvBlockBytes(compiler.kv_shape(), longest_tokens);
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

void DeclareCacheNodeServerOptions(CacheNodeServerOptions* options, Config* config) {
  DeclareGrpcServerOptions(&options->server, config);
  config->AddString("advertise", &options->advertise_address,
                    "HOST:PORT under which workers reach this node. Empty: the listen address.");
  config->AddString("data-dir", &options->data_dir,
                    "Folder of the documents. Made where it is not there; one process at a time.");
  config->AddBytes("kv-capacity-bytes", &options->kv_capacity_bytes, {.min = kCapacityBytesMin},
                   "Memory for keys and values of compiled chunks, a hard limit.");
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
