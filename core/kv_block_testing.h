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

inline int8_t TestKeyCode(int layer, int head, int token, int dimension) {
  return static_cast<int8_t>(TestKeyBits(layer, head, token, dimension) % 255 - 127);
}
inline int8_t TestValueCode(int layer, int head, int token, int dimension) {
  return static_cast<int8_t>(TestValueBits(layer, head, token, dimension) % 255 - 127);
}
inline float TestKeyScale(int layer, int head, int dimension) {
  return static_cast<float>(layer * 64 + head * 8 + dimension + 1) / 1024;
}
inline float TestValueScale(int layer, int head, int token) { return TestKeyScale(layer, head, token) / 2; }

// Calls visit(head, token, dimension) for each element of a layer, padding left out.
template <typename Visit>
void ForEachElement(const KvBlockInfo& info, Visit visit) {
  for (int head = 0; head < info.shape.kv_heads; ++head) {
    for (int token = 0; token < static_cast<int>(info.token_ids.size()); ++token) {
      for (int dimension = 0; dimension < info.shape.head_dim; ++dimension) visit(head, token, dimension);
    }
  }
}

// Writes the test contents of the dtype and seals the block. The bits of 16-bit dtypes are any, infinities too. `bytes`
// as for KvBlockWriter::Create. Returns the edition.
inline uint64_t WriteTestBlock(const KvBlockInfo& info, std::span<std::byte> bytes) {
  KvBlockWriter writer = KvBlockWriter::Create(info, bytes).value();
  const KvShape& shape = info.shape;
  const int padded = PaddedTokens(static_cast<int>(info.token_ids.size()));
  for (int layer = 0; layer < shape.layers; ++layer) {
    ForEachElement(info, [&](int head, int token, int dimension) {
      const size_t key = shape.KeyIndex(padded, head, token, dimension);
      const size_t value = shape.ValueIndex(padded, head, token, dimension);
      if (shape.dtype == KvDtype::kInt8) {
        writer.KeyCodes(layer)[key] = TestKeyCode(layer, head, token, dimension);
        writer.ValueCodes(layer)[value] = TestValueCode(layer, head, token, dimension);
        writer.KeyScales(layer)[shape.KeyScaleIndex(head, dimension)] = TestKeyScale(layer, head, dimension);
        writer.ValueScales(layer)[KvShape::ValueScaleIndex(padded, head, token)] = TestValueScale(layer, head, token);
      } else {
        writer.Keys(layer)[key] = TestKeyBits(layer, head, token, dimension);
        writer.Values(layer)[value] = TestValueBits(layer, head, token, dimension);
      }
    });
  }
  return writer.Seal();
}

}  // namespace epic

#endif  // EPIC_CORE_KV_BLOCK_TESTING_H_
