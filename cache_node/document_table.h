// What a cache node knows in memory of the documents that were asked for with its present model: which chunks they
// have, which of those were compiled since the start, what is still to be compiled and in which order.
//
// Pure state: no I/O, no clock, no thread of its own. Everything in it can be built again from the manifest. Chunks are
// shared: a key that several lists refer to is one entry, compiled once, counted in each. Thread-safe.
#ifndef EPIC_CACHE_NODE_DOCUMENT_TABLE_H_
#define EPIC_CACHE_NODE_DOCUMENT_TABLE_H_

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "core/chunk_key.h"
#include "core/sync.h"

namespace epic {

struct DocumentName {
  std::string tenant;
  std::string id;
  friend auto operator<=>(const DocumentName&, const DocumentName&) = default;  // NOLINT(modernize-use-nullptr)
};

enum class DocumentPhase {
  kRegistered,  // not in the table: not asked for with this model
  kCompiling,
  kReady,  // every chunk was compiled; some may have been evicted since
  kFailed,
};

struct DocumentProgress {
  DocumentPhase phase = DocumentPhase::kRegistered;
  std::string reason;  // of kFailed
  int32_t token_count = 0;
  int32_t chunk_count = 0;
  int32_t compiled_chunk_count = 0;
  uint64_t version = 0;  // grows with every change of this document
};

class DocumentTable {
 public:
  DocumentTable();
  ~DocumentTable();

  struct NewList {
    DocumentName name;
    int64_t expires_unix_ms = 0;
    std::string own_recipe_id;  // by which the document is compiled, and of whose chunks its state speaks
    std::string recipe_id;      // of this list
    int32_t token_count = 0;
    std::vector<ChunkKey> keys;  // one entry a chunk; may hold a key several times
  };
  // Enters a chunk list, to be compiled after all that were entered before it. Does nothing where the document has a
  // list for this recipe already.
  void Add(const NewList& list) EPIC_EXCLUDES(mutex_);
  // Forgets a document. Returns the keys that no document refers to any more.
  std::vector<ChunkKey> Remove(const DocumentName& name) EPIC_EXCLUDES(mutex_);
  // Puts what failed of this document back to be compiled.
  void Retry(const DocumentName& name) EPIC_EXCLUDES(mutex_);

  // A chunk by its place in a document.
  struct Work {
    DocumentName name;
    std::string recipe_id;
    size_t chunk_index = 0;
    ChunkKey key;
  };
  // The next chunk to compile in the background, handed out to one caller, who must answer with one of the three below.
  std::optional<Work> TakeWork() EPIC_EXCLUDES(mutex_);
  // These also take keys that were not handed out, and keys that no document refers to, which change nothing.
  void OnCompiled(const ChunkKey& key) EPIC_EXCLUDES(mutex_);
  void OnFailed(const ChunkKey& key, const absl::Status& status) EPIC_EXCLUDES(mutex_);
  void OnPostponed(const ChunkKey& key) EPIC_EXCLUDES(mutex_);  // TakeWork will hand it out again

  bool IsReferenced(const ChunkKey& key) const EPIC_EXCLUDES(mutex_);
  // A place where the chunk stands; nothing where no document refers to it.
  std::optional<Work> PlaceOf(const ChunkKey& key) const EPIC_EXCLUDES(mutex_);
  bool HasList(const DocumentName& name, const std::string& recipe_id) const EPIC_EXCLUDES(mutex_);
  // Nothing where the document is not in the table.
  std::optional<int64_t> ExpiresUnixMs(const DocumentName& name) const EPIC_EXCLUDES(mutex_);
  std::optional<std::string> OwnRecipeId(const DocumentName& name) const EPIC_EXCLUDES(mutex_);
  std::optional<DocumentProgress> Progress(const DocumentName& name) const EPIC_EXCLUDES(mutex_);
  // Keys of the chunks by the document's own recipe, in order.
  std::vector<ChunkKey> Keys(const DocumentName& name) const EPIC_EXCLUDES(mutex_);
  // Documents whose time ended at or before `now_unix_ms`, the oldest first, at most `count_max`.
  std::vector<DocumentName> Expired(int64_t now_unix_ms, size_t count_max) const EPIC_EXCLUDES(mutex_);
  int64_t chunks_waiting() const EPIC_EXCLUDES(mutex_);  // neither compiled nor failed

  // Waits until something changed after `seen_change`, or for the deadline. Returns the number of the last change.
  uint64_t WaitForChange(uint64_t seen_change, std::chrono::steady_clock::time_point deadline) const
      EPIC_EXCLUDES(mutex_);
  // Ends all waiting now, without a change.
  void WakeWaiters() EPIC_EXCLUDES(mutex_);

 private:
  struct Document;
  struct ChunkList;
  struct Chunk;

  void Touch(ChunkList* list) EPIC_REQUIRES(mutex_);
  void SetWaiting(ChunkList* list) EPIC_REQUIRES(mutex_);

  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::map<DocumentName, std::unique_ptr<Document>> documents_ EPIC_GUARDED_BY(mutex_);
  absl::flat_hash_map<ChunkKey, std::unique_ptr<Chunk>> chunks_ EPIC_GUARDED_BY(mutex_);
  std::set<std::pair<int64_t, DocumentName>> expiring_ EPIC_GUARDED_BY(mutex_);  // by the time at which they expire
  std::map<uint64_t, ChunkList*> waiting_ EPIC_GUARDED_BY(mutex_);               // by the order of entry
  uint64_t next_sequence_ EPIC_GUARDED_BY(mutex_) = 0;
  uint64_t change_ EPIC_GUARDED_BY(mutex_) = 0;
  uint64_t wakes_ EPIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_DOCUMENT_TABLE_H_
