// For tests only: small KV blocks with contents that can be computed anew from their indices.
#ifndef EPIC_CORE_KV_BLOCK_TESTING_H_
#define EPIC_CORE_KV_BLOCK_TESTING_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/chunk_key.h"
#include "core/kv_block.h"

namespace epic {

// Zero-filled memory at a multiple of a page.
class PageAlignedBytes {
 public:
  explicit PageAlignedBytes(size_t bytes) : bytes_(bytes) {
    const size_t rounded = (bytes + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlockAlignmentBytes, rounded)));
    std::memset(memory_.get(), 0, rounded);
  }
  std::span<std::byte> span() const { return {memory_.get(), bytes_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  size_t bytes_;
  std::unique_ptr<std::byte[], Free> memory_;
};

// Of recipe "plain" behind one token; the key is the one that the contents have.
inline KvBlockInfo MakeTestBlockInfo(const KvShape& shape, std::vector<int32_t> token_ids) {
  KvBlockInfo info;
  info.shape = shape;
  for (int i = 0; i < 32; ++i) info.model_fingerprint_hex += "ab";
  info.recipe_id = "plain";
  info.first_position = 1;
  info.token_ids = std::move(token_ids);
  info.key = ComputeChunkKey(info.model_fingerprint_hex, Recipe{"plain", {1}}, "", info.token_ids);
  return info;
}

inline uint16_t TestKeyBits(int layer, int head, int token, int dimension) {
  return static_cast<uint16_t>(layer * 7919 + head * 104729 + token * 31 + dimension * 17 + 1);
}
inline uint16_t TestValueBits(int layer, int head, int token, int dimension) {
  return static_cast<uint16_t>(TestKeyBits(layer, head, token, dimension) + 1);
}

// Writes the test contents and seals the block. `bytes` as for KvBlockWriter::Create. Returns the edition.
inline uint64_t WriteTestBlock(const KvBlockInfo& info, std::span<std::byte> bytes) {
  KvBlockWriter writer = KvBlockWriter::Create(info, bytes).value();
  const int tokens = static_cast<int>(info.token_ids.size());
  const int padded = PaddedTokens(tokens);
  for (int layer = 0; layer < info.shape.layers; ++layer) {
    for (int head = 0; head < info.shape.kv_heads; ++head) {
      for (int token = 0; token < tokens; ++token) {
        for (int dimension = 0; dimension < info.shape.head_dim; ++dimension) {
          writer.Keys(layer)[info.shape.KeyIndex(padded, head, token, dimension)] =
              TestKeyBits(layer, head, token, dimension);
          writer.Values(layer)[info.shape.ValueIndex(padded, head, token, dimension)] =
              TestValueBits(layer, head, token, dimension);
        }
      }
    }
  }
  return writer.Seal();
}

}  // namespace epic

#endif  // EPIC_CORE_KV_BLOCK_TESTING_H_
