// Names of things that are cached: recipes, chunk keys, editions.
//
// A chunk's key depends on its own content, its recipe, the model and the tenant alone: never on its neighbours in a
// prompt or on its position there. Equal keys are interchangeable within rounding, not equal bytes; an edition (see
// core/kv_block.h) names the very bytes.
#ifndef EPIC_CORE_CHUNK_KEY_H_
#define EPIC_CORE_CHUNK_KEY_H_

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {

inline constexpr char kPlainRecipeId[] = "plain";
inline constexpr char kDocumentRecipeId[] = "document";
inline constexpr char kSinkRecipeId[] = "sink4";

// How a chunk is compiled: its tokens run behind `prefix_tokens`, whose rows are then dropped, so that the first stored
// row stands at position prefix_tokens.size().
struct Recipe {
  std::string id;  // one of the three above; at most kRecipeIdBytesMax bytes
  // plain: {} or {BOS}; sink4: the first four tokens of the model's rendered prompt; document: plain's, then the tokens
  // of the earlier chunks of the section (core/chunker.h)
  std::vector<int32_t> prefix_tokens;

  int32_t first_position() const { return static_cast<int32_t>(prefix_tokens.size()); }
  friend bool operator==(const Recipe&, const Recipe&) = default;
};

// The recipe of a chunk that was compiled in sight of `context_token_ids`, which stand before it in its document.
// Without context it is `base`: a document's first chunk is the same chunk, whether its document was compiled as a
// whole or not.
Recipe RecipeBehind(const Recipe& base, std::span<const int32_t> context_token_ids);

struct ChunkKey {
  std::array<uint8_t, 32> bytes{};

  std::string Hex() const;
  // INVALID_ARGUMENT unless `hex` is 64 hexadecimal digits.
  static absl::StatusOr<ChunkKey> FromHex(std::string_view hex);
  // INVALID_ARGUMENT unless `raw` is 32 bytes.
  static absl::StatusOr<ChunkKey> FromBytes(std::string_view raw);
  std::string_view AsBytes() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  // clang-tidy 14 takes the 0 that a defaulted comparison is compared with for a null pointer.
  friend auto operator<=>(const ChunkKey&, const ChunkKey&) = default;  // NOLINT(modernize-use-nullptr)

  template <typename H>
  friend H AbslHashValue(H state, const ChunkKey& key) {
    return H::combine(std::move(state), key.bytes);
  }
};

// SHA-256 over a length-prefixed encoding of (model fingerprint, recipe id and prefix tokens, tenant salt, token ids),
// each integer little-endian. The encoding is part of the contract: test vectors stand in chunk_key_test.cc.
ChunkKey ComputeChunkKey(std::string_view model_fingerprint_hex, const Recipe& recipe, std::string_view tenant_salt,
                         std::span<const int32_t> token_ids);

}  // namespace epic

#endif  // EPIC_CORE_CHUNK_KEY_H_
