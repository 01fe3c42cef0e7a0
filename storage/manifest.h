// The node's durable memory of what was registered: documents, and for each (model, recipe) their tokens and chunks.
//
// Two RocksDB databases, a folder and its copy, with their write-ahead logs synced before every acknowledgement: what a
// change returned OK for is in both and survives kill -9 and power loss. KV is not here; it can be made again.
// Thread-safe.
//
// Opening reads all of both. A copy that is damaged, missing or behind is made equal to the other one, and a warning
// says what was wrong with which file; what was damaged is kept beside as <folder>.damaged. Where neither is sound
// nothing is changed and the error is DATA_LOSS naming both. The folders are locked by the process that has them open:
// a second Open fails with FAILED_PRECONDITION, as for a newer format version. An older one is migrated.
//
// A record that cannot be read while the manifest is open is answered from the other copy. A change that fails to be
// written stops all changes, with the error's code, until the manifest is opened anew.
#ifndef EPIC_STORAGE_MANIFEST_H_
#define EPIC_STORAGE_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/manifest_records.h"
#include "storage/manifest_header.h"
#include "storage/manifest_options.h"

namespace epic {

class Manifest {
 public:
  // Besides what is said above: PERMISSION_DENIED where a folder cannot be written, INVALID_ARGUMENT where the folders
  // are the same or one lies in the other, RESOURCE_EXHAUSTED where a disk is full.
  static absl::StatusOr<std::unique_ptr<Manifest>> Open(ManifestOptions options);
  static absl::StatusOr<std::unique_ptr<Manifest>> Open(const std::string& folder);  // with the defaults
  virtual ~Manifest() = default;

  // Changes beyond their own errors: RESOURCE_EXHAUSTED where too many wait or a disk is full, and for the two that put
  // something where less than ManifestOptions::free_bytes_min is left; UNAVAILABLE where it cannot be written.

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
  // Deletes the document, its chunk lists and its pin in one synced batch; NOT_FOUND where absent.
  virtual absl::Status DeleteDocument(const std::string& tenant, const std::string& id) = 0;

  // A pinned document's chunks are kept. NOT_FOUND where the document is absent; setting what is set changes nothing.
  virtual absl::Status SetPinned(const std::string& tenant, const std::string& id, bool pinned) = 0;
  virtual absl::StatusOr<bool> IsPinned(const std::string& tenant, const std::string& id) const = 0;  // NOT_FOUND
  // Every pinned document, in the order of tenants and ids. Stops at the first error of `visit`.
  virtual absl::Status ForEachPinned(
      const std::function<absl::Status(const std::string& tenant, const std::string& id)>& visit) const = 0;

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
  // The key of every chunk of every chunk list, of whatever model and recipe; one may come several times.
  virtual absl::Status ForEachChunkKey(const std::function<void(const ChunkKey&)>& visit) const = 0;
  // Every document without its content, in the order of tenants and ids, for the restart. Stops at the first error of
  // `visit`.
  virtual absl::Status ForEachDocumentHeader(const std::function<absl::Status(const DocumentHeader&)>& visit) const = 0;
  virtual absl::StatusOr<int64_t> CountDocuments() const = 0;
  // Rewrites both copies without what was deleted. Returns the bytes of their tables before and after. Takes as long as
  // the manifest is large; changes and reads go on meanwhile.
  virtual absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact() = 0;
  virtual ManifestCounters counters() const = 0;
};

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_H_
