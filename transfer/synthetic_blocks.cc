#include "transfer/synthetic_blocks.h"

#include <utility>

#include "core/status_macros.h"

namespace epic {
namespace {

// Any function that tells tokens, layers and places apart; bf16 bits of a moderate number.
uint16_t SyntheticValue(int32_t token_id, int32_t layer, int32_t place) {
  uint32_t mixed = static_cast<uint32_t>(token_id) * 2654435761u + static_cast<uint32_t>(layer) * 40503u +
                   static_cast<uint32_t>(place) * 69069u;
  mixed ^= mixed >> 15;
  return static_cast<uint16_t>(0x3f00u | (mixed & 0xffu));
}

}  // namespace

const std::string& SyntheticFingerprint() {
  static const std::string& fingerprint = *new std::string(64, 'a');
  return fingerprint;
}

KvBlockInfo SyntheticBlockInfo(const KvShape& shape, const Recipe& recipe, const std::string& tenant,
                               std::vector<int32_t> token_ids) {
  KvBlockInfo info;
  info.shape = shape;
  info.model_fingerprint_hex = SyntheticFingerprint();
  info.key = ComputeChunkKey(info.model_fingerprint_hex, recipe, tenant, token_ids);
  info.recipe_id = recipe.id;
  info.first_position = recipe.first_position();
  info.token_ids = std::move(token_ids);
  return info;
}

absl::StatusOr<uint64_t> FillSyntheticBlock(const KvBlockInfo& info, std::span<std::byte> bytes) {
  EPIC_ASSIGN_OR_RETURN(KvBlockWriter writer, KvBlockWriter::Create(info, bytes));
  const KvShape& shape = info.shape;
  const auto tokens = static_cast<int32_t>(info.token_ids.size());
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    uint16_t* keys = writer.Keys(layer);
    uint16_t* values = writer.Values(layer);
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      for (int32_t token = 0; token < tokens; ++token) {
        for (int32_t dimension = 0; dimension < shape.head_dim; ++dimension) {
          const int32_t place = (info.first_position + token) * 131 + head * 17 + dimension;
          keys[shape.KeyIndex(PaddedTokens(tokens), head, token, dimension)] =
              SyntheticValue(info.token_ids[token], layer, place);
          values[shape.ValueIndex(PaddedTokens(tokens), head, token, dimension)] =
              SyntheticValue(info.token_ids[token], layer, place + 1);
        }
      }
    }
  }
  return writer.Seal();
}

std::vector<std::byte> MakeSyntheticBlock(const KvBlockInfo& info) {
  // Over-allocated and cut off again at the front: a block is written in memory aligned to 64.
  const size_t size = KvBlockBytes(info);
  std::vector<std::byte> roomy(size + 64);
  const size_t skip = (64 - reinterpret_cast<uintptr_t>(roomy.data()) % 64) % 64;
  const std::span<std::byte> aligned = std::span(roomy).subspan(skip, size);
  FillSyntheticBlock(info, aligned).value();
  return {aligned.begin(), aligned.end()};
}

LocateQuery SyntheticQuery(const std::vector<std::vector<int32_t>>& chunks) {
  LocateQuery query;
  query.tenant = "default";
  query.model_fingerprint_hex = SyntheticFingerprint();
  query.recipe = Recipe{.id = "plain", .prefix_tokens = {}};
  for (const std::vector<int32_t>& token_ids : chunks) {
    query.chunks.push_back(
        {ComputeChunkKey(query.model_fingerprint_hex, query.recipe, query.tenant, token_ids), token_ids});
  }
  return query;
}

}  // namespace epic
