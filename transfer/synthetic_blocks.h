// KV blocks made from token ids alone, without a model, for tests: the same info gives the same bytes and so the same
// edition in every process.
#ifndef EPIC_TRANSFER_SYNTHETIC_BLOCKS_H_
#define EPIC_TRANSFER_SYNTHETIC_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/chunk_key.h"
#include "core/kv_block.h"
#include "transfer/block_source.h"

namespace epic {

// A shape whose blocks of 32 tokens have three layer groups.
inline constexpr KvShape kSyntheticShape{.layers = 24, .kv_heads = 4, .head_dim = 64};
// A shape whose blocks are small: one layer group.
inline constexpr KvShape kSmallSyntheticShape{.layers = 2, .kv_heads = 1, .head_dim = 8};
// Some model's fingerprint.
const std::string& SyntheticFingerprint();

// Key, recipe and tokens of a chunk of the synthetic model.
KvBlockInfo SyntheticBlockInfo(const KvShape& shape, const Recipe& recipe, const std::string& tenant,
                               std::vector<int32_t> token_ids);
// Writes K and V from the token ids and seals. INVALID_ARGUMENT as KvBlockWriter::Create.
absl::StatusOr<uint64_t> FillSyntheticBlock(const KvBlockInfo& info, std::span<std::byte> bytes);
// The sealed bytes of a block in memory of its own.
std::vector<std::byte> MakeSyntheticBlock(const KvBlockInfo& info);
// A query for these chunks of the synthetic model, by the recipe "plain" without prefix tokens.
LocateQuery SyntheticQuery(const std::vector<std::vector<int32_t>>& chunks);

}  // namespace epic

#endif  // EPIC_TRANSFER_SYNTHETIC_BLOCKS_H_
