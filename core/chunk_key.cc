#include "core/chunk_key.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>

#include "core/byte_codec.h"
#include "fmt/format.h"

namespace epic {
namespace {

int HexDigitValue(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

}  // namespace

Recipe RecipeBehind(const Recipe& base, std::span<const int32_t> context_token_ids) {
  Recipe recipe = base;
  if (context_token_ids.empty()) return recipe;
  recipe.id = kDocumentRecipeId;
  recipe.prefix_tokens.insert(recipe.prefix_tokens.end(), context_token_ids.begin(), context_token_ids.end());
  return recipe;
}

std::string ChunkKey::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

absl::StatusOr<ChunkKey> ChunkKey::FromHex(std::string_view hex) {
  ChunkKey key;
  if (hex.size() != 2 * key.bytes.size()) {
    return absl::InvalidArgumentError(fmt::format("a chunk key has {} hexadecimal digits, this one has {} characters",
                                                  2 * key.bytes.size(), hex.size()));
  }
  for (size_t i = 0; i < key.bytes.size(); ++i) {
    const int high = HexDigitValue(hex[2 * i]);
    const int low = HexDigitValue(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return absl::InvalidArgumentError(
          fmt::format("a chunk key has hexadecimal digits only; characters {} and {} are not", 2 * i, 2 * i + 1));
    }
    key.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return key;
}

absl::StatusOr<ChunkKey> ChunkKey::FromBytes(std::string_view raw) {
  ChunkKey key;
  if (raw.size() != key.bytes.size()) {
    return absl::InvalidArgumentError(
        fmt::format("a chunk key has {} bytes, this one has {}", key.bytes.size(), raw.size()));
  }
  std::copy(raw.begin(), raw.end(), key.bytes.begin());
  return key;
}

ChunkKey ComputeChunkKey(std::string_view model_fingerprint_hex, const Recipe& recipe, std::string_view tenant_salt,
                         std::span<const int32_t> token_ids) {
  ByteWriter writer;
  writer.PutString(model_fingerprint_hex);
  writer.PutString(recipe.id);
  writer.PutIntegers(recipe.prefix_tokens);
  writer.PutString(tenant_salt);
  writer.PutIntegers(token_ids);
  ChunkKey key;
  // Fails only where the process has no memory left or a provider without SHA-256: no key could stand in for it.
  if (EVP_Digest(writer.bytes().data(), writer.size(), key.bytes.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    std::abort();
  }
  return key;
}

}  // namespace epic
