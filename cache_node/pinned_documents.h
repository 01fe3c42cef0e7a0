// Which documents are pinned, how much memory their chunks take, and which of those are not in memory yet.
//
// Pure state, built again from the manifest at the start. A chunk that several pinned documents have counts once.
// Thread-safe.
#ifndef EPIC_CACHE_NODE_PINNED_DOCUMENTS_H_
#define EPIC_CACHE_NODE_PINNED_DOCUMENTS_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "cache_node/document_table.h"
#include "core/chunk_key.h"
#include "core/sync.h"

namespace epic {

class PinnedDocuments {
 public:
  // Of all pinned chunks together.
  explicit PinnedDocuments(size_t bytes_max) : bytes_max_(bytes_max) {}

  struct Chunk {
    ChunkKey key;
    size_t bytes = 0;  // in the host tier, whole memory pages
  };
  // Enters a document; its chunks are missing until NextMissing has handed them out. Returns the keys that no other
  // pinned document has, which are to be pinned in the store: none where the document was entered already.
  // RESOURCE_EXHAUSTED names the sizes and leaves everything as it was.
  absl::StatusOr<std::vector<ChunkKey>> Add(const DocumentName& name, const std::vector<Chunk>& chunks)
      EPIC_EXCLUDES(mutex_);
  // Returns the keys that no pinned document has any more. Nothing where it is not pinned.
  std::optional<std::vector<ChunkKey>> Remove(const DocumentName& name) EPIC_EXCLUDES(mutex_);
  bool Contains(const DocumentName& name) const EPIC_EXCLUDES(mutex_);

  bool ContainsChunk(const ChunkKey& key) const EPIC_EXCLUDES(mutex_);

  // The next pinned chunk that `held` does not say is in memory.
  std::optional<ChunkKey> NextMissing(const std::function<bool(const ChunkKey&)>& held) EPIC_EXCLUDES(mutex_);
  // A chunk left memory, or could not be brought there now: NextMissing will hand it out again. No-op for others.
  void OnMissing(const ChunkKey& key) EPIC_EXCLUDES(mutex_);

  struct Pinned {
    DocumentName name;
    size_t bytes = 0;
  };
  std::vector<Pinned> List(size_t count_max) const EPIC_EXCLUDES(mutex_);
  size_t count() const EPIC_EXCLUDES(mutex_);
  size_t bytes() const EPIC_EXCLUDES(mutex_);
  size_t bytes_max() const { return bytes_max_; }

 private:
  struct KeyState {
    size_t documents = 0;
    size_t bytes = 0;
  };

  const size_t bytes_max_;
  mutable Mutex mutex_;
  std::map<DocumentName, std::vector<Chunk>> documents_ EPIC_GUARDED_BY(mutex_);  // each chunk once
  absl::flat_hash_map<ChunkKey, KeyState> keys_ EPIC_GUARDED_BY(mutex_);
  std::deque<ChunkKey> missing_ EPIC_GUARDED_BY(mutex_);
  size_t bytes_ EPIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_PINNED_DOCUMENTS_H_
