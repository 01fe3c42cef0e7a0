// The documents of a cache node: validates and registers them durably, cuts them into chunks, lists and forgets them.
//
// What is durable is in the manifest; what the node's present model makes of it is in the table, which is built again
// from the manifest at the start. The registry knows nothing of blocks. Thread-safe unless a method says otherwise.
//
// A document that has expired is absent for everybody from that moment; SweepExpired then deletes it.
#ifndef EPIC_CACHE_NODE_DOCUMENT_REGISTRY_H_
#define EPIC_CACHE_NODE_DOCUMENT_REGISTRY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_node/compiler.h"
#include "cache_node/document_table.h"
#include "cache_node/name_gate.h"
#include "core/chunker.h"
#include "core/manifest_records.h"
#include "storage/manifest.h"

namespace epic {

// What a client registers: text, or token ids of the model.
struct NewDocument {
  std::string tenant;  // "default" where empty, here and everywhere below
  std::string id;
  std::optional<std::string> text;
  std::optional<std::vector<int32_t>> token_ids;
  std::string token_ids_model_fingerprint;  // empty: the node's own
  std::map<std::string, std::string> labels;
  int64_t ttl_ms = 0;     // 0: for ever
  std::string recipe_id;  // "plain" or "document"; empty: the node's default
};

// A model fingerprint as a message should show it: in full where it is one, else quoted and shortened.
std::string FingerprintForMessage(const std::string& model_fingerprint_hex);

struct DocumentInfo {
  DocumentRecord record;
  DocumentProgress progress;
};

struct DocumentPage {
  std::vector<DocumentInfo> documents;
  std::string next_page_token;  // empty: this was the last page
};

class DocumentRegistry {
 public:
  using Deadline = std::chrono::steady_clock::time_point;
  using Clock = std::function<int64_t()>;  // milliseconds since 1970

  // `manifest` and `compiler` must outlive the registry. `default_recipe_id`: "plain" or "document".
  DocumentRegistry(Manifest* manifest, const ChunkCompiler* compiler, const ChunkerOptions& chunker,
                   std::string default_recipe_id, Clock clock);

  // Fills the table from the manifest, in the order of registration. Call once, before anything else.
  absl::Status Load();

  struct Created {
    DocumentInfo document;
    bool created = false;              // false: the same registration was there already
    std::vector<ChunkKey> freed_keys;  // of an expired document that had the same id
  };
  // Returns when the document is on stable storage. INVALID_ARGUMENT names field, value and limit; ALREADY_EXISTS: the
  // same id with other content, or compiled by another recipe than the one asked for; FAILED_PRECONDITION: token ids of
  // another model. Nothing is stored on failure.
  absl::StatusOr<Created> Create(const NewDocument& document, Deadline deadline);
  // NOT_FOUND in the same words for an absent, an expired and another tenant's document.
  absl::StatusOr<DocumentInfo> Get(const std::string& tenant, const std::string& id) const;
  absl::StatusOr<DocumentPage> List(const std::string& tenant, int32_t page_size, const std::string& page_token) const;
  // Returns the keys of chunks that no document has any more.
  absl::StatusOr<std::vector<ChunkKey>> Delete(const std::string& tenant, const std::string& id, Deadline deadline);
  // Sees to it that the document is compiled by the present model, once more where that failed.
  absl::StatusOr<DocumentInfo> Ask(const std::string& tenant, const std::string& id, Deadline deadline);
  // The document's chunks for a recipe, its own where `recipe_id` is empty; cut and stored where that has not been
  // done. Asks for compilation as well.
  absl::StatusOr<ChunkListRecord> Resolve(const std::string& tenant, const std::string& id,
                                          const std::string& recipe_id, Deadline deadline);
  // Pins a document durably, after `admit` has taken the chunks by its own recipe in; its error is returned and nothing
  // is changed. NOT_FOUND. Safe against a deletion at the same time.
  absl::StatusOr<ChunkListRecord> Pin(
      const std::string& tenant, const std::string& id, Deadline deadline,
      const std::function<absl::Status(const DocumentName&, const ChunkListRecord&)>& admit);
  // Ends a pin durably, then calls `release`. NOT_FOUND.
  absl::Status Unpin(const std::string& tenant, const std::string& id, Deadline deadline,
                     const std::function<void(const DocumentName&)>& release);
  // Every pinned document with its chunks, at the start.
  absl::Status ForEachPinned(const std::function<void(const DocumentName&, const ChunkListRecord&)>& visit);
  // The keys of all chunks that a document refers to, for whatever model and recipe.
  absl::StatusOr<absl::flat_hash_set<ChunkKey>> ReferencedKeys() const;
  // Deletes what has expired, in pieces of bounded size. Returns the keys that became free.
  std::vector<ChunkKey> SweepExpired(Deadline deadline);

  struct ChunkWork {
    ChunkKey key;
    Recipe recipe;
    std::vector<int32_t> token_ids;
    std::vector<ContextChunk> context;  // all that it is compiled in sight of, in order
  };
  // A chunk by its key, as NextWork would hand it out. Nothing where no document refers to it.
  std::optional<ChunkWork> WorkFor(const ChunkKey& key) const;
  // The chunks that this one is compiled in sight of; none where no document refers to it any more.
  std::vector<ContextChunk> ContextOf(const ChunkKey& key) const;
  // The next chunk to compile in the background. Nothing as well where a document is just being deleted or registered
  // anew: ask again after Create, Delete or SweepExpired has returned. One thread only.
  std::optional<ChunkWork> NextWork();

  absl::StatusOr<int64_t> CountDocuments() const { return manifest_->CountDocuments(); }
  DocumentTable& table() { return table_; }
  const DocumentTable& table() const { return table_; }

 private:
  absl::StatusOr<DocumentRecord> NewRecord(const DocumentName& name, const NewDocument& document) const;
  // The record where it is there and has not expired, else NOT_FOUND.
  absl::StatusOr<DocumentRecord> Find(const DocumentName& name) const;
  // The recipe of a chunk list: "plain", "document" with the prefix of "plain", or another one of the compiler's.
  absl::StatusOr<Recipe> ListRecipe(const std::string& recipe_id) const;
  absl::StatusOr<ChunkListRecord> Cut(const DocumentRecord& record, const std::string& recipe_id) const;
  // REQUIRES: the caller holds the document's pass.
  absl::StatusOr<ChunkListRecord> EnsureChunkList(const DocumentRecord& record, const std::string& recipe_id);
  absl::StatusOr<Created> CreateAtGate(const DocumentName& name, DocumentRecord record, bool names_recipe);
  std::optional<ChunkWork> Postpone(const ChunkKey& key);
  void AddToTable(const DocumentRecord& record, const ChunkListRecord& list);
  DocumentInfo Describe(DocumentRecord record) const;
  bool IsExpired(int64_t expires_unix_ms) const;

  Manifest* const manifest_;
  const ChunkCompiler* const compiler_;
  const ChunkerOptions chunker_;
  const std::string default_recipe_id_;
  const Clock clock_;
  DocumentTable table_;
  NameGate gate_;
  // The list that NextWork is going through.
  DocumentName work_name_;
  std::optional<ChunkListRecord> work_list_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_DOCUMENT_REGISTRY_H_
