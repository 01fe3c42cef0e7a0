// The node's durable memory of what was registered: documents, and for each (model, recipe) their tokens and chunks.
//
// RocksDB with the write-ahead log synced before every acknowledgement: what Put, or Delete, returned OK for survives
// kill -9 and power loss. KV is not here; it can be made again. Thread-safe.
//
// The folder is locked by the process that has it open: a second Open fails with FAILED_PRECONDITION. A manifest with a
// newer format version is refused with FAILED_PRECONDITION; damage that RocksDB detects is DATA_LOSS naming the file
// and nothing is shortened silently.
#ifndef EPIC_STORAGE_MANIFEST_H_
#define EPIC_STORAGE_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/manifest_records.h"

namespace epic {

class Manifest {
 public:
  static absl::StatusOr<std::unique_ptr<Manifest>> Open(const std::string& folder);
  virtual ~Manifest() = default;

  // Writes the document and, in the same atomic synced batch, its first chunk list. Three outcomes:
  // OK with true: newly written; OK with false: the same id with the same content is there already (nothing changed);
  // ALREADY_EXISTS: the same id with other content.
  virtual absl::StatusOr<bool> PutDocument(const DocumentRecord& document, const ChunkListRecord* chunks) = 0;
  // NOT_FOUND where absent.
  virtual absl::StatusOr<DocumentRecord> GetDocument(const std::string& tenant, const std::string& id) const = 0;
  // Documents of a tenant in the order of their ids, after `after_id` (exclusive, empty: from the start), at most
  // `limit`.
  virtual absl::StatusOr<std::vector<DocumentRecord>> ListDocuments(const std::string& tenant,
                                                                    const std::string& after_id,
                                                                    int32_t limit) const = 0;
  // Deletes the document and all its chunk lists in one synced batch; NOT_FOUND where absent.
  virtual absl::Status DeleteDocument(const std::string& tenant, const std::string& id) = 0;

  // FAILED_PRECONDITION where the document is gone (deleted meanwhile).
  virtual absl::Status PutChunkList(const std::string& tenant, const std::string& id,
                                    const ChunkListRecord& chunks) = 0;
  virtual absl::StatusOr<ChunkListRecord> GetChunkList(const std::string& tenant, const std::string& id,
                                                       const std::string& model_fingerprint_hex,
                                                       const std::string& recipe_id) const = 0;  // NOT_FOUND
  // Every (document, chunk list) of this model and recipe, for the restart. Stops at the first error of `visit`.
  virtual absl::Status ForEachChunkList(
      const std::string& model_fingerprint_hex,
      const std::function<absl::Status(const std::string& tenant, const std::string& id, const ChunkListRecord&)>&
          visit) const = 0;
  virtual absl::StatusOr<int64_t> CountDocuments() const = 0;
};

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_H_
