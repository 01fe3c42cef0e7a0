// The KV block: one chunk's keys and values as one contiguous, immutable run of bytes, the same in memory, on disk and
// on the wire. Format version 1, byte by byte: docs/kv-blocks.md.
//
//   header   magic, format version, sizes, dtype, model fingerprint, chunk key, recipe id, first position, edition,
//   where
//            a layer's parts lie, one entry a layer group {first layer, layers, offset, bytes, XXH3-64 checksum}, token
//            ids, header checksum
//   payload  layer by layer, in layer groups of at least 256 KiB where the chunk has that much; groups start at
//            multiples of 64 bytes, or of more up to a page
//
// A layer is K, scales of K, V, scales of V, each at a multiple of 64 bytes; only int8 has scales. Tokens are padded
// with zeros to a multiple of kTokensPerTile (32). Every dtype has its elements in one order:
//   K  [kv_head][token / 16][dimension / 2][token % 16][dimension % 2]   pairs of dimensions, 16 keys side by side
//   V  [kv_head][token / 2][dimension][token % 2]                        pairs of tokens
// so that both products of attention read their inner dimension in pairs (docs/decisions/0002). int8 is symmetric:
//   key    = code x scale[kv_head][dimension]     one scale a channel of the chunk
//   value  = code x scale[kv_head][token]         one scale a token
// with codes from -127 to 127 and scales in float32. core/kv_encoding.h turns each dtype into each other.
//
// Keys are stored rotated: row j at position first_position + j. Readers use the offset table, never arithmetic of
// their own.
//
// Views do not own their bytes. Everything here is pure and thread-compatible.
#ifndef EPIC_CORE_KV_BLOCK_H_
#define EPIC_CORE_KV_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"

namespace epic {

inline constexpr int32_t kTokensPerTile = 32;    // padding of a chunk's token count
inline constexpr int32_t kTokensPerKeyRow = 16;  // keys that lie side by side for one dimension
inline constexpr size_t kLayerGroupBytesMin = 256 * 1024;
inline constexpr size_t kBlockAlignmentBytes =
    4096;  // of a block in an arena: a memory page, so that it can be protected
inline constexpr size_t kRecipeIdBytesMax = 32;

enum class KvDtype : uint32_t { kBf16 = 1, kFp16 = 2, kInt8 = 3 };

// Where the parts of one layer lie, in bytes from the layer's start, where K does. Multiples of 64.
struct KvLayerLayout {
  size_t key_scales = 0;
  size_t values = 0;
  size_t value_scales = 0;
  size_t bytes = 0;  // of the whole layer, and from one layer of a group to the next
  friend bool operator==(const KvLayerLayout&, const KvLayerLayout&) = default;
};

struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // even
  KvDtype dtype = KvDtype::kBf16;

  // Bytes of one element of K or V: 2, or 1 for int8.
  size_t ElementBytes() const { return dtype == KvDtype::kInt8 ? 1 : 2; }
  // Bytes of K, or of V, of one layer of a chunk of `token_count` tokens, padding included, scales apart.
  size_t MatrixBytes(int32_t token_count) const;
  KvLayerLayout LayerLayout(int32_t token_count) const;
  // Index, in elements, of (head, token, dimension) inside a layer's K or V of a chunk with `padded_tokens` rows.
  size_t KeyIndex(int32_t padded_tokens, int32_t head, int32_t token, int32_t dimension) const {
    return (static_cast<size_t>(head) * padded_tokens + token / kTokensPerKeyRow * kTokensPerKeyRow) * head_dim +
           KeyStep(dimension) + static_cast<size_t>(token % kTokensPerKeyRow) * 2;
  }
  size_t ValueIndex(int32_t padded_tokens, int32_t head, int32_t token, int32_t dimension) const {
    return (static_cast<size_t>(head) * padded_tokens + token / 2 * 2) * head_dim + ValueStep(dimension) + token % 2;
  }
  // Index of the scale of a key's channel, or of a value's token. int8 only.
  size_t KeyScaleIndex(int32_t head, int32_t dimension) const {
    return static_cast<size_t>(head) * head_dim + dimension;
  }
  static size_t ValueScaleIndex(int32_t padded_tokens, int32_t head, int32_t token) {
    return static_cast<size_t>(head) * padded_tokens + token;
  }
  // From a key's, or a value's, dimension 0 to another dimension of it.
  static size_t KeyStep(int32_t dimension) {
    return static_cast<size_t>(dimension / 2) * kTokensPerKeyRow * 2 + dimension % 2;
  }
  static size_t ValueStep(int32_t dimension) { return static_cast<size_t>(dimension) * 2; }
  friend bool operator==(const KvShape&, const KvShape&) = default;
};

inline int32_t PaddedTokens(int32_t tokens) { return (tokens + kTokensPerTile - 1) / kTokensPerTile * kTokensPerTile; }

struct LayerGroup {
  int32_t first_layer = 0;
  int32_t layer_count = 0;
  size_t offset = 0;  // from the start of the block
  size_t bytes = 0;
  uint64_t checksum = 0;  // XXH3-64 of the group's bytes
};

// What a block holds, apart from its payload.
struct KvBlockInfo {
  KvShape shape;
  std::string model_fingerprint_hex;  // 64 digits
  ChunkKey key;
  std::string recipe_id;
  int32_t first_position = 0;
  std::vector<int32_t> token_ids;
};

// A block being written. The caller owns `bytes`, which must be zero-filled, aligned to 64 and exactly
// KvBlockBytes(info) long. Write K and V of every layer, for int8 their scales too, then Seal.
class KvBlockWriter {
 public:
  // INVALID_ARGUMENT for sizes outside the limits or a span of the wrong length.
  static absl::StatusOr<KvBlockWriter> Create(const KvBlockInfo& info, std::span<std::byte> bytes);
  // Bits of the dtype; see KvShape::KeyIndex and ValueIndex. REQUIRES: bf16 or fp16.
  uint16_t* Keys(int32_t layer);
  uint16_t* Values(int32_t layer);
  // Indices as of Keys and Values; scales by KvShape::KeyScaleIndex and ValueScaleIndex. REQUIRES: int8.
  int8_t* KeyCodes(int32_t layer);
  float* KeyScales(int32_t layer);
  int8_t* ValueCodes(int32_t layer);
  float* ValueScales(int32_t layer);
  // All of a layer, as KvShape::LayerLayout says.
  std::span<std::byte> LayerBytes(int32_t layer);
  // Computes checksums and the edition and writes the header. Returns the edition. Nothing may be written afterwards.
  uint64_t Seal();

 private:
  KvBlockWriter() = default;
  KvBlockInfo info_;
  KvLayerLayout layout_;
  std::span<std::byte> bytes_;
  std::vector<LayerGroup> groups_;
};

// Bytes of the whole block (a multiple of 64).
size_t KvBlockBytes(const KvBlockInfo& info);
size_t KvBlockBytes(const KvShape& shape, int32_t token_count);
// The most that another writer of this version may make of it: each layer a group of its own, groups at pages.
size_t KvBlockBytesMax(const KvShape& shape, int32_t token_count);

// A sealed block, parsed and checked as hostile input. Copyable; does not own the bytes.
class KvBlockView {
 public:
  // DATA_LOSS names what is wrong: magic, version, length, header checksum, table. Does not read the payload.
  // INVALID_ARGUMENT where `bytes` is not aligned to 4.
  static absl::StatusOr<KvBlockView> Parse(std::span<const std::byte> bytes);

  const KvBlockInfo& info() const { return info_; }
  uint64_t edition() const { return edition_; }
  const std::vector<LayerGroup>& groups() const { return groups_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  size_t header_bytes() const { return header_bytes_; }
  int32_t token_count() const { return static_cast<int32_t>(info_.token_ids.size()); }
  int32_t padded_tokens() const { return PaddedTokens(token_count()); }
  // As the writer's, with the same REQUIRES.
  const uint16_t* Keys(int32_t layer) const;
  const uint16_t* Values(int32_t layer) const;
  const int8_t* KeyCodes(int32_t layer) const;
  const float* KeyScales(int32_t layer) const;
  const int8_t* ValueCodes(int32_t layer) const;
  const float* ValueScales(int32_t layer) const;
  std::span<const std::byte> LayerBytes(int32_t layer) const;

  // DATA_LOSS names the group whose bytes do not match their checksum.
  absl::Status VerifyGroup(size_t group_index) const;
  absl::Status VerifyPayload() const;

 private:
  KvBlockView() = default;
  KvBlockInfo info_;
  uint64_t edition_ = 0;
  std::vector<LayerGroup> groups_;
  std::vector<size_t> layer_offsets_;
  KvLayerLayout layout_;
  std::span<const std::byte> bytes_;
  size_t header_bytes_ = 0;
};

}  // namespace epic

#endif  // EPIC_CORE_KV_BLOCK_H_
