#include "engine/chunk_compilation.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {

absl::Status CheckContext(const KvBlockInfo& info, const Recipe& recipe, std::span<const ChunkKvPtr> context) {
  for (size_t i = 0; i < context.size(); ++i) {
    const KvBlockInfo& block = context[i]->view().info();
    const auto refuse = [&](const std::string& why) {
      return absl::InvalidArgumentError(fmt::format("block {} of a chunk's context {}", i, why));
    };
    if (block.model_fingerprint_hex != info.model_fingerprint_hex || !(block.shape == info.shape)) {
      return refuse("is of another model");
    }
    if (i > 0) {
      const KvBlockInfo& before = context[i - 1]->view().info();
      const int32_t expected = before.first_position + static_cast<int32_t>(before.token_ids.size());
      if (block.first_position != expected) {
        return refuse(fmt::format("begins at position {}, expected {}", block.first_position, expected));
      }
    }
    const size_t end = block.first_position + block.token_ids.size();
    if (end > recipe.prefix_tokens.size() || !std::equal(block.token_ids.begin(), block.token_ids.end(),
                                                         recipe.prefix_tokens.begin() + block.first_position)) {
      return refuse("holds other tokens than the recipe's prefix");
    }
  }
  return absl::OkStatus();
}

ChunkCompilation::ChunkCompilation(const KvBlockInfo& info, const Recipe& recipe, std::vector<ChunkKvPtr> context)
    : info_(info) {
  info_.recipe_id = recipe.id;
  info_.first_position = recipe.first_position();
  kv_.plans.push_back({0, info.shape.layers, {}, PrivateRows(info.shape, 0, info.shape.layers)});
  const auto run = [this](std::span<const int32_t> tokens, int32_t first_position) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    for (size_t i = 0; i < tokens.size(); ++i) positions_.push_back(first_position + static_cast<int32_t>(i));
  };
  const std::span<const int32_t> prefix = recipe.prefix_tokens;
  int32_t held_end = 0;
  if (!context.empty()) run(prefix.first(context.front()->view().info().first_position), 0);
  for (ChunkKvPtr& chunk : context) {
    const int32_t begin = chunk->view().info().first_position;
    const int32_t count = chunk->view().token_count();
    kv_.plans.front().shared.push_back({std::move(chunk), 0, count, begin, {}});
    held_end = begin + count;
  }
  run(prefix.subspan(held_end), held_end);
  dropped_rows_ = static_cast<int32_t>(tokens_.size());
  run(info.token_ids, info_.first_position);
}

int32_t ChunkCompilation::TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions) {
  const int32_t count = std::min(rows_max, remaining());
  const std::vector<int32_t> taken(positions_.begin() + next_, positions_.begin() + next_ + count);
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
