#include "engine/chunk_compilation.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#include "core/status_macros.h"

namespace epic {

ChunkCompilation::ChunkCompilation(const KvBlockInfo& info, const Recipe& recipe)
    : info_(info), tokens_(recipe.prefix_tokens), dropped_rows_(recipe.first_position()) {
  info_.recipe_id = recipe.id;
  info_.first_position = recipe.first_position();
  tokens_.insert(tokens_.end(), info.token_ids.begin(), info.token_ids.end());
  kv_.plans.push_back({0, info.shape.layers, {}, PrivateRows(info.shape, 0, info.shape.layers)});
}

int32_t ChunkCompilation::TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions) {
  const int32_t count = std::min(rows_max, remaining());
  std::vector<int32_t> taken(count);
  std::iota(taken.begin(), taken.end(), next_);
  kv_.AppendToAll(taken);
  positions.insert(positions.end(), taken.begin(), taken.end());
  token_ids.insert(token_ids.end(), tokens_.begin() + next_, tokens_.begin() + next_ + count);
  next_ += count;
  return count;
}

absl::StatusOr<uint64_t> ChunkCompilation::WriteBlock(std::span<std::byte> block) const {
  EPIC_ASSIGN_OR_RETURN(KvBlockWriter writer, KvBlockWriter::Create(info_, block));
  const auto tokens = static_cast<int32_t>(info_.token_ids.size());
  for (int32_t layer = 0; layer < info_.shape.layers; ++layer) {
    for (int32_t head = 0; head < info_.shape.kv_heads; ++head) {
      for (int32_t token = 0; token < tokens;) token += CopyRows(layer, head, token, writer);
    }
  }
  return writer.Seal();
}

// Copies rows of one head from `token` on; returns how many.
int32_t ChunkCompilation::CopyRows(int32_t layer, int32_t head, int32_t token, KvBlockWriter& writer) const {
  const KvShape& shape = info_.shape;
  const auto tokens = static_cast<int32_t>(info_.token_ids.size());
  const int32_t padded = PaddedTokens(tokens);
  const KvPage& page = *kv_.plans.front().rows.pages()[(dropped_rows_ + token) / kPageTokens];
  const int32_t row = (dropped_rows_ + token) % kPageTokens;
  const uint16_t* keys = page.Keys(layer) + shape.KeyIndex(kPageTokens, head, row, 0);
  const uint16_t* values = page.Values(layer) + shape.ValueIndex(kPageTokens, head, row, 0);
  uint16_t* to_keys = writer.Keys(layer) + shape.KeyIndex(padded, head, token, 0);
  uint16_t* to_values = writer.Values(layer) + shape.ValueIndex(padded, head, token, 0);
  if (dropped_rows_ % kTokensPerKeyRow == 0) {
    // A page's rows lie as the block's do; behind the last one both have zeros.
    const int32_t count = std::min(kPageTokens - row, tokens - token);
    const size_t bytes = static_cast<size_t>((count + kTokensPerKeyRow - 1) / kTokensPerKeyRow * kTokensPerKeyRow) *
                         shape.head_dim * sizeof(uint16_t);
    std::memcpy(to_keys, keys, bytes);
    std::memcpy(to_values, values, bytes);
    return count;
  }
  for (int32_t d = 0; d < shape.head_dim; ++d) {
    to_keys[KvShape::KeyStep(d)] = keys[KvShape::KeyStep(d)];
    to_values[KvShape::ValueStep(d)] = values[KvShape::ValueStep(d)];
  }
  return 1;
}

std::shared_ptr<std::byte[]> AllocateBlockMemory(size_t bytes) {
  const size_t rounded = (bytes + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes;
  void* memory = std::aligned_alloc(kBlockAlignmentBytes, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, rounded);
  return std::shared_ptr<std::byte[]>(static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); });
}

}  // namespace epic
