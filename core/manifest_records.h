// The records of the manifest and their encoding: a version byte, length-prefixed little-endian fields, and an XXH3-64
// checksum at the end. Pure. Decoding treats its input as hostile: DATA_LOSS says what is wrong, FAILED_PRECONDITION
// that the record is of a newer version.
#ifndef EPIC_CORE_MANIFEST_RECORDS_H_
#define EPIC_CORE_MANIFEST_RECORDS_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/chunker.h"

namespace epic {

// What a user registered. Immutable. Holds either text or token ids.
struct DocumentRecord {
  std::string tenant;
  std::string id;
  std::string text;
  std::vector<int32_t> token_ids;           // registered as ids; empty where text is given
  std::string token_ids_model_fingerprint;  // of the model that the ids belong to; empty for text
  std::map<std::string, std::string> labels;
  int64_t created_unix_ms = 0;
  int64_t expires_unix_ms = 0;             // 0: never
  std::string recipe_id = kPlainRecipeId;  // by which it is compiled: "plain" or "document"
  friend bool operator==(const DocumentRecord&, const DocumentRecord&) = default;

  // Same content: text, ids and labels equal; times and the recipe are not content.
  bool SameContent(const DocumentRecord& other) const;
};

// How a document is cut for one model and recipe.
struct ChunkListRecord {
  std::string model_fingerprint_hex;
  Recipe recipe;  // of "document": with the prefix of "plain", to which each chunk adds its own context
  int32_t chunker_version = kChunkerVersion;
  std::vector<int32_t> token_ids;  // the whole document
  std::vector<TokenSpan> spans;    // in order, without gaps
  std::vector<ChunkKey> keys;      // one a span
  // Recipe "document": where each chunk's section begins; empty for the others.
  std::vector<int32_t> section_begins;

  std::span<const int32_t> TokensOf(size_t chunk) const;
  // The tokens of the document that the chunk is compiled in sight of; empty where there are none.
  std::span<const int32_t> ContextOf(size_t chunk) const;
  // What the prefix of every chunk begins with: `recipe`, for "document" under the name "plain".
  Recipe BaseRecipe() const;
  Recipe RecipeOf(size_t chunk) const { return RecipeBehind(BaseRecipe(), ContextOf(chunk)); }
};

std::string EncodeDocumentRecord(const DocumentRecord& record);
absl::StatusOr<DocumentRecord> DecodeDocumentRecord(std::string_view bytes);
std::string EncodeChunkListRecord(const ChunkListRecord& record);
absl::StatusOr<ChunkListRecord> DecodeChunkListRecord(std::string_view bytes);

}  // namespace epic

#endif  // EPIC_CORE_MANIFEST_RECORDS_H_
