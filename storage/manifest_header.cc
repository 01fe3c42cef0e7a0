#include "storage/manifest_header.h"

#include <utility>

#include "core/byte_codec.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace epic {

DocumentHeader HeaderOf(const DocumentRecord& document) {
  return {.tenant = document.tenant,
          .id = document.id,
          .created_unix_ms = document.created_unix_ms,
          .expires_unix_ms = document.expires_unix_ms,
          .recipe_id = document.recipe_id};
}

std::string EncodeDocumentHeader(const DocumentHeader& header) {
  ByteWriter writer;
  writer.Put(header.created_unix_ms);
  writer.Put(header.expires_unix_ms);
  writer.PutString(header.recipe_id);
  writer.Put(static_cast<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.size())));
  return std::move(writer).Take();
}

absl::StatusOr<DocumentHeader> DecodeDocumentHeader(std::string tenant, std::string id, std::string_view bytes) {
  DocumentHeader header;
  header.tenant = std::move(tenant);
  header.id = std::move(id);
  ByteReader reader(bytes);
  header.created_unix_ms = reader.Get<int64_t>();
  header.expires_unix_ms = reader.Get<int64_t>();
  header.recipe_id = reader.GetString();
  if (bytes != EncodeDocumentHeader(header)) {
    return absl::DataLossError(
        fmt::format("the index record of document {} of tenant {} is damaged", header.id, header.tenant));
  }
  return header;
}

}  // namespace epic
