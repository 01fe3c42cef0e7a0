// What a restart asks of every document: its record without content. Pure.
#ifndef EPIC_STORAGE_MANIFEST_HEADER_H_
#define EPIC_STORAGE_MANIFEST_HEADER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/manifest_records.h"

namespace epic {

struct DocumentHeader {
  std::string tenant;
  std::string id;
  int64_t created_unix_ms = 0;
  int64_t expires_unix_ms = 0;  // 0: never
  std::string recipe_id;
  friend bool operator==(const DocumentHeader&, const DocumentHeader&) = default;
};

DocumentHeader HeaderOf(const DocumentRecord& document);

// The value of an index record; the names are in its key. Ends with an XXH3-64 checksum.
std::string EncodeDocumentHeader(const DocumentHeader& header);
// DATA_LOSS naming the document where the bytes are no header.
absl::StatusOr<DocumentHeader> DecodeDocumentHeader(std::string tenant, std::string id, std::string_view bytes);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_HEADER_H_
